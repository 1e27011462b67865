// The guided tour of the noise tab: it goes through the views, sets the rail and says what is to be seen. After the rail.

const TOUR = [
  ["forward", 0, "x_t", "A picture is numbers", "Every pixel is three numbers from −1 to 1. At t = 0 hardly anything has been done to them."],
  ["forward", 420, "formula", "Weaker, plus noise", "At every t the picture is multiplied by α and random numbers, multiplied by σ, are added. Both stand here as they are at this t."],
  ["forward", 999, "x_t", "Nothing is left", "At the end only noise remains. Painting begins here: with random numbers, and no picture at all."],
  ["forward", 420, "alpha_bar", "How fast?", "The schedule decides. ᾱ is the share of the picture’s variance that is left; choose another schedule above and compare the curves."],
  ["reverse", 999, "rx_t", "Now backward", "This run began from noise. The network sees x_t, the words and how much noise to expect."],
  ["reverse", 760, "rx0", "What the network believes", "From its answer follows x̂0, the picture it expects, drawn toward the words by guidance. Early on, that is a blur of everything that could be meant."],
  ["reverse", 500, "arithmetic", "One step, written out", "The sampler mixes x_t, x̂0 and the predictions before it to the next, less noisy picture. These are the very numbers; nothing else happens in a step."],
  ["reverse", 500, "rdiff", "Guidance", "The network is asked with the words and without. The difference is what the words change in x̂0; it is added several times over."],
  ["reverse", 300, "maps", "Where words look", "Attention says which word mattered at which place. At every pixel the shares sum to one, over the words and the marks at both ends."],
  ["compare", 500, "runs", "Few calls or many", "Runs from the same noise, set side by side: a good sampler comes near the converged picture in few network calls. Press Compare to see it."],
  ["plane", 999, "plane", "The same with points", "Here a picture is a point with two numbers, so that the whole space is in sight. Press play: noise flows into the shape along the arrows."],
];

const tour = {
  at: -1,
  place() {
    const name = TOUR[this.at][2];
    const found = canvasOf(name) ?? slot(name) ?? $(`[data-chart="${name}"]`);
    return found?.closest("figure") ?? found;
  },
  async go(index) {
    if (index < 0 || index >= TOUR.length) return this.end();
    this.leave();
    this.at = index;
    const [panel, t, , title, text] = TOUR[index], card = slot("tour");
    if (state.panel !== panel) show(panel);
    else play(false);
    goTo(t);
    $("h3", card).textContent = title;
    $("p", card).innerHTML = printed(text);
    $("span", card).textContent = `${index + 1} of ${TOUR.length}`;
    $('[data-tour="back"]', card).disabled = index === 0;
    $('[data-tour="next"]', card).textContent = index === TOUR.length - 1 ? "Done" : "Next";
    card.hidden = false;
    const place = this.place();
    place?.setAttribute("data-pointed", "");
    place?.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    $('[data-tour="next"]', card).focus({ preventScroll: true });
  },
  leave() {
    for (const pointed of $$("[data-pointed]")) pointed.removeAttribute("data-pointed");
  },
  end() {
    this.leave();
    this.at = -1;
    slot("tour").hidden = true;
    $('[data-tour="begin"]').focus({ preventScroll: true });
  },
};

element.addEventListener("click", (event) => {
  const what = event.target.closest("[data-tour]")?.dataset.tour;
  if (what === "begin") tour.go(0);
  else if (what === "next") tour.go(tour.at + 1);
  else if (what === "back") tour.go(tour.at - 1);
  else if (what === "end") tour.end();
});
slot("tour").addEventListener("keydown", (event) => {
  const turn = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.key === "Escape") tour.end();
  else if (turn && tour.at + turn >= 0) tour.go(tour.at + turn);
  else return;
  event.preventDefault();
  event.stopPropagation();
});
