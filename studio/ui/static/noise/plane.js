// In 2D: points instead of pictures, their exact flow, and a small network that learns it.
import { loadImage, pixelsOf, unpackArray } from "./arrays.js";
import { Chart, CURVE_COLOURS } from "./charts.js";
import { PlaneCanvas } from "./plane_canvas.js";

/** @import { FlowData, PlaneData, View } from "./types.d.ts" */
/** @import { NoiseTab } from "./tab.js" */
/** @import { Stroke } from "./plane_canvas.js" */

const SLICE_SECONDS = 0.7,
  SLICES = 14; // of training, for one press of Train
const FIRST_SECONDS = 2; // of training before a class is shown for the first time
const LINK_POINTS = 1500; // of a drawing that fits into a link

/** @implements {View} */
export class PlaneView {
  fields = {
    shape: "[data-slot=shape]",
    text: "[data-slot=text]",
    aim: "[data-slot=target]",
    guide: "[data-slot=plane-guidance]",
    data: "[data-show=data]",
    density: "[data-show=density]",
    arrows: "[data-show=arrows]",
    paths: "[data-show=paths]",
  };
  /** @type {Stroke[]} */
  strokes = [];
  /** @type {"reverse" | "forward"} */
  direction = "reverse";
  /** The points to learn. @type {PlaneData} */
  data = null;
  /** What the network makes of noise. @type {FlowData | null} */
  flow = null;
  /** Key of the training at the studio; null until it starts. @type {string | null} */
  #key = null;
  #isTraining = false;
  /** Whether the points of a drawing are learned, so that they are shown instead of its strokes. */
  #isDrawingLearned = false;
  /** The shape that was asked for last. @type {object | null} */
  #latestShape = null;
  /** The target that was asked for last. @type {object | null} */
  #latestTarget = null;
  /** The stroke under the pointer. @type {Stroke | null} */
  #stroke = null;

  /** @param {NoiseTab} tab */
  constructor(tab) {
    this.tab = tab;
    this.canvas = new PlaneCanvas(tab);
    this.#followPointer();
  }

  // ---- data from the studio ----

  /**
   * Show points that are not learned yet.
   * @param {PlaneData} data
   * @param {string | null} key
   */
  async showPoints(data, key) {
    this.density = pixelsOf(await loadImage(data.density));
    this.data = data;
    this.#key = key;
    this.forwardPaths = unpackArray(data.forward);
    this.points = unpackArray(data.points);
    this.canvas.extent = data.extent;
  }

  /** @param {FlowData} flow */
  showFlow(flow) {
    this.flow = flow;
    this.reversePaths = unpackArray(flow.reverse);
    this.grid = unpackArray(flow.grid);
    this.arrows = unpackArray(flow.arrows);
    this.tab.slot("trained").textContent = `${flow.steps.toLocaleString("en")} training steps`;
    const low = Math.min(...flow.losses),
      high = Math.max(...flow.losses, low + 0.01);
    const chart = this.tab.chart("loss");
    new Chart(chart, [{ y: flow.losses, colour: CURVE_COLOURS[0] }], {
      xs: [0, Math.max(1, flow.losses.length - 1)],
      ys: [low, high],
      label: "loss during training",
    });
    for (const text of chart.querySelectorAll("text.x")) text.remove(); // a point stands for several steps
    this.tab.draw();
  }

  // ---- drawing ----

  /** Where the tab's time lies between two frames. */
  #place() {
    const { times } = this.data,
      t = this.tab.time;
    let frame = 0;
    while (frame < times.length - 2 && times[frame + 1] > t) frame++;
    const share = (times[frame] - t) / (times[frame] - times[frame + 1]);
    return { frame, share: Math.min(1, Math.max(0, share)) };
  }

  draw() {
    const { canvas, data } = this;
    canvas.clear();
    if (this.tab.select("shape").value === "drawing" && !this.#isDrawingLearned)
      return canvas.drawStrokes(this.strokes);
    if (!data) return;
    const isShown = (/** @type {string} */ name) =>
      /** @type {HTMLInputElement} */ (this.tab.field(`[data-show="${name}"]`)).checked;
    const place = this.#place(),
      frames = data.times.length;
    if (isShown("density")) canvas.drawDensity(this.density, data.side, place, Math.min(place.frame + 1, frames - 1));
    if (isShown("data")) canvas.drawData(this.points, data.labels);
    if (isShown("arrows") && this.flow) canvas.drawArrows(this.grid, this.arrows, Math.min(place.frame, frames - 2));
    const paths = this.direction === "forward" ? this.forwardPaths : this.flow && this.reversePaths;
    if (paths) canvas.drawMoving(paths, frames, place, isShown("paths"));
  }

  #followPointer() {
    const pad = this.canvas.canvas;
    pad.addEventListener("pointerdown", (event) => {
      if (this.tab.select("shape").value !== "drawing") return;
      if (this.#isDrawingLearned) this.changeShape();
      pad.setPointerCapture(event.pointerId);
      this.#stroke = { label: Number(this.tab.select("pen-class").value), points: [this.canvas.pointAt(event)] };
      this.strokes.push(this.#stroke);
      this.tab.draw();
    });
    pad.addEventListener("pointermove", (event) => {
      if (!this.#stroke) return;
      this.#stroke.points.push(this.canvas.pointAt(event));
      this.tab.draw();
    });
    const endStroke = () => {
      this.#stroke = null;
    };
    pad.addEventListener("pointerup", endStroke);
    pad.addEventListener("pointercancel", endStroke);
  }

  clearDrawing() {
    this.strokes = [];
    this.changeShape();
  }

  // ---- training ----

  /** @param {string} text */
  #labelButton(text) {
    this.tab.button('[data-act="train"]').textContent = text;
  }

  #stopTraining() {
    this.#isTraining = false;
    if (this.#key) this.#labelButton("Train on");
  }

  /** The class to generate, the class to avoid, and the guidance between them. */
  #target() {
    const [label, away] = this.tab.select("target").value.split("-");
    return {
      label: label ? Number(label) : null,
      away: away ? Number(away) : null,
      guidance: Number(this.tab.input("plane-guidance").value),
    };
  }

  /** Forget the training: another shape is chosen, or the drawing changed. */
  changeShape() {
    const shape = this.tab.select("shape").value;
    this.tab.slot("text-field").hidden = shape !== "letters";
    this.tab.slot("pen").hidden = shape !== "drawing";
    this.canvas.canvas.classList.toggle("pen", shape === "drawing");
    this.#stopTraining();
    this.#key = this.#latestShape = null;
    this.#isDrawingLearned = false;
    this.#labelButton("Train");
    this.tab.draw();
  }

  /** Show the points of the chosen shape. Returns false if there are none, or another shape was chosen meanwhile. */
  async startShape() {
    const params = { shape: this.tab.select("shape").value, text: this.tab.input("text").value, strokes: this.strokes };
    this.#latestShape = params;
    const answer = await this.tab.request("plane_start", params);
    if (!answer || this.#latestShape !== params) return false;
    await this.showPoints(answer.plane, answer.key);
    this.flow = null;
    this.#isDrawingLearned = true;
    this.tab.slot("trained").textContent = "not trained yet";
    this.tab.chart("loss").replaceChildren();
    this.tab.draw();
    return true;
  }

  /** Train for some seconds, or stop a training. */
  async train() {
    if (this.#isTraining) return this.#stopTraining();
    this.#isTraining = true;
    this.#labelButton("Stop");
    if (!this.#key && !(await this.startShape())) {
      this.#isTraining = false;
      return this.#labelButton("Train");
    }
    const key = this.#key;
    for (let slice = 0; this.#isTraining && this.#key === key && slice < SLICES; slice++) {
      const flow = await this.tab.request("plane_train", { key, seconds: SLICE_SECONDS, ...this.#target() });
      if (!flow) break;
      if (this.#key === key) this.showFlow(flow);
    }
    if (this.#key === key) this.#stopTraining();
  }

  /** Enable guidance where it has an effect, and say why where it has none. */
  showTarget() {
    const { label, away, guidance } = this.#target(),
      slider = this.tab.input("plane-guidance");
    this.tab.slot("plane-guidance-value").textContent = slider.value;
    slider.disabled = label === null;
    let note = "";
    if (label === null) note = "Guidance needs a class: choose one.";
    else if (away !== null && guidance === 1) note = "At 1 no class is avoided.";
    this.tab.slot("plane-guidance-note").textContent = note;
  }

  /** Show the flow to the chosen target; a running training shows it by itself. */
  async changeTarget() {
    this.showTarget();
    if (this.#isTraining) return;
    const target = (this.#latestTarget = this.#target());
    if (!this.#key && !(await this.startShape())) return;
    const params = { key: this.#key, seconds: this.flow ? 0 : FIRST_SECONDS, ...this.#target() };
    const flow = await this.tab.request("plane_train", params);
    if (flow && this.#latestTarget === target) this.showFlow(flow);
  }

  // ---- what every view offers ----

  stops() {
    return this.data?.times;
  }

  canvases() {
    return [this.canvas.canvas];
  }

  rows() {
    return this.flow ? this.flow.losses.map((loss, i) => ({ part: i + 1, loss })) : [];
  }

  towardNoise() {
    return this.direction === "forward";
  }

  /** Whether a link can hold the drawing. */
  #fitsLink() {
    const count = this.strokes.flatMap((stroke) => stroke.points).length;
    return this.tab.select("shape").value === "drawing" && count > 0 && count <= LINK_POINTS;
  }

  /** @param {URLSearchParams} params */
  writeLink(params) {
    params.set("way", this.direction);
    if (!this.#fitsLink()) return;
    const numbers = (/** @type {Stroke} */ stroke) => [
      stroke.label,
      ...stroke.points.flat().map((value) => value.toFixed(2)),
    ];
    params.set("strokes", this.strokes.map((stroke) => numbers(stroke).join(",")).join(";"));
  }

  linkNote() {
    return this.tab.select("shape").value === "drawing" && !this.#fitsLink() ? "It does not hold your drawing." : "";
  }

  /** @param {string} direction */
  setDirection(direction) {
    this.direction = direction === "forward" ? "forward" : "reverse";
    for (const field of this.tab.all("[data-slot=direction]")) {
      const radio = /** @type {HTMLInputElement} */ (field);
      radio.checked = radio.value === this.direction;
    }
    this.tab.draw();
  }

  /** @param {URLSearchParams} params */
  readLink(params) {
    this.setDirection(params.get("way"));
    this.strokes = (params.get("strokes") ?? "")
      .split(";")
      .filter(Boolean)
      .map((text) => {
        const [label, ...values] = text.split(",").map(Number);
        /** @type {[number, number][]} */
        const points = [];
        for (let i = 0; i + 1 < values.length; i += 2) points.push([values[i], values[i + 1]]);
        return { label, points };
      });
    if (params.get("shape") === "two moons" && !params.get("aim")) return; // the shipped training shows this
    this.changeShape();
    if (params.get("shape") !== "drawing" || this.strokes.length) this.changeTarget();
  }
}
