// The network at a step of a run: attention to each word, and channels of each block of the U-Net.
import { find, findAll, findCanvas } from "../dom.js";
import { drawFrame, loadImage, mathHtml, nearestIndex, newCanvas, pixelsOf } from "./arrays.js";

/** @import { InspectionData, Look, ReverseData, StageData } from "./types.d.ts" */
/** @import { NoiseTab } from "./tab.js" */
/** @typedef {InspectionData["levels"][0]} Level */

const OVERLAY_COLOUR = [255, 196, 0];
const OVERLAY_OPACITY = 0.9;
const MAP_SCALE = 4; // px of a map per px of the picture
const CHANNEL_COLUMNS = 3;
const INPUT_HTML = '<canvas data-sheet="x_t" role="img" aria-label="x_t, the input"></canvas>';
const OUTPUT_HTML =
  '<canvas data-sheet="x0" role="img" aria-label="the predicted picture"></canvas>' +
  "<small>the prediction, and from it x̂<sub>0</sub></small>";

/**
 * One block of the U-Net. `content` is HTML.
 * @param {{ column: number, depth: number, name: string, shape: string, content: string }} card
 */
const cardHtml = ({ column, depth, name, shape, content }) =>
  `<div class="nv-level" style="--column:${column};--depth:${depth}"><b>${name}</b><span>${shape}</span>${content}</div>`;

export class Inspector {
  /** @type {ReverseData} */
  #run = null;
  /** By stage; null where the network cannot be inspected. @type {Record<number, InspectionData | null>} */
  #stages = {};
  #stageIndex = 0;
  /** What is on the page. @type {InspectionData | null} */
  #shown = null;
  #overlay = newCanvas(1, 1);

  /** @param {NoiseTab} tab */
  constructor(tab) {
    this.tab = tab;
  }

  /** @param {ReverseData} run */
  openRun(run) {
    this.#run = run;
    this.#stages = {};
  }

  /** @param {number} index */
  async openStage(index) {
    const run = this.#run,
      maps = this.tab.slot("maps");
    this.#stageIndex = index;
    this.#shown = null;
    const isLatent = run.stages[index].latent; // inspected on request, since a call may take long
    maps.textContent = index in this.#stages || isLatent ? "" : "Inspecting the network …";
    this.tab.slot("unet").replaceChildren();
    if (!(index in this.#stages)) {
      if (isLatent) return;
      const data = await this.#load(run, index);
      if (this.#run !== run) return; // another run was opened meanwhile
      this.#stages[index] = data;
      if (this.#stageIndex !== index) return; // another stage was chosen meanwhile
    }
    if (this.#stages[index]) this.#build(this.#stages[index]);
    else maps.textContent = "The network cannot be inspected.";
  }

  /**
   * Inspect one more step of the stage on the page.
   * @param {number} step index in the stage
   */
  async inspectStep(step) {
    const run = this.#run,
      index = this.#stageIndex;
    const data = await this.#load(run, index, step);
    if (!data || this.#run !== run) return;
    const looks = (this.#stages[index]?.looks ?? []).filter((look) => look.index !== step);
    this.#stages[index] = { ...data, looks: [...looks, ...data.looks] };
    if (this.#stageIndex === index) this.#build(this.#stages[index]);
  }

  /**
   * @param {ReverseData} run
   * @param {number} index
   * @param {number} [step]
   * @returns {Promise<InspectionData | null>}
   */
  async #load(run, index, step = 0) {
    const data =
      run.looks?.[index] ?? (run.key && (await this.tab.request("inspect", { key: run.key, stage: index, step })));
    if (!data) return null;
    for (const look of data.looks) {
      look.attention = pixelsOf(await loadImage(look.maps));
      look.images = await Promise.all(look.levels.map(loadImage));
    }
    return data;
  }

  // ---- building the parts of the page ----

  /** @param {InspectionData} data */
  #build(data) {
    this.#shown = data;
    const maps = this.tab.slot("maps");
    maps.innerHTML = data.words
      .map(
        () =>
          '<figure class="nv-fig"><canvas role="img"></canvas><figcaption><b></b> <span></span></figcaption></figure>',
      )
      .join("");
    if (!data.words.length) maps.textContent = "This network reads no words.";
    for (const [i, figure] of [...maps.children].entries()) {
      // The start and the end of a prompt have no word; each tile's prompt has both.
      const marksBefore = data.words.slice(0, i).filter((word) => !word).length;
      const name = data.words[i] || (marksBefore % 2 ? "(end)" : "(start)");
      find("b", figure).textContent = name;
      find("canvas", figure).setAttribute("aria-label", `attention to ${name}`);
    }
    this.#buildUNet(data);
  }

  /** @param {InspectionData} data */
  #buildUNet(data) {
    const [height, width] = data.tile,
      columns = data.levels.length + 2;
    const depthOf = (/** @type {Level} */ level) => Math.round(Math.log2(data.levels[0].shape[1] / level.shape[1]));
    const tiles = data.tiles > 1 ? `, first of ${data.tiles} tiles` : "";
    const cards = [
      cardHtml({
        column: 1,
        depth: 0,
        name: "in",
        shape: `${data.input_channels} × ${height} × ${width}${tiles}`,
        content: `${INPUT_HTML}<small>${mathHtml(data.inputs)}</small>`,
      }),
    ];
    const skips = [];
    for (const [i, level] of data.levels.entries()) {
      const { name, shape } = level;
      const depth = depthOf(level);
      const content = `<canvas role="img" aria-label="channels of ${name}"></canvas>`;
      cards.push(cardHtml({ column: i + 2, depth, name, shape: shape.join(" × "), content }));
      const up = data.levels.findIndex((other) => other.name === name.replace("down", "up"));
      if (!name.startsWith("down") || up <= i) continue;
      skips.push(`<i class="nv-skip" style="--depth:${depth};--from:${i + 2};--count:${up - i + 1}"></i>`);
    }
    cards.push(
      cardHtml({
        column: columns,
        depth: 0,
        name: "out",
        shape: `${data.output_channels} × ${height} × ${width}`,
        content: OUTPUT_HTML,
      }),
    );
    this.tab.slot("unet").style.setProperty("--columns", String(columns));
    this.tab.slot("unet").innerHTML = [...cards, ...skips].join("");
  }

  // ---- drawing ----

  /**
   * Draw the inspected step that is nearest to a step of the run.
   * @param {StageData} stage
   * @param {number} index
   */
  draw(stage, index) {
    const data = this.#shown;
    if (!data) return;
    const look =
      data.looks[
        nearestIndex(
          data.looks.map((each) => each.index),
          index,
        )
      ];
    for (const [word, figure] of [...this.tab.slot("maps").children].entries()) {
      this.#drawMap(findCanvas("canvas", figure), stage, index, look, word);
      find("span", figure).textContent = `${(100 * look.shares[word]).toFixed(1)} %`;
    }
    const unet = this.tab.slot("unet");
    for (const part of findAll("canvas[data-sheet]", unet)) {
      drawFrame(
        /** @type {HTMLCanvasElement} */ (part),
        stage.images[part.dataset.sheet],
        index,
        stage.width,
        stage.height,
      );
    }
    for (const [i, part] of findAll("canvas:not([data-sheet])", unet).entries()) {
      const canvas = /** @type {HTMLCanvasElement} */ (part),
        [, height, width] = data.levels[i].shape;
      if (canvas.width !== CHANNEL_COLUMNS * width)
        Object.assign(canvas, { width: CHANNEL_COLUMNS * width, height: 2 * height });
      for (let k = 0; k < data.levels[i].shown; k++) {
        const x = (k % CHANNEL_COLUMNS) * width,
          y = Math.floor(k / CHANNEL_COLUMNS) * height;
        canvas.getContext("2d").drawImage(look.images[i], k * width, 0, width, height, x, y, width, height);
      }
    }
  }

  /**
   * The predicted picture, dark and gray, and over it the attention to a word.
   * @param {HTMLCanvasElement} canvas
   * @param {StageData} stage
   * @param {number} index
   * @param {Look} look
   * @param {number} word
   */
  #drawMap(canvas, stage, index, look, word) {
    const { width, height } = this.#shown,
      attention = look.attention;
    const shownWidth = MAP_SCALE * width,
      shownHeight = MAP_SCALE * height;
    if (canvas.width !== shownWidth) Object.assign(canvas, { width: shownWidth, height: shownHeight });
    const image = new ImageData(width, height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const value = attention.data[4 * (y * attention.width + word * width + x)];
        image.data.set([...OVERLAY_COLOUR, value * OVERLAY_OPACITY], 4 * (y * width + x));
      }
    }
    if (this.#overlay.width !== width || this.#overlay.height !== height)
      Object.assign(this.#overlay, { width, height });
    this.#overlay.getContext("2d").putImageData(image, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.filter = "grayscale(1) brightness(0.55)";
    context.drawImage(stage.images.x0, index * width, 0, width, height, 0, 0, shownWidth, shownHeight);
    context.filter = "none";
    context.imageSmoothingEnabled = true;
    context.drawImage(this.#overlay, 0, 0, shownWidth, shownHeight);
  }
}
