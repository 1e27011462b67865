// Words from the vocabulary panel and from hints, written into the prompt.
import { find, findAll } from "./dom.js";
import { showToast } from "./toast.js";

/** @returns {HTMLTextAreaElement} */
const promptField = () => document.querySelector("#prompt textarea");

/** The phrase that a click wrote into an empty prompt: the next click may replace it. @type {string | null} */
let insertedPhrase = null;
let changedByClick = false; // until Gradio reports the change

/** @param {string} text */
function writePrompt(text) {
  const field = promptField();
  if (!field) return;
  changedByClick = true;
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

/** Whether the latest change of the prompt came from the visitor, and not from a restored draft. */
export function isEdited() {
  const edited = changedByClick || document.activeElement.closest("#prompt") !== null;
  changedByClick = false;
  return edited;
}

/** @param {Element} element */
function isOutOfView(element) {
  const box = element.getBoundingClientRect();
  return box.bottom < 0 || box.top > window.innerHeight;
}

/**
 * Add a phrase to the prompt, or replace the phrase of the click before.
 * @param {string} phrase
 */
export function addPhrase(phrase) {
  const current = promptField().value.trim();
  const replaces = !current || current === insertedPhrase;
  const text = replaces ? phrase : `${current} and ${phrase}`;
  insertedPhrase = replaces ? phrase : null;
  writePrompt(text);
  if (isOutOfView(promptField())) showToast(`Prompt: ${text}`);
}

/**
 * Add words to the end of the prompt, after a comma.
 * @param {string} words
 */
export function appendWords(words) {
  const current = promptField().value.trim().replace(/,$/, "");
  writePrompt(current ? `${current}, ${words}` : words);
}

/**
 * Replace a word that the model does not know.
 * @param {string} word
 * @param {string} known
 */
export function replaceWord(word, known) {
  const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace("'", "['’]");
  const pattern = new RegExp(`(^|[^\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, "giu");
  writePrompt(promptField().value.replace(pattern, (_, before) => before + known));
  promptField().focus();
}

/**
 * Show only the words of the vocabulary panel that contain the text of its search field.
 * @param {HTMLInputElement} field
 */
export function filterVocabulary(field) {
  const text = field.value.trim().toLowerCase();
  const panel = field.closest(".vocabulary");
  for (const group of findAll("[data-group]", panel)) {
    const words = findAll("[data-word]", group);
    for (const word of words) word.hidden = !word.textContent.toLowerCase().includes(text);
    group.hidden = words.every((word) => word.hidden);
  }
  find(".none", panel).hidden = findAll("[data-group]", panel).some((group) => !group.hidden);
}
