// One step in numbers: its equations, and the sampler's weights as bars.
import { formatNumber, mathHtml } from "./arrays.js";

/** @import { StepData } from "./types.d.ts" */

const WEIGHTS_FROM = {
  exact: "the sampler's own weights",
  fitted: "the sampler's weights, fitted to this network for this number of calls",
  measured: "weights measured from the arrays",
  unknown: "of a long run only some steps are kept",
};

/**
 * The equations of a step, a line each.
 * @param {StepData} step
 * @param {boolean} isEmphasized whether guidance emphasized the style
 */
export function arithmeticHtml(step, isEmphasized) {
  const source = WEIGHTS_FROM[step.how] + (step.how === "unknown" ? "" : `; left over: ${restText(step)}`);
  const ratio = `σ/α = ${(step.sigma / step.alpha).toPrecision(4)}`,
    number = `step ${step.step + 1}, t = ${formatNumber(step.t, 0)}, ${ratio}`;
  const lines = [number, step.splitting, step.conversion, step.arithmetic, guidanceText(step, isEmphasized), source];
  return lines.map((line) => `<p>${mathHtml(line)}</p>`).join("");
}

/**
 * @param {StepData} step
 * @param {boolean} isEmphasized
 */
function guidanceText(step, isEmphasized) {
  const guidance = Number(step.guidance.toFixed(2));
  if (step.difference === null) {
    if (step.guidance === 1) return "guidance has no effect here";
    return `guidance ${guidance}, an input of the network: one pass, no difference`;
  }
  const emphasis = isEmphasized && step.guidance > 1 ? ", where the words of the style count 1.25 times" : "";
  const change = `the words change x̂0 by ${formatNumber(step.difference, 3)}${emphasis}`;
  return `guidance ${guidance}: ${change}; ${formatNumber(step.guidance - 1, 1)} times that is added`;
}

/**
 * What the sampler's sum leaves over of the next sample.
 * @param {StepData} step
 */
function restText(step) {
  if (step.drawn) return "new noise";
  if (step.rest === null) return "not known";
  return step.rest < 1e-6 ? "nothing" : step.rest.toExponential(1);
}

/**
 * The name of a term of the sampler's sum: x_t, then the predictions, newest first.
 * @param {number} index
 */
function termName(index) {
  if (index === 0) return "x_t";
  return index === 1 ? "x̂0 now" : `x̂0 ${index - 1} before`;
}

/**
 * The sampler's weights of a step as bars.
 * @param {StepData} step
 */
export function weightsHtml(step) {
  if (step.how === "unknown") return "";
  /** @type {(numbers: number[], suffix: string) => [string, number][]} */
  const named = (numbers, suffix) => numbers.map((number, i) => [termName(i) + suffix, number]);
  const weights = [...named([step.a, ...step.b], ""), ...named(step.coarse, ", smoothed")];
  const largest = Math.max(1, ...weights.map(([, weight]) => Math.abs(weight)));
  return weights
    .map(([name, weight]) => {
      const width = (50 * Math.abs(weight)) / largest,
        left = weight < 0 ? 50 - width : 50;
      const bar = `<span class="track"><i style="width:${width}%;left:${left}%"></i></span>`;
      return `<div class="nv-weight"><span>${mathHtml(name)}</span>${bar}<b>${formatNumber(weight)}</b></div>`;
    })
    .join("");
}
