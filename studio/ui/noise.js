// The noise tab in the browser: one rail, and everything that it drives, drawn from frames that are already here.
// Gradio runs this once with `element`, `trigger(event, data)` and `server.<function>(asked)`.
const $ = (selector, root = element) => root.querySelector(selector);
const $$ = (selector, root = element) => [...root.querySelectorAll(selector)];
const slot = (name) => $(`[data-slot="${name}"]`);
const INKS = ["--nv-1", "--nv-2", "--nv-3", "--nv-4"];
const state = { panel: "forward", t: 420, playing: false, shown: {} };

// ---- what arrives ----

function unpack(pack) {
  const bytes = Uint8Array.from(atob(pack.data), (c) => c.charCodeAt(0));
  if (pack.scale === undefined) return new Float32Array(bytes.buffer);
  return Float32Array.from(new Int16Array(bytes.buffer), (value) => value * pack.scale);
}

function picture(uri) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = uri;
  });
}

function pixels(image) {
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

function say(text, bad = false) {
  slot("message").textContent = text || "";
  slot("message").toggleAttribute("data-bad", bad);
}

const UNASKED = ["first", "example_run", "look"]; // nobody asked for these: a sentence about something else stays
async function ask(name, asked = {}) {
  try {
    const answer = await server[name](asked);
    if (answer.problem) say(answer.problem, true);
    else if (!UNASKED.includes(name) && slot("message").hasAttribute("data-bad")) say("");
    return answer.problem ? null : answer;
  } catch {
    say("The studio did not answer. Try again in a moment.", true);
    return null;
  }
}

// ---- drawing ----

const css = (name) => getComputedStyle(element).getPropertyValue(name).trim();
const canvasOf = (name) => $(`canvas[data-draw="${name}"]`);

function frame(canvas, image, index, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").drawImage(image, index * width, 0, width, height, 0, 0, width, height);
}

function svg(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// lines: [{x, y, ink, chosen}]; returns { mark(x) }
function chart(name, lines, { xs, ys, label, bars, log } = {}) {
  const place = $(`[data-chart="${name}"]`);
  const [W, H, left, bottom] = [360, 170, 40, 20];
  const scaleY = log ? (y) => Math.log10(Math.max(y, ys[0])) : (y) => y;
  const [low, high] = ys.map(scaleY);
  const X = (x) => left + ((x - xs[0]) / (xs[1] - xs[0])) * (W - left - 4);
  const Y = (y) => 6 + (1 - (scaleY(y) - low) / (high - low || 1)) * (H - bottom - 6);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": label || name });
  root.append(svg("path", { class: "axis", d: `M${left} 6V${H - bottom}H${W - 4}` }));
  const digits = (y) => (Math.abs(y) >= 100 ? y.toFixed(0) : String(Number(y.toPrecision(2))));
  for (const y of ys) root.append(svg("text", { x: left - 6, y: Y(y) + (y === ys[0] ? 0 : 9), "text-anchor": "end" }, digits(y)));
  for (const [i, x] of xs.entries()) root.append(svg("text", { x: X(x), y: H - 5, "text-anchor": i ? "end" : "start" }, digits(x)));
  if (bars) root.append(svg("path", { class: "bars" }));
  for (const line of lines) {
    const points = [...line.y].map((y, i) => `${X(line.x ? line.x[i] : i).toFixed(1)} ${Y(Math.min(Math.max(y, ys[0]), ys[1])).toFixed(1)}`);
    const path = svg("path", { d: `M${points.join("L")}`, class: line.chosen ? "chosen" : "" });
    path.style.stroke = `var(${line.ink})`;
    root.append(path);
  }
  const mark = svg("line", { class: "mark", y1: 6, y2: H - bottom, x1: 0, x2: 0, visibility: "hidden" });
  root.append(mark);
  place.replaceChildren(root);
  return {
    mark: (x) => {
      mark.setAttribute("visibility", "visible");
      mark.setAttribute("transform", `translate(${X(x).toFixed(1)} 0)`);
    },
    bars: (values, from, step) => {
      const parts = values.map((y, i) => `M${X(from + i * step).toFixed(1)} ${Y(0)}V${Y(Math.min(y, ys[1])).toFixed(1)}H${X(from + (i + 1) * step).toFixed(1)}V${Y(0)}Z`);
      $(".bars", root).setAttribute("d", parts.join(""));
    },
  };
}

const facts = (pairs) => pairs.map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`).join("");
// x_t, x̂0 and their like as they are set in print; `text` comes from the studio and has no markup
const printed = (text) => text.replace(/x_(t|next)/g, "x<sub>$1</sub>").replace(/x̂0/g, "x̂<sub>0</sub>").replace(/\bx0/g, "x<sub>0</sub>");
const fixed = (value, digits = 4) => (Object.is(Number(value.toFixed(digits)), -0) ? 0 : value).toFixed(digits).replace("-", "−");

// ---- forward ----

const forward = {
  chosen: 0,
  source: 0,
  take(view) {
    this.view = view;
    this.x0 = unpack(view.x0);
    this.eps = unpack(view.eps);
    this.image = new ImageData(view.size, view.size);
    this.tables = Object.fromEntries(
      Object.entries(view.schedules).map(([name, s]) => [name, { log_snr: unpack(s.log_snr), beta: unpack(s.beta) }]),
    );
    const select = slot("schedule");
    if (!select.options.length) for (const [name, s] of Object.entries(view.schedules)) select.add(new Option(s.label, name));
    const rows = [["file, 0 to 1", "pixels"], ["scaled to −1 … 1", "scaled"], ["standardized", "standardized"]];
    slot("preparation").innerHTML =
      `<table><thead><tr><th></th><th>mean</th><th>variance</th></tr></thead>${rows
        .map(([label, key]) => `<tr><td>${label}</td><td>${fixed(view.moments[key].mean, 3)}</td><td>${fixed(view.moments[key].variance, 3)}</td></tr>`)
        .join("")}</table>`;
    this.charts();
    draw();
  },
  charts() {
    const chosen = slot("schedule").value;
    const names = Object.keys(this.tables).filter((name) => name !== "model" || chosen === "model");
    const lines = (get) =>
      names.map((name, i) => {
        const y = get(this.tables[name]).filter((_, k) => k % 4 === 0);
        return { x: y.map((_, k) => 4 * k), y, ink: INKS[i % 4], chosen: name === chosen };
      }).sort((a, b) => a.chosen - b.chosen);
    const xs = [0, this.view.last];
    const bar = (table) => Array.from(table.log_snr, (l) => 1 / (1 + Math.exp(-l)));
    this.plots = [
      chart("alpha_bar", lines(bar), { xs, ys: [0, 1], label: "alpha-bar over t" }),
      chart("log_snr", lines((t) => Array.from(t.log_snr)), { xs, ys: [-12, 12], label: "log SNR over t" }),
      chart("beta", lines((t) => Array.from(t.beta)), { xs, ys: [0.0001, 1], log: true, label: "beta over t, logarithmic" }),
    ];
    slot("key").innerHTML = names
      .map((name, i) => `<span><i style="--c:var(${INKS[i % 4]})"></i>${this.view.schedules[name].label} · ${this.view.schedules[name].source}</span>`)
      .join("");
    const normal = Array.from({ length: 81 }, (_, i) => -4 + i / 10);
    this.histogram = chart(
      "histogram",
      [{ x: normal, y: normal.map((x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI)), ink: "--body-text-color" }],
      { xs: [-4, 4], ys: [0, 1], bars: true, label: "histogram of pixel values" },
    );
  },
  paint(name, scale0, scale1) {
    const { x0, eps, image, view } = this;
    const canvas = canvasOf(name), area = view.size * view.size, data = image.data;
    if (canvas.width !== view.size) canvas.width = canvas.height = view.size;
    for (let p = 0; p < area; p++) {
      for (let c = 0; c < 3; c++) data[4 * p + c] = (scale0 * x0[c * area + p] + scale1 * eps[c * area + p] + 1) * 127.5;
      data[4 * p + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  },
  draw() {
    if (!this.view) return;
    const name = slot("schedule").value, table = this.tables[name], t = Math.min(state.t, this.view.last);
    const l = table.log_snr[t], alpha = Math.sqrt(1 / (1 + Math.exp(-l))), sigma = Math.sqrt(1 / (1 + Math.exp(l)));
    this.paint("x_t", alpha, sigma);
    this.paint("signal", alpha, 0);
    this.paint("noise", 0, sigma);
    const bins = new Array(61).fill(0), n = this.x0.length;
    let sum = 0, square = 0, power = 0, noise = 0;
    for (let i = 0; i < n; i++) {
      const a = alpha * this.x0[i], e = sigma * this.eps[i], v = a + e;
      sum += v; square += v * v; power += a * a; noise += e * e;
      const bin = Math.floor(((v + 4) * 61) / 8);
      if (bin >= 0 && bin < 61) bins[bin]++;
    }
    this.histogram.bars(bins.map((count) => (count * 61) / (8 * n)), -4, 8 / 61);
    const mean = sum / n, clean = this.view.moments[this.view.standardized ? "standardized" : "scaled"];
    slot("formula").innerHTML = `x<sub>${t}</sub> = <b>${fixed(alpha)}</b> · x<sub>0</sub> + <b>${fixed(sigma)}</b> · ε`;
    slot("facts").innerHTML = facts([
      ["ᾱ = α²", fixed(alpha * alpha)],
      ["β", table.beta[t].toPrecision(3)],
      ["SNR of the schedule", `${fixed((10 / Math.LN10) * l, 1)} dB`],
      ["SNR of this picture", power > 0 ? `${fixed(10 * Math.log10(power / noise), 1)} dB` : "no signal"],
      ["mean (expected)", `${fixed(mean, 3)} (${fixed(alpha * clean.mean, 3)})`],
      ["variance (expected)", `${fixed(square / n - mean * mean, 3)} (${fixed(alpha * alpha * clean.variance + sigma * sigma, 3)})`],
    ]);
    for (const plot of this.plots) plot.mark(t);
  },
  async fetch() {
    const asked = { picture: this.source, size: Number(slot("size").value), seed: Number(slot("noise-seed").value), standardize: slot("standardize").checked };
    const view = await ask("forward", asked);
    if (view) this.take(view);
  },
  async file(file) {
    if (!file) return;
    try {
      const bitmap = await createImageBitmap(file);
      const shrink = Math.min(1, 512 / Math.min(bitmap.width, bitmap.height), 2048 / Math.max(bitmap.width, bitmap.height));
      const canvas = Object.assign(document.createElement("canvas"), {
        width: Math.max(1, Math.round(bitmap.width * shrink)), height: Math.max(1, Math.round(bitmap.height * shrink)),
      });
      canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      this.source = canvas.toDataURL("image/png");
      this.kept = null;
    } catch {
      return say("This file is not a picture that the browser can read.", true);
    }
    for (const button of $$('[data-slot="examples"] button')) button.setAttribute("aria-pressed", "false");
    this.fetch();
  },
};

// ---- reverse ----

const reverse = {
  stage: 0,
  async take(view) {
    this.taking = view; // whatever comes while its pictures are unpacked comes later
    for (const stage of view.stages) {
      stage.images = {};
      for (const [name, uri] of Object.entries(stage.sheets)) stage.images[name] = await picture(uri);
    }
    if (this.taking !== view) return;
    this.view = view;
    this.looks = {};
    slot("caption").textContent = view.caption || "no prompt";
    for (const [name, value] of Object.entries(view.asked ?? {})) $(`[data-form=run] [name=${name}]`).value = value;
    const choices = slot("stages");
    choices.replaceChildren();
    for (const [index, stage] of view.stages.entries()) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: `${stage.width} × ${stage.height} px` });
      button.addEventListener("click", () => this.choose(index));
      choices.append(button);
    }
    await this.choose(0);
  },
  async choose(index) {
    this.stage = index;
    for (const [i, button] of [...slot("stages").children].entries()) button.setAttribute("aria-pressed", String(i === index));
    const told = Object.entries(this.view.stages[index].condition);
    slot("told").replaceChildren(...told.map(([name, uri]) => {
      const figure = document.createElement("figure");
      const image = Object.assign(document.createElement("img"), { src: uri, alt: name });
      figure.append(image, Object.assign(document.createElement("figcaption"), { textContent: `also shown: ${name}` }));
      return figure;
    }));
    slot("maps").replaceChildren();
    slot("unet").replaceChildren();
    draw();
    if (!this.looks[index]) {
      const given = this.view.looks?.[index] ?? (this.view.key && (await ask("look", { key: this.view.key, stage: index })));
      if (given) for (const look of given.looks) {
        look.attention = pixels(await picture(look.maps));
        look.images = await Promise.all(look.levels.map(picture));
      }
      this.looks[index] = given;
    }
    if (this.stage === index && this.looks[index]) this.furnish(this.looks[index]);
    draw();
  },
  furnish(look) {
    slot("maps").innerHTML = look.words.map(() => '<figure class="nv-fig"><canvas role="img"></canvas><figcaption><b></b> <span></span></figcaption></figure>').join("");
    for (const [i, figure] of [...slot("maps").children].entries()) {
      const name = look.words[i] || (i ? "(end)" : "(start)");
      $("b", figure).textContent = name;
      $("canvas", figure).setAttribute("aria-label", `attention to ${name}`);
    }
    const { width, height } = look, last = look.levels.length + 2;
    const card = (column, depth, name, shape, canvas) => `<div class="nv-level" style="--column:${column};--depth:${depth}"><b>${name}</b><span>${shape}</span>${canvas}</div>`;
    const side = (level) => Math.round(Math.log2(look.levels[0].shape[1] / level.shape[1]));
    const skips = look.levels.map((level, i) => {
      const other = look.levels.findIndex((up) => up.name === level.name.replace("down", "up"));
      return level.name.startsWith("down") && other > i ? `<i class="nv-skip" style="--depth:${side(level)};--from:${i + 2};--count:${other - i + 1}"></i>` : "";
    });
    slot("unet").style.setProperty("--columns", last);
    slot("unet").innerHTML = card(1, 0, "in", `10 × ${height} × ${width}`, '<canvas data-at="x_t" role="img" aria-label="x_t, the input"></canvas><small>x<sub>t</sub> 3, known picture 3, mask 1, low resolution 3</small>')
      + look.levels.map((level, i) => card(i + 2, side(level), level.name, level.shape.join(" × "), `<canvas role="img" aria-label="channels of ${level.name}"></canvas>`)).join("")
      + card(last, 0, "out", `3 × ${height} × ${width}`, '<canvas data-at="x0" role="img" aria-label="the predicted picture"></canvas><small>v, and from it x̂<sub>0</sub></small>')
      + skips.join("");
  },
  stops() {
    return this.view?.stages[this.stage].steps.map((step) => step.t);
  },
  draw() {
    if (!this.view) return;
    const stage = this.view.stages[this.stage], index = nearest(this.stops(), state.t), step = stage.steps[index];
    for (const [name, at] of [["rx_t", "x_t"], ["reps", "eps"], ["rx0", "x0"], ["rx_next", "x_next"], ["rdiff", "difference"]]) {
      const canvas = canvasOf(name), image = stage.images[at];
      canvas.closest("figure").style.visibility = image ? "" : "hidden";
      if (image) frame(canvas, image, index, stage.width, stage.height);
    }
    const guided = step.difference === null ? (step.guidance === 1 ? "guidance did not act here" : `guidance ${step.guidance}, which the network took as an input: one pass, no difference`) : `guidance ${step.guidance}: difference of ${fixed(step.difference, 3)} added ${fixed(step.guidance - 1, 1)} times more`;
    const how = { exact: "the sampler's own weights", measured: "weights measured from the arrays", unknown: "" }[step.how];
    slot("arithmetic").className = "nv-lines";
    slot("arithmetic").innerHTML =
      `<p>step ${step.step + 1}, t = ${fixed(step.t, 0)}</p><p>${printed(step.splitting)}</p><p>${printed(step.arithmetic)}</p>` +
      `<p>${guided}</p><p>${how}${how ? `; left over: ${step.rest < 1e-6 ? "nothing" : step.rest > 1e-3 ? "noise drawn anew" : step.rest.toExponential(1)}` : ""}</p>`;
    const weights = [["x_t", step.a], ...step.b.map((b, i) => [["x̂0 now", "x̂0 before", "x̂0 before that"][i] ?? `x̂0 ${i} steps before`, b])];
    const largest = Math.max(1, ...weights.map(([, w]) => Math.abs(w)));
    slot("weights").innerHTML = weights.map(([name, w]) => {
      const half = (50 * Math.abs(w)) / largest;
      return `<div class="nv-weight"><span>${printed(name)}</span><span class="track"><i style="width:${half}%;left:${w < 0 ? 50 - half : 50}%"></i></span><b>${fixed(w)}</b></div>`;
    }).join("");
    const look = this.looks[this.stage];
    if (look && slot("maps").children.length) this.inside(look, stage, index);
  },
  inside(look, stage, index) {
    const at = look.looks[nearest(look.looks.map((l) => l.index), index)];
    const { width, height } = look, ink = [255, 196, 0];
    const overlay = this.overlay ??= document.createElement("canvas");
    Object.assign(overlay, { width, height });
    for (const [w, figure] of [...slot("maps").children].entries()) {
      const canvas = $("canvas", figure), context = canvas.getContext("2d");
      if (canvas.width !== 4 * width) Object.assign(canvas, { width: 4 * width, height: 4 * height });
      const image = new ImageData(width, height);
      for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
        const value = at.attention.data[4 * (y * at.attention.width + w * width + x)], p = 4 * (y * width + x);
        image.data.set([...ink, value * 0.9], p);
      }
      overlay.getContext("2d").putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.filter = "grayscale(1) brightness(0.55)";
      context.drawImage(stage.images.x0, index * width, 0, width, height, 0, 0, 4 * width, 4 * height);
      context.filter = "none";
      context.imageSmoothingEnabled = true;
      context.drawImage(overlay, 0, 0, 4 * width, 4 * height);
      $("span", figure).textContent = `${(100 * at.shares[w]).toFixed(1)} %`;
    }
    for (const canvas of $$("[data-at]", slot("unet"))) frame(canvas, stage.images[canvas.dataset.at], index, stage.width, stage.height);
    for (const [i, canvas] of $$("canvas:not([data-at])", slot("unet")).entries()) {
      const level = look.levels[i], [, h, w] = level.shape;
      if (canvas.width !== 3 * w) Object.assign(canvas, { width: 3 * w, height: 2 * h });
      for (let k = 0; k < level.shown; k++) {
        canvas.getContext("2d").drawImage(at.images[i], k * w, 0, w, h, (k % 3) * w, Math.floor(k / 3) * h, w, h);
      }
    }
  },
};

const nearest = (values, wanted) => values.reduce((best, value, i) => (Math.abs(value - wanted) < Math.abs(values[best] - wanted) ? i : best), 0);

// ---- compare ----

const COMPARED = 4;
const PRESETS = {
  samplers: ["studio", "ddim", "unipc", "ddpm"].map((sampler) => ({ sampler })),
  steps: [4, 8, 16, 50].map((steps) => ({ steps })),
  guidance: [0, 1, 3, 10].map((guidance) => ({ guidance })),
  seeds: [1, 2, 3, 4].map((seed) => ({ seed })),
};
const PLAIN = { sampler: "studio", steps: 12, guidance: 3, seed: 1 };
const compare = {
  // what stands in the form: two to four runs
  lanes() {
    return $$("fieldset[data-lane]:not([hidden])").map((lane) => Object.fromEntries(
      Object.keys(PLAIN).map((name) => [name, name === "sampler" ? $("[name=sampler]", lane).value : Number($(`[name=${name}]`, lane).value)]),
    ));
  },
  fill(runs, what = "own") {
    for (const [i, lane] of $$("fieldset[data-lane]").entries()) {
      lane.hidden = lane.disabled = i >= runs.length;
      for (const [name, value] of Object.entries({ ...PLAIN, ...runs[i] })) {
        const field = $(`[name=${name}]`, lane);
        if (!field.options || [...field.options].some((option) => option.value === value)) field.value = value;
      }
    }
    $('[data-form=compare] [name="what"]').value = what;
    $('[data-act="add"]').disabled = runs.length >= COMPARED;
    for (const button of $$('[data-act="drop"]')) button.disabled = runs.length <= 2;
  },
  add() {
    const runs = this.lanes();
    this.fill([...runs, runs.at(-1)]);
    $$("fieldset[data-lane]:not([hidden])").at(-1).querySelector("select").focus();
  },
  drop(lane) {
    this.fill(this.lanes().filter((_, i) => $$("fieldset[data-lane]")[i] !== lane));
  },
  async take(view) {
    for (const run of view.runs) run.image = await picture(run.x0);
    this.view = null;
    slot("runs").innerHTML = view.runs.map((run, i) => `<figure class="nv-fig"><canvas role="img"></canvas><figcaption><i style="--c:var(${INKS[i]})"></i><b></b><br><span></span><br><button type="button">Take it apart</button></figcaption></figure>`).join("");
    for (const [i, figure] of [...slot("runs").children].entries()) {
      const run = view.runs[i];
      $("b", figure).textContent = run.label;
      $("canvas", figure).setAttribute("aria-label", `prediction of ${run.label}`);
      const pictures = run.rows && run.rows !== run.calls ? ` on ${run.rows} pictures` : "";
      $("span", figure).textContent = `${run.calls} network calls${pictures}; ends ${run.distance.at(-1).toFixed(3)} away`;
      $("button", figure).addEventListener("click", () => trigger("fetch", { asked: run.picture }));
    }
    slot("distance").hidden = false;
    slot("distance-of").textContent = `Logarithmic. Root mean square over the pixels, which go from −1 to 1, to the last prediction of a run of ${view.converged} steps from the same noise, with the same words and guidance.`;
    const most = Math.max(...view.runs.flatMap((run) => run.distance)), calls = Math.max(...view.runs.map((run) => run.calls));
    const least = Math.min(...view.runs.flatMap((run) => run.distance.filter(Boolean)), most / 2);
    const lines = (x) => view.runs.map((run, i) => ({ x: run[x], y: run.distance, ink: INKS[i] }));
    this.plot = chart("distance", lines("t"), { xs: [0, 999], ys: [least, most], log: true, label: "distance to the converged picture over t, logarithmic" });
    chart("cost", lines("called"), { xs: [1, Math.max(2, calls)], ys: [least, most], log: true, label: "distance to the converged picture over network calls, logarithmic" });
    this.view = view;
    draw();
  },
  stops() {
    return this.view && [...new Set(this.view.runs.flatMap((run) => run.t))].sort((a, b) => b - a);
  },
  draw() {
    if (!this.view) return;
    for (const [i, figure] of [...slot("runs").children].entries()) {
      const run = this.view.runs[i];
      // the newest prediction that there is at this time
      const done = run.t.filter((t) => t >= state.t - 0.5).length;
      frame($("canvas", figure), run.image, Math.max(0, done - 1), run.width, run.height);
    }
    this.plot.mark(state.t);
  },
  // the runs as they are asked for, each named by what tells it from the others
  wanted(form) {
    const runs = this.lanes(), prompt = form.get("prompt");
    const told = Object.keys(PLAIN).filter((name) => new Set(runs.map((run) => run[name])).size > 1);
    const words = {
      sampler: (key) => $(`[data-form=compare] [name=sampler] option[value="${key}"]`).textContent,
      steps: (steps) => `${steps} steps`, guidance: (guidance) => `guidance ${guidance}`, seed: (seed) => `seed ${seed}`,
    };
    return { runs: runs.map((run) => ({ ...run, prompt, label: (told.length ? told : ["sampler"]).map((name) => words[name](run[name])).join(", ") })) };
  },
};

// ---- the plane ----

const plane = {
  strokes: [],
  way: "reverse",
  training: false,
  async takeStill(view, key) {
    this.still = view;
    this.key = key;
    this.forward = unpack(view.forward);
    this.points = unpack(view.points);
    this.density = pixels(await picture(view.density));
    this.frames = view.times.length;
  },
  takeFlow(flow) {
    this.flow = flow;
    this.reverse = unpack(flow.reverse);
    this.grid = unpack(flow.grid);
    this.arrows = unpack(flow.arrows);
    slot("trained").textContent = `${flow.steps.toLocaleString("en")} steps of training`;
    const low = Math.min(...flow.losses), high = Math.max(...flow.losses, low + 0.01);
    chart("loss", [{ y: flow.losses, ink: "--nv-1" }], { xs: [0, Math.max(1, flow.losses.length - 1)], ys: [low, high], label: "loss while training" });
    for (const text of $$('[data-chart="loss"] text').slice(2)) text.remove();
    draw();
  },
  // the place between two frames: index and share
  at() {
    const times = this.still.times;
    let i = 0;
    while (i < times.length - 2 && times[i + 1] > state.t) i++;
    return [i, Math.min(1, Math.max(0, (times[i] - state.t) / (times[i] - times[i + 1])))];
  },
  stops() {
    return this.still?.times;
  },
  draw() {
    const canvas = canvasOf("plane");
    const side = Math.round(canvas.clientWidth * devicePixelRatio) || 600;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d"), extent = this.still?.extent ?? 2.6, ink = css("--body-text-color");
    const X = (x) => ((x + extent) / (2 * extent)) * side, Y = (y) => ((extent - y) / (2 * extent)) * side;
    const dot = (x, y, r) => context.fillRect(X(x) - r, Y(y) - r, 2 * r, 2 * r);
    context.clearRect(0, 0, side, side);
    if (slot("shape").value === "drawing" && !this.drawn) return this.drawStrokes(context, X, Y, side);
    if (!this.still) return;
    const show = (name) => $(`[data-show="${name}"]`).checked, unit = side / 620, [i, share] = this.at();
    if (show("density")) this.paintDensity(context, i, share, side);
    if (show("data")) {
      for (const [k, label] of this.still.labels.entries()) {
        context.fillStyle = css(INKS[label]);
        context.globalAlpha = 0.35;
        dot(this.points[2 * k], this.points[2 * k + 1], 1.1 * unit);
      }
      context.globalAlpha = 1;
    }
    if (show("arrows") && this.flow) this.paintArrows(context, Math.min(i, this.frames - 2), X, Y, unit);
    const paths = this.way === "forward" ? this.forward : this.reverse;
    if (!paths) return;
    const count = paths.length / this.frames / 2;
    const place = (p, f, axis) => paths[2 * (f * count + p) + axis];
    if (show("paths")) {
      context.strokeStyle = ink;
      context.lineWidth = unit;
      context.globalAlpha = 0.45;
      for (let p = 0; p < Math.min(14, count); p++) {
        context.beginPath();
        for (let f = 0; f < this.frames; f++) context[f ? "lineTo" : "moveTo"](X(place(p, f, 0)), Y(place(p, f, 1)));
        context.stroke();
      }
      context.globalAlpha = 1;
    }
    context.fillStyle = ink;
    for (let p = 0; p < count; p++) {
      const j = Math.min(i + 1, this.frames - 1);
      dot(place(p, i, 0) * (1 - share) + place(p, j, 0) * share, place(p, i, 1) * (1 - share) + place(p, j, 1) * share, 1.7 * unit);
    }
  },
  paintDensity(context, i, share, side) {
    const n = this.still.side, image = new ImageData(n, n), rgb = rgbOf(css("--nv-1"));
    const j = Math.min(i + 1, this.frames - 1);
    for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) {
      const at = (f) => this.density.data[4 * (y * this.density.width + f * n + x)];
      image.data.set([...rgb, 0.5 * (at(i) * (1 - share) + at(j) * share)], 4 * (y * n + x));
    }
    const small = this.small ??= document.createElement("canvas");
    small.width = small.height = n;
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, side, side);
  },
  paintArrows(context, f, X, Y, unit) {
    const count = this.grid.length / 2;
    context.strokeStyle = css("--quiet");
    context.lineWidth = 1.2 * unit;
    context.beginPath();
    for (let k = 0; k < count; k++) {
      const [x, y] = [X(this.grid[2 * k]), Y(this.grid[2 * k + 1])];
      let [u, v] = [this.arrows[2 * (f * count + k)], -this.arrows[2 * (f * count + k) + 1]];
      const speed = Math.hypot(u, v), length = (unit * 22 * Math.min(1, speed / 2.5)) / (speed || 1);
      u *= length; v *= length;
      context.moveTo(x, y);
      context.lineTo(x + u, y + v);
      context.moveTo(x + u, y + v);
      context.lineTo(x + 0.65 * u - 0.22 * v, y + 0.65 * v + 0.22 * u);
      context.moveTo(x + u, y + v);
      context.lineTo(x + 0.65 * u + 0.22 * v, y + 0.65 * v - 0.22 * u);
    }
    context.stroke();
  },
  drawStrokes(context, X, Y, side) {
    if (!this.strokes.length) {
      context.fillStyle = css("--quiet");
      context.font = `${side / 32}px ${css("font-family")}`;
      context.textAlign = "center";
      context.fillText("Draw here, then press Train", side / 2, side / 2);
    }
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = side / 110;
    for (const stroke of this.strokes) {
      context.strokeStyle = css(INKS[stroke.label]);
      context.beginPath();
      for (const [i, [x, y]] of stroke.points.entries()) context[i ? "lineTo" : "moveTo"](X(x), Y(y));
      if (stroke.points.length === 1) context.lineTo(X(stroke.points[0][0]) + 0.1, Y(stroke.points[0][1]));
      context.stroke();
    }
  },
  aim() {
    const [label, away] = slot("aim").value.split("-");
    return { label: label ? Number(label) : null, away: away ? Number(away) : null, guidance: Number(slot("guide").value) };
  },
  changed() {
    const shape = slot("shape").value;
    slot("text-field").hidden = shape !== "letters";
    slot("pen").hidden = shape !== "drawing";
    canvasOf("plane").classList.toggle("pen", shape === "drawing");
    this.stop();
    this.key = this.begun = null;
    this.drawn = false;
    this.button("Train");
    draw();
  },
  button(text) {
    $('[data-act="train"]').textContent = text;
  },
  stop() {
    this.training = false;
    if (this.key) this.button("Train on");
  },
  // The points of the chosen shape, not learned yet; false if there are none, or another shape was chosen meanwhile.
  async begin() {
    const asked = (this.begun = { shape: slot("shape").value, text: slot("text").value, strokes: this.strokes });
    const begun = await ask("plane_start", asked);
    if (!begun || this.begun !== asked) return false;
    await this.takeStill(begun.plane, begun.key);
    this.flow = this.reverse = null;
    this.drawn = true;
    slot("trained").textContent = "not trained yet";
    $('[data-chart="loss"]').replaceChildren();
    draw();
    return true;
  },
  async train() {
    if (this.training) return this.stop();
    this.training = true;
    this.button("Stop");
    if (!this.key && !(await this.begin())) return void ((this.training = false), this.button("Train"));
    const key = this.key;
    for (let slice = 0; this.training && this.key === key && slice < 14; slice++) {
      const flow = await ask("plane_train", { key, seconds: 0.7, ...this.aim() });
      if (!flow) break;
      if (this.key === key) this.takeFlow(flow);
    }
    if (this.key === key) this.stop();
  },
  async aimed() {
    slot("guide-is").textContent = slot("guide").value;
    if (this.training) return;
    const asked = (this.asked = {});
    if (!this.key && !(await this.begin())) return;
    const flow = await ask("plane_train", { key: this.key, seconds: this.flow ? 0 : 2, ...this.aim() });
    if (flow && this.asked === asked) this.takeFlow(flow);
  },
};

function rgbOf(colour) {
  const context = (rgbOf.context ??= document.createElement("canvas").getContext("2d"));
  context.fillStyle = colour;
  const hex = context.fillStyle;
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// ---- the rail ----

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
  if (field || guide || event.ctrlKey || event.metaKey || event.altKey) return;
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
    guidance: Number(given.get("guidance")), sampler: given.get("sampler"), seed: Number(given.get("seed")),
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
  element.dataset.ready = "true";
  restore();
});
compare.fill(PRESETS.samplers, "samplers");
goTo(state.t);
receive();
