// Drafts: what is typed and chosen in a tab, kept in the browser by the names of its fields.
import { readStored, writeStored } from "./storage.js";

const DELAY_MS = 250;

const draftKey = (/** @type {string} */ tab) => {
  const user = /** @type {any} */ (window).gradio_config?.username ?? "";
  return `studio-draft:${tab}:${user}`;
};

/** Drafts that are not written yet, by key. @type {Map<string, string>} */
const unsaved = new Map();
let timer = 0;

function saveDrafts() {
  for (const [key, text] of unsaved) writeStored(key, text);
  unsaved.clear();
}
addEventListener("pagehide", saveDrafts);

/**
 * Save the values of a tab's fields a moment later.
 * @param {string} tab
 * @param {string[]} names
 * @param {unknown[]} values
 */
export function keepDraft(tab, names, values) {
  const draft = Object.fromEntries(names.map((name, index) => [name, values[index]]));
  unsaved.set(draftKey(tab), JSON.stringify(draft));
  clearTimeout(timer);
  timer = window.setTimeout(saveDrafts, DELAY_MS);
}

/**
 * Return the values to start with: those of the draft, except where a field was changed before this ran.
 * @param {string} tab
 * @param {string[]} names
 * @param {unknown[]} defaults
 * @param {unknown[]} values what the fields hold now
 */
export function restoreDraft(tab, names, defaults, values) {
  /** @type {Record<string, unknown>} */
  let draft = {};
  try {
    draft = JSON.parse(readStored(draftKey(tab))) ?? {};
  } catch {
    // not a draft
  }
  return names.map((name, index) => {
    const untouched = values[index] === defaults[index];
    return untouched && typeof draft[name] === typeof defaults[index] ? draft[name] : values[index];
  });
}
