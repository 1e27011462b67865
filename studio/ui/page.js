// What happens in the browser alone: keys, words into the prompt, the grid, light and dark.
(() => {
  const field = () => document.querySelector("#prompt textarea");
  let inserted = null; // what a click last put into the prompt: the next click may replace it

  function write(text) {
    const area = field();
    if (!area) return;
    area.value = text;
    area.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function press(id) {
    const button = document.getElementById(id);
    if (button && !button.disabled) button.click();
  }

  function say(text) {
    let toast = document.getElementById("toast");
    if (!toast) {
      toast = document.createElement("div");
      toast.id = "toast";
      toast.setAttribute("role", "status");
      document.querySelector(".gradio-container").append(toast);
    }
    toast.textContent = text;
    toast.classList.add("on");
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => toast.classList.remove("on"), 1600);
  }

  function outOfSight(element) {
    const box = element.getBoundingClientRect();
    return box.bottom < 0 || box.top > window.innerHeight;
  }

  function addWord(phrase) {
    const now = field().value.trim();
    const text = !now || now === inserted ? phrase : `${now} and ${phrase}`;
    inserted = now && now !== inserted ? null : phrase;
    write(text);
    if (outOfSight(field())) say(`Prompt: ${text}`);
  }

  function swapWord(word, known) {
    const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const pattern = new RegExp(`(^|[^\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, "giu");
    write(field().value.replace(pattern, (_, before) => before + known));
    field().focus();
  }

  // In one column the picture stands below the controls: go there, where it is about to appear.
  function comeToStage() {
    if (!matchMedia("(max-width: 820px)").matches) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    document.getElementById("stage").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }

  function selectCell(cell) {
    const stage = cell.closest(".stage");
    const again = cell.getAttribute("aria-pressed") === "true";
    for (const other of stage.querySelectorAll("[data-cell]")) other.setAttribute("aria-pressed", String(other === cell));
    // A second click on the selected picture shows it alone, a third the grid again.
    stage.classList.toggle("alone", again && !stage.classList.contains("alone"));
    const seed = stage.querySelector("[data-slot=seed]");
    if (seed) seed.textContent = cell.dataset.seed;
    const link = stage.querySelector("[data-slot=download]");
    if (link) Object.assign(link, { href: cell.dataset.url, download: cell.dataset.file });
  }

  function find(input) {
    const wanted = input.value.trim().toLowerCase();
    const panel = input.closest(".vocabulary");
    let any = false;
    for (const group of panel.querySelectorAll("[data-group]")) {
      let some = false;
      for (const word of group.querySelectorAll("[data-word]")) {
        word.hidden = !word.textContent.toLowerCase().includes(wanted);
        some ||= !word.hidden;
      }
      group.hidden = !some;
      any ||= some;
    }
    panel.querySelector(".none").hidden = any;
  }

  const shade = {
    get kept() { try { return localStorage.getItem("studio-shade"); } catch { return null; } },
    set kept(value) { try { localStorage.setItem("studio-shade", value); } catch { /* private windows keep nothing */ } },
    apply(dark) { for (const part of [document.documentElement, document.body]) part.classList.toggle("dark", dark); },
  };

  document.addEventListener("click", (event) => {
    const on = (name) => event.target.closest?.(`[data-${name}]`);
    let target;
    if ((target = on("word"))) addWord(target.dataset.word);
    else if ((target = on("swap"))) swapWord(target.dataset.swap, target.dataset.for);
    else if ((target = on("cell"))) selectCell(target);
    else if (event.target.closest?.("#generate, #strip [data-pick]")) comeToStage();
    else if ((target = on("shade"))) {
      const dark = !document.body.classList.contains("dark");
      shade.apply(dark);
      shade.kept = dark ? "dark" : "light";
    }
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("[data-find]")) find(event.target);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      press("generate");
    } else if (event.key === "Escape") press("stop");
  }, true);

  // Gradio names every radio apart; one name a group gives the arrow keys back, and one stop for Tab.
  document.addEventListener("focusin", (event) => {
    const group = event.target.type === "radio" && event.target.closest("fieldset");
    if (group) for (const input of group.querySelectorAll("input[type=radio]")) input.name = group.id;
  });

  // Gradio sets its own choice of light or dark while it mounts; the kept one, if any, comes after.
  const ready = new MutationObserver(() => {
    if (!document.querySelector("#ground label")) return;
    ready.disconnect();
    for (const slot of document.querySelectorAll("[data-slot=origin]")) slot.textContent = location.origin + location.pathname;
    if (shade.kept && !new URL(location).searchParams.has("__theme")) shade.apply(shade.kept === "dark");
    for (const label of document.querySelectorAll("#ground label")) label.title = label.textContent.trim();
  });
  ready.observe(document, { childList: true, subtree: true });
})();
