// In the plane: points in place of pictures, the exact flow, and a network that learns them.

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
    const cross = (x, y, r) => {
      for (const [w, h] of [[2 * r, r / 2], [r / 2, 2 * r]]) context.fillRect(X(x) - w / 2, Y(y) - h / 2, w, h);
    };
    context.clearRect(0, 0, side, side);
    if (slot("shape").value === "drawing" && !this.drawn) return this.drawStrokes(context, X, Y, side);
    if (!this.still) return;
    const show = (name) => $(`[data-show="${name}"]`).checked, unit = side / 620, [i, share] = this.at();
    if (show("density")) this.paintDensity(context, i, share, side);
    if (show("data")) {
      for (const [k, label] of this.still.labels.entries()) {
        context.fillStyle = css(INKS[label]);
        context.globalAlpha = 0.35;
        if (label) cross(this.points[2 * k], this.points[2 * k + 1], 2.4 * unit);
        else dot(this.points[2 * k], this.points[2 * k + 1], 1.2 * unit);
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
      context.setLineDash(stroke.label ? [side / 40, side / 40] : []);
      context.beginPath();
      for (const [i, [x, y]] of stroke.points.entries()) context[i ? "lineTo" : "moveTo"](X(x), Y(y));
      if (stroke.points.length === 1) context.lineTo(X(stroke.points[0][0]) + 0.1, Y(stroke.points[0][1]));
      context.stroke();
    }
    context.setLineDash([]);
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
  // what guidance can do with what is to be painted
  furnish() {
    const { label, away, guidance } = this.aim();
    slot("guide-is").textContent = slot("guide").value;
    slot("guide").disabled = label === null;
    slot("guide-note").textContent = label === null ? "Guidance is toward a class: choose one." : away !== null && guidance === 1 ? "At 1 nothing is kept away from." : "";
  },
  async aimed() {
    this.furnish();
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
