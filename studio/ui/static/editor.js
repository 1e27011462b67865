// The mask editor in the browser: brush, eraser, undo. The picture itself never comes back from here, only the mask.
window.studio.editor = (element, send, watch) => {
  const LONGEST = 1024; // px of the mask that is painted on; the server brings it to the picture's own size
  const COLOUR = [224, 33, 138]; // of the mask, seen through
  const KEPT = 16; // masks to go back to
  let tool = "brush";
  let size = 12; // brush, in percent of the longer side
  let board, canvas, pen, ring; // of the picture that is there now
  let done = [], undone = [];
  let touched = false; // since it came: else the server's own mask is the better one
  let last = null; // where the stroke under way is

  const part = (name) => element.querySelector(name);

  function begin() {
    board = part(".board");
    if (!board) return;
    const [width, height] = [Number(board.dataset.width), Number(board.dataset.height)];
    const scale = LONGEST / Math.max(width, height);
    canvas = part(".board canvas");
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    pen = canvas.getContext("2d", { willReadFrequently: true });
    ring = part(".ring");
    part(".board img").classList.toggle("few", Math.max(width, height) <= 512);
    board.style.setProperty("--ratio", width / height);
    [done, undone, touched, last] = [[], [], false, null];
    delete board.dataset.ready;
    if (board.dataset.mask) load(board.dataset.mask);
    else state();
    choose(tool);
    part("[data-size]").value = size;
  }

  function load(url) {
    const mask = new Image();
    const mine = board.dataset.mask; // Gradio keeps the elements, and changes what they say
    mask.onload = () => {
      if (board.dataset.mask !== mine || touched) return;
      pen.imageSmoothingEnabled = false;
      pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
      const values = pen.getImageData(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < values.data.length; i += 4) {
        values.data[i + 3] = values.data[i] >= 128 ? 255 : 0;
        values.data.set(COLOUR, i);
      }
      pen.putImageData(values, 0, 0);
      state();
    };
    mask.onerror = state;
    mask.src = url;
  }

  // What can be done now, and that the mask is there.
  function state() {
    part("[data-do=undo]").disabled = done.length === 0;
    part("[data-do=redo]").disabled = undone.length === 0;
    board.dataset.ready = "yes";
  }

  function choose(name) {
    tool = name;
    for (const button of element.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    }
  }

  const copy = () => pen.getImageData(0, 0, canvas.width, canvas.height);

  function remember() {
    done.push(copy());
    if (done.length > KEPT) done.shift();
    undone = [];
    touched = true;
  }

  function back(from, to) {
    if (!from.length) return;
    to.push(copy());
    pen.putImageData(from.pop(), 0, 0);
    touched = true;
    tell();
  }

  function clear() {
    remember();
    pen.clearRect(0, 0, canvas.width, canvas.height);
    tell();
  }

  // White on black, as masks are.
  function mask() {
    if (!canvas || !touched) return null;
    const flat = document.createElement("canvas");
    [flat.width, flat.height] = [canvas.width, canvas.height];
    const out = flat.getContext("2d");
    out.drawImage(canvas, 0, 0);
    for (const [mode, colour] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
      out.globalCompositeOperation = mode;
      out.fillStyle = colour;
      out.fillRect(0, 0, flat.width, flat.height);
    }
    return flat.toDataURL("image/png");
  }

  const message = () => JSON.stringify({ mask: mask(), key: board?.dataset.key ?? "" });

  function tell() {
    state();
    send();
  }

  // ---- strokes ----

  function at(event) {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * canvas.width,
      ((event.clientY - box.top) / box.height) * canvas.height,
    ];
  }

  const width = () => Math.max(1, (size / 100) * Math.max(canvas.width, canvas.height));

  function stroke(from, to) {
    pen.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
    pen.strokeStyle = `rgb(${COLOUR})`;
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = width();
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
  }

  function follow(event) {
    const box = canvas.getBoundingClientRect();
    ring.style.width = `${(width() / canvas.width) * box.width}px`;
    ring.style.left = `${event.clientX - box.left}px`;
    ring.style.top = `${event.clientY - box.top}px`;
  }

  element.addEventListener("pointerdown", (event) => {
    if (event.target !== canvas || event.button !== 0 || !event.isPrimary) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    remember();
    last = at(event);
    stroke(last, last);
  });
  element.addEventListener("pointermove", (event) => {
    if (event.target !== canvas || !event.isPrimary) return;
    follow(event);
    if (!last) return;
    for (const step of event.getCoalescedEvents?.() ?? []) {
      const next = at(step);
      stroke(last, next);
      last = next;
    }
    const next = at(event);
    stroke(last, next);
    last = next;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    element.addEventListener(end, (event) => {
      if (!last || !event.isPrimary) return;
      last = null;
      tell();
    });
  }
  element.addEventListener("click", (event) => {
    const button = event.target.closest("[data-tool], [data-do]");
    if (!button || button.disabled || !canvas) return;
    if (button.dataset.tool) choose(button.dataset.tool);
    else ({ undo: () => back(done, undone), redo: () => back(undone, done), clear })[button.dataset.do]();
  });
  element.addEventListener("input", (event) => {
    if (event.target.matches("[data-size]")) size = Number(event.target.value);
  });
  document.addEventListener("keydown", (event) => {
    if (!canvas?.checkVisibility() || event.target.matches?.("input:not([type=range]), textarea")) return;
    const key = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
      event.preventDefault();
      if (key === "y" || event.shiftKey) back(undone, done);
      else back(done, undone);
    } else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (key === "b") choose("brush");
    else if (key === "e") choose("eraser");
    else if (key === "[" || key === "]") {
      size = Math.min(50, Math.max(1, size + (key === "]" ? 2 : -2)));
      part("[data-size]").value = size;
    }
  });

  // What is painted when it is sent goes along, with Fill as after a stroke: so none overtakes another.
  window.studio.painted = (values) => [...values.slice(0, -1), message()];
  watch("value", begin);
  begin();
};
