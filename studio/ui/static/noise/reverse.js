// Reverse: a run taken apart, step by step, with what the network looked at.

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
    for (const [name, value] of Object.entries(view.asked ?? {})) {
      const field = $(`[data-form=run] [name=${name}]`);
      if (field.type === "checkbox") field.checked = value;
      else field.value = value;
    }
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
    const view = this.view;
    this.stage = index;
    for (const [i, button] of [...slot("stages").children].entries()) button.setAttribute("aria-pressed", String(i === index));
    const told = Object.entries(view.stages[index].condition);
    slot("told").replaceChildren(...told.map(([name, uri]) => {
      const figure = document.createElement("figure");
      const image = Object.assign(document.createElement("img"), { src: uri, alt: name });
      figure.append(image, Object.assign(document.createElement("figcaption"), { textContent: `also shown: ${name}` }));
      return figure;
    }));
    slot("maps").textContent = this.looks[index] ? "" : "Looking into the network …";
    slot("unet").replaceChildren();
    draw();
    if (!this.looks[index]) {
      const given = view.looks?.[index] ?? (view.key && (await ask("look", { key: view.key, stage: index })));
      if (given) for (const look of given.looks) {
        look.attention = pixels(await picture(look.maps));
        look.images = await Promise.all(look.levels.map(picture));
      }
      if (this.view !== view) return; // another run was opened meanwhile
      this.looks[index] = given;
    }
    if (this.stage !== index) return;
    if (this.looks[index]) this.furnish(this.looks[index]);
    else slot("maps").textContent = "The network could not be looked into.";
    draw();
  },
  furnish(look) {
    slot("maps").innerHTML = look.words.map(() => '<figure class="nv-fig"><canvas role="img"></canvas><figcaption><b></b> <span></span></figcaption></figure>').join("");
    for (const [i, figure] of [...slot("maps").children].entries()) {
      const marks = look.words.slice(0, i).filter((word) => !word).length; // of several windows each has a start and an end
      const name = look.words[i] || (marks % 2 ? "(end)" : "(start)");
      $("b", figure).textContent = name;
      $("canvas", figure).setAttribute("aria-label", `attention to ${name}`);
    }
    const [height, width] = look.window, last = look.levels.length + 2, windows = look.windows > 1 ? `, first of ${look.windows} windows` : "";
    const card = (column, depth, name, shape, canvas) => `<div class="nv-level" style="--column:${column};--depth:${depth}"><b>${name}</b><span>${shape}</span>${canvas}</div>`;
    const side = (level) => Math.round(Math.log2(look.levels[0].shape[1] / level.shape[1]));
    const skips = look.levels.map((level, i) => {
      const other = look.levels.findIndex((up) => up.name === level.name.replace("down", "up"));
      return level.name.startsWith("down") && other > i ? `<i class="nv-skip" style="--depth:${side(level)};--from:${i + 2};--count:${other - i + 1}"></i>` : "";
    });
    slot("unet").style.setProperty("--columns", last);
    slot("unet").innerHTML = card(1, 0, "in", `10 × ${height} × ${width}${windows}`, '<canvas data-at="x_t" role="img" aria-label="x_t, the input"></canvas><small>x<sub>t</sub> 3, known picture 3, mask 1, low resolution 3</small>')
      + look.levels.map((level, i) => card(i + 2, side(level), level.name, level.shape.join(" × "), `<canvas role="img" aria-label="channels of ${level.name}"></canvas>`)).join("")
      + card(last, 0, "out", `3 × ${height} × ${width}`, '<canvas data-at="x0" role="img" aria-label="the predicted picture"></canvas><small>v, and from it x̂<sub>0</sub></small>')
      + skips.join("");
  },
  stops() {
    // Heun calls the network twice at one time: a rail has one place for each call
    return this.view?.stages[this.stage].steps.map((step, i, all) => (i && step.t === all[i - 1].t ? step.t - 1 : step.t));
  },
  draw() {
    if (!this.view) return;
    const stage = this.view.stages[this.stage], index = nearest(this.stops(), state.t), step = stage.steps[index];
    for (const [name, at] of [["rx_t", "x_t"], ["reps", "eps"], ["rx0", "x0"], ["rx_next", "x_next"], ["rdiff", "difference"]]) {
      const canvas = canvasOf(name), image = at === "x_next" && !step.next ? null : stage.images[at];
      canvas.closest("figure").style.visibility = image ? "" : "hidden";
      if (image) frame(canvas, image, index, stage.width, stage.height);
    }
    const guidance = Number(step.guidance.toFixed(2));
    const guided = step.difference === null ? (step.guidance === 1 ? "guidance did not act here" : `guidance ${guidance}, which the network took as an input: one pass, no difference`) : `guidance ${guidance}: the words change x̂0 by ${fixed(step.difference, 3)}${this.view.emphasized && step.guidance > 1 ? ", what those for the style change counted 1.25 times" : ""}, added ${fixed(step.guidance - 1, 1)} times more`;
    const how = {
      exact: "the sampler's own weights", fitted: "the sampler's weights, fitted to this network for so many calls",
      measured: "weights measured from the arrays", unknown: "of a long run only a part of the steps is kept",
    }[step.how];
    const left = step.drawn ? "noise drawn anew" : step.rest === null ? "not known" : step.rest < 1e-6 ? "nothing" : step.rest.toExponential(1);
    slot("arithmetic").className = "nv-lines";
    slot("arithmetic").innerHTML =
      `<p>step ${step.step + 1}, t = ${fixed(step.t, 0)}</p><p>${printed(step.splitting)}</p><p>${printed(step.arithmetic)}</p>` +
      `<p>${printed(guided)}</p><p>${how}${step.how === "unknown" ? "" : `; left over: ${left}`}</p>`;
    const named = (numbers, more) => numbers.map((number, i) => [(["x_t", "x̂0 now", "x̂0 before", "x̂0 before that"][i] ?? `x̂0 ${i - 1} steps before`) + more, number]);
    const weights = step.how === "unknown" ? [] : [...named([step.a, ...step.b], ""), ...named(step.coarse, ", smoothed")];
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
