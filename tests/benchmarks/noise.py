"""Time of the noise tab: opening a trace and drawing a time in a real browser, and training on points.

    python -m tests.benchmarks.noise [--repeats 5]

Run it on an otherwise idle machine. A server with the bundled model and Chromium run on it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from playwright.sync_api import Page, sync_playwright

from studio.lab.plane import SHAPES, energy_distance, make_cloud
from studio.lab.point_model import PointModel, reverse_paths
from tests.benchmarks.machine import heading, spread, table
from tests.serving import free_port, serving
from tests.ui.journeys.visitor import BROWSER, generate, open_tab, set_steps

STEPS = 20
TICKS = 120  # of each view
NEAR = 0.02  # energy distance between learned and given points
VIEWS = {"forward": "Forward", "reverse": "Reverse", "compare": "Compare", "plane": "In the plane"}
SHOWN = """caption => document.querySelector("#noise [data-slot=caption]")?.innerText === caption
  && document.querySelector("#noise [data-panel=reverse]").checkVisibility()"""
DRAG = """([ticks, last]) => new Promise((done) => {
  const slider = document.querySelector("#noise [data-slot=time-slider]"), costs = [];
  const next = () => {
    if (costs.length) costs[costs.length - 1] = Number(document.querySelector("#noise [data-cost]").dataset.cost);
    if (costs.length === ticks) return done(costs);
    slider.value = Math.round((costs.length / (ticks - 1)) * last);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    costs.push(0);
    requestAnimationFrame(() => requestAnimationFrame(next));
  };
  next();
})"""


def until_shown(page: Page, caption: str, click: str) -> float:
    """Seconds from a click until the run with this caption stands in the reverse view."""
    began = time.perf_counter()
    page.click(click)
    page.wait_for_function(SHOWN, arg=caption, polling="raf")
    return time.perf_counter() - began


def opening(page: Page, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds until a run of STEPS steps is open: from the stage right after it, and from the library."""
    after, kept = [], []
    for number in range(repeats):
        prompt = f"a red apple {number}"
        open_tab(page, "Text to image")
        set_steps(page, STEPS)
        generate(page, prompt)
        after.append(until_shown(page, prompt, "#stage button:has-text('See how it was made')"))
    for number in range(repeats):
        open_tab(page, "Library")
        page.click(f".piece >> nth={number} >> .open")
        page.wait_for_selector("#viewer[open]")
        prompt = f"a red apple {repeats - 1 - number}"
        kept.append(until_shown(page, prompt, "#viewer >> text=See how it was made"))
    return after, kept


def ticks(page: Page) -> dict[str, list[float]]:
    """Return the milliseconds that a view takes for one time in the browser: all that it computes and draws."""
    costs = {}
    for panel in VIEWS:
        page.click(f"[data-go={panel}]")
        if panel == "compare":
            page.click("[data-form=compare] [type=submit]")
            page.wait_for_selector("[data-slot=distance] svg")
        page.wait_for_function(
            "name => document.querySelector(`#noise [data-panel=${name}] canvas`)?.width > 1", arg=panel
        )
        costs[panel] = page.evaluate(DRAG, [TICKS, 999])
    return costs


def learning(shape: str) -> tuple[float, int, float]:
    """Seconds of training until the flow's points lie within NEAR of the shape's, at most 30; steps; distance."""
    toy, spent, distance = PointModel(make_cloud(shape)), 0.0, float("inf")
    start = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
    while distance > NEAR and spent < 30:
        began = time.perf_counter()
        for _ in toy.train(0.5):
            pass
        spent += time.perf_counter() - began
        paths, _ = reverse_paths(toy.velocity, toy.scheduler.plan(STEPS), start)
        distance = energy_distance(paths[-1].numpy(), toy.cloud.points)
    return spent, toy.steps, distance


@contextmanager
def opened(url: str) -> Iterator[Page]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector("#prompt textarea")
        yield page
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of each opening")
    args = parser.parse_args()
    print(heading())
    with tempfile.TemporaryDirectory() as data:
        port = free_port()
        with serving("app.py", "--port", str(port), "--data-dir", data, port=port) as url, opened(url) as page:
            after, kept = opening(page, args.repeats)
            costs = ticks(page)
    print(f"A trace of {STEPS} steps and the finish at 64 px, from the click until it is shown.\n")
    rows = [("right after the run", spread(after), max(after)), ("from the library", spread(kept), max(kept))]
    print(table(("opened", "s, median (least to most)", "most"), [(n, s, f"{m:.2f}") for n, s, m in rows]))
    print(f"{TICKS} times from one end of the slider to the other: all that a view computes and draws for each.\n")
    p95 = {panel: statistics.quantiles(values, n=20)[-1] for panel, values in costs.items()}
    print(
        table(
            ("view", "ms, median (least to most)", "p95"),
            [(VIEWS[panel], spread(values, digits=1), f"{p95[panel]:.1f}") for panel, values in costs.items()],
        )
    )
    print(f"Learning points until the flow's lie within an energy distance of {NEAR} of them.\n")
    learned = [(shape, *learning(shape)) for shape in SHAPES]
    print(
        table(
            ("shape", "s", "steps", "energy distance"),
            [(shape, f"{s:.1f}", steps, f"{d:.3f}") for shape, s, steps, d in learned],
        )
    )


if __name__ == "__main__":
    main()
