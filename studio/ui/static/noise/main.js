// Entry of the noise tab: builds its views, connects its controls, and passes messages of the studio to them.
import { closest, find } from "../dom.js";
import { CompareView, PRESETS } from "./compare.js";
import { connectExport } from "./export.js";
import { ForwardView } from "./forward.js";
import { LatentsView } from "./latents.js";
import { openLink } from "./links.js";
import { PlaneView } from "./plane.js";
import { ReverseView } from "./reverse.js";
import { NoiseTab } from "./tab.js";
import { Timeline } from "./timeline.js";
import { Tour } from "./tour.js";

/** @import { Events, FirstData, Message, Server } from "./types.d.ts" */

// ---- messages: some may arrive before the tab was opened for the first time, and wait until then ----

/** @type {string[]} */
let waitingMessages = [];
/** @type {((text: string) => void) | null} */
let receiveMessage = null;

/**
 * Pass every value of a hidden component to the tab.
 * @param {{ value: string }} props
 * @param {(property: string, callback: () => void) => void} watch
 */
export function watchInbox(props, watch) {
  const deliver = () => {
    if (!props.value) return;
    if (receiveMessage) receiveMessage(props.value);
    else waitingMessages.push(props.value);
  };
  watch("value", deliver);
  deliver();
}

// ---- the tab ----

/**
 * @param {HTMLElement} element
 * @param {Server} server
 * @param {Events} events
 */
export function mountNoise(element, server, events) {
  const tab = new NoiseTab(element, server, events);
  const forward = new ForwardView(tab),
    reverse = new ReverseView(tab),
    compare = new CompareView(tab),
    latents = new LatentsView(tab),
    plane = new PlaneView(tab);
  tab.views = { forward, reverse, compare, latents, plane };
  tab.setModel(JSON.parse(find("[data-model]", element).dataset.model));
  const timeline = new Timeline(tab);
  new Tour(tab);
  connectExport(tab);

  // ---- clicks, by data attribute ----

  /** @type {Record<string, (button: Element) => void>} */
  const actions = {
    play: () => timeline.play(!timeline.isPlaying),
    back: () => tab.step(-1),
    ahead: () => tab.step(1),
    add: () => compare.addEntry(),
    drop: (button) => compare.removeEntry(button.closest("fieldset")),
    train: () => plane.train(),
    clear: () => plane.clearDrawing(),
    encode: () => latents.encode(),
    decode: (button) => reverse.decode(/** @type {HTMLButtonElement} */ (button)),
    inspect: () => reverse.inspectStep(),
  };
  element.addEventListener("click", (event) => {
    const viewButton = closest(event, "[data-go]"),
      button = closest(event, "[data-act]"),
      showButton = closest(event, "[data-show-as]");
    if (viewButton) tab.showView(viewButton.dataset.go);
    else if (button) actions[button.dataset.act]?.(button);
    else if (showButton) reverse.showAs(showButton.dataset.showAs);
  });

  // ---- changed fields, by slot ----

  const updateForward = () => forward.update();
  const changeShape = () => {
    plane.changeShape();
    if (tab.select("shape").value !== "drawing") plane.startShape();
  };
  /** @type {Record<string, (field: HTMLInputElement) => void>} */
  const changes = {
    file: (field) => forward.openFile(field.files[0]),
    space: updateForward,
    "latents-file": (field) => latents.openFile(field.files[0]),
    schedule: () => {
      forward.drawCharts();
      tab.draw();
    },
    size: updateForward,
    "noise-seed": updateForward,
    standardize: updateForward,
    shape: changeShape,
    text: changeShape,
    target: () => plane.changeTarget(),
    "plane-guidance": () => plane.changeTarget(),
    direction: (field) => plane.setDirection(field.value),
  };
  element.addEventListener("change", (event) => {
    const field = /** @type {HTMLInputElement} */ (event.target);
    if (field.name === "compare_by") compare.fill(PRESETS[field.value], field.value);
    else if (field.closest("[data-entry]")) compare.markAsOwnChoice();
    else if (field.dataset.show) tab.draw();
    else changes[field.dataset.slot]?.(field);
  });
  tab.input("plane-guidance").addEventListener("input", () => plane.showTarget());
  for (const part of tab.all("form")) {
    const form = /** @type {HTMLFormElement} */ (part);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      tab.button(`[data-form=${form.dataset.form}] [type=submit]`).disabled = true;
      tab.showMessage("Starting.");
      (form.dataset.form === "compare" ? compare : reverse).run(new FormData(form));
    });
  }

  // ---- messages of the studio ----

  /** @param {Message} message */
  function handleMessage(message) {
    if (message.kind === "model") {
      tab.setModel(message.model);
      return latents.showModel();
    }
    if (message.kind === "forward") {
      tab.showMessage("");
      tab.showView("forward");
      return forward.setSource(message.source, message.picture);
    }
    const isReverse = message.kind === "reverse";
    const submit = tab.button(`[data-form="${isReverse ? "run" : "compare"}"] [type=submit]`);
    if (message.problem) {
      submit.disabled = false;
      if (!isReverse || !reverse.repeatFromLink()) tab.showProblem(message.problem);
    } else if (!message.view) {
      const { progress, of } = message;
      tab.showMessage(
        isReverse ? `Step ${progress} of ${of}.` : `${progress} of ${of} runs finished (including the reference).`,
      );
    } else {
      submit.disabled = false;
      tab.showMessage("");
      tab.showView(message.kind);
      if (isReverse) reverse.show(message.view).then(() => reverse.goToLinkTarget());
      else compare.show(message.view);
    }
  }

  // ---- the start ----

  /** Draw the shipped example, so that nothing is empty at first. */
  async function showFirstView() {
    /** @type {FirstData | null} */
    const first = await tab.request("first_view");
    if (!first) return;
    forward.addExamples(first.pictures);
    latents.addExamples(first.pictures);
    forward.show(first.forward);
    await plane.showPoints(first.plane, null);
    plane.showFlow(first.flow);
    plane.showTarget();
    element.dataset.ready = "true";
    await openLink(tab);
  }
  compare.fill(PRESETS.samplers, "samplers");
  tab.goTo(tab.time);
  new MutationObserver(() => tab.draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] }); // light or dark
  new ResizeObserver(() => tab.draw()).observe(element);
  addEventListener("hashchange", () => openLink(tab));
  showFirstView();
  receiveMessage = (text) => handleMessage(JSON.parse(text));
  waitingMessages.forEach(receiveMessage);
  waitingMessages = [];
}
