// What happens in the browser alone: keys, words into the prompt, the grid, what is folded, files dropped anywhere,
// drafts, light and dark. What album.js and the parts of the page call of it is in window.studio.
(() => {
  const field = () => document.querySelector("#prompt textarea");
  let inserted = null; // what a click last put into the prompt: the next click may replace it
  let clicked = false; // that a click has put something there, until it is noticed

  function write(text) {
    const area = field();
    if (!area) return;
    clicked = true;
    area.value = text;
    area.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // Whether a change of the prompt is somebody's writing.
  function writing() {
    const by = clicked || document.activeElement.closest("#prompt") !== null;
    clicked = false;
    return by;
  }

  // The button of the tab in sight.
  const inSight = (selector) => [...document.querySelectorAll(selector)].find((element) => element.checkVisibility());

  function press(selector) {
    const button = inSight(selector);
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
    const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace("'", "['’]");
    const pattern = new RegExp(`(^|[^\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, "giu");
    write(field().value.replace(pattern, (_, before) => before + known));
    field().focus();
  }

  // In one column the picture stands below the controls: go there, where it is about to appear.
  function comeToStage() {
    if (!matchMedia("(max-width: 820px)").matches) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    inSight(".gallery").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }

  function selectCell(cell) {
    const stage = cell.closest(".stage");
    const again = cell.getAttribute("aria-pressed") === "true";
    for (const other of stage.querySelectorAll("[data-cell]")) other.setAttribute("aria-pressed", String(other === cell));
    // A second click on the selected picture shows it alone, a third the grid again; under the slider, one is alone.
    const alone = again && !stage.querySelector(".compare") && !stage.classList.contains("alone");
    stage.classList.toggle("alone", alone);
    stage.dataset.key = cell.dataset.key;
    const after = stage.querySelector(".compare .after");
    if (after) after.src = cell.dataset.url;
    const seed = stage.querySelector("[data-slot=seed]");
    if (seed) seed.textContent = cell.dataset.seed;
    const title = stage.querySelector(".label .title");
    if (title) title.textContent = cell.dataset.title;
    const link = stage.querySelector("[data-slot=download]");
    if (link) Object.assign(link, { href: cell.dataset.url, download: cell.dataset.file });
  }

  // ---- before and after ----

  const compareOf = (element) => element.closest(".wall").querySelector("[data-compare]");

  function zoom(button) {
    compareOf(button).style.setProperty("--zoom", button.dataset.zoom);
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
  }
  document.addEventListener("pointermove", (event) => {
    const compare = event.target.closest?.("[data-compare]");
    if (!compare) return;
    const box = compare.getBoundingClientRect();
    compare.style.setProperty("--x", `${(100 * (event.clientX - box.left)) / box.width}%`);
    compare.style.setProperty("--y", `${(100 * (event.clientY - box.top)) / box.height}%`);
  });

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

  const store = {
    read(key) { try { return localStorage.getItem(key); } catch { return null; } },
    write(key, text) { try { localStorage.setItem(key, text); } catch { /* private windows keep nothing */ } },
  };
  const shade = {
    get kept() { return store.read("studio-shade"); },
    set kept(value) { store.write("studio-shade", value); },
    apply(dark) { for (const part of [document.documentElement, document.body]) part.classList.toggle("dark", dark); },
  };

  // ---- drafts: what is typed and chosen in a tab, by the names of its fields ----

  const user = () => window.gradio_config?.username ?? "";
  const draftKey = (tab) => `studio-draft:${tab}:${user()}`;

  function keep(tab, names, values) {
    clearTimeout(keep.timer);
    const draft = Object.fromEntries(names.map((name, index) => [name, values[index]]));
    keep.pending = () => store.write(draftKey(tab), JSON.stringify(draft));
    keep.timer = setTimeout(keep.flush, 250);
  }
  keep.flush = () => {
    keep.pending?.();
    keep.pending = null;
  };
  addEventListener("pagehide", keep.flush);

  // The values to begin with: of the draft, but what was touched before this could be asked stays as it is.
  function draft(tab, names, defaults, values) {
    let kept = {};
    try { kept = JSON.parse(store.read(draftKey(tab))) ?? {}; } catch { /* not ours */ }
    return names.map((name, index) => {
      const untouched = values[index] === defaults[index];
      return untouched && typeof kept[name] === typeof defaults[index] ? kept[name] : values[index];
    });
  }

  // ---- clicks that ask the server for something: data-act, with what else the button says ----

  function acts(element, trigger) {
    let down = null; // what was under the finger when it came down: the list may move before it is lifted
    const read = (target) => {
      const { act, pick, job, ids } = target.dataset;
      if (pick) return { act: "example", number: pick.split(":")[1] };
      return { act, job, ids: ids?.split(" ") };
    };
    const at = (event) => event.target.closest?.("[data-act], #album [data-pick]");
    element.addEventListener("pointerdown", (event) => { down = at(event) && read(at(event)); });
    element.addEventListener("click", (event) => {
      const target = at(event);
      if (target && !target.disabled) trigger("click", (event.detail && down) || read(target));
      down = null;
    });
  }

  // The queue shows itself when there is more under way than the stage tells, unless it was folded.
  function tray(what) {
    const body = document.body;
    const seen = document.querySelector("#queue ol, #queue .none")?.checkVisibility();
    if (what === "fold" && !seen) what = "toggle";
    body.dataset.queue = what === "fold" || seen ? "folded" : "open";
  }

  // ---- a picture dropped anywhere, or pasted: to work on where a tab takes pictures, else for its settings ----

  const opener = () => inSight("#inpaint-open, #super-resolution-open");

  function give(button, file) {
    const input = button?.parentElement.querySelector("input[type=file]");
    if (!input || !file) return;
    const one = new DataTransfer();
    one.items.add(file);
    input.files = one.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }
  addEventListener("paste", (event) => {
    const file = [...event.clipboardData?.files ?? []].find((one) => one.type.startsWith("image/"));
    if (!file || !opener()) return;
    event.preventDefault();
    give(opener(), file);
  });

  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  let dragged = 0; // elements under the file, one inside the other

  function drag(by, event) {
    if (!carriesFile(event)) return;
    event.preventDefault();
    dragged = Math.max(0, dragged + by);
    document.body.dataset.drop = opener() ? "Drop a picture to open it here" : "Drop a picture to take its settings";
    document.body.classList.toggle("dropping", by >= 0 && dragged > 0);
  }
  addEventListener("dragenter", (event) => drag(1, event));
  addEventListener("dragleave", (event) => drag(-1, event));
  addEventListener("dragover", (event) => drag(0, event));
  addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    dragged = 0;
    document.body.classList.remove("dropping");
    give(opener() ?? document.querySelector("#restore"), event.dataTransfer.files[0]);
  });

  document.addEventListener("click", (event) => {
    const on = (name) => event.target.closest?.(`[data-${name}]`);
    let target;
    if ((target = on("word"))) addWord(target.dataset.word);
    else if ((target = on("swap"))) swapWord(target.dataset.swap, target.dataset.for);
    else if ((target = on("cell"))) selectCell(target);
    else if ((target = on("zoom"))) zoom(target);
    else if (event.target.closest?.("button.run-button, #strip [data-pick]")) comeToStage();
    else if ((target = on("tray"))) tray(target.dataset.tray);
    else if ((target = on("fold"))) target.ariaExpanded = String(target.ariaExpanded !== "true");
    else if ((target = on("shade"))) {
      const dark = !document.body.classList.contains("dark");
      shade.apply(dark);
      shade.kept = dark ? "dark" : "light";
    }
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("[data-find]")) find(event.target);
    if (event.target.matches?.("[data-compare] input")) {
      event.target.parentElement.style.setProperty("--split", `${event.target.value}%`);
    }
  });
  const OWN_ESCAPE = "input[type=search], [role=listbox], input[aria-expanded=true]"; // it clears or closes these
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      press("button.run-button");
    } else if (event.key === "Escape" && !event.isComposing && !event.target.matches(OWN_ESCAPE)) press("button.stop-button");
  }, true);

  // Gradio names every radio apart; one name a group gives the arrow keys back, and one stop for Tab.
  document.addEventListener("focusin", (event) => {
    const group = event.target.type === "radio" && event.target.closest("fieldset");
    if (group) for (const input of group.querySelectorAll("input[type=radio]")) input.name = group.id;
  });

  // Gradio sets its own choice of light or dark while it mounts; the kept one, if any, comes after.
  const ready = new MutationObserver(() => {
    if (!document.querySelector("#background label")) return;
    ready.disconnect();
    for (const slot of document.querySelectorAll("[data-slot=origin]")) slot.textContent = location.origin + location.pathname;
    if (shade.kept && !new URL(location).searchParams.has("__theme")) shade.apply(shade.kept === "dark");
    for (const label of document.querySelectorAll("#background label")) label.title = label.textContent.trim();
  });
  ready.observe(document, { childList: true, subtree: true });

  window.studio = { keep, draft, acts, say, writing };
})();

// A link to a view of the tab Noise opens that tab, which does the rest.
function openNoise() {
  if (!location.hash.startsWith("#noise")) return;
  const seek = setInterval(() => {
    const tab = [...document.querySelectorAll("button[role=tab]")].find((button) => button.innerText.trim() === "Noise");
    if (tab?.getAttribute("aria-selected") === "true") clearInterval(seek);
    else if (document.querySelector("#prompt textarea")) tab?.click();
  }, 100);
}
openNoise();
window.addEventListener("hashchange", openNoise);
