// Clicks that ask the server for something: buttons with `data-act`, and examples.
import { closest } from "./dom.js";

/**
 * What a button asks for, as Python receives it.
 * @param {HTMLElement} button
 */
function actionOf(button) {
  const { act, pick, job, ids } = button.dataset;
  if (pick) return { act: "example", number: pick.split(":")[1] };
  return { act, job, ids: ids?.split(" ") };
}

/**
 * Send a click on a button inside `element` to Python.
 *
 * The list may move between the press and the release of the pointer: the button that was pressed counts.
 * @param {HTMLElement} element
 * @param {(event: string, data: object) => void} trigger
 */
export function sendActions(element, trigger) {
  /** @type {ReturnType<typeof actionOf> | null} */
  let pressed = null;
  const buttonAt = (/** @type {Event} */ event) => closest(event, "[data-act], #album [data-pick]");
  element.addEventListener("pointerdown", (event) => {
    pressed = buttonAt(event) && actionOf(buttonAt(event));
  });
  element.addEventListener("click", (event) => {
    const button = /** @type {HTMLButtonElement} */ (buttonAt(event));
    if (button && !button.disabled) trigger("click", (event.detail && pressed) || actionOf(button));
    pressed = null;
  });
}

/** Show or hide the queue. It shows itself while several jobs run, unless it was hidden. */
export function toggleQueue() {
  const visible = document.querySelector("#queue ol, #queue .none")?.checkVisibility();
  document.body.dataset.queue = visible ? "folded" : "open";
}
