"""What a visitor does with the page in a browser, and how it is to look."""

from __future__ import annotations

BROWSER = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
).split()

DONE = ".stage[data-kind=done]"
RUNNING = ".stage[data-kind=running]"


def generate(page, prompt: str | None = None) -> None:
    """Press Generate and wait for the picture."""
    if prompt is not None:
        page.fill("#prompt textarea", prompt)
    page.eval_on_selector("#stage .stage", "stage => { stage.dataset.kind = 'old'; }")
    page.click("#generate")
    page.wait_for_selector(f"#stage {DONE}")
    page.wait_for_selector("#stop:disabled")


def start(page, prompt: str, steps: int) -> None:
    """Press Generate and wait until the job is running or queued."""
    set_steps(page, steps)
    page.fill("#prompt textarea", prompt)
    page.click("#generate")
    page.wait_for_selector(f"#stage .stage:is([data-kind=running], [data-kind=waiting]) .title:text-is('{prompt}')")


def stop(page) -> None:
    page.click("#stop")
    page.wait_for_selector("#stage .stage[data-kind=stopped]")


def set_steps(page, steps: int | str) -> None:
    unfold(page, "#steps")
    page.fill("#steps input", str(steps))


def unfold(page, control: str) -> None:
    """Open what is folded, if that control is not in sight."""
    if not page.is_visible(control):
        page.click("[data-fold]:visible")


def open_tab(page, name: str) -> None:
    page.click(f"role=tab[name='{name}']")


def download(page, part: str = "#stage") -> bytes:
    """The file behind the download link of a part."""
    with page.expect_download() as wait:
        page.click(f"{part} [data-slot=download]")
    return wait.value.path().read_bytes()


def choose(page, button: str, content: bytes, name: str = "picture.png") -> None:
    """Choose a file through an upload button."""
    with page.expect_file_chooser() as chooser:
        page.click(button)
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def drop(page, name: str, content: bytes, on: str = "#footer") -> None:
    """Drop a file on a part of the page, as a browser would report it."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
          return transfer;
        }""",
        [name, list(content)],
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event(on, kind, {"dataTransfer": transfer})


LOW_CONTRAST = """() => {
  const parse = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = new Set();
  for (const element of document.querySelectorAll(".gradio-container *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const seen = { opacityProperty: true, visibilityProperty: true };
    if (!own || !element.checkVisibility(seen)) continue;
    if (element.closest("button:disabled") || element.tagName === "OPTION") continue;
    const style = getComputedStyle(element);
    if (parseFloat(style.fontSize) === 0) continue;
    let ground = null;
    for (let up = element; up && !ground; up = up.parentElement) {
      const colour = parse(getComputedStyle(up).backgroundColor);
      if (colour[3] === 1) ground = colour;
    }
    const [a, b] = [light(parse(style.color)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const text = element.textContent.trim().slice(0, 40);
    if (ratio < 4.5) found.add(`${ratio.toFixed(2)} ${element.tagName} ${text}`);
  }
  return [...found];
}"""  # WCAG AA: 4.5 to 1 for every text in sight that is not disabled


TRANSITIONS_END = """() => Promise.allSettled(
  document.getAnimations().filter((a) => a.transitionProperty).map((a) => a.finished)
)"""


def set_shade(page, shade: str) -> None:
    """Let the system ask for light or dark, and wait until the page follows."""
    page.emulate_media(color_scheme=shade)
    page.wait_for_function(f"document.body.classList.contains('dark') === {str(shade == 'dark').lower()}")
    page.evaluate(
        "Promise.allSettled(document.getAnimations().filter((a) => a.transitionProperty).map((a) => a.finished))"
    )
