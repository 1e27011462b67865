// The rail, which drives every view; keys, clicks and letters from the studio; and what is there at first sight.

const views = { forward, reverse, compare, plane };
const rail = slot("rail");
let waiting = 0;

function draw() {
  if (!waiting) waiting = requestAnimationFrame(() => {
    waiting = 0;
    const begun = performance.now();
    views[state.panel].draw();
    state.cost = performance.now() - begun; // ms of this tick, which the tests look at
    element.dataset.cost = state.cost.toFixed(2);
  });
}

function goTo(t) {
  state.t = Math.min(999, Math.max(0, Math.round(t)));
  rail.value = state.t;
  const stops = views[state.panel].stops?.();
  const step = stops && state.panel === "reverse" ? `, step ${nearest(stops, state.t) + 1} of ${stops.length}` : "";
  slot("time").textContent = `t = ${state.t}`;
  rail.setAttribute("aria-valuetext", `t = ${state.t}${step}`);
  draw();
}

function step(direction) {
  const stops = views[state.panel].stops?.();
  if (!stops) return goTo(state.t + 10 * direction);
  const now = nearest(stops, state.t), next = Math.min(stops.length - 1, Math.max(0, now - direction));
  goTo(stops[next]);
}

const towardNoise = () => state.panel === "forward" || (state.panel === "plane" && plane.way === "forward");

function play(on) {
  state.playing = on;
  const button = $('[data-act="play"]');
  button.setAttribute("aria-pressed", String(on));
  button.setAttribute("aria-label", on ? "Pause" : "Play");
  if (!on) return;
  const up = towardNoise(), end = up ? 999 : 0;
  if (state.t === end) goTo(999 - end);
  let last = performance.now(), place = state.t;
  const tick = (now) => {
    if (!state.playing) return;
    place += ((up ? 1 : -1) * Math.min(100, now - last) * 999) / 6000; // no leap after a pause of the browser
    last = now;
    if (place >= 999 || place <= 0) {
      goTo(end);
      if (!slot("loop").checked) return play(false);
      place = 999 - end;
    }
    goTo(place);
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function show(panel) {
  play(false);
  state.panel = panel;
  for (const tab of $$("[data-go]")) {
    tab.setAttribute("aria-selected", String(tab.dataset.go === panel));
    tab.tabIndex = tab.dataset.go === panel ? 0 : -1;
  }
  for (const part of $$("[data-panel]")) part.hidden = part.dataset.panel !== panel;
  if (panel === "reverse" && !reverse.taking) ask("example_run").then((view) => view && !reverse.taking && reverse.take(view));
  goTo(state.t);
}

element.addEventListener("click", (event) => {
  const act = event.target.closest("[data-act]")?.dataset.act, go = event.target.closest("[data-go]")?.dataset.go;
  if (go) show(go);
  else if (act === "play") play(!state.playing);
  else if (act === "back") step(-1);
  else if (act === "ahead") step(1);
  else if (act === "add") compare.add();
  else if (act === "drop") compare.drop(event.target.closest("fieldset"));
  else if (act === "train") plane.train();
  else if (act === "clear") { plane.strokes = []; plane.changed(); }
});
element.addEventListener("keydown", (event) => {
  const field = event.target.closest('input:not([type="range"]):not([type="checkbox"]), select, textarea');
  const guide = event.target === slot("guide");
  if (field || guide || event.target.matches(".nv-unet") || event.ctrlKey || event.metaKey || event.altKey) return;
  const tab = event.target.closest("[data-go]");
  const arrow = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
  if (tab && arrow) {
    const tabs = $$("[data-go]"), next = tabs[(tabs.indexOf(tab) + arrow + tabs.length) % tabs.length];
    next.focus();
    show(next.dataset.go);
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    play(false);
    if (event.shiftKey) goTo(state.t + arrow);
    else step(arrow);
  } else if (event.key === "Home" || event.key === "End") goTo(event.key === "Home" ? 0 : 999);
  else if (event.key === " " && !event.target.closest("button, summary, input")) play(!state.playing);
  else return;
  event.preventDefault();
});
rail.addEventListener("input", () => { play(false); goTo(Number(rail.value)); });
rail.addEventListener("keydown", (event) => { if (event.key === " ") { play(!state.playing); event.preventDefault(); event.stopPropagation(); } });
element.addEventListener("change", (event) => {
  const name = event.target.dataset.slot;
  if (event.target.name === "what") compare.fill(PRESETS[event.target.value], event.target.value);
  else if (event.target.closest("[data-lane]")) $('[data-form=compare] [name="what"]').value = "own";
  if (name === "file") forward.file(event.target.files[0]);
  else if (name === "schedule") { forward.charts(); draw(); }
  else if (["size", "noise-seed", "standardize"].includes(name)) forward.fetch();
  else if (name === "shape" || name === "text") {
    plane.changed();
    if (slot("shape").value !== "drawing") plane.begin();
  }
  else if (name === "aim") plane.aimed();
  else if (name === "guide") plane.aimed();
  else if (name === "way") { plane.way = event.target.value; draw(); }
  else if (event.target.dataset.show) draw();
});
slot("guide").addEventListener("input", () => { slot("guide-is").textContent = slot("guide").value; });
for (const form of $$("form")) form.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = new FormData(form);
  $("[type=submit]", form).disabled = true;
  say("Starting.");
  if (form.dataset.form === "compare") trigger("compare", { asked: compare.wanted(given) });
  else trigger("run", { asked: {
    prompt: given.get("prompt"), negative_prompt: given.get("negative_prompt"), steps: Number(given.get("steps")),
    guidance: Number(given.get("guidance")), sampler: given.get("sampler"), seed: Number(given.get("seed")), one_pass: given.has("one_pass"),
    style_emphasis: given.has("style_emphasis"),
  } });
});

const pad = canvasOf("plane");
const spot = (event) => {
  const box = pad.getBoundingClientRect(), reach = plane.still?.extent ?? 2.6;
  const within = (value) => Math.min(reach, Math.max(-reach, value));
  return [within(((event.clientX - box.left) / box.width) * 2 * reach - reach), within(reach - ((event.clientY - box.top) / box.height) * 2 * reach)];
};
pad.addEventListener("pointerdown", (event) => {
  if (slot("shape").value !== "drawing") return;
  if (plane.drawn) plane.changed();
  pad.setPointerCapture(event.pointerId);
  plane.stroke = { label: Number(slot("pen-class").value), points: [spot(event)] };
  plane.strokes.push(plane.stroke);
  draw();
});
pad.addEventListener("pointermove", (event) => { if (plane.stroke) { plane.stroke.points.push(spot(event)); draw(); } });
for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { plane.stroke = null; });

// A letter may have come before this tab was ever opened, and with it this script.
function receive() {
  if (!window.noiseLetter) return;
  const letter = JSON.parse(window.noiseLetter);
  window.noiseLetter = "";
  if (letter.kind === "forward") {
    for (const button of $$('[data-slot="examples"] button')) button.setAttribute("aria-pressed", "false");
    forward.source = letter.source;
    forward.kept = letter.picture;
    say("");
    show("forward");
    return forward.fetch();
  }
  const form = $(`[data-form="${letter.kind === "reverse" ? "run" : "compare"}"] [type=submit]`);
  if (letter.problem) {
    form.disabled = false;
    return (letter.kind === "reverse" && missed()) || say(letter.problem, true);
  }
  if (!letter.view) return say(letter.kind === "compare" ? `${letter.progress} of ${letter.of} runs are done, those to measure by among them.` : `Step ${letter.progress} of ${letter.of}.`);
  form.disabled = false;
  say("");
  show(letter.kind);
  views[letter.kind].take(letter.view).then(() => letter.kind === "reverse" && arrived());
}
window.addEventListener("noise-letter", receive);
new MutationObserver(() => draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
new ResizeObserver(() => draw()).observe(element);

// ---- first sight ----

ask("first").then(async (first) => {
  if (!first) return;
  const shelf = slot("examples");
  for (const [index, uri] of first.pictures.entries()) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.setAttribute("aria-pressed", String(index === 0));
    button.setAttribute("aria-label", `Example ${index + 1}`);
    button.append(Object.assign(document.createElement("img"), { src: uri, alt: "" }));
    button.addEventListener("click", () => {
      for (const other of shelf.children) other.setAttribute("aria-pressed", String(other === button));
      forward.source = index;
      forward.kept = null;
      forward.fetch();
    });
    shelf.append(button);
  }
  forward.take(first.forward);
  await plane.takeStill(first.plane, null);
  plane.takeFlow(first.flow);
  plane.furnish();
  element.dataset.ready = "true";
  restore();
});
compare.fill(PRESETS.samplers, "samplers");
goTo(state.t);
receive();
