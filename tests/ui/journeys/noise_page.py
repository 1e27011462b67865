"""The noise tab alone, over a tiny network with random weights, served from this process; and how it is used."""

from __future__ import annotations

import base64
import contextlib
import statistics
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np

from studio.api.noise import add_noise_endpoints
from studio.services.noise.service import NoiseService
from studio.services.owners import Owners
from studio.ui.scripts import module_routes
from studio.ui.tabs.noise.tab import build_noise
from studio.ui.theme import studio_theme
from tests.fakes import CAPABILITIES
from tests.services.latent_models import noise_service
from tests.ui.harness import LoopThread


def build_noise_page(noise: NoiseService) -> gr.Blocks:
    """The tab, another tab before it with the id of the chosen model, and a button that opens a picture of an owner."""
    context = SimpleNamespace(capabilities=CAPABILITIES, noise=noise, owners=Owners())
    with gr.Blocks(fill_width=True, analytics_enabled=False) as page:
        token = gr.BrowserState("", storage_key="noise", secret=noise.runs.library.secret)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Other"):
                gr.Textbox(elem_id="prompt", label="Prompt")
                model = gr.Textbox(elem_id="model", label="Model")
            with gr.Tab("Noise", elem_id="tab-noise"):
                tab = build_noise(context, token, model)
        add_noise_endpoints(context)
        picture = gr.Textbox(label="Picture", elem_id="picture")
        owner = gr.Textbox(label="Owner", elem_id="owner")
        gr.Button("Open", elem_id="open").click(tab.open, [owner, picture], [tab.inbox], show_progress="hidden")
    return page


@contextlib.contextmanager
def serving_noise(folder: Path, port: int) -> Iterator[str]:
    """Serve the tab over a library in a folder, with models of random weights; give its address."""
    with noise_service(folder) as noise, contextlib.closing(LoopThread()) as loop:
        page = loop.call(build_noise_page, noise)
        loop.call(
            page.launch,
            server_name="127.0.0.1",
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            theme=studio_theme(),
            app_kwargs={"routes": module_routes()},
        )
        try:
            yield page.local_url.rstrip("/")
        finally:
            page.close(verbose=False)


# ---- what a visitor does ----

PIXELS = """name => { const c = document.querySelector(`#noise canvas[data-draw="${name}"]`);
  const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height), parts = [];
  for (let i = 0; i < data.length; i += 32768) parts.push(String.fromCharCode(...data.subarray(i, i + 32768)));
  return btoa(parts.join("")); }"""  # as a string: a list of numbers takes seconds on its way here


def open_tab(page) -> None:
    page.click("#tab-noise-button, button[role=tab]:has-text('Noise')")
    page.wait_for_selector("#noise[data-ready], #noise [data-ready]", state="attached")


def at(page, t: int) -> None:
    """Move the time slider there, and wait until the view is drawn."""
    page.evaluate(
        """t => { const slider = document.querySelector('#noise [data-slot=time-slider]');
        slider.value = t; slider.dispatchEvent(new Event('input', { bubbles: true }));
        return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))); }""",
        t,
    )


def pixels(page, name: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(page.evaluate(PIXELS, name)), np.uint8)


def message(page) -> str:
    page.wait_for_function("document.querySelector('#noise [data-slot=message]').hasAttribute('data-bad')")
    return page.inner_text("#noise [data-slot=message]")


def size(page, name: str) -> list[int]:
    return page.eval_on_selector(f'#noise canvas[data-draw="{name}"]', "canvas => [canvas.width, canvas.height]")


def choose_model(page, model_id: str) -> None:
    """Choose a model in the other tab, and come back when the noise tab follows it."""
    page.click("button[role=tab]:has-text('Other')")
    page.fill("#model input, #model textarea", model_id)
    page.keyboard.press("Tab")
    open_tab(page)
    state = "attached" if model_id else "hidden"
    page.wait_for_selector("#noise [data-latent]:not([hidden])", state=state)


def press(noise, key: str) -> None:
    """Presses a key, and waits until what it changes is drawn."""
    noise.keyboard.press(key)
    noise.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def compare(page) -> list[str]:
    """Presses Compare; what is said of each run."""
    page.eval_on_selector("[data-slot=runs]", "runs => runs.replaceChildren()")
    page.click("[data-form=compare] [type=submit]")
    page.wait_for_selector("[data-slot=runs] canvas")
    return page.locator("[data-slot=runs] figcaption").all_inner_texts()


def run(page, prompt: str, steps: int) -> None:
    """Press the button of the reverse view and wait for the run."""
    page.fill("[data-form=run] [name=prompt]", prompt)
    page.fill("[data-form=run] [name=steps]", str(steps))
    page.click("[data-form=run] [type=submit]")
    page.wait_for_function(f"document.querySelector('#noise [data-slot=caption]').innerText == '{prompt}'")


def assert_quick(page) -> None:
    """Drawing a time takes less than a frame of the screen."""
    costs = []  # ms, of all that one time computes and draws
    for t in range(0, 1000, 37):
        at(page, t)
        costs.append(float(page.evaluate("document.querySelector('#noise [data-cost]').dataset.cost")))
    # What else runs here is in them too, so that the cheapest tell the cost; the benchmark has the median.
    assert statistics.quantiles(costs, n=10)[0] < 16


def copy_link(page) -> str:
    page.evaluate("window.copied = ''; navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.click("[data-export=link]")
    page.wait_for_function("window.copied")
    return page.evaluate("window.copied")


def go_to(page, hash: str) -> None:
    """Follow a link within the page."""
    page.evaluate("hash => { location.hash = hash; }", hash)


@contextlib.contextmanager
def offline(page) -> Iterator[None]:
    """Take the page's network away, and check that it has not even asked for anything."""
    urls: list[str] = []

    def listen(request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            urls.append(request.url)

    page.on("request", listen)
    page.context.set_offline(True)
    try:
        yield
    finally:
        page.context.set_offline(False)
        page.remove_listener("request", listen)
    assert urls == []
