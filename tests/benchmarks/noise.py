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
MAX_DISTANCE = 0.02  # energy distance between generated and given points
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


def time_opening(page: Page, caption: str, click: str) -> float:
    """Return the seconds from a click until the reverse view shows the run with this caption."""
    start = time.perf_counter()
    page.click(click)
    page.wait_for_function(SHOWN, arg=caption, polling="raf")
    return time.perf_counter() - start


def measure_openings(page: Page, repeats: int) -> tuple[list[float], list[float]]:
    """Return the seconds until a run of STEPS steps is open: from its result, and from the library."""
    from_result, from_library = [], []
    for number in range(repeats):
        prompt = f"a red apple {number}"
        open_tab(page, "Text to image")
        set_steps(page, STEPS)
        generate(page, prompt)
        from_result.append(time_opening(page, prompt, "#stage button:has-text('See how it was made')"))
    for number in range(repeats):
        open_tab(page, "Library")
        page.click(f".piece >> nth={number} >> .open")
        page.wait_for_selector("#viewer[open]")
        prompt = f"a red apple {repeats - 1 - number}"
        from_library.append(time_opening(page, prompt, "#viewer >> text=See how it was made"))
    return from_result, from_library


def measure_ticks(page: Page) -> dict[str, list[float]]:
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


def measure_learning(shape: str) -> tuple[float, int, float]:
    """Return seconds of training (at most 30) until generated points are within MAX_DISTANCE of the shape, steps,
    and the distance."""
    toy, spent, distance = PointModel(make_cloud(shape)), 0.0, float("inf")
    start = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
    while distance > MAX_DISTANCE and spent < 30:
        begin = time.perf_counter()
        for _ in toy.train(0.5):
            pass
        spent += time.perf_counter() - begin
        paths, _ = reverse_paths(toy.velocity, toy.scheduler.plan(STEPS), start)
        distance = energy_distance(paths[-1].numpy(), toy.cloud.points)
    return spent, toy.steps, distance


@contextmanager
def open_page(url: str) -> Iterator[Page]:
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
        with serving("app.py", "--port", str(port), "--data-dir", data, port=port) as url, open_page(url) as page:
            from_result, from_library = measure_openings(page, args.repeats)
            costs = measure_ticks(page)
    print(f"Opening a trace of {STEPS} steps and super-resolution to 64 px, from the click until it is shown.\n")
    rows = [
        ("from the result", spread(from_result), max(from_result)),
        ("from the library", spread(from_library), max(from_library)),
    ]
    print(table(("opened", "s, median (min to max)", "max"), [(n, s, f"{m:.2f}") for n, s, m in rows]))
    print(f"{TICKS} positions of the slider from one end to the other: all that a view computes and draws for each.\n")
    p95 = {panel: statistics.quantiles(values, n=20)[-1] for panel, values in costs.items()}
    print(
        table(
            ("view", "ms, median (min to max)", "p95"),
            [(VIEWS[panel], spread(values, digits=1), f"{p95[panel]:.1f}") for panel, values in costs.items()],
        )
    )
    print(f"Training on points until generated ones are within an energy distance of {MAX_DISTANCE}.\n")
    learned = [(shape, *measure_learning(shape)) for shape in SHAPES]
    print(
        table(
            ("shape", "s", "steps", "energy distance"),
            [(shape, f"{s:.1f}", steps, f"{d:.3f}") for shape, s, steps, d in learned],
        )
    )


if __name__ == "__main__":
    main()
