// Drawing of points in two dimensions: density, data, arrows, paths and strokes.
import { newCanvas } from "./arrays.js";
import { CURVE_COLOURS } from "./charts.js";

/** @import { NoiseTab } from "./tab.js" */

export const DEFAULT_EXTENT = 2.6; // the plane reaches from -extent to extent
const REFERENCE_SIDE = 620; // px of the canvas for which sizes are given
const PATHS = 14;
const ARROW_LENGTH = 22,
  FULL_SPEED = 2.5;
const COLOUR_PROBE = newCanvas(1, 1).getContext("2d");

/**
 * A CSS colour as red, green and blue from 0 to 255.
 * @param {string} colour
 */
function rgbOf(colour) {
  COLOUR_PROBE.fillStyle = colour;
  const hex = String(COLOUR_PROBE.fillStyle);
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

/** A place between two frames: `share` of the way from `frame` to the next. @typedef {{ frame: number, share: number }} Place */
/** @typedef {{ label: number, points: [number, number][] }} Stroke */

export class PlaneCanvas {
  #smallCanvas = newCanvas(1, 1);
  extent = DEFAULT_EXTENT;

  /** @param {NoiseTab} tab */
  constructor(tab) {
    this.tab = tab;
    this.canvas = tab.canvas("plane");
    this.context = this.canvas.getContext("2d");
  }

  /** Clear the canvas, which is as fine as the screen. */
  clear() {
    this.side = Math.round(this.canvas.clientWidth * devicePixelRatio) || 600;
    this.unit = this.side / REFERENCE_SIDE;
    if (this.canvas.width !== this.side) this.canvas.width = this.canvas.height = this.side;
    this.context.clearRect(0, 0, this.side, this.side);
  }

  /** @param {number} x */
  #x(x) {
    return ((x + this.extent) / (2 * this.extent)) * this.side;
  }

  /** @param {number} y */
  #y(y) {
    return ((this.extent - y) / (2 * this.extent)) * this.side;
  }

  /**
   * The point of the plane under the pointer, kept inside the plane.
   * @param {PointerEvent} event
   * @returns {[number, number]}
   */
  pointAt(event) {
    const box = this.canvas.getBoundingClientRect(),
      { extent } = this;
    const inside = (/** @type {number} */ value) => Math.min(extent, Math.max(-extent, value));
    return [
      inside(((event.clientX - box.left) / box.width) * 2 * extent - extent),
      inside(extent - ((event.clientY - box.top) / box.height) * 2 * extent),
    ];
  }

  /** @param {number} x @param {number} y @param {number} radius */
  #square(x, y, radius) {
    this.context.fillRect(this.#x(x) - radius, this.#y(y) - radius, 2 * radius, 2 * radius);
  }

  /** @param {number} x @param {number} y @param {number} radius */
  #cross(x, y, radius) {
    const left = this.#x(x),
      top = this.#y(y);
    this.context.fillRect(left - radius, top - radius / 4, 2 * radius, radius / 2);
    this.context.fillRect(left - radius / 4, top - radius, radius / 2, 2 * radius);
  }

  /**
   * @param {ImageData} density a gray sheet, its frames side by side
   * @param {number} frameSide px
   * @param {Place} place
   * @param {number} nextFrame
   */
  drawDensity(density, frameSide, { frame, share }, nextFrame) {
    const image = new ImageData(frameSide, frameSide),
      colour = rgbOf(this.tab.css(CURVE_COLOURS[0]));
    for (let y = 0; y < frameSide; y++) {
      for (let x = 0; x < frameSide; x++) {
        const valueAt = (/** @type {number} */ f) => density.data[4 * (y * density.width + f * frameSide + x)];
        const value = valueAt(frame) * (1 - share) + valueAt(nextFrame) * share;
        image.data.set([...colour, 0.5 * value], 4 * (y * frameSide + x));
      }
    }
    this.#smallCanvas.width = this.#smallCanvas.height = frameSide;
    this.#smallCanvas.getContext("2d").putImageData(image, 0, 0);
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(this.#smallCanvas, 0, 0, this.side, this.side);
  }

  /**
   * The points to learn: squares of the first class, crosses of the second.
   * @param {Float32Array} points
   * @param {number[]} labels
   */
  drawData(points, labels) {
    const colours = CURVE_COLOURS.map((name) => this.tab.css(name));
    this.context.globalAlpha = 0.35;
    for (const [i, label] of labels.entries()) {
      this.context.fillStyle = colours[label];
      if (label) this.#cross(points[2 * i], points[2 * i + 1], 2.4 * this.unit);
      else this.#square(points[2 * i], points[2 * i + 1], 1.2 * this.unit);
    }
    this.context.globalAlpha = 1;
  }

  /**
   * @param {Float32Array} grid (K, 2)
   * @param {Float32Array} arrows (frames, K, 2)
   * @param {number} frame
   */
  drawArrows(grid, arrows, frame) {
    const { context, unit } = this,
      count = grid.length / 2;
    context.strokeStyle = this.tab.css("--quiet");
    context.lineWidth = 1.2 * unit;
    context.beginPath();
    for (let k = 0; k < count; k++) {
      const x = this.#x(grid[2 * k]),
        y = this.#y(grid[2 * k + 1]);
      const dx = arrows[2 * (frame * count + k)],
        dy = -arrows[2 * (frame * count + k) + 1];
      const speed = Math.hypot(dx, dy),
        scale = (unit * ARROW_LENGTH * Math.min(1, speed / FULL_SPEED)) / (speed || 1);
      const u = dx * scale,
        v = dy * scale;
      context.moveTo(x, y);
      context.lineTo(x + u, y + v);
      context.moveTo(x + u, y + v);
      context.lineTo(x + 0.65 * u - 0.22 * v, y + 0.65 * v + 0.22 * u);
      context.moveTo(x + u, y + v);
      context.lineTo(x + 0.65 * u + 0.22 * v, y + 0.65 * v - 0.22 * u);
    }
    context.stroke();
  }

  /**
   * Points that move from frame to frame.
   * @param {Float32Array} paths (frames, P, 2)
   * @param {number} frames
   * @param {Place} place
   * @param {boolean} withPaths whether whole paths of some points are drawn, too
   */
  drawMoving(paths, frames, { frame, share }, withPaths) {
    const { context, unit } = this,
      count = paths.length / frames / 2,
      next = Math.min(frame + 1, frames - 1);
    const at = (/** @type {number} */ p, /** @type {number} */ f, /** @type {number} */ axis) =>
      paths[2 * (f * count + p) + axis];
    const between = (/** @type {number} */ p, /** @type {number} */ axis) =>
      at(p, frame, axis) * (1 - share) + at(p, next, axis) * share;
    context.strokeStyle = context.fillStyle = this.tab.css("--body-text-color");
    if (withPaths) {
      context.lineWidth = unit;
      context.globalAlpha = 0.45;
      for (let p = 0; p < Math.min(PATHS, count); p++) {
        context.beginPath();
        for (let f = 0; f < frames; f++) context.lineTo(this.#x(at(p, f, 0)), this.#y(at(p, f, 1)));
        context.stroke();
      }
      context.globalAlpha = 1;
    }
    for (let p = 0; p < count; p++) this.#square(between(p, 0), between(p, 1), 1.7 * unit);
  }

  /** @param {Stroke[]} strokes */
  drawStrokes(strokes) {
    const { context, side } = this;
    if (!strokes.length) {
      context.fillStyle = this.tab.css("--quiet");
      context.font = `${side / 32}px ${this.tab.css("font-family")}`;
      context.textAlign = "center";
      context.fillText("Draw here, then press Train", side / 2, side / 2);
    }
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = side / 110;
    for (const { label, points } of strokes) {
      context.strokeStyle = this.tab.css(CURVE_COLOURS[label]);
      context.setLineDash(label ? [side / 40, side / 40] : []);
      context.beginPath();
      for (const [x, y] of points) context.lineTo(this.#x(x), this.#y(y));
      if (points.length === 1) context.lineTo(this.#x(points[0][0]) + 0.1, this.#y(points[0][1])); // a dot
      context.stroke();
    }
    context.setLineDash([]);
  }
}
