// Pictures dropped on the page or pasted: opened where a tab takes pictures, otherwise read for their settings.
import { find, findAll, findVisible } from "./dom.js";

/** The upload button of the visible tab, if that tab takes pictures. */
const pictureButton = () => findVisible("#inpaint-open, #super-resolution-open");

/**
 * Hand a file to the file input next to an upload button.
 * @param {HTMLElement} button
 * @param {File} file
 */
function uploadFile(button, file) {
  // Several upload buttons may stand in one row, each after its input.
  const inputs = button ? findAll("input[type=file]", button.parentElement) : [];
  const before = inputs.filter((one) => one.compareDocumentPosition(button) & Node.DOCUMENT_POSITION_FOLLOWING);
  const input = /** @type {HTMLInputElement} */ (before.at(-1));
  if (!input || !file) return;
  const transfer = new DataTransfer();
  transfer.items.add(file);
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
  if (!file || !pictureButton()) return;
  event.preventDefault();
  uploadFile(pictureButton(), file);
});

/** Elements under the dragged file, one inside the other: enter adds one, leave removes one. */
let depth = 0;

/**
 * @param {number} change
 * @param {DragEvent} event
 */
function followDrag(change, event) {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  depth = Math.max(0, depth + change);
  document.body.dataset.drop = pictureButton()
    ? "Drop a picture to open it here"
    : "Drop a picture to load its settings";
  document.body.classList.toggle("dropping", change >= 0 && depth > 0);
}
addEventListener("dragenter", (event) => followDrag(1, event));
addEventListener("dragleave", (event) => followDrag(-1, event));
addEventListener("dragover", (event) => followDrag(0, event));
addEventListener("drop", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("dropping");
  uploadFile(pictureButton() ?? find("#restore"), event.dataTransfer.files[0]);
});
