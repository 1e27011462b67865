// The picture that a view works on: one of the examples, or a file of the visitor.
import { newCanvas } from "./arrays.js";

const SHORTER_SIDE = 1024,
  LONGER_SIDE = 2048; // px of an uploaded picture at most

/**
 * Add a button for each example picture; the first is pressed.
 * @param {Element} container
 * @param {string[]} uris the example pictures
 * @param {(index: number) => void} choose
 */
export function addExampleButtons(container, uris, choose) {
  for (const [index, uri] of uris.entries()) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.setAttribute("aria-pressed", String(index === 0));
    button.setAttribute("aria-label", `Example ${index + 1}`);
    button.append(Object.assign(document.createElement("img"), { src: uri, alt: "" }));
    button.addEventListener("click", () => choose(index));
    container.append(button);
  }
}

/**
 * Press the button of an example; none for another picture.
 * @param {Element} container
 * @param {number | string} source
 */
export function pressExample(container, source) {
  for (const [i, button] of [...container.children].entries()) button.setAttribute("aria-pressed", String(i === source));
}

/**
 * A picture file as a data URI of limited size. Throws if the browser cannot read it.
 * @param {File} file
 */
export async function pictureUri(file) {
  const bitmap = await createImageBitmap(file),
    { width, height } = bitmap;
  const scale = Math.min(1, SHORTER_SIDE / Math.min(width, height), LONGER_SIDE / Math.max(width, height));
  const canvas = newCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/png");
}
