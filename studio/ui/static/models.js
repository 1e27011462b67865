// The menu of models in the header, and the tab Models.
import { find, scrollBehavior, targetMatches } from "./dom.js";

/**
 * Send the model that was chosen to Python.
 * @param {HTMLElement} element
 * @param {(event: string, data: object) => void} trigger
 */
export function sendChoice(element, trigger) {
  element.addEventListener("change", (event) => {
    const select = /** @type {HTMLSelectElement} */ (event.target);
    if (targetMatches(event, "[data-model]")) trigger("click", { model: select.value });
  });
}

/** In one column the form of a model stands below the cards: scroll to it once it is there. */
export function scrollToForm() {
  if (!matchMedia("(max-width: 820px)").matches) return;
  requestAnimationFrame(() => find("#model-changes")?.scrollIntoView({ behavior: scrollBehavior(), block: "start" }));
}
