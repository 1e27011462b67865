// The time slider with its buttons and keys: it plays, steps and loops through the view's time.
import { closest, targetMatches } from "../dom.js";
import { LAST_TIME } from "./tab.js";

/** @import { NoiseTab } from "./tab.js" */

const PLAY_MS = 6000; // from one end to the other
const MAX_FRAME_MS = 100; // so that time does not jump after a pause of the browser
const ARROWS = /** @type {Record<string, 1 | -1>} */ ({ ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 });
// Arrow keys change the value of these, or scroll.
const OWN_ARROWS =
  'input:not([type="range"]):not([type="checkbox"]), select, textarea, [data-slot="plane-guidance"], .nv-unet';

export class Timeline {
  isPlaying = false;

  /** @param {NoiseTab} tab */
  constructor(tab) {
    this.tab = tab;
    tab.stopPlaying = () => this.play(false);
    tab.element.addEventListener("keydown", (event) => this.#onKey(event));
    tab.slider.addEventListener("input", () => {
      this.play(false);
      tab.goTo(Number(tab.slider.value));
    });
    tab.slider.addEventListener("keydown", (event) => {
      if (event.key !== " ") return;
      this.play(!this.isPlaying);
      event.preventDefault();
      event.stopPropagation();
    });
  }

  /** @param {boolean} on */
  play(on) {
    const { tab } = this,
      button = tab.button('[data-act="play"]');
    this.isPlaying = on;
    button.setAttribute("aria-pressed", String(on));
    button.setAttribute("aria-label", on ? "Pause" : "Play");
    if (!on) return;
    const direction = tab.view.towardNoise() ? 1 : -1,
      end = direction === 1 ? LAST_TIME : 0;
    if (tab.time === end) tab.goTo(LAST_TIME - end);
    let before = performance.now(),
      t = tab.time;
    const tick = (/** @type {number} */ now) => {
      if (!this.isPlaying) return;
      t += (direction * Math.min(MAX_FRAME_MS, now - before) * LAST_TIME) / PLAY_MS;
      before = now;
      if (t >= LAST_TIME || t <= 0) {
        tab.goTo(end);
        if (!tab.input("loop").checked) return this.play(false);
        t = LAST_TIME - end;
      }
      tab.goTo(t);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (targetMatches(event, OWN_ARROWS) || event.ctrlKey || event.metaKey || event.altKey) return;
    const { tab } = this,
      viewButton = closest(event, "[data-go]"),
      direction = ARROWS[event.key];
    if (viewButton && direction) {
      const buttons = tab.all("[data-go]"),
        count = buttons.length;
      const next = buttons[(buttons.indexOf(viewButton) + direction + count) % count];
      next.focus();
      tab.showView(next.dataset.go);
    } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      this.play(false);
      if (event.shiftKey) tab.goTo(tab.time + direction);
      else tab.step(direction);
    } else if (event.key === "Home") tab.goTo(0);
    else if (event.key === "End") tab.goTo(LAST_TIME);
    else if (event.key === " " && !closest(event, "button, summary, input")) this.play(!this.isPlaying);
    else return;
    event.preventDefault();
  }
}
