// The guided tour: it goes through the views, sets the time and points at what it explains.
import { closest, find, findButton, scrollBehavior } from "../dom.js";
import { mathHtml } from "./arrays.js";

/** @import { NoiseTab } from "./tab.js" */
/** @typedef {{ view: string, t: number, target: string, title: string, text: string }} Stop */

/** @type {Stop[]} target: a canvas, a slot or a chart */
const STOPS = [
  {
    view: "forward",
    t: 0,
    target: "x_t",
    title: "A picture is numbers",
    text: "Every pixel is three numbers from −1 to 1. At t = 0 the picture has hardly changed.",
  },
  {
    view: "forward",
    t: 420,
    target: "formula",
    title: "Weaker, plus noise",
    text: "At every t the picture is multiplied by α, and random numbers multiplied by σ are added. Both factors are shown for this t.",
  },
  {
    view: "forward",
    t: 999,
    target: "x_t",
    title: "Only noise remains",
    text: "At the end the picture is gone. Generation starts here: with random numbers and no picture at all.",
  },
  {
    view: "forward",
    t: 420,
    target: "alpha_bar",
    title: "How fast?",
    text: "The schedule decides. ᾱ is the share of the picture’s variance that remains. Choose another schedule above and compare the curves.",
  },
  {
    view: "reverse",
    t: 999,
    target: "rx_t",
    title: "Now backward",
    text: "This run started from noise. The network gets x_t, the words and the noise level.",
  },
  {
    view: "reverse",
    t: 760,
    target: "rx0",
    title: "What the network predicts",
    text: "Its answer gives x̂0, the picture it expects. Guidance moves it toward the words. Early on it is a blur of all possible pictures.",
  },
  {
    view: "reverse",
    t: 500,
    target: "arithmetic",
    title: "One step in numbers",
    text: "The sampler mixes x_t, x̂0 and earlier predictions into the next, less noisy picture. These are the exact numbers; a step does nothing else.",
  },
  {
    view: "reverse",
    t: 500,
    target: "rdiff",
    title: "Guidance",
    text: "The network predicts with the words and without them. The difference is what the words change in x̂0; guidance adds it several times.",
  },
  {
    view: "reverse",
    t: 300,
    target: "maps",
    title: "Attention to words",
    text: "Attention shows which word mattered at which place. At every pixel the shares sum to one, over the words and the marks at both ends.",
  },
  {
    view: "compare",
    t: 500,
    target: "runs",
    title: "Few calls or many",
    text: "These runs start from the same noise. A good sampler gets close to the converged picture in few network calls. Press Compare to see it.",
  },
  {
    view: "plane",
    t: 999,
    target: "plane",
    title: "The same with points",
    text: "Here a picture is a point with two numbers, so the whole space is visible. Press play: noise flows along the arrows into the shape.",
  },
];

export class Tour {
  #index = -1;

  /** @param {NoiseTab} tab */
  constructor(tab) {
    this.tab = tab;
    this.card = tab.slot("tour");
    tab.element.addEventListener("click", (event) => {
      const action = closest(event, "[data-tour]")?.dataset.tour;
      if (action === "begin") this.#goTo(0);
      else if (action === "next") this.#goTo(this.#index + 1);
      else if (action === "back") this.#goTo(this.#index - 1);
      else if (action === "end") this.#end();
    });
    this.card.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#end();
      else if (event.key === "ArrowRight") this.#goTo(this.#index + 1);
      else if (event.key === "ArrowLeft" && this.#index > 0) this.#goTo(this.#index - 1);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  /** @param {number} index */
  #goTo(index) {
    if (index < 0 || index >= STOPS.length) return this.#end();
    const { tab, card } = this,
      stop = STOPS[index];
    this.#clearPointer();
    this.#index = index;
    if (tab.viewName !== stop.view) tab.showView(stop.view);
    else tab.stopPlaying();
    tab.goTo(stop.t);
    find("h3", card).textContent = stop.title;
    find("p", card).innerHTML = mathHtml(stop.text);
    find("span", card).textContent = `${index + 1} of ${STOPS.length}`;
    findButton('[data-tour="back"]', card).disabled = index === 0;
    const next = findButton('[data-tour="next"]', card);
    next.textContent = index === STOPS.length - 1 ? "Done" : "Next";
    card.hidden = false;
    const part = tab.canvas(stop.target) ?? tab.slot(stop.target) ?? tab.chart(stop.target);
    const target = part.closest("figure") ?? part;
    target.setAttribute("data-pointed", "");
    target.scrollIntoView({ block: "center", behavior: scrollBehavior() });
    next.focus({ preventScroll: true });
  }

  #clearPointer() {
    for (const target of this.tab.all("[data-pointed]")) target.removeAttribute("data-pointed");
  }

  #end() {
    this.#clearPointer();
    this.#index = -1;
    this.card.hidden = true;
    this.tab.button('[data-tour="begin"]').focus({ preventScroll: true });
  }
}
