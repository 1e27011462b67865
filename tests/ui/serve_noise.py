"""The noise tab alone, over a tiny network with random weights: python -m tests.ui.serve_noise FOLDER PORT."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from studio.api.noise import add_noise_endpoints
from studio.engine.engine import Engine
from studio.library.store import Library
from studio.models.families.studio import StudioBackend
from studio.models.loader import reserve_torch_threads
from studio.services.noise.service import ASSETS, NoiseService
from studio.services.owners import Owners
from studio.ui.scripts import module_routes
from studio.ui.tabs.noise.tab import build_noise
from studio.ui.theme import studio_theme
from tests.diffusion.conftest import random_pipeline
from tests.fakes import CAPABILITIES


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    library = Library(folder)

    def load() -> StudioBackend:
        sampler = StudioBackend(random_pipeline())
        reserve_torch_threads()
        return sampler

    engine = Engine(load, library.journal, resolve=CAPABILITIES.resolve)
    noise = NoiseService(engine, library, ASSETS / "examples")
    studio = SimpleNamespace(capabilities=CAPABILITIES, noise=noise, owners=Owners())
    with gr.Blocks(fill_width=True, analytics_enabled=False) as page:
        token = gr.BrowserState("", storage_key="noise", secret=library.secret)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Other"):
                gr.Textbox(elem_id="prompt", label="Prompt")
            with gr.Tab("Noise", elem_id="tab-noise"):
                tab = build_noise(studio, token)
        add_noise_endpoints(studio)
        picture = gr.Textbox(label="Picture", elem_id="picture")
        owner = gr.Textbox(label="Owner", elem_id="owner")
        gr.Button("Open", elem_id="open").click(tab.open, [owner, picture], [tab.inbox], show_progress="hidden")
    page.launch(
        server_name="127.0.0.1",
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        theme=studio_theme(),
        app_kwargs={"routes": module_routes()},
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    engine.start()
    page.block_thread()


if __name__ == "__main__":
    main()
