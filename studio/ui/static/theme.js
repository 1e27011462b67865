// Light or dark: the visitor's choice, kept in the browser.
import { readStored, writeStored } from "./storage.js";

const KEY = "studio-shade";

/** @param {boolean} dark */
function applyTheme(dark) {
  for (const part of [document.documentElement, document.body]) part.classList.toggle("dark", dark);
}

export function toggleTheme() {
  const dark = !document.body.classList.contains("dark");
  applyTheme(dark);
  writeStored(KEY, dark ? "dark" : "light");
}

/** Apply the stored choice, unless the address asks for a theme. */
export function restoreTheme() {
  const stored = readStored(KEY);
  if (stored && !new URL(location.href).searchParams.has("__theme")) applyTheme(stored === "dark");
}
