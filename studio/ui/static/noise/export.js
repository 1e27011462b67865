// Export of a view: an animation, a strip, a table of numbers, or a link.
import { closest } from "../dom.js";
import { newCanvas } from "./arrays.js";
import { linkNote, makeLink } from "./links.js";
import { LAST_TIME } from "./tab.js";

/** @import { NoiseTab } from "./tab.js" */

const PICTURE_SIDE = 192; // px of each picture
const GAP = 8; // px between pictures
const MAX_FRAMES = 120,
  FREE_FRAMES = 41; // FREE_FRAMES: of a view without stops
const SECONDS = 6; // of an animation
const MAX_STRIP_WIDTH = 16000; // px that browsers and viewers open
const FILM_TYPE = "video/mp4",
  FILM_BITS_PER_SECOND = 4e6;
const NOTHING = "This view shows nothing yet that can be saved.";

/** @param {NoiseTab} tab */
export function connectExport(tab) {
  tab.element.addEventListener("click", (event) => {
    const kind = closest(event, "[data-export]")?.dataset.export;
    if (kind === "link") copyLink(tab);
    else if (kind) exportView(tab, kind);
  });
  const hasFilms = typeof MediaRecorder === "function" && MediaRecorder.isTypeSupported(FILM_TYPE);
  tab.button('[data-export="mp4"]').hidden = !hasFilms;
}

/** @param {NoiseTab} tab */
async function copyLink(tab) {
  const link = makeLink(tab),
    note = linkNote(tab);
  try {
    await navigator.clipboard.writeText(link);
    tab.showMessage(`Link copied. ${note}`);
  } catch {
    // browsers give no clipboard without https
    history.replaceState(null, "", link);
    tab.showMessage(`The link is in the address bar. ${note}`);
  }
}

/**
 * @param {NoiseTab} tab
 * @param {string} kind webp, gif, mp4, strip, csv or json
 */
async function exportView(tab, kind) {
  const name = `noise-${tab.viewName}.${kind === "strip" ? "png" : kind}`;
  tab.stopPlaying();
  if (kind === "csv" || kind === "json") {
    const rows = tab.view.rows();
    if (!rows.length) return tab.showProblem(NOTHING);
    const text =
      kind === "csv" ? csvOf(rows) : JSON.stringify({ view: tab.viewName, link: makeLink(tab), rows }, null, 1);
    return saveBlob(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }), name);
  }
  const frames = drawFrames(tab, kind === "strip");
  if (!frames.length) return tab.showProblem(NOTHING);
  if (kind === "strip") return saveBlob(await stripOf(frames), name);
  tab.showMessage(`Making ${name}.`);
  if (kind === "mp4") {
    saveBlob(await recordFilm(frames), name);
    return tab.showMessage("");
  }
  const params = { frames: frames.map((frame) => frame.toDataURL("image/png")), kind, seconds: SECONDS };
  const answer = await tab.request("animate", params);
  if (!answer) return;
  saveUrl(answer.file, name);
  tab.showMessage("");
}

/**
 * The times to export, in the order in which the view plays.
 * @param {NoiseTab} tab
 */
function exportTimes(tab) {
  const stops =
    tab.view.stops() ?? Array.from({ length: FREE_FRAMES }, (_, i) => Math.round((LAST_TIME * i) / (FREE_FRAMES - 1)));
  const every = Math.ceil(stops.length / MAX_FRAMES);
  const times = stops.filter((_, i) => i % every === 0 || i === stops.length - 1);
  return times.sort((a, b) => (tab.view.towardNoise() ? a - b : b - a));
}

/**
 * Draw the view's pictures at every time, one canvas each. The tab's time is the same afterwards.
 * @param {NoiseTab} tab
 * @param {boolean} below whether the pictures stand one below the other
 */
function drawFrames(tab, below) {
  const before = tab.time,
    pictures = tab.view.canvases().filter((canvas) => canvas?.width > 1);
  if (!pictures.length) return [];
  const isPlane = tab.viewName === "plane",
    side = isPlane ? 2 * PICTURE_SIDE : PICTURE_SIDE;
  const length = pictures.length * (side + GAP) - GAP;
  const frames = exportTimes(tab).map((t) => {
    tab.time = t;
    tab.view.draw();
    const frame = below ? newCanvas(side, length) : newCanvas(length, side),
      context = frame.getContext("2d");
    context.fillStyle = tab.css("--body-background-fill") || "#fff";
    context.fillRect(0, 0, frame.width, frame.height);
    context.imageSmoothingEnabled = isPlane;
    for (const [i, picture] of pictures.entries()) {
      const offset = i * (side + GAP);
      context.drawImage(picture, below ? 0 : offset, below ? offset : 0, side, side);
    }
    return frame;
  });
  tab.goTo(before);
  return frames;
}

/**
 * The frames side by side, as a PNG.
 * @param {HTMLCanvasElement[]} frames
 * @returns {Promise<Blob>}
 */
function stripOf(frames) {
  const width = Math.min(frames[0].width, Math.floor(MAX_STRIP_WIDTH / frames.length));
  const height = Math.round((frames[0].height * width) / frames[0].width);
  const strip = newCanvas(width * frames.length, height),
    context = strip.getContext("2d");
  for (const [i, frame] of frames.entries()) context.drawImage(frame, i * width, 0, width, height);
  return new Promise((resolve) => strip.toBlob(resolve));
}

/**
 * Record the frames as they play: this takes as long as the film.
 * @param {HTMLCanvasElement[]} frames
 */
async function recordFilm(frames) {
  const canvas = newCanvas(2 * Math.ceil(frames[0].width / 2), frames[0].height); // an even width, as encoders need
  const recorder = new MediaRecorder(canvas.captureStream(), {
    mimeType: FILM_TYPE,
    videoBitsPerSecond: FILM_BITS_PER_SECOND,
  });
  /** @type {Blob[]} */
  const parts = [];
  const stopped = new Promise((resolve) => {
    recorder.onstop = resolve;
  });
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.start();
  for (const frame of [...frames, frames.at(-1)]) {
    canvas.getContext("2d").drawImage(frame, 0, 0);
    await new Promise((resolve) => setTimeout(resolve, (1000 * SECONDS) / frames.length));
  }
  recorder.stop();
  await stopped;
  return new Blob(parts, { type: FILM_TYPE });
}

/** @param {Record<string, unknown>[]} rows */
function csvOf(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (/** @type {unknown} */ value) => {
    const text = String(value ?? "");
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [names, ...rows.map((row) => names.map((name) => row[name]))];
  return lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** @param {Blob} blob @param {string} name */
function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  saveUrl(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** @param {string} url @param {string} name */
function saveUrl(url, name) {
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
}
