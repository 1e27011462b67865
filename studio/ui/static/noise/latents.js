// Pixels and latents: a picture beside its latents, and what the VAE makes of them again.
import { find } from "../dom.js";
import { drawFrame, factsHtml, formatNumber, loadImage } from "./arrays.js";
import { addExampleButtons, pictureUri, pressExample } from "./sources.js";

/** @import { LatentsData, View } from "./types.d.ts" */
/** @import { NoiseTab } from "./tab.js" */

const CANVASES = /** @type {const} */ ({
  lpicture: "picture",
  lpreview: "preview",
  lreconstruction: "reconstruction",
});

/** @implements {View} */
export class LatentsView {
  fields = { size: "[data-slot=latents-size]" };
  /** Number of an example, or a data URI. @type {number | string} */
  source = 0;
  /** @type {LatentsData} */
  data = null;

  /** @param {NoiseTab} tab */
  constructor(tab) {
    this.tab = tab;
  }

  /** Say what there is to see, before the first picture. */
  showModel() {
    if (this.data) return;
    const { name, latent } = this.tab.model;
    this.tab.slot("latents-note").textContent = latent
      ? `${name} works on latents. Encoding and decoding takes its VAE a while on a processor.`
      : `${name} works on pixels and has no latents. Choose a Stable Diffusion model in the menu of models, paint a picture with it, and come back.`;
  }

  /** Encode the picture, and decode it again. */
  async encode() {
    const button = this.tab.button('[data-act="encode"]');
    button.disabled = true;
    this.tab.showMessage("Encoding and decoding.");
    const size = Number(this.tab.select("latents-size").value);
    const data = await this.tab.request("latents", { picture: this.source, size, model: this.tab.model.id });
    button.disabled = false;
    if (!data) return;
    this.tab.showMessage("");
    await this.show(data);
  }

  /** @param {LatentsData} data */
  async show(data) {
    const { tab } = this,
      [channels, height, width] = data.latent_shape;
    data.images = {};
    for (const name of Object.values(CANVASES)) data.images[name] = await loadImage(data[name]);
    this.data = data;
    tab.slot("latents").hidden = false;
    tab.slot("latents-note").textContent = `Encoded by the VAE of ${data.model}.`;
    tab.slot("latents-pixels").textContent = `(${data.width} × ${data.height} px)`;
    tab.slot("latents-range").textContent = `black: −${formatNumber(data.limit, 2)}, gray: 0, white: ${formatNumber(data.limit, 2)}`;
    tab.slot("latents-channels").innerHTML = data.channels
      .map(
        (channel, i) =>
          `<figure class="nv-fig"><img src="${channel.map}" alt="channel ${i + 1}"><figcaption>channel ${i + 1}: ` +
          `mean ${formatNumber(channel.mean, 2)}, deviation ${formatNumber(channel.deviation, 2)}</figcaption></figure>`,
      )
      .join("");
    tab.slot("latents-facts").innerHTML = factsHtml([
      ["picture", `3 × ${data.height} × ${data.width} = ${data.pixel_values.toLocaleString("en")} numbers`],
      ["latents", `${channels} × ${height} × ${width} = ${data.latent_values.toLocaleString("en")} numbers`],
      ["compression", `${formatNumber(data.ratio, 1)} : 1`],
      ["error of the reconstruction", formatNumber(data.reconstruction_error, 3)],
      ["error of the linear map", formatNumber(data.preview_error, 3)],
    ]);
    tab.draw();
  }

  draw() {
    if (!this.data) return;
    for (const [canvas, name] of Object.entries(CANVASES)) {
      const image = this.data.images[name];
      drawFrame(this.tab.canvas(canvas), image, 0, image.width, image.height);
    }
  }

  // ---- sources ----

  /** @param {string[]} uris the example pictures */
  addExamples(uris) {
    addExampleButtons(this.tab.slot("latents-examples"), uris, (index) => this.setSource(index));
  }

  /** @param {number | string} source */
  setSource(source) {
    this.source = source;
    pressExample(this.tab.slot("latents-examples"), source);
    return this.encode();
  }

  /** @param {File} file */
  async openFile(file) {
    if (!file) return;
    try {
      await this.setSource(await pictureUri(file));
    } catch {
      this.tab.showProblem("This file is not a picture that the browser can read.");
    }
  }

  // ---- what every view offers ----

  onShow() {
    this.showModel();
  }

  /** @returns {undefined} */
  stops() {}

  canvases() {
    return this.data ? Object.keys(CANVASES).map((name) => this.tab.canvas(name)) : [];
  }

  rows() {
    if (!this.data) return [];
    return this.data.channels.map(({ mean, deviation }, i) => ({ channel: i + 1, mean, deviation }));
  }

  towardNoise() {
    return true;
  }

  /** @param {URLSearchParams} params */
  writeLink(params) {
    if (typeof this.source === "number") params.set("example", String(this.source));
  }

  linkNote() {
    return typeof this.source === "number" ? "" : "It does not hold your own picture.";
  }

  /** @param {URLSearchParams} params */
  readLink(params) {
    const example = find(`[data-slot="latents-examples"]`, this.tab.element).children[Number(params.get("example"))];
    if (example instanceof HTMLButtonElement) example.click();
  }
}
