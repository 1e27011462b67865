// Packed arrays, pictures and numbers, made ready for drawing.

/** @import { PackedArray } from "./types.d.ts" */

/** @param {PackedArray} pack */
export function unpackArray(pack) {
  const bytes = Uint8Array.from(atob(pack.data), (character) => character.charCodeAt(0));
  if (pack.scale === undefined) return new Float32Array(bytes.buffer);
  return Float32Array.from(new Int16Array(bytes.buffer), (value) => value * pack.scale);
}

/**
 * @param {string} uri
 * @returns {Promise<HTMLImageElement>}
 */
export function loadImage(uri) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = uri;
  });
}

/**
 * @param {number} width
 * @param {number} height
 */
export const newCanvas = (width, height) => Object.assign(document.createElement("canvas"), { width, height });

/** @param {HTMLImageElement} image */
export function pixelsOf(image) {
  const context = newCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

/**
 * Draw one frame of a sheet, whose frames stand side by side.
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLImageElement} sheet
 * @param {number} index
 * @param {number} width
 * @param {number} height
 */
export function drawFrame(canvas, sheet, index, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").drawImage(sheet, index * width, 0, width, height, 0, 0, width, height);
}

/**
 * The index of the value that is nearest to a target; the first of equals.
 * @param {number[]} values
 * @param {number} target
 */
export function nearestIndex(values, target) {
  let best = 0;
  for (const [i, value] of values.entries()) {
    if (Math.abs(value - target) < Math.abs(values[best] - target)) best = i;
  }
  return best;
}

/**
 * A number with so many decimals, without a negative zero and with a true minus sign.
 * @param {number} value
 */
export function formatNumber(value, decimals = 4) {
  const isNegativeZero = Object.is(Number(value.toFixed(decimals)), -0);
  return (isNegativeZero ? 0 : value).toFixed(decimals).replace("-", "−");
}

/**
 * Set x_t, x̂0 and the like in print. The text comes from the studio or this tab and holds no markup.
 * @param {string} text
 */
export const mathHtml = (text) =>
  text
    .replace(/x_(t|next)/g, "x<sub>$1</sub>")
    .replace(/x̂0/g, "x̂<sub>0</sub>")
    .replace(/\bx0/g, "x<sub>0</sub>");

/**
 * Names and values as entries of a <dl>.
 * @param {[string, string][]} pairs
 */
export const factsHtml = (pairs) =>
  pairs.map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`).join("");
