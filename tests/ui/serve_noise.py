"""The noise tab alone, over a tiny network with random weights, served from this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from studio.api.noise import add_noise_endpoints
from studio.engine.engine import Engine
from studio.library.store import Library
from studio.models.families.studio import StudioBackend
from studio.services.noise.service import ASSETS, NoiseService
from studio.services.owners import Owners
from studio.ui.scripts import module_routes
from studio.ui.tabs.noise.tab import build_noise
from studio.ui.theme import studio_theme
from tests.diffusion.conftest import random_pipeline
from tests.fakes import CAPABILITIES
from tests.ui.harness import LoopThread


def build_noise_page(engine: Engine, library: Library) -> gr.Blocks:
    """The tab, another tab before it, and a button that opens a picture of an owner."""
    noise = NoiseService(engine, library, ASSETS / "examples")
    context = SimpleNamespace(capabilities=CAPABILITIES, noise=noise, owners=Owners())
    with gr.Blocks(fill_width=True, analytics_enabled=False) as page:
        token = gr.BrowserState("", storage_key="noise", secret=library.secret)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Other"):
                gr.Textbox(elem_id="prompt", label="Prompt")
            with gr.Tab("Noise", elem_id="tab-noise"):
                tab = build_noise(context, token)
        add_noise_endpoints(context)
        picture = gr.Textbox(label="Picture", elem_id="picture")
        owner = gr.Textbox(label="Owner", elem_id="owner")
        gr.Button("Open", elem_id="open").click(tab.open, [owner, picture], [tab.inbox], show_progress="hidden")
    return page


@contextlib.contextmanager
def serving_noise(folder: Path, port: int) -> Iterator[str]:
    """Serve the tab over a library in a folder; give its address."""
    library = Library(folder)
    engine = Engine(lambda: StudioBackend(random_pipeline()), library.journal, resolve=CAPABILITIES.resolve).start()
    with contextlib.closing(LoopThread()) as loop:
        page = loop.call(build_noise_page, engine, library)
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
            engine.shutdown(8.0)
            page.close(verbose=False)
            library.close()
