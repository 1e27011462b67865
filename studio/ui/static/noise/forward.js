// Forward: a picture on its way into noise, at any time, by any schedule.

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
    slot("formula").innerHTML = `x<sub>t</sub> = <b>${fixed(alpha)}</b> · x<sub>0</sub> + <b>${fixed(sigma)}</b> · ε`;
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
    this.asked = asked;
    const view = await ask("forward", asked);
    if (view && this.asked === asked) this.take(view); // a slower answer to what was asked before is out of date
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
