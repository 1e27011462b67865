// Reverse: one run, step by step, with the sampler's arithmetic and the network's insides.
import { find } from "../dom.js";
import { arithmeticHtml, weightsHtml } from "./arithmetic.js";
import { drawFrame, loadImage, nearestIndex } from "./arrays.js";
import { Inspector } from "./inspection.js";

/** @import { ReverseData, RunParams, StageData, View } from "./types.d.ts" */
/** @import { NoiseTab } from "./tab.js" */

/** What is drawn of latents. @type {Record<string, string>} */
const FORMS = {
  colours: "Colours are a linear map of the latents; decode shows what the VAE makes of them.",
  channels: "Every channel is a gray map: black is −4, gray 0, white 4.",
};
/** What a link repeats beside the fields of the form. */
const RUN_EXTRAS = ["model", "width", "height", "spacing"];
const RUN_FIELDS = ["prompt", "negative_prompt", "steps", "guidance", "sampler", "seed", "one_pass", "style_emphasis"];
/** The canvases of the diagram, and the sheets that they show. @type {[string, string][]} */
const DIAGRAM = [
  ["rx_t", "x_t"],
  ["reps", "eps"],
  ["rx0", "x0"],
  ["rx_next", "x_next"],
  ["rdiff", "difference"],
];
/** @param {string} name */
const runField = (name) => `[data-form=run] [name=${name}]`;

/** @implements {View} */
export class ReverseView {
  fields = Object.fromEntries(RUN_FIELDS.map((name) => [name, runField(name)]));
  /** @type {ReverseData} */
  data = null;
  stageIndex = 0;
  /** The run whose pictures are loading: only the latest is shown. @type {ReverseData} */
  #loading = null;
  /** Where a link leads, until its run arrives. @type {{ t: number, stage: number, repeats: RunParams | null } | null} */
  #linkTarget = null;
  /** How latents are drawn: "colours" or "channels". */
  #shownAs = "colours";

  /** @param {NoiseTab} tab */
  constructor(tab) {
    this.tab = tab;
    this.inspector = new Inspector(tab);
  }

  /** @param {ReverseData} data */
  async show(data) {
    this.#loading = data;
    for (const stage of data.stages) stage.images = await loadImages(stage.sheets);
    if (this.#loading !== data) return;
    this.data = data;
    this.inspector.openRun(data);
    this.tab.slot("caption").textContent = data.caption || "no prompt";
    for (const [name, value] of Object.entries(data.params ?? {})) {
      if (RUN_FIELDS.includes(name)) this.#fill(name, value);
    }
    const isLatent = data.stages[0].latent;
    for (const part of this.tab.all("[data-latent-run]")) part.hidden = !isLatent;
    if (isLatent) this.#showForm("colours");
    this.tab.slot("stages").replaceChildren(
      ...data.stages.map((stage, index) => {
        const size = `${stage.width} × ${stage.height}`,
          text = stage.latent ? `${size} × ${stage.channels} latents` : `${size} px`;
        const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
        button.addEventListener("click", () => this.chooseStage(index));
        return button;
      }),
    );
    await this.chooseStage(0);
  }

  /**
   * @param {string} name
   * @param {string | number | boolean} value
   */
  #fill(name, value) {
    const field = this.tab.field(runField(name));
    if (field instanceof HTMLInputElement && field.type === "checkbox") field.checked = Boolean(value);
    else if (!(field instanceof HTMLSelectElement) || [...field.options].some((option) => option.value === value))
      field.value = String(value);
  }

  /** @param {number} index */
  async chooseStage(index) {
    const { data, tab } = this;
    this.stageIndex = index;
    for (const [i, button] of [...tab.slot("stages").children].entries())
      button.setAttribute("aria-pressed", String(i === index));
    tab.slot("conditions").replaceChildren(
      ...Object.entries(data.stages[index].condition).map(([name, uri]) => {
        const figure = document.createElement("figure"),
          caption = document.createElement("figcaption");
        caption.textContent = `also given: ${name}`;
        figure.append(Object.assign(document.createElement("img"), { src: uri, alt: name }), caption);
        return figure;
      }),
    );
    tab.draw();
    await this.inspector.openStage(index);
    tab.draw();
  }

  draw() {
    if (!this.data) return;
    const stage = this.data.stages[this.stageIndex],
      index = this.#index();
    const step = stage.steps[index];
    for (const [name, sheet] of DIAGRAM) {
      const canvas = this.tab.canvas(name),
        isShown = stage.images[sheet] && (sheet !== "x_next" || step.next);
      canvas.closest("figure").style.visibility = isShown ? "" : "hidden";
      if (isShown) this.#drawArray(canvas, stage, sheet, index);
    }
    this.tab.slot("arithmetic").innerHTML = arithmeticHtml(step, this.data.emphasized);
    this.tab.slot("weights").innerHTML = weightsHtml(step);
    this.inspector.draw(stage, index);
  }

  /**
   * Draw an array of a step: its pixels, or latents as they are shown now.
   * @param {HTMLCanvasElement} canvas
   * @param {StageData} stage
   * @param {string} name
   * @param {number} index
   */
  #drawArray(canvas, stage, name, index) {
    const { width, height, columns } = stage;
    const channels = this.#shownAs === "channels" && stage.channelImages?.[name],
      decoded = this.#shownAs === "colours" && stage.decoded?.[`${index} ${name}`];
    if (channels) drawFrame(canvas, channels, index, columns * width, channels.height);
    else if (decoded) drawFrame(canvas, decoded, 0, decoded.width, decoded.height);
    else drawFrame(canvas, stage.images[name], index, width, height);
    canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
  }

  // ---- latents ----

  #index() {
    return nearestIndex(this.stops(), this.tab.time);
  }

  /** @param {string} form "colours" or "channels" */
  async showAs(form) {
    const { data, stageIndex } = this,
      stage = data.stages[stageIndex];
    if (form === "channels" && !stage.channelImages) {
      const answer = await this.tab.request("channels", { key: data.key, stage: stageIndex });
      if (!answer) return;
      stage.channelImages = await loadImages(answer.sheets);
    }
    this.#showForm(form);
    this.tab.draw();
  }

  /** @param {string} form */
  #showForm(form) {
    this.#shownAs = form;
    for (const button of this.tab.all("[data-show-as]"))
      button.setAttribute("aria-pressed", String(button.dataset.showAs === form));
    this.tab.slot("latent-note").textContent = `A run of ${this.data.model} in its latent space. ${FORMS[form]}`;
  }

  /**
   * Decode the latents of a figure at this step by the model's VAE.
   * @param {HTMLButtonElement} button
   */
  async decode(button) {
    const { data, stageIndex } = this,
      stage = data.stages[stageIndex],
      step = this.#index(),
      array = button.dataset.array;
    button.disabled = true;
    this.tab.showMessage("Decoding.");
    const answer = await this.tab.request("decode", { key: data.key, stage: stageIndex, step, array });
    button.disabled = false;
    if (!answer) return;
    this.tab.showMessage("");
    stage.decoded = { ...stage.decoded, [`${step} ${array}`]: await loadImage(answer.picture) };
    await this.showAs("colours");
  }

  /** Call the network once more with this step, and show its attention. */
  async inspectStep() {
    const button = this.tab.button('[data-act="inspect"]');
    button.disabled = true;
    await this.inspector.inspectStep(this.#index());
    button.disabled = false;
    this.tab.draw();
  }

  // ---- running ----

  /** @param {FormData} form */
  run(form) {
    const extras = this.#linkTarget?.repeats ?? { model: this.tab.model.id };
    this.tab.events.run({
      params: {
        ...extras,
        prompt: String(form.get("prompt")),
        negative_prompt: String(form.get("negative_prompt")),
        steps: Number(form.get("steps")),
        guidance: Number(form.get("guidance")),
        sampler: String(form.get("sampler")),
        seed: Number(form.get("seed")),
        one_pass: form.has("one_pass"),
        style_emphasis: form.has("style_emphasis"),
      },
    });
  }

  onShow() {
    if (this.#loading) return;
    this.tab.request("example_run").then((data) => data && !this.#loading && this.show(data));
  }

  // ---- what every view offers ----

  /** Heun calls the network twice at one time: the second call gets a time of its own on the slider. */
  stops() {
    return this.data?.stages[this.stageIndex].steps.map((step, i, steps) =>
      i && step.t === steps[i - 1].t ? step.t - 1 : step.t,
    );
  }

  canvases() {
    return ["rx_t", "reps", "rx0", "rx_next"].map((name) => this.tab.canvas(name));
  }

  rows() {
    if (!this.data) return [];
    return this.data.stages.flatMap((stage) =>
      stage.steps.map(({ b, ...step }) => ({
        size: `${stage.width}x${stage.height}`,
        ...step,
        ...Object.fromEntries(b.map((weight, i) => [`b${i}`, weight])),
      })),
    );
  }

  towardNoise() {
    return false;
  }

  /** @param {URLSearchParams} params */
  writeLink(params) {
    for (const name of [...RUN_FIELDS, ...RUN_EXTRAS]) params.delete(name); // the form may differ from the run on the page
    if (!this.data?.picture) return;
    params.set("stage", String(this.stageIndex));
    params.set("run", this.data.picture);
    for (const [name, value] of Object.entries(this.data.params ?? {})) {
      params.set(name, String(typeof value === "boolean" ? Number(value) : value));
    }
  }

  linkNote() {
    return this.data?.picture && !this.data.params ? "It opens only for the owner of this run." : "";
  }

  /**
   * @param {URLSearchParams} params
   * @param {number} t
   */
  readLink(params, t) {
    if (!params.get("run")) return;
    this.#linkTarget = { t, stage: Number(params.get("stage")), repeats: params.has("prompt") ? extrasOf(params) : null };
    this.tab.events.open({ picture: params.get("run") });
  }

  /** Start the run of a link anew if it is not kept for this visitor. Returns whether it can. */
  repeatFromLink() {
    if (!this.#linkTarget?.repeats) return false;
    /** @type {HTMLFormElement} */ (find("[data-form=run]", this.tab.element)).requestSubmit();
    this.#linkTarget.repeats = null;
    return true;
  }

  /** Go to the stage and time of the link whose run is now shown. */
  async goToLinkTarget() {
    if (!this.#linkTarget) return;
    const { t, stage } = this.#linkTarget;
    this.#linkTarget = null;
    if (stage && this.data.stages[stage]) await this.chooseStage(stage);
    if (Number.isFinite(t)) this.tab.goTo(t);
  }
}

/** @param {Record<string, string>} sheets */
async function loadImages(sheets) {
  /** @type {Record<string, HTMLImageElement>} */
  const images = {};
  for (const [name, uri] of Object.entries(sheets)) images[name] = await loadImage(uri);
  return images;
}

/**
 * What a link repeats beside the fields of the form.
 * @param {URLSearchParams} params
 */
function extrasOf(params) {
  /** @type {RunParams} */
  const extras = {};
  for (const name of RUN_EXTRAS) {
    const value = params.get(name);
    if (value !== null) extras[name] = name === "width" || name === "height" ? Number(value) : value;
  }
  return extras;
}
