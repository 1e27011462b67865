// Links to a view: its name, time and settings behind "#noise?" in the address. Names in links never change.

/** @import { NoiseTab } from "./tab.js" */

/** @param {NoiseTab} tab */
export function makeLink(tab) {
  const params = new URLSearchParams({ view: tab.viewName, t: String(tab.time) });
  for (const [name, selector] of Object.entries(tab.view.fields)) {
    const field = tab.field(selector);
    params.set(name, isCheckbox(field) ? String(Number(field.checked)) : field.value);
  }
  tab.view.writeLink(params);
  return `${location.origin}${location.pathname}${location.search}#noise?${params}`;
}

/**
 * What a link to the view does not restore, as a sentence or "".
 * @param {NoiseTab} tab
 */
export const linkNote = (tab) => tab.view.linkNote();

/**
 * Restore the view that the address names, if it names one.
 * @param {NoiseTab} tab
 */
export async function openLink(tab) {
  const [place, query] = location.hash.split("?");
  if (place !== "#noise" || !query) return;
  const params = new URLSearchParams(query),
    name = params.get("view"),
    t = Number(params.get("t") ?? NaN);
  if (!Object.hasOwn(tab.views, name)) return tab.showProblem("This link names a view that does not exist.");
  for (const [key, selector] of Object.entries(tab.views[name].fields)) {
    const field = tab.field(selector);
    // Links of earlier versions lack some checkboxes of a run: these were off.
    const value = params.get(key) ?? (name === "reverse" && isCheckbox(field) ? "0" : null);
    if (value !== null) fillField(field, value);
  }
  tab.showView(name);
  await tab.view.readLink(params, t);
  if (Number.isFinite(t)) tab.goTo(t);
}

/**
 * @param {Element} field
 * @returns {field is HTMLInputElement}
 */
const isCheckbox = (field) => field instanceof HTMLInputElement && field.type === "checkbox";

/**
 * @param {HTMLInputElement | HTMLSelectElement} field
 * @param {string} value ignored where a select does not offer it
 */
function fillField(field, value) {
  if (isCheckbox(field)) field.checked = value === "1";
  else if (!(field instanceof HTMLSelectElement) || [...field.options].some((option) => option.value === value))
    field.value = value;
}
