// Compare: two to four runs at the same time, each measured against its own converged picture.
import { find, findButton, findCanvas } from "../dom.js";
import { drawFrame, loadImage } from "./arrays.js";
import { Chart, CURVE_COLOURS } from "./charts.js";
import { LAST_TIME } from "./tab.js";

/** @import { CompareData, ComparedRun, View } from "./types.d.ts" */
/** @import { NoiseTab } from "./tab.js" */
/** @typedef {{ sampler: string, steps: number, guidance: number, seed: number }} Entry one run of the form */

const MAX_RUNS = 4,
  MIN_RUNS = 2;
/** @type {Entry} */
const DEFAULTS = { sampler: "studio", steps: 10, guidance: 3, seed: 1 };
/** What "Compare by" offers. @type {Record<string, Partial<Entry>[]>} */
export const PRESETS = {
  samplers: [{ sampler: "studio" }, { sampler: "ddim" }, { sampler: "unipc" }, { sampler: "ddpm" }],
  steps: [{ steps: 4 }, { steps: 8 }, { steps: 16 }, { steps: 50 }],
  guidance: [{ guidance: 0 }, { guidance: 1 }, { guidance: 3 }, { guidance: 10 }],
  seeds: [{ seed: 1 }, { seed: 2 }, { seed: 3 }, { seed: 4 }],
};
const NAMES = /** @type {(keyof Entry)[]} */ (Object.keys(DEFAULTS));

/** @implements {View} */
export class CompareView {
  fields = { prompt: "[data-form=compare] [name=prompt]" };
  /** @type {CompareData} */
  data = null;
  /** @type {Chart} */
  #distances = null;

  /** @param {NoiseTab} tab */
  constructor(tab) {
    this.tab = tab;
  }

  // ---- the form ----

  fieldsets() {
    return this.tab.all("fieldset[data-entry]").map((fieldset) => /** @type {HTMLFieldSetElement} */ (fieldset));
  }

  #visibleFieldsets() {
    return this.fieldsets().filter((fieldset) => !fieldset.hidden);
  }

  /** @returns {Entry[]} the runs in the form */
  entries() {
    return this.#visibleFieldsets().map((fieldset) => ({
      sampler: entryField(fieldset, "sampler").value,
      steps: Number(entryField(fieldset, "steps").value),
      guidance: Number(entryField(fieldset, "guidance").value),
      seed: Number(entryField(fieldset, "seed").value),
    }));
  }

  /**
   * Put two to four runs into the form.
   * @param {Partial<Entry>[]} entries
   * @param {string} [preset] what "Compare by" shows
   */
  fill(entries, preset = "own") {
    for (const [i, fieldset] of this.fieldsets().entries()) {
      fieldset.hidden = fieldset.disabled = i >= entries.length;
      const entry = { ...DEFAULTS, ...this.tab.model.defaults, ...entries[i] };
      for (const name of NAMES) {
        const field = entryField(fieldset, name),
          value = String(entry[name]);
        const isOffered =
          !(field instanceof HTMLSelectElement) || [...field.options].some((option) => option.value === value);
        if (isOffered) field.value = value;
      }
    }
    this.#presetField().value = preset;
    this.tab.button('[data-act="add"]').disabled = entries.length >= MAX_RUNS;
    for (const button of this.tab.all('[data-act="drop"]')) {
      /** @type {HTMLButtonElement} */ (button).disabled = entries.length <= MIN_RUNS;
    }
  }

  #presetField() {
    return this.tab.field("[data-form=compare] [name=compare_by]");
  }

  markAsOwnChoice() {
    this.#presetField().value = "own";
  }

  addEntry() {
    const entries = this.entries();
    this.fill([...entries, entries.at(-1)]);
    find("select", this.#visibleFieldsets().at(-1)).focus();
  }

  /** @param {Element} fieldset */
  removeEntry(fieldset) {
    const index = this.#visibleFieldsets().findIndex((each) => each === fieldset);
    this.fill(this.entries().filter((_, i) => i !== index));
  }

  /**
   * Start the runs. Each is labelled by the settings in which it differs from the others.
   * @param {FormData} form
   */
  run(form) {
    const entries = this.entries(),
      prompt = String(form.get("prompt")),
      model = this.tab.model.id;
    const differing = NAMES.filter((name) => new Set(entries.map((entry) => entry[name])).size > 1);
    const names = differing.length ? differing : NAMES.slice(0, 1);
    const label = (/** @type {Entry} */ entry) => names.map((name) => this.#settingText(name, entry)).join(", ");
    this.tab.events.compare({ params: { runs: entries.map((entry) => ({ ...entry, prompt, model, label: label(entry) })) } });
  }

  /**
   * @param {keyof Entry} name
   * @param {Entry} entry
   */
  #settingText(name, entry) {
    if (name === "steps") return `${entry.steps} steps`;
    if (name !== "sampler") return `${name} ${entry[name]}`;
    return find(`[data-form=compare] [name=sampler] option[value="${entry.sampler}"]`, this.tab.element).textContent;
  }

  // ---- the runs ----

  /** @param {CompareData} data */
  async show(data) {
    for (const run of data.runs) run.image = await loadImage(run.x0);
    this.data = data;
    this.tab.slot("runs").replaceChildren(...data.runs.map((run, i) => this.#figure(run, i)));
    this.tab.slot("distance").hidden = false;
    this.tab.slot("distance-note").textContent =
      "Logarithmic scale. The error is the root mean square over " +
      (data.latent ? "the latents, whose deviation is about 1" : "the pixels, which range from −1 to 1") +
      `. The reference is a run of ${data.converged} steps with the same noise, words and guidance. The last point is the picture itself.`;
    const distances = data.runs.flatMap((run) => run.distance),
      most = Math.max(...distances);
    const least = Math.min(...distances.filter(Boolean), most / 2);
    const lines = (/** @type {"t" | "called"} */ x) =>
      data.runs.map((run, i) => ({ x: run[x], y: run.distance, colour: CURVE_COLOURS[i] }));
    /** @type {[number, number]} */
    const ys = [least, most];
    this.#distances = new Chart(this.tab.chart("distance"), lines("t"), {
      xs: [0, LAST_TIME],
      ys,
      log: true,
      label: "error against the reference over t, logarithmic",
    });
    const calls = Math.max(2, ...data.runs.map((run) => run.calls));
    new Chart(this.tab.chart("cost"), lines("called"), {
      xs: [1, calls],
      ys,
      log: true,
      label: "error against the reference over network calls, logarithmic",
    });
    this.tab.draw();
  }

  /**
   * @param {ComparedRun} run
   * @param {number} index
   */
  #figure(run, index) {
    const figure = document.createElement("figure");
    figure.className = "nv-fig";
    figure.innerHTML =
      `<canvas role="img"></canvas><figcaption><i style="--c:var(${CURVE_COLOURS[index]})"></i><b></b><br><span></span><br>` +
      '<button type="button">Open step by step</button></figcaption>';
    find("b", figure).textContent = run.label;
    find("canvas", figure).setAttribute("aria-label", `prediction of ${run.label}`);
    const pictures = run.rows && run.rows !== run.calls ? ` on ${run.rows} pictures` : "";
    const fitted = run.fitted ? ", weights fitted for this number" : "";
    find("span", figure).textContent =
      `${run.calls} network calls${pictures}${fitted}; final error ${run.distance.at(-1).toFixed(3)}`;
    findButton("button", figure).addEventListener("click", () => this.tab.events.open({ picture: run.picture }));
    return figure;
  }

  draw() {
    if (!this.data) return;
    for (const [i, figure] of [...this.tab.slot("runs").children].entries()) {
      const run = this.data.runs[i];
      const predictions = run.t.filter((t) => t >= this.tab.time - 0.5).length; // made before this time
      drawFrame(findCanvas("canvas", figure), run.image, Math.max(0, predictions - 1), run.width, run.height);
    }
    this.#distances.markAt(this.tab.time);
  }

  // ---- what every view offers ----

  stops() {
    return this.data && [...new Set(this.data.runs.flatMap((run) => run.t))].sort((a, b) => b - a);
  }

  canvases() {
    return this.tab.all('[data-slot="runs"] canvas').map((canvas) => /** @type {HTMLCanvasElement} */ (canvas));
  }

  rows() {
    if (!this.data) return [];
    return this.data.runs.flatMap((run) =>
      run.t.map((t, i) => ({ run: run.label, t, network_calls: run.called[i], distance: run.distance[i] })),
    );
  }

  towardNoise() {
    return false;
  }

  linkNote() {
    return "";
  }

  /** @param {URLSearchParams} params */
  writeLink(params) {
    params.set(
      "runs",
      this.entries()
        .map((entry) => NAMES.map((name) => entry[name]).join(","))
        .join(";"),
    );
  }

  /** @param {URLSearchParams} params */
  readLink(params) {
    if (!params.get("runs")) return;
    const entries = params
      .get("runs")
      .split(";")
      .slice(0, MAX_RUNS)
      .map((text) => {
        const [sampler, steps, guidance, seed] = text.split(",");
        return { sampler, steps: Number(steps), guidance: Number(guidance), seed: Number(seed) };
      });
    if (entries.length < MIN_RUNS) return this.tab.showProblem("This link names fewer than two runs.");
    this.fill(entries);
    /** @type {HTMLFormElement} */ (find("[data-form=compare]", this.tab.element)).requestSubmit();
  }
}

/**
 * @param {Element} fieldset
 * @param {string} name
 */
const entryField = (fieldset, name) =>
  /** @type {HTMLInputElement | HTMLSelectElement} */ (find(`[name=${name}]`, fieldset));
