// Entry of the page's scripts: clicks, keys, and what is done once when the page appears.
import { toggleQueue } from "./actions.js";
import { closest, find, findAll, findVisible, targetMatches } from "./dom.js";
import "./files.js";
import { addPhrase, appendWords, filterVocabulary, replaceWord } from "./prompt.js";
import { scrollToResult, selectCell, splitComparison, zoomComparison } from "./result.js";
import { restoreTheme, toggleTheme } from "./theme.js";

// ---- clicks, by data attribute ----

/** @type {Record<string, (element: HTMLElement) => void>} */
const CLICKS = {
  "[data-word]": (element) => addPhrase(element.dataset.word),
  "[data-append]": (element) => appendWords(element.dataset.append),
  "[data-swap]": (element) => replaceWord(element.dataset.swap, element.dataset.for),
  "[data-cell]": selectCell,
  "[data-zoom]": zoomComparison,
  "button.run-button, #strip [data-pick]": scrollToResult,
  "[data-tray]": toggleQueue,
  "[data-fold]": (element) =>
    element.setAttribute("aria-expanded", String(element.getAttribute("aria-expanded") !== "true")),
  "[data-shade]": toggleTheme,
};
document.addEventListener("click", (event) => {
  for (const [selector, handle] of Object.entries(CLICKS)) {
    const element = closest(event, selector);
    if (element) return handle(element);
  }
});
document.addEventListener("input", (event) => {
  const input = /** @type {HTMLInputElement} */ (event.target);
  if (targetMatches(event, "[data-find]")) filterVocabulary(input);
  if (targetMatches(event, "[data-compare] input")) splitComparison(input);
});

// The swatches of the backgrounds show no text.
document.addEventListener("pointerover", (event) => {
  const label = closest(event, "#tabs .swatches label");
  if (label) label.title = label.textContent.trim();
});

// ---- keys ----

const HANDLES_ESCAPE = "input[type=search], [role=listbox], input[aria-expanded=true]"; // Escape clears or closes these

/** @param {string} selector */
function pressVisible(selector) {
  const button = /** @type {HTMLButtonElement} */ (findVisible(selector));
  if (button && !button.disabled) button.click();
}
document.addEventListener(
  "keydown",
  (event) => {
    if (find("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      pressVisible("button.run-button");
    } else if (event.key === "Escape" && !event.isComposing && !targetMatches(event, HANDLES_ESCAPE)) {
      pressVisible("button.stop-button");
    }
  },
  true,
);

// Gradio gives every radio button a name of its own. One name per group lets the arrow keys move inside it.
document.addEventListener("focusin", (event) => {
  const group = targetMatches(event, "input[type=radio]") && closest(event, "fieldset");
  if (!group) return;
  for (const input of group.querySelectorAll("input")) if (input.type === "radio") input.name = group.id;
});

// ---- once, when Gradio has built the page: it sets its own choice of light or dark before ----

function prepareWhenBuilt() {
  if (!find("#prompt textarea")) return false;
  for (const slot of findAll("[data-slot=origin]")) slot.textContent = location.origin + location.pathname;
  restoreTheme();
  return true;
}
if (!prepareWhenBuilt()) {
  const observer = new MutationObserver(() => {
    if (prepareWhenBuilt()) observer.disconnect();
  });
  observer.observe(document, { childList: true, subtree: true });
}

// ---- links to a view of the Noise tab: open the tab, which reads the rest of the link ----

function openNoiseTab() {
  if (!location.hash.startsWith("#noise")) return;
  const search = setInterval(() => {
    const tab = findAll("button[role=tab]").find((button) => button.innerText.trim() === "Noise");
    if (tab?.getAttribute("aria-selected") === "true") clearInterval(search);
    else if (find("#prompt textarea")) tab?.click();
  }, 100);
}
openNoiseTab();
addEventListener("hashchange", openNoiseTab);
