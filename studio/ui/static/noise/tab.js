// The noise tab: its parts on the page, its time, and the four views that draw at that time.
import { find, findAll, findButton, findCanvas, findInput } from "../dom.js";
import { nearestIndex } from "./arrays.js";

/** @import { Events, Model, Server, View } from "./types.d.ts" */

export const LAST_TIME = 999;
const FREE_STEP = 10; // of the time slider, in a view without stops
const QUIET_REQUESTS = ["first_view", "example_run", "inspect"]; // these run unasked and keep a message that stands there

export class NoiseTab {
  /** @type {Record<string, View>} */
  views = {};
  viewName = "forward";
  /** The chosen model. @type {Model} */
  model = null;
  /** Train step, from 0 (picture) to 999 (noise). */
  time = 420;
  /** Called before the time or the view changes by hand. */
  stopPlaying = () => {};
  #drawRequested = false;

  /**
   * @param {HTMLElement} element
   * @param {Server} server
   * @param {Events} events
   */
  constructor(element, server, events) {
    this.element = element;
    this.server = server;
    this.events = events;
    this.slider = this.input("time-slider");
  }

  get view() {
    return this.views[this.viewName];
  }

  // ---- parts of the page ----

  /** @param {string} name */
  slot(name) {
    return find(`[data-slot="${name}"]`, this.element);
  }

  /** @param {string} name */
  input(name) {
    return findInput(`[data-slot="${name}"]`, this.element);
  }

  /**
   * @param {string} name
   * @returns {HTMLSelectElement}
   */
  select(name) {
    return this.element.querySelector(`select[data-slot="${name}"]`);
  }

  /** @param {string} selector */
  field(selector) {
    return /** @type {HTMLInputElement | HTMLSelectElement} */ (find(selector, this.element));
  }

  /** @param {string} name */
  canvas(name) {
    return findCanvas(`canvas[data-draw="${name}"]`, this.element);
  }

  /** @param {string} name */
  chart(name) {
    return find(`[data-chart="${name}"]`, this.element);
  }

  /** @param {string} selector */
  all(selector) {
    return findAll(selector, this.element);
  }

  /** @param {string} selector */
  button(selector) {
    return findButton(selector, this.element);
  }

  /**
   * The value of a CSS variable or property at the tab.
   * @param {string} name
   */
  css(name) {
    return getComputedStyle(this.element).getPropertyValue(name).trim();
  }

  // ---- the model ----

  /**
   * Show the fields of the chosen model. A field that has the default of the model before gets the new default.
   * @param {Model} model
   */
  setModel(model) {
    const before = this.model;
    this.model = model;
    for (const part of this.all("[data-latent]")) part.hidden = !model.latent;
    for (const part of this.all("[data-pixels]")) part.hidden = model.latent;
    if (!model.latent) this.select("space").value = "pixels";
    for (const part of this.all("form select[name=sampler]")) {
      const select = /** @type {HTMLSelectElement} */ (part),
        chosen = select.value;
      select.replaceChildren(...Object.entries(model.samplers).map(([key, label]) => new Option(label, key)));
      select.value = chosen in model.samplers ? chosen : String(model.defaults.sampler);
    }
    for (const [name, value] of Object.entries(model.defaults)) {
      for (const part of this.all(`form [name=${name}]`)) {
        const field = /** @type {HTMLInputElement | HTMLSelectElement} */ (part);
        if (before && field.value === String(before.defaults[name])) field.value = String(value);
      }
    }
    this.view?.onShow?.();
  }

  // ---- messages and requests ----

  /** @param {string} text */
  showMessage(text) {
    this.slot("message").textContent = text;
    this.slot("message").toggleAttribute("data-bad", false);
  }

  /** @param {string} text */
  showProblem(text) {
    this.slot("message").textContent = text;
    this.slot("message").toggleAttribute("data-bad", true);
  }

  /**
   * Ask the studio. Returns null after a problem, which is shown.
   * @param {keyof Server} name
   * @param {object} [params]
   */
  async request(name, params = {}) {
    try {
      const answer = await this.server[name](params);
      if (answer.problem) {
        this.showProblem(answer.problem);
        return null;
      }
      if (!QUIET_REQUESTS.includes(name) && this.slot("message").hasAttribute("data-bad")) this.showMessage("");
      return answer;
    } catch {
      this.showProblem("The studio did not answer. Try again in a moment.");
      return null;
    }
  }

  // ---- time and views ----

  /** Draw the view in the next frame of the screen. */
  draw() {
    if (this.#drawRequested) return;
    this.#drawRequested = true;
    requestAnimationFrame(() => {
      this.#drawRequested = false;
      const start = performance.now();
      this.view.draw();
      this.element.dataset.cost = (performance.now() - start).toFixed(2); // ms; the tests read it
    });
  }

  /** @param {number} t */
  goTo(t) {
    this.time = Math.min(LAST_TIME, Math.max(0, Math.round(t)));
    this.slider.value = String(this.time);
    const stops = this.view.stops();
    const step =
      stops && this.viewName === "reverse" ? `, step ${nearestIndex(stops, this.time) + 1} of ${stops.length}` : "";
    this.slot("time").textContent = `t = ${this.time}`;
    this.slider.setAttribute("aria-valuetext", `t = ${this.time}${step}`);
    this.draw();
  }

  /**
   * Go to the next stop.
   * @param {1 | -1} direction 1: toward noise
   */
  step(direction) {
    const stops = this.view.stops();
    if (!stops) return this.goTo(this.time + FREE_STEP * direction);
    const index = nearestIndex(stops, this.time) - direction;
    this.goTo(stops[Math.min(stops.length - 1, Math.max(0, index))]);
  }

  /** @param {string} name */
  showView(name) {
    this.stopPlaying();
    this.viewName = name;
    for (const button of this.all("[data-go]")) {
      button.setAttribute("aria-selected", String(button.dataset.go === name));
      button.tabIndex = button.dataset.go === name ? 0 : -1;
    }
    for (const panel of this.all("[data-panel]")) panel.hidden = panel.dataset.panel !== name;
    this.view.onShow?.();
    this.goTo(this.time);
  }
}
