// A short message that disappears by itself.
import { find } from "./dom.js";

const SHOWN_MS = 1600;
let timer = 0;

/** @param {string} text */
export function showToast(text) {
  let toast = find("#toast");
  if (!toast) {
    toast = document.createElement("div");
    toast.id = "toast";
    toast.setAttribute("role", "status");
    find(".gradio-container").append(toast);
  }
  toast.textContent = text;
  toast.classList.add("on");
  clearTimeout(timer);
  timer = window.setTimeout(() => toast.classList.remove("on"), SHOWN_MS);
}
