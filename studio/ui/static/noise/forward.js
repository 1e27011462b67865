// Forward: a picture and its noise, mixed at any time by any schedule.
import { factsHtml, formatNumber, unpackArray } from "./arrays.js";
import { Chart, CURVE_COLOURS } from "./charts.js";
import { addExampleButtons, pictureUri, pressExample } from "./sources.js";

/** @import { ForwardData, View } from "./types.d.ts" */
/** @import { NoiseTab } from "./tab.js" */

const BINS = 61,
  BIN_RANGE = 4; // of the histogram, from -4 to 4
const DRAWN_EVERY = 4; // train steps between points of a curve
/** How the preparation of a picture is named on the page. @type {Record<string, string>} */
const PREPARATION = { pixels: "file, 0 to 1", scaled: "scaled to −1 … 1" };
const IDENTITY = [
  [1, 0, 0],
  [0, 1, 0],
  [0, 0, 1],
  [0, 0, 0],
];
const NORMAL_CURVE = Array.from({ length: 81 }, (_, i) => -4 + i / 10);

/** @param {number} logSnr */
const sigmoid = (logSnr) => 1 / (1 + Math.exp(-logSnr));

/** @implements {View} */
export class ForwardView {
  fields = {
    space: "[data-slot=space]",
    schedule: "[data-slot=schedule]",
    size: "[data-slot=size]",
    seed: "[data-slot=noise-seed]",
    standardize: "[data-slot=standardize]",
  };
  /** Number of an example, or a data URI. @type {number | string} */
  source = 0;
  /** Id of the library picture that is the source. @type {string | null} */
  pictureId = null;
  /** @type {ForwardData} */
  data = null;
  /** @type {Record<string, { logSnr: Float32Array, beta: Float32Array }>} */
  tables = {};
  /** @type {Chart[]} */
  #curves = [];
  /** @type {Chart} */
  #histogram = null;
  /** @type {object} */
  #latestParams = null;

  /** @param {NoiseTab} tab */
  constructor(tab) {
    this.tab = tab;
  }

  /** @param {ForwardData} data */
  show(data) {
    this.data = data;
    this.x0 = unpackArray(data.x0);
    this.eps = unpackArray(data.eps);
    this.image = new ImageData(data.size, data.size);
    this.tables = {};
    const select = this.tab.select("schedule"),
      isEmpty = !select.options.length;
    for (const [name, schedule] of Object.entries(data.schedules)) {
      this.tables[name] = { logSnr: unpackArray(schedule.log_snr), beta: unpackArray(schedule.beta) };
      if (isEmpty) select.add(new Option(schedule.label, name));
    }
    this.#showPreparation();
    this.drawCharts();
    this.tab.draw();
  }

  #showPreparation() {
    const rows = this.data.preparation.map(({ name, mean, variance }) => {
      const label = PREPARATION[name] ?? name;
      return `<tr><td>${label}</td><td>${formatNumber(mean, 3)}</td><td>${formatNumber(variance, 3)}</td></tr>`;
    });
    this.tab.slot("values-name").textContent = this.data.preview ? "Latent values" : "Pixel values";
    this.tab.slot("preparation").innerHTML =
      `<table><thead><tr><th></th><th>mean</th><th>variance</th></tr></thead>${rows.join("")}</table>`;
  }

  /** Draw the curves of all schedules. The model's own stands for the one that it equals, where it is chosen. */
  drawCharts() {
    const chosen = this.tab.select("schedule").value;
    const names = Object.keys(this.tables).filter((name) => name !== "model" || chosen === "model");
    const colourOf = (/** @type {number} */ i) => CURVE_COLOURS[i % CURVE_COLOURS.length];

    /** @param {(table: { logSnr: Float32Array, beta: Float32Array }) => Float32Array} values */
    const lines = (values) => {
      const all = names.map((name, i) => {
        const y = values(this.tables[name]).filter((_, t) => t % DRAWN_EVERY === 0);
        return { x: Array.from(y, (_, k) => DRAWN_EVERY * k), y, colour: colourOf(i), chosen: name === chosen };
      });
      return all.sort((a, b) => Number(a.chosen) - Number(b.chosen)); // the chosen curve lies on top
    };
    /** @type {[number, number]} */
    const xs = [0, this.data.last];
    this.#curves = [
      new Chart(
        this.tab.chart("alpha_bar"),
        lines((table) => table.logSnr.map(sigmoid)),
        { xs, ys: [0, 1], label: "alpha-bar over t" },
      ),
      new Chart(
        this.tab.chart("log_snr"),
        lines((table) => table.logSnr),
        { xs, ys: [-12, 12], label: "log SNR over t" },
      ),
      new Chart(
        this.tab.chart("beta"),
        lines((table) => table.beta),
        { xs, ys: [0.0001, 1], log: true, label: "beta over t, logarithmic" },
      ),
    ];
    this.tab.slot("legend").innerHTML = names
      .map(
        (name, i) =>
          `<span><i style="--c:var(${colourOf(i)})"></i>${this.data.schedules[name].label} · ${this.data.schedules[name].source}</span>`,
      )
      .join("");
    const density = NORMAL_CURVE.map((x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI));
    this.#histogram = new Chart(
      this.tab.chart("histogram"),
      [{ x: NORMAL_CURVE, y: density, colour: "--body-text-color" }],
      { xs: [-BIN_RANGE, BIN_RANGE], ys: [0, 1], bars: true, label: "histogram of pixel values" },
    );
  }

  /**
   * Draw alpha x0 + sigma eps.
   * @param {string} name
   * @param {number} alpha
   * @param {number} sigma
   */
  #drawMixture(name, alpha, sigma) {
    const { x0, eps, image, data } = this;
    const canvas = this.tab.canvas(name),
      area = data.size * data.size;
    if (canvas.width !== data.size) canvas.width = canvas.height = data.size;
    const map = data.preview ?? IDENTITY; // to RGB; the last row is constant
    const constant = name === "noise" ? [0, 0, 0] : map.at(-1);
    for (let pixel = 0; pixel < area; pixel++) {
      let [red, green, blue] = constant;
      for (let channel = 0; channel < data.channels; channel++) {
        const i = channel * area + pixel,
          value = alpha * x0[i] + sigma * eps[i],
          row = map[channel];
        red += value * row[0];
        green += value * row[1];
        blue += value * row[2];
      }
      image.data[4 * pixel] = (red + 1) * 127.5;
      image.data[4 * pixel + 1] = (green + 1) * 127.5;
      image.data[4 * pixel + 2] = (blue + 1) * 127.5;
      image.data[4 * pixel + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  draw() {
    if (!this.data) return;
    const table = this.tables[this.tab.select("schedule").value],
      t = Math.min(this.tab.time, this.data.last);
    const logSnr = table.logSnr[t],
      alpha = Math.sqrt(sigmoid(logSnr)),
      sigma = Math.sqrt(sigmoid(-logSnr));
    this.#drawMixture("x_t", alpha, sigma);
    this.#drawMixture("signal", alpha, 0);
    this.#drawMixture("noise", 0, sigma);
    const statistics = this.#measure(alpha, sigma),
      { mean, variance, signalPower, noisePower } = statistics;
    this.#histogram.drawBars(statistics.density, -BIN_RANGE, (2 * BIN_RANGE) / BINS);
    const { clean } = this.data;
    const pictureSnr =
      signalPower > 0 ? `${formatNumber(10 * Math.log10(signalPower / noisePower), 1)} dB` : "no signal";
    const expected = alpha * alpha * clean.variance + sigma * sigma;
    this.tab.slot("formula").innerHTML =
      `x<sub>t</sub> = <b>${formatNumber(alpha)}</b> · x<sub>0</sub> + <b>${formatNumber(sigma)}</b> · ε`;
    this.tab.slot("facts").innerHTML = factsHtml([
      ["ᾱ = α²", formatNumber(alpha * alpha)],
      ["β", table.beta[t].toPrecision(3)],
      ["SNR of the schedule", `${formatNumber((10 / Math.LN10) * logSnr, 1)} dB`],
      ["SNR of this picture", pictureSnr],
      ["mean (expected)", `${formatNumber(mean, 3)} (${formatNumber(alpha * clean.mean, 3)})`],
      ["variance (expected)", `${formatNumber(variance, 3)} (${formatNumber(expected, 3)})`],
    ]);
    for (const curve of this.#curves) curve.markAt(t);
  }

  /**
   * Mean, variance, powers and histogram of alpha x0 + sigma eps.
   * @param {number} alpha
   * @param {number} sigma
   */
  #measure(alpha, sigma) {
    const counts = new Array(BINS).fill(0),
      count = this.x0.length;
    let sum = 0,
      squares = 0,
      signalPower = 0,
      noisePower = 0;
    for (let i = 0; i < count; i++) {
      const signal = alpha * this.x0[i],
        noise = sigma * this.eps[i],
        value = signal + noise;
      sum += value;
      squares += value * value;
      signalPower += signal * signal;
      noisePower += noise * noise;
      const bin = Math.floor(((value + BIN_RANGE) * BINS) / (2 * BIN_RANGE));
      if (bin >= 0 && bin < BINS) counts[bin]++;
    }
    const mean = sum / count,
      variance = squares / count - mean * mean;
    const density = counts.map((inBin) => (inBin * BINS) / (2 * BIN_RANGE * count));
    return { mean, variance, signalPower, noisePower, density };
  }

  // ---- sources ----

  /** Ask for the view of the source with the settings of the form. An answer to earlier settings is dropped. */
  async update() {
    const params = {
      picture: this.source,
      size: Number(this.tab.select("size").value),
      seed: Number(this.tab.input("noise-seed").value),
      standardize: this.tab.input("standardize").checked,
      space: this.tab.select("space").value,
      model: this.tab.model.id,
    };
    this.tab.slot("standardize-field").hidden = params.space === "latents";
    this.#latestParams = params;
    const data = await this.tab.request("forward", params);
    if (data && this.#latestParams === params) this.show(data);
  }

  /**
   * Use an example, an uploaded picture or a picture of the library.
   * @param {number | string} source
   * @param {string | null} [pictureId]
   */
  setSource(source, pictureId = null) {
    this.source = source;
    this.pictureId = pictureId;
    pressExample(this.tab.slot("examples"), source);
    return this.update();
  }

  exampleButtons() {
    return this.tab.all('[data-slot="examples"] button');
  }

  /** @param {string[]} uris the example pictures */
  addExamples(uris) {
    addExampleButtons(this.tab.slot("examples"), uris, (index) => this.setSource(index));
  }

  /** @param {File} file */
  async openFile(file) {
    if (!file) return;
    let uri;
    try {
      uri = await pictureUri(file);
    } catch {
      return this.tab.showProblem("This file is not a picture that the browser can read.");
    }
    await this.setSource(uri);
  }

  // ---- what every view offers ----

  /** @returns {undefined} */
  stops() {}

  canvases() {
    return ["x_t", "signal", "noise"].map((name) => this.tab.canvas(name));
  }

  rows() {
    if (!this.data) return [];
    const table = this.tables[this.tab.select("schedule").value];
    return Array.from(table.logSnr, (logSnr, t) => {
      const alphaBar = sigmoid(logSnr);
      return {
        t,
        alpha: Math.sqrt(alphaBar),
        sigma: Math.sqrt(1 - alphaBar),
        alpha_bar: alphaBar,
        beta: table.beta[t],
        log_snr: logSnr,
      };
    });
  }

  towardNoise() {
    return true;
  }

  /** @param {URLSearchParams} params */
  writeLink(params) {
    if (typeof this.source === "number") params.set("example", String(this.source));
    else if (this.pictureId) params.set("kept", this.pictureId);
  }

  linkNote() {
    if (this.pictureId) return "The picture opens only for its owner.";
    return typeof this.source === "number" ? "" : "It does not hold your own picture.";
  }

  /** @param {URLSearchParams} params */
  async readLink(params) {
    const example = this.exampleButtons()[Number(params.get("example"))];
    if (params.has("kept")) this.tab.events.open({ picture: params.get("kept"), view: "forward" });
    else if (params.has("example") && example) example.click();
    else await this.update();
    this.drawCharts();
  }
}
