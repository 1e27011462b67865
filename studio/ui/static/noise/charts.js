// Line charts as SVG, with a mark at the present time.

export const CURVE_COLOURS = ["--nv-1", "--nv-2", "--nv-3", "--nv-4"]; // CSS variables
/** Dashes tell lines apart without their colours. @type {Record<string, string>} */
const DASHES = { "--nv-2": "7 3", "--nv-3": "2 3", "--nv-4": "10 3 2 3" };
const WIDTH = 360,
  HEIGHT = 170,
  LEFT = 40,
  BOTTOM = 20,
  TOP = 6,
  RIGHT = 4;

/**
 * @typedef {object} Line
 * @property {ArrayLike<number>} y
 * @property {ArrayLike<number>} [x] the index, where left out
 * @property {string} colour a CSS variable
 * @property {boolean} [chosen] drawn thicker
 *
 * @typedef {object} Axes
 * @property {[number, number]} xs the ends of the x axis
 * @property {[number, number]} ys the ends of the y axis
 * @property {string} label the chart's accessible name
 * @property {boolean} [bars] whether bars are drawn, too
 * @property {boolean} [log] whether y is logarithmic
 */

/** @param {string} name @param {Record<string, string | number>} attributes */
function svg(name, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.textContent = text;
  return element;
}

/** @param {number} value */
const tickLabel = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2))));

export class Chart {
  #xs;
  #ys;
  #log;
  #mark;
  #bars;

  /**
   * @param {HTMLElement} place its contents are replaced
   * @param {Line[]} lines
   * @param {Axes} axes
   */
  constructor(place, lines, { xs, ys, label, bars = false, log = false }) {
    this.#xs = xs;
    this.#ys = ys;
    this.#log = log;
    const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": label });
    root.append(svg("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}` }));
    for (const [i, y] of ys.entries()) {
      root.append(
        svg("text", { class: "y", x: LEFT - 6, y: this.#y(y) + (i ? 9 : 0), "text-anchor": "end" }, tickLabel(y)),
      );
    }
    for (const [i, x] of xs.entries()) {
      root.append(
        svg("text", { class: "x", x: this.#x(x), y: HEIGHT - 5, "text-anchor": i ? "end" : "start" }, tickLabel(x)),
      );
    }
    this.#bars = svg("path", { class: "bars" });
    if (bars) root.append(this.#bars);
    for (const line of lines) root.append(this.#path(line));
    this.#mark = svg("line", { class: "mark", y1: TOP, y2: HEIGHT - BOTTOM, x1: 0, x2: 0, visibility: "hidden" });
    root.append(this.#mark);
    place.replaceChildren(root);
  }

  /** @param {number} x */
  #x(x) {
    const [from, to] = this.#xs;
    return LEFT + ((x - from) / (to - from)) * (WIDTH - LEFT - RIGHT);
  }

  /** @param {number} y clipped to the axis */
  #y(y) {
    const scaled = (/** @type {number} */ value) => (this.#log ? Math.log10(value) : value);
    const [low, high] = this.#ys;
    const share = (scaled(Math.min(Math.max(y, low), high)) - scaled(low)) / (scaled(high) - scaled(low) || 1);
    return TOP + (1 - share) * (HEIGHT - BOTTOM - TOP);
  }

  /** @param {Line} line */
  #path(line) {
    const points = Array.from(
      line.y,
      (y, i) => `${this.#x(line.x ? line.x[i] : i).toFixed(1)} ${this.#y(y).toFixed(1)}`,
    );
    const path = svg("path", { d: `M${points.join("L")}`, class: line.chosen ? "chosen" : "" });
    path.setAttribute("style", `stroke: var(${line.colour}); stroke-dasharray: ${DASHES[line.colour] ?? "none"}`);
    return path;
  }

  /**
   * Move the mark.
   * @param {number} x
   */
  markAt(x) {
    this.#mark.setAttribute("visibility", "visible");
    this.#mark.setAttribute("transform", `translate(${this.#x(x).toFixed(1)} 0)`);
  }

  /**
   * Draw a bar for each value.
   * @param {number[]} values
   * @param {number} from where the first bar begins
   * @param {number} width
   */
  drawBars(values, from, width) {
    const bottom = this.#y(this.#ys[0]);
    const bars = values.map((y, i) => {
      const left = this.#x(from + i * width).toFixed(1),
        right = this.#x(from + (i + 1) * width).toFixed(1);
      return `M${left} ${bottom}V${this.#y(y).toFixed(1)}H${right}V${bottom}Z`;
    });
    this.#bars.setAttribute("d", bars.join(""));
  }
}
