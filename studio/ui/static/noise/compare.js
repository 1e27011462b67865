// Compare: two to four runs on one rail.

const COMPARED = 4;
const PRESETS = {
  samplers: ["studio", "ddim", "unipc", "ddpm"].map((sampler) => ({ sampler })),
  steps: [4, 8, 16, 50].map((steps) => ({ steps })),
  guidance: [0, 1, 3, 10].map((guidance) => ({ guidance })),
  seeds: [1, 2, 3, 4].map((seed) => ({ seed })),
};
const PLAIN = { sampler: "studio", steps: 10, guidance: 3, seed: 1 };
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
      $("span", figure).textContent = `${run.calls} network calls${pictures}${run.fitted ? ", weights fitted for so many" : ""}; ends ${run.distance.at(-1).toFixed(3)} away`;
      $("button", figure).addEventListener("click", () => trigger("fetch", { asked: run.picture }));
    }
    slot("distance").hidden = false;
    slot("distance-of").textContent = `Logarithmic. Root mean square over the pixels, which go from −1 to 1, to where a run of ${view.converged} steps from the same noise, with the same words and guidance, ends. The last point is the picture itself.`;
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
