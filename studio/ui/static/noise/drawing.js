// What the views of the noise tab share: what arrives from the studio, unpacked, and how it is drawn.
// All files of this folder are one script, in the order that noise.py names; Gradio runs it once with `element`,
// `trigger(event, data)` and `server.<function>(asked)`.
const $ = (selector, root = element) => root.querySelector(selector);
const $$ = (selector, root = element) => [...root.querySelectorAll(selector)];
const slot = (name) => $(`[data-slot="${name}"]`);
const INKS = ["--nv-1", "--nv-2", "--nv-3", "--nv-4"];
const DASHES = { "--nv-2": "7 3", "--nv-3": "2 3", "--nv-4": "10 3 2 3" }; // lines are told apart without their colours, too
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
    path.style.strokeDasharray = DASHES[line.ink] ?? "";
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
