// The library in the browser: moving about, selecting pictures, opening one. Changes are asked of the server.
import { closest, find, findAll, findButton, findImage } from "./dom.js";

/**
 * @typedef {(event: string, data: object) => void} Trigger
 * @typedef {(property: string, callback: () => void) => void} Watch
 */

/** @param {string} html @param {Element} parent @param {string} tag @param {string} id */
function append(html, parent, tag, id) {
  const element = document.createElement(tag);
  element.id = id;
  element.innerHTML = html;
  parent.append(element);
  return element;
}

const SELECTION_BAR =
  '<p role="status"></p><button type="button" data-do="delete">Delete</button>' +
  '<button type="button" class="close" data-do="none" aria-label="Select none" title="Select none"></button>';
const VIEWER =
  '<header><button type="button" class="star" data-do="star" aria-label="Favourite" title="Favourite"></button>' +
  '<button type="button" class="close" data-do="close" aria-label="Close" title="Close"></button></header>' +
  '<button type="button" class="step back" data-do="newer" aria-label="Newer picture" title="Newer"></button>' +
  '<figure><img alt="" draggable="false"></figure>' +
  '<button type="button" class="step on" data-do="older" aria-label="Older picture" title="Older"></button>' +
  '<div class="label"></div>';
const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
const ROW_TOLERANCE = 4; // px between tops of pictures of one row

/**
 * @param {HTMLElement} element the album
 * @param {Trigger} trigger
 * @param {Watch} watch
 */
export function mountLibrary(element, trigger, watch) {
  /** Ids of the selected pictures. @type {Set<string>} */
  const selected = new Set();
  /** Id of the picture that the keyboard is at. @type {string | null} */
  let current = null;
  /** Id of the picture where a selected range begins. @type {string | null} */
  let anchor = null;

  const pieces = () => findAll(".piece", element);
  const pieceOf = (/** @type {string} */ id) => find(`.piece[data-id="${CSS.escape(id ?? "")}"]`, element);
  const idAt = (/** @type {Event} */ event) => closest(event, ".piece")?.dataset.id;
  const ask = (/** @type {string} */ act, /** @type {string[]} */ ids, more = {}) =>
    trigger("click", { act, ids, ...more });

  // ---- selection ----

  const page = element.closest(".gradio-container");
  const bar = append(SELECTION_BAR, page, "div", "chosen");
  bar.hidden = true;

  /** Show which pictures are selected, and make the current one the only stop of the Tab key. */
  function refresh() {
    for (const piece of pieces()) {
      const isSelected = selected.has(piece.dataset.id);
      piece.classList.toggle("chosen", isSelected);
      find(".pick", piece).setAttribute("aria-checked", String(isSelected));
      const isCurrent = piece.dataset.id === current;
      for (const button of piece.querySelectorAll("button")) {
        button.tabIndex = isCurrent && !button.closest(".details") ? 0 : -1;
      }
    }
    element.classList.toggle("choosing", selected.size > 0);
    bar.hidden = selected.size === 0 || !element.checkVisibility();
    bar.firstElementChild.textContent = `${selected.size} selected`;
  }

  /** @param {string} id */
  function toggleSelection(id) {
    if (!selected.delete(id)) selected.add(id);
    anchor = id;
    refresh();
  }

  /** @param {string} id */
  function selectRange(id) {
    const ids = pieces().map((piece) => piece.dataset.id);
    const ends = [ids.indexOf(ids.includes(anchor) ? anchor : id), ids.indexOf(id)];
    for (const other of ids.slice(Math.min(...ends), Math.max(...ends) + 1)) selected.add(other);
    refresh();
  }

  function clearSelection() {
    selected.clear();
    refresh();
  }

  /** @param {string[]} ids */
  function deletePictures(ids) {
    const all = pieces();
    const place = all.findIndex((piece) => piece.dataset.id === ids.at(-1));
    const remaining = all.filter((piece) => !ids.includes(piece.dataset.id));
    const next = remaining.find((piece) => all.indexOf(piece) > place) ?? remaining.at(-1);
    current = next?.dataset.id ?? null;
    for (const id of ids) selected.delete(id);
    refresh();
    const undo = find("#notice [data-act=undo]"); // undo then restores these pictures, too
    ask("delete", ids, { before: undo?.dataset.ids.split(" ") ?? [] });
  }

  /** @param {string} id */
  function toggleStar(id) {
    const button = find(".star", pieceOf(id));
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    if (viewer.dataset.id === id) find(".star", viewer).setAttribute("aria-pressed", String(on));
    ask("star", [id], { on });
  }

  // ---- one picture, large ----

  const viewer = /** @type {HTMLDialogElement} */ (append(VIEWER, page, "dialog", "viewer"));
  viewer.setAttribute("aria-label", "Picture");

  /** @param {string} id */
  function openPicture(id) {
    const piece = pieceOf(id);
    if (!piece) return;
    current = viewer.dataset.id = id;
    const image = findImage("img", viewer),
      thumbnail = findImage("img", piece);
    image.src = thumbnail.src;
    image.alt = find(".open", piece).title;
    image.width = thumbnail.width; // the shape, until the picture is loaded
    image.height = thumbnail.height;
    find(".label", viewer).innerHTML = find(".details", piece).innerHTML;
    find(".star", viewer).setAttribute("aria-pressed", find(".star", piece).getAttribute("aria-pressed"));
    findButton("[data-do=newer]", viewer).disabled = !neighbour(-1);
    findButton("[data-do=older]", viewer).disabled = !neighbour(1);
    if (!viewer.open) viewer.showModal();
    refresh();
  }

  /**
   * The picture so many places after the current one, or null.
   * @param {number} offset
   */
  function neighbour(offset) {
    const all = pieces();
    return all[all.findIndex((piece) => piece.dataset.id === current) + offset] ?? null;
  }

  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close(); // the backdrop
    const button = closest(event, "[data-do], [data-act]");
    if (!button) return;
    const id = viewer.dataset.id;
    const action = button.dataset.do ?? button.dataset.act;
    if (action === "close") viewer.close();
    else if (action === "newer") openPicture(neighbour(-1)?.dataset.id);
    else if (action === "older") openPicture(neighbour(1)?.dataset.id);
    else if (action === "star") toggleStar(id);
    else if (action === "delete") {
      const next = neighbour(1) ?? neighbour(-1);
      if (!next) viewer.close();
      deletePictures([id]);
      if (next) openPicture(next.dataset.id);
    } else if (action === "send") {
      viewer.close();
      ask("send", [id], { number: button.dataset.to });
    }
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") openPicture(neighbour(-1)?.dataset.id);
    else if (event.key === "ArrowRight") openPicture(neighbour(1)?.dataset.id);
    else if (event.key === "Delete" && !event.repeat) find("[data-act=delete]", viewer).click();
    else if (event.key === "f") toggleStar(viewer.dataset.id);
    else return;
    event.preventDefault();
  });
  viewer.addEventListener("close", () => {
    const piece = pieceOf(current);
    if (piece) find(".open", piece).focus();
  });

  // ---- the grid ----

  element.addEventListener("click", (event) => {
    const id = idAt(event);
    const button = closest(event, "[data-act], [data-pick]");
    if (button?.dataset.pick) ask("example", [], { number: button.dataset.pick.split(":")[1] });
    else if (button) ask(button.dataset.act, []);
    if (!id) return;
    current = id;
    const isClick = event.detail > 0; // Enter makes a click without detail: it opens a picture while some are selected
    if (closest(event, ".star")) toggleStar(id);
    else if (event.shiftKey) selectRange(id);
    else if (closest(event, ".pick") || event.ctrlKey || event.metaKey) toggleSelection(id);
    else if (selected.size && isClick) toggleSelection(id);
    else openPicture(id);
    refresh();
  });

  /**
   * The picture to which a key leads, or undefined.
   * @param {HTMLElement} from
   * @param {string} key
   */
  function pieceToward(from, key) {
    const all = pieces();
    const place = all.indexOf(from);
    if (key === "Home") return all[0];
    if (key === "End") return all.at(-1);
    if (key === "ArrowLeft") return all[place - 1];
    if (key === "ArrowRight") return all[place + 1];
    // Up and down lead to the nearest picture of the next row, which may be of another day.
    const box = from.getBoundingClientRect();
    const down = key === "ArrowDown";
    const others = (down ? all.slice(place + 1) : all.slice(0, place).reverse())
      .map((piece) => ({ piece, box: piece.getBoundingClientRect() }))
      .filter((other) => (down ? other.box.top > box.top + ROW_TOLERANCE : other.box.top < box.top - ROW_TOLERANCE));
    const row = others.filter((other) => Math.abs(other.box.top - others[0].box.top) < ROW_TOLERANCE);
    row.sort((a, b) => Math.abs(a.box.left - box.left) - Math.abs(b.box.left - box.left));
    return row[0]?.piece;
  }

  element.addEventListener("keydown", (event) => {
    const from = closest(event, ".piece");
    if (!from || event.ctrlKey || event.metaKey || event.altKey) return;
    const id = from.dataset.id;
    if (MOVES.includes(event.key)) {
      const to = pieceToward(from, event.key);
      if (to) {
        current = to.dataset.id;
        if (event.shiftKey) selectRange(current);
        refresh();
        find(".open", to).focus();
      }
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (!event.repeat) deletePictures(selected.size ? [...selected] : [id]);
    } else if (event.key === " " && closest(event, ".open") === event.target) toggleSelection(id);
    else if (event.key === "f") toggleStar(id);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && selected.size && !viewer.open && element.checkVisibility()) clearSelection();
  });
  bar.addEventListener("click", (event) => {
    const action = closest(event, "[data-do]")?.dataset.do;
    if (action === "delete") deletePictures([...selected]);
    else if (action === "none") clearSelection();
  });
  new IntersectionObserver(refresh).observe(element); // the bar stands outside of the tab: hide it with the tab

  /** Bring selection, focus and viewer in line with the pictures that there are now. */
  function update() {
    const ids = new Set(pieces().map((piece) => piece.dataset.id));
    for (const id of selected) if (!ids.has(id)) selected.delete(id);
    const hadFocus = element.contains(document.activeElement);
    if (!ids.has(current)) current = pieces()[0]?.dataset.id ?? null;
    if (viewer.open && !ids.has(viewer.dataset.id)) viewer.close();
    refresh();
    if (hadFocus && current && !viewer.open) find(".open", pieceOf(current)).focus();
  }
  watch("value", update);
  update();
}
