// The result of a tab: selecting a picture, comparing before and after, and buttons that send a picture on.
import { closest, find, findAll, findImage, findVisible, scrollBehavior } from "./dom.js";

/** In one column the result stands below the controls: scroll to where it is about to appear. */
export function scrollToResult() {
  if (!matchMedia("(max-width: 820px)").matches) return;
  findVisible(".gallery").scrollIntoView({ behavior: scrollBehavior(), block: "start" });
}

/**
 * Select a picture. A second click shows it alone, a third shows the grid again.
 * @param {HTMLElement} cell
 */
export function selectCell(cell) {
  /** @type {HTMLElement} */
  const stage = cell.closest(".stage");
  const wasSelected = cell.getAttribute("aria-pressed") === "true";
  for (const other of findAll("[data-cell]", stage)) other.setAttribute("aria-pressed", String(other === cell));
  // Under the comparison slider a picture is alone already.
  const alone = wasSelected && !find(".compare", stage) && !stage.classList.contains("alone");
  stage.classList.toggle("alone", alone);
  stage.dataset.key = cell.dataset.key;
  const after = findImage(".compare .after", stage);
  if (after) after.src = cell.dataset.url;
  const seed = find("[data-slot=seed]", stage);
  if (seed) seed.textContent = cell.dataset.seed;
  const title = find(".label .title", stage);
  if (title) title.textContent = cell.dataset.title;
  const link = find("[data-slot=download]", stage);
  if (link) Object.assign(link, { href: cell.dataset.url, download: cell.dataset.file });
}

/**
 * Enlarge the pictures that are compared.
 * @param {HTMLElement} button
 */
export function zoomComparison(button) {
  find("[data-compare]", button.closest(".wall")).style.setProperty("--zoom", button.dataset.zoom);
  for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
}

/**
 * Move the line between before and after.
 * @param {HTMLInputElement} slider
 */
export function splitComparison(slider) {
  slider.parentElement.style.setProperty("--split", `${slider.value}%`);
}

/**
 * Send clicks on `data-pick` to Python, with the key of the selected picture.
 * @param {HTMLElement} element
 * @param {(event: string, data: object) => void} trigger
 */
export function sendPicks(element, trigger) {
  element.addEventListener("click", (event) => {
    const button = closest(event, "[data-pick]");
    if (button) trigger("click", { pick: button.dataset.pick, key: find(".stage", element)?.dataset.key });
  });
}

// The enlarged part of a comparison follows the pointer.
document.addEventListener("pointermove", (event) => {
  const comparison = closest(event, "[data-compare]");
  if (!comparison) return;
  const box = comparison.getBoundingClientRect();
  comparison.style.setProperty("--x", `${(100 * (event.clientX - box.left)) / box.width}%`);
  comparison.style.setProperty("--y", `${(100 * (event.clientY - box.top)) / box.height}%`);
});
