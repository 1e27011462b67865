// Takes a view of the noise tab along: as an animation, a strip or numbers, and as a link. Runs after the rail.

const TILE = 192; // px of each picture in what is saved
const MOST_FRAMES = 120;
const SECONDS = 6; // of an animation
const tiles = {
  forward: () => ["x_t", "signal", "noise"].map(canvasOf),
  reverse: () => ["rx_t", "reps", "rx0", "rx_next"].map(canvasOf),
  compare: () => $$('[data-slot="runs"] canvas'),
  plane: () => [canvasOf("plane")],
};

// The times that are saved, from where the rail plays from to where it ends.
function moments() {
  const stops = views[state.panel].stops?.() ?? Array.from({ length: 41 }, (_, i) => Math.round((999 * i) / 40));
  const thinned = stops.filter((_, i) => i % Math.ceil(stops.length / MOST_FRAMES) === 0 || i === stops.length - 1);
  return thinned.sort((a, b) => (towardNoise() ? a - b : b - a));
}

// Every moment of this view as one canvas, its pictures side by side or one below the other.
function* frames(down) {
  const before = state.t, shown = tiles[state.panel]().filter((canvas) => canvas?.width > 1);
  if (!shown.length) return;
  const side = state.panel === "plane" ? 2 * TILE : TILE, gap = 8, long = shown.length * (side + gap) - gap;
  try {
    for (const t of moments()) {
      state.t = t;
      views[state.panel].draw();
      const canvas = Object.assign(document.createElement("canvas"), { width: down ? side : long, height: down ? long : side });
      const context = canvas.getContext("2d");
      context.fillStyle = css("--body-background-fill") || "#fff";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.imageSmoothingEnabled = state.panel === "plane";
      for (const [i, tile] of shown.entries()) {
        context.drawImage(tile, down ? 0 : i * (side + gap), down ? i * (side + gap) : 0, side, side);
      }
      yield canvas;
    }
  } finally {
    goTo(before);
  }
}

function save(data, name) {
  const url = typeof data === "string" ? data : URL.createObjectURL(data);
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  if (url !== data) setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// The numbers behind this view: a flat object a row.
function numbers() {
  if (state.panel === "forward" && forward.view) {
    const table = forward.tables[slot("schedule").value];
    return Array.from(table.log_snr, (l, t) => {
      const alphaBar = 1 / (1 + Math.exp(-l));
      return { t, alpha: Math.sqrt(alphaBar), sigma: Math.sqrt(1 - alphaBar), alpha_bar: alphaBar, beta: table.beta[t], log_snr: l };
    });
  }
  if (state.panel === "reverse" && reverse.view) {
    return reverse.view.stages.flatMap((stage) => stage.steps.map(({ b, ...step }) => ({
      size: `${stage.width}x${stage.height}`, ...step, ...Object.fromEntries(b.map((weight, i) => [`b${i}`, weight])),
    })));
  }
  if (state.panel === "compare" && compare.view) {
    return compare.view.runs.flatMap((run) => run.t.map((t, i) => ({ run: run.label, t, network_calls: run.called[i], distance: run.distance[i] })));
  }
  if (state.panel === "plane" && plane.flow) return plane.flow.losses.map((loss, i) => ({ part: i + 1, loss }));
  return [];
}

function csv(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (value) => (/[",\n]/.test(value ?? "") ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function strip() {
  const all = [...frames(true)];
  if (!all.length) return null;
  // as wide as browsers and viewers take it
  const width = Math.min(all[0].width, Math.floor(16000 / all.length)), height = Math.round((all[0].height * width) / all[0].width);
  const canvas = Object.assign(document.createElement("canvas"), { width: width * all.length, height });
  for (const [i, one] of all.entries()) canvas.getContext("2d").drawImage(one, i * width, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve));
}

const VIDEO = "video/mp4";
const films = () => typeof MediaRecorder === "function" && MediaRecorder.isTypeSupported(VIDEO);

async function film(all) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * Math.ceil(all[0].width / 2), height: all[0].height });
  const stream = canvas.captureStream(), recorder = new MediaRecorder(stream, { mimeType: VIDEO, videoBitsPerSecond: 4e6 });
  const parts = [], ended = new Promise((resolve) => { recorder.onstop = resolve; });
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.start();
  for (const one of [...all, all.at(-1)]) { // the recorder keeps the time, so this takes as long as it plays
    canvas.getContext("2d").drawImage(one, 0, 0);
    await new Promise((resolve) => setTimeout(resolve, (1000 * SECONDS) / all.length));
  }
  recorder.stop();
  await ended;
  return new Blob(parts, { type: VIDEO });
}

async function takeAlong(kind) {
  const name = `noise-${state.panel}.${kind === "strip" ? "png" : kind}`;
  play(false);
  if (kind === "csv" || kind === "json") {
    const rows = numbers();
    if (!rows.length) return say("There is nothing in this view yet to take along.", true);
    const text = kind === "csv" ? csv(rows) : JSON.stringify({ view: state.panel, link: link(), rows }, null, 1);
    return save(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }), name);
  }
  const made = kind === "strip" ? await strip() : [...frames(false)];
  if (!made || made.length === 0) return say("There is nothing in this view yet to take along.", true);
  if (kind === "strip") return save(made, name);
  say(`Making ${name}.`);
  if (kind === "mp4") {
    save(await film(made), name);
    return say("");
  }
  const answer = await ask("animate", { frames: made.map((one) => one.toDataURL("image/png")), kind, seconds: SECONDS });
  if (answer) { save(answer.file, name); say(""); }
}

// ---- the link ----

// What of each view a link keeps: its fields, by their names in it.
const RUN = (name) => `[data-form=run] [name=${name}]`;
const KEPT = {
  forward: { schedule: "[data-slot=schedule]", size: "[data-slot=size]", seed: "[data-slot=noise-seed]", standardize: "[data-slot=standardize]" },
  reverse: Object.fromEntries(["prompt", "negative_prompt", "steps", "guidance", "sampler", "seed", "one_pass", "style_emphasis"].map((name) => [name, RUN(name)])),
  compare: { prompt: "[data-form=compare] [name=prompt]" },
  plane: {
    shape: "[data-slot=shape]", text: "[data-slot=text]", aim: "[data-slot=aim]", guide: "[data-slot=guide]",
    ...Object.fromEntries(["data", "density", "arrows", "paths"].map((name) => [name, `[data-show=${name}]`])),
  },
};
const MOST_DRAWN = 1500; // points of a drawing that a link takes

function link() {
  const told = new URLSearchParams({ view: state.panel, t: state.t });
  for (const [name, selector] of Object.entries(state.panel === "reverse" ? {} : KEPT[state.panel])) {
    const field = $(selector);
    told.set(name, field.type === "checkbox" ? Number(field.checked) : field.value);
  }
  if (state.panel === "forward" && typeof forward.source === "number") told.set("example", forward.source);
  else if (state.panel === "forward" && forward.kept) told.set("kept", forward.kept);
  if (state.panel === "reverse" && reverse.view?.picture) {
    told.set("stage", reverse.stage);
    told.set("run", reverse.view.picture);
    for (const [name, value] of Object.entries(reverse.view.asked ?? {})) told.set(name, typeof value === "boolean" ? Number(value) : value); // the form may say another
  }
  if (state.panel === "compare") told.set("runs", compare.lanes().map((run) => Object.values(run).join(",")).join(";"));
  if (state.panel === "plane") {
    told.set("way", plane.way);
    if (isDrawn()) told.set("strokes", plane.strokes.map((stroke) => [stroke.label, ...stroke.points.flat().map((value) => value.toFixed(2))].join(",")).join(";"));
  }
  return `${location.origin}${location.pathname}${location.search}#noise?${told}`;
}

const isDrawn = () => {
  const points = plane.strokes.flatMap((stroke) => stroke.points).length;
  return slot("shape").value === "drawing" && points > 0 && points <= MOST_DRAWN;
};

// What a link does not bring back.
function left() {
  if (state.panel === "forward" && forward.kept) return " The picture comes for whoever made it.";
  if (state.panel === "forward" && typeof forward.source !== "number") return " Your own picture is not in it.";
  if (state.panel === "reverse" && reverse.view?.picture && !reverse.view.asked) return " It opens for whoever made this run.";
  return state.panel === "plane" && slot("shape").value === "drawing" && !isDrawn() ? " Your drawing is not in it." : "";
}

async function restore() {
  const [place, asked] = location.hash.split("?");
  if (place !== "#noise" || !asked) return;
  const told = new URLSearchParams(asked), panel = told.get("view"), t = told.has("t") ? Number(told.get("t")) : NaN;
  if (!(panel in views)) return say("This link names no view that there is.", true);
  for (const [name, selector] of Object.entries(KEPT[panel])) {
    const field = $(selector), value = told.get(name) ?? (panel === "reverse" && field.type === "checkbox" ? "0" : null); // a link of before
    if (value === null || (field.options && ![...field.options].some((option) => option.value === value))) continue;
    if (field.type === "checkbox") field.checked = value === "1";
    else field.value = value;
  }
  show(panel);
  if (panel === "forward") {
    const example = $$('[data-slot="examples"] button')[Number(told.get("example"))];
    if (told.has("kept")) trigger("fetch", { asked: told.get("kept"), into: "forward" });
    else if (told.has("example") && example) example.click();
    else await forward.fetch();
    forward.charts();
  }
  if (panel === "plane") {
    plane.way = told.get("way") === "forward" ? "forward" : "reverse";
    for (const field of $$("[data-slot=way]")) field.checked = field.value === plane.way;
    plane.strokes = (told.get("strokes") ?? "").split(";").filter(Boolean).map((text) => {
      const [label, ...values] = text.split(",").map(Number);
      return { label, points: Array.from({ length: values.length >> 1 }, (_, i) => values.slice(2 * i, 2 * i + 2)) };
    });
    if (told.get("shape") !== "two moons" || told.get("aim")) {
      plane.changed();
      if (told.get("shape") !== "drawing" || plane.strokes.length) plane.aimed();
    }
  }
  // A run that is not kept for whoever opens the link is made again: the same words and noise give the same picture.
  if (panel === "reverse" && told.get("run")) {
    state.opened = { t, stage: Number(told.get("stage")), again: told.has("prompt") };
    trigger("fetch", { asked: told.get("run") });
  }
  if (panel === "compare" && told.get("runs")) {
    const runs = told.get("runs").split(";").slice(0, COMPARED).map((text) => {
      const [sampler, ...numbers] = text.split(",");
      return { sampler, steps: Number(numbers[0]), guidance: Number(numbers[1]), seed: Number(numbers[2]) };
    });
    if (runs.length < 2) return say("This link names fewer than two runs.", true);
    compare.fill(runs);
    $("[data-form=compare]").requestSubmit();
  }
  if (Number.isFinite(t)) goTo(t);
}
window.addEventListener("hashchange", restore);

// A run that a link names is not there: made again, if the link says how.
function missed() {
  if (!state.opened?.again) return false;
  state.opened.again = false;
  $("[data-form=run]").requestSubmit();
  return true;
}

// Once a run that a link names is there, its place on the rail is, too.
async function arrived() {
  if (!state.opened) return;
  const { t, stage } = state.opened;
  state.opened = null;
  if (stage && reverse.view.stages[stage]) await reverse.choose(stage);
  if (Number.isFinite(t)) goTo(t);
}

element.addEventListener("click", async (event) => {
  const kind = event.target.closest("[data-take]")?.dataset.take;
  if (!kind) return;
  if (kind !== "link") return takeAlong(kind);
  try {
    await navigator.clipboard.writeText(link());
    say(`Link copied.${left()}`);
  } catch { // no clipboard without https
    history.replaceState(null, "", link());
    say(`The link stands in the address bar now.${left()}`);
  }
});
if (!films()) $('[data-take="mp4"]').hidden = true;
