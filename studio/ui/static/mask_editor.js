// The mask editor: brush, eraser, undo. Only the mask is sent to the server, never the picture.
import { closest, find, findAll, findButton, findCanvas, findImage, findInput, targetMatches } from "./dom.js";

const MASK_SIDE = 1024; // px of the longer side; the server scales the mask to the picture
const MASK_COLOUR = [224, 33, 138];
const UNDO_STEPS = 16;
const BRUSH_PERCENT = 12; // of the longer side

/** The mask of the editor on the page. @type {() => string} */
let maskMessage = () => JSON.stringify({ mask: null, key: "" });

/**
 * Replace the last of an event's values by the mask as it is now, so that no stroke arrives later than a click on Fill.
 * @param {unknown[]} values
 */
export const addMask = (values) => [...values.slice(0, -1), maskMessage()];

/**
 * @param {HTMLElement} element
 * @param {() => void} sendMask asks Python to read the mask
 * @param {(property: string, callback: () => void) => void} watch
 */
export function mountMaskEditor(element, sendMask, watch) {
  let tool = "brush";
  let brushPercent = BRUSH_PERCENT;
  /** The picture with its mask. @type {HTMLElement} */
  let board = null;
  /** @type {HTMLCanvasElement} */
  let canvas = null;
  /** @type {CanvasRenderingContext2D} */
  let context = null;
  /** The outline of the brush under the pointer. @type {HTMLElement} */
  let ring = null;
  /** @type {ImageData[]} */
  let undoStack = [];
  /** @type {ImageData[]} */
  let redoStack = [];
  let isChanged = false; // until then the server's own mask is the better one
  /** Where the current stroke is, in px of the canvas. @type {[number, number] | null} */
  let position = null;

  /** Start with the picture that is in the editor now. */
  function reset() {
    board = find(".board", element);
    if (!board) return;
    const width = Number(board.dataset.width),
      height = Number(board.dataset.height);
    const scale = MASK_SIDE / Math.max(width, height);
    canvas = findCanvas(".board canvas", element);
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    context = canvas.getContext("2d", { willReadFrequently: true });
    ring = find(".ring", element);
    findImage(".board img", element).classList.toggle("few", Math.max(width, height) <= 512);
    board.style.setProperty("--ratio", String(width / height));
    undoStack = [];
    redoStack = [];
    isChanged = false;
    position = null;
    delete board.dataset.ready;
    if (board.dataset.mask) loadMask(board.dataset.mask);
    else showState();
    chooseTool(tool);
    findInput("[data-size]", element).value = String(brushPercent);
  }

  /** @param {string} url */
  function loadMask(url) {
    const image = new Image();
    image.onload = () => {
      if (board.dataset.mask !== url || isChanged) return; // another picture came meanwhile, or a stroke
      context.imageSmoothingEnabled = false;
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        pixels.data[i + 3] = pixels.data[i] >= 128 ? 255 : 0;
        pixels.data.set(MASK_COLOUR, i);
      }
      context.putImageData(pixels, 0, 0);
      showState();
    };
    image.onerror = showState;
    image.src = url;
  }

  /** Enable undo and redo, and mark the mask as loaded. */
  function showState() {
    findButton("[data-do=undo]", element).disabled = undoStack.length === 0;
    findButton("[data-do=redo]", element).disabled = redoStack.length === 0;
    board.dataset.ready = "yes";
  }

  /** @param {string} name */
  function chooseTool(name) {
    tool = name;
    for (const button of findAll("[data-tool]", element)) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    }
  }

  const copyMask = () => context.getImageData(0, 0, canvas.width, canvas.height);

  function rememberMask() {
    undoStack.push(copyMask());
    if (undoStack.length > UNDO_STEPS) undoStack.shift();
    redoStack = [];
    isChanged = true;
  }

  /**
   * Go to the latest mask of one stack and put the present one on the other.
   * @param {ImageData[]} from
   * @param {ImageData[]} to
   */
  function swapMask(from, to) {
    if (!from.length) return;
    to.push(copyMask());
    context.putImageData(from.pop(), 0, 0);
    isChanged = true;
    finishChange();
  }
  const undo = () => swapMask(undoStack, redoStack);
  const redo = () => swapMask(redoStack, undoStack);

  function clearMask() {
    rememberMask();
    context.clearRect(0, 0, canvas.width, canvas.height);
    finishChange();
  }

  function finishChange() {
    showState();
    sendMask();
  }

  /** The mask as a PNG data URI, white on black; null if it was not changed here. */
  function maskUri() {
    if (!canvas || !isChanged) return null;
    const flat = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    const output = flat.getContext("2d");
    output.drawImage(canvas, 0, 0);
    output.globalCompositeOperation = "source-in";
    output.fillStyle = "#fff";
    output.fillRect(0, 0, flat.width, flat.height);
    output.globalCompositeOperation = "destination-over";
    output.fillStyle = "#000";
    output.fillRect(0, 0, flat.width, flat.height);
    return flat.toDataURL("image/png");
  }
  maskMessage = () => JSON.stringify({ mask: maskUri(), key: board?.dataset.key ?? "" });

  // ---- strokes ----

  /**
   * @param {PointerEvent} event
   * @returns {[number, number]}
   */
  function positionOf(event) {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * canvas.width,
      ((event.clientY - box.top) / box.height) * canvas.height,
    ];
  }

  /** The brush's diameter in px of the canvas. */
  const brushWidth = () => Math.max(1, (brushPercent / 100) * Math.max(canvas.width, canvas.height));

  /** @param {[number, number]} to */
  function strokeTo(to) {
    context.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
    context.strokeStyle = `rgb(${MASK_COLOUR})`;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = brushWidth();
    context.beginPath();
    context.moveTo(...position);
    context.lineTo(...to);
    context.stroke();
    context.globalCompositeOperation = "source-over";
    position = to;
  }

  /** @param {PointerEvent} event */
  function moveRing(event) {
    const box = canvas.getBoundingClientRect();
    ring.style.width = `${(brushWidth() / canvas.width) * box.width}px`;
    ring.style.left = `${event.clientX - box.left}px`;
    ring.style.top = `${event.clientY - box.top}px`;
  }

  element.addEventListener("pointerdown", (event) => {
    if (event.target !== canvas || event.button !== 0 || !event.isPrimary) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    rememberMask();
    position = positionOf(event);
    strokeTo(position);
  });
  element.addEventListener("pointermove", (event) => {
    if (event.target !== canvas || !event.isPrimary) return;
    moveRing(event);
    if (!position) return;
    for (const part of event.getCoalescedEvents?.() ?? []) strokeTo(positionOf(part));
    strokeTo(positionOf(event));
  });
  /** @param {PointerEvent} event */
  function endStroke(event) {
    if (!position || !event.isPrimary) return;
    position = null;
    finishChange();
  }
  element.addEventListener("pointerup", endStroke);
  element.addEventListener("pointercancel", endStroke);

  // ---- buttons and keys ----

  element.addEventListener("click", (event) => {
    const button = /** @type {HTMLButtonElement} */ (closest(event, "[data-tool], [data-do]"));
    if (!button || button.disabled || !canvas) return;
    if (button.dataset.tool) chooseTool(button.dataset.tool);
    else if (button.dataset.do === "undo") undo();
    else if (button.dataset.do === "redo") redo();
    else if (button.dataset.do === "clear") clearMask();
  });
  element.addEventListener("input", (event) => {
    if (targetMatches(event, "[data-size]"))
      brushPercent = Number(/** @type {HTMLInputElement} */ (event.target).value);
  });
  document.addEventListener("keydown", (event) => {
    if (!canvas?.checkVisibility() || targetMatches(event, "input:not([type=range]), textarea")) return;
    const key = event.key.toLowerCase();
    const command = event.ctrlKey || event.metaKey;
    if (command && (key === "z" || key === "y")) {
      event.preventDefault();
      if (key === "y" || event.shiftKey) redo();
      else undo();
    } else if (command || event.altKey) return;
    else if (key === "b") chooseTool("brush");
    else if (key === "e") chooseTool("eraser");
    else if (key === "[" || key === "]") {
      brushPercent = Math.min(50, Math.max(1, brushPercent + (key === "]" ? 2 : -2)));
      findInput("[data-size]", element).value = String(brushPercent);
    }
  });

  watch("value", reset);
  reset();
}
