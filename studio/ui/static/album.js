// The library in the browser: moving about, choosing several pictures, opening one. What changes anything is asked of
// the server through `trigger`; what stands in an opened picture lies ready in the album.
window.studio.album = (element, trigger, watch) => {
  const chosen = new Set(); // ids
  let current = null; // id of the picture that the keys are at
  let anchor = null; // id where a range begins

  const pieces = () => [...element.querySelectorAll(".piece")];
  const piece = (id) => element.querySelector(`.piece[data-id="${CSS.escape(id ?? "")}"]`);
  const idOf = (node) => node.closest(".piece")?.dataset.id;
  const ask = (act, ids, more = {}) => trigger("click", { act, ids, ...more });

  // ---- choosing ----

  const bar = document.createElement("div");
  bar.id = "chosen";
  bar.hidden = true;
  bar.innerHTML =
    '<p role="status"></p><button type="button" data-do="delete">Delete</button>' +
    '<button type="button" class="close" data-do="none" aria-label="Select none" title="Select none"></button>';
  element.closest(".gradio-container").append(bar);

  function mark() {
    for (const item of pieces()) {
      const on = chosen.has(item.dataset.id);
      item.classList.toggle("chosen", on);
      item.querySelector(".pick").ariaChecked = String(on);
      const here = item.dataset.id === current;
      for (const button of item.querySelectorAll("button")) button.tabIndex = here && !button.closest(".sheet") ? 0 : -1;
    }
    element.classList.toggle("choosing", chosen.size > 0);
    bar.hidden = chosen.size === 0 || !element.checkVisibility();
    bar.firstChild.textContent = `${chosen.size} selected`;
  }

  function choose(id, on = !chosen.has(id)) {
    if (on) chosen.add(id);
    else chosen.delete(id);
    anchor = id;
    mark();
  }

  function chooseTo(id) {
    const ids = pieces().map((item) => item.dataset.id);
    const [from, to] = [ids.indexOf(ids.includes(anchor) ? anchor : id), ids.indexOf(id)].sort((a, b) => a - b);
    for (const other of ids.slice(from, to + 1)) chosen.add(other);
    mark();
  }

  function remove(ids) {
    const left = pieces().filter((item) => !ids.includes(item.dataset.id));
    const at = pieces().findIndex((item) => item.dataset.id === ids[ids.length - 1]);
    current = (left.find((item) => pieces().indexOf(item) > at) ?? left.at(-1))?.dataset.id ?? null;
    for (const id of ids) chosen.delete(id);
    mark();
    const undo = document.querySelector("#notice [data-act=undo]"); // what it brings back, it goes on to bring back
    ask("delete", ids, { before: undo?.dataset.ids.split(" ") ?? [] });
  }

  function star(id) {
    const button = piece(id).querySelector(".star");
    const on = button.ariaPressed !== "true";
    button.ariaPressed = String(on);
    const opened = viewer.querySelector(".star");
    if (opened && viewer.dataset.id === id) opened.ariaPressed = String(on);
    ask("star", [id], { on });
  }

  // ---- one picture, large ----

  const viewer = document.createElement("dialog");
  viewer.id = "viewer";
  viewer.setAttribute("aria-label", "Picture");
  viewer.innerHTML =
    '<header><button type="button" class="star" data-do="star" aria-label="Favourite" title="Favourite"></button>' +
    '<button type="button" class="close" data-do="close" aria-label="Close" title="Close"></button></header>' +
    '<button type="button" class="step back" data-do="back" aria-label="Newer picture" title="Newer"></button>' +
    '<figure><img alt="" draggable="false"></figure>' +
    '<button type="button" class="step on" data-do="on" aria-label="Older picture" title="Older"></button>' +
    '<div class="label"></div>';
  element.closest(".gradio-container").append(viewer);

  function open(id) {
    const item = piece(id);
    if (!item) return;
    current = viewer.dataset.id = id;
    const [image, small] = [viewer.querySelector("img"), item.querySelector("img")];
    image.src = small.src;
    image.alt = item.querySelector(".open").title;
    image.width = small.width; // for its shape, until it is there
    image.height = small.height;
    viewer.querySelector(".label").innerHTML = item.querySelector(".sheet").innerHTML;
    viewer.querySelector(".star").ariaPressed = item.querySelector(".star").ariaPressed;
    const [before, after] = [beside(-1), beside(1)];
    viewer.querySelector("[data-do=back]").disabled = !before;
    viewer.querySelector("[data-do=on]").disabled = !after;
    if (!viewer.open) viewer.showModal();
    mark();
  }

  function beside(by) {
    const all = pieces();
    return all[all.findIndex((item) => item.dataset.id === current) + by] ?? null;
  }

  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close(); // beside it
    const button = event.target.closest("[data-do], [data-act]");
    if (!button) return;
    const id = viewer.dataset.id;
    const act = button.dataset.do ?? button.dataset.act;
    if (act === "close") viewer.close();
    else if (act === "back" || act === "on") open(beside(act === "on" ? 1 : -1)?.dataset.id);
    else if (act === "star") star(id);
    else if (act === "delete") {
      const next = beside(1) ?? beside(-1);
      if (!next) viewer.close();
      remove([id]);
      if (next) open(next.dataset.id);
    } else if (act === "send") {
      viewer.close();
      ask("send", [id], { number: button.dataset.to });
    }
  });
  viewer.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) open(beside(by)?.dataset.id);
    else if (event.key === "Delete" && !event.repeat) viewer.querySelector("[data-act=delete]").click();
    else if (event.key === "f") star(viewer.dataset.id);
    else return;
    event.preventDefault();
  });
  viewer.addEventListener("close", () => piece(current)?.querySelector(".open").focus());

  // ---- the grid ----

  element.addEventListener("click", (event) => {
    const id = idOf(event.target);
    const act = event.target.closest("[data-act], [data-pick]");
    if (act?.dataset.pick) ask("example", [], { number: act.dataset.pick.split(":")[1] });
    else if (act) ask(act.dataset.act, []);
    if (!id) return;
    current = id;
    if (event.target.closest(".star")) star(id);
    else if (event.shiftKey) chooseTo(id);
    else if (event.target.closest(".pick") || event.ctrlKey || event.metaKey) choose(id);
    else if (chosen.size && event.detail) choose(id); // while some are chosen, a click chooses; Enter opens
    else open(id);
    mark();
  });

  function move(from, key) {
    const all = pieces();
    const at = all.indexOf(from);
    if (key === "Home") return all[0];
    if (key === "End") return all.at(-1);
    if (key === "ArrowLeft") return all[at - 1];
    if (key === "ArrowRight") return all[at + 1];
    // Up and down: the nearest in the next row, which may be of another day.
    const box = from.getBoundingClientRect();
    const down = key === "ArrowDown";
    const rows = (down ? all.slice(at + 1) : all.slice(0, at).reverse()).map((item) => [item, item.getBoundingClientRect()]);
    const first = rows.find(([, other]) => (down ? other.top > box.top + 4 : other.top < box.top - 4));
    if (!first) return null;
    const row = rows.filter(([, other]) => Math.abs(other.top - first[1].top) < 4);
    return row.sort(([, a], [, b]) => Math.abs(a.left - box.left) - Math.abs(b.left - box.left))[0][0];
  }

  element.addEventListener("keydown", (event) => {
    const from = event.target.closest(".piece");
    if (!from || event.ctrlKey || event.metaKey || event.altKey) return;
    const id = from.dataset.id;
    if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
      const to = move(from, event.key);
      if (to) {
        current = to.dataset.id;
        if (event.shiftKey) chooseTo(current);
        mark();
        to.querySelector(".open").focus();
      }
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (!event.repeat) remove(chosen.size ? [...chosen] : [id]);
    }
    else if (event.key === " " && event.target.matches(".open")) choose(id);
    else if (event.key === "f") star(id);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen.size && !viewer.open && element.checkVisibility()) {
      chosen.clear();
      mark();
    }
  });
  bar.addEventListener("click", (event) => {
    const what = event.target.closest("[data-do]")?.dataset.do;
    if (what === "delete") remove([...chosen]);
    else if (what === "none") {
      chosen.clear();
      mark();
    }
  });
  // The bar stands outside of the tab: it goes when the tab does.
  new IntersectionObserver(mark).observe(element);

  function settle() {
    const there = new Set(pieces().map((item) => item.dataset.id));
    for (const id of chosen) if (!there.has(id)) chosen.delete(id);
    const focused = element.contains(document.activeElement);
    if (!there.has(current)) current = pieces()[0]?.dataset.id ?? null;
    if (viewer.open && !there.has(viewer.dataset.id)) viewer.close();
    mark();
    if (focused && current && !viewer.open) piece(current).querySelector(".open").focus();
  }
  watch("value", settle);
  settle();
};
