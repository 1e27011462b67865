"""The page's frame: header, tabs, footer, and how Gradio is to serve them."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from studio.engine.engine import MAX_WAITING
from studio.ui.studio import ASSETS, Studio
from studio.ui.text_to_image import add_endpoint, build_tab
from studio.ui.theme import studio_theme

_MARK = (
    '<svg class="mark" viewBox="0 0 8 8" aria-hidden="true">'
    + "".join(
        f'<rect x="{x}" y="{y}" width="1" height="1" opacity="{opacity}"/>'
        for y, row in enumerate(
            ("05030000", "20506910", "03719993", "50639997", "04259997", "30714993", "05260910", "20030000")
        )
        for x, opacity in ((x, int(digit) / 9) for x, digit in enumerate(row))
        if opacity
    )
    + "</svg>"
)
_CREDITS = (
    "Trained by this project on emoji artwork: "
    '<a href="https://github.com/googlefonts/noto-emoji">Noto Emoji</a> by Google (Apache-2.0), '
    '<a href="https://github.com/jdecked/twemoji">Twemoji</a> by Twitter and contributors (CC-BY-4.0), '
    '<a href="https://github.com/microsoft/fluentui-emoji">Fluent Emoji</a> by Microsoft (MIT).'
)
_PROGRAM = """<details><summary>Use it from a program</summary><pre><code>from gradio_client import Client

studio = Client("<span data-slot="origin">http://127.0.0.1:7860</span>")
files, info = studio.predict(
    "a red apple", style="glossy", ground="blue", count=4, api_name="/text_to_image"
)</code></pre></details>"""


def build_page(studio: Studio) -> gr.Blocks:
    """The whole page. Nothing is computed: pictures on first sight are shipped ones."""
    studio.pictures.mkdir(parents=True, exist_ok=True)
    with gr.Blocks(
        title="Diffusion Studio", fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400)
    ) as page:
        header = gr.HTML(header_html(studio), elem_id="header", apply_default_css=False, js_on_load=None)
        with gr.Tabs(elem_id="tabs"), gr.Tab("Text to image", elem_id="tab-text-to-image"):
            build_tab(studio)
        add_endpoint(studio)
        gr.HTML(
            f"<footer><p>{_CREDITS}</p>{_PROGRAM}</footer>",
            elem_id="footer",
            apply_default_css=False,
            js_on_load=None,
        )
        gr.Timer(1.0).tick(  # the header follows the engine
            lambda: header_html(studio),
            None,
            [header],
            show_progress="hidden",
            queue=False,
            api_visibility="private",
        )
    page.queue(max_size=128, default_concurrency_limit=None)
    return page


def header_html(studio: Studio) -> str:
    status = studio.engine.status
    if status.phase == "loading":
        state = "model is loading"
    elif status.phase == "failed":
        state = "no model"
    elif status.phase == "running":
        state = f"painting, {status.waiting} in line" if status.waiting else "painting"
    else:
        state = "ready"
    model = studio.model
    facts = [model.name]
    if model.parameters:
        facts.append(f"{model.size} parameters")
    if model.picture_size:
        facts.append(f"{model.picture_size} × {model.picture_size} px")
    facts.append(studio.device_name)
    problem = f'<p class="problem" role="alert">{escape(status.problem)}</p>' if status.problem else ""
    return (
        f'<header><h1>{_MARK}Diffusion Studio</h1><p class="model">'
        + "".join(f"<span>{escape(fact)}</span>" for fact in facts if fact)
        + f'</p><p class="state" data-phase="{status.phase}" role="status">{escape(state)}</p>'
        '<button type="button" class="shade" data-shade title="Light or dark" aria-label="Light or dark">'
        "</button>"
        f"</header>{problem}"
    )


def launch_options(studio: Studio) -> dict[str, Any]:
    """How Gradio serves the page: its look, no foreign hosts, no share link, and only these files."""
    allowed = [studio.pictures, studio.examples]
    if studio.vocabulary and studio.vocabulary.thumbnails:
        allowed.append(studio.vocabulary.thumbnails.path)
    icon = "data:image/svg+xml," + quote(_MARK.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"'))
    script = (Path(__file__).parent / "page.js").read_text("utf-8")
    return {
        "theme": studio_theme((ASSETS / "style.css").read_text("utf-8")),
        "head": f'<link rel="icon" href="{icon}"><script>{script}</script>',
        "allowed_paths": [str(path.resolve()) for path in allowed],
        "footer_links": [],
        "share": False,
        "quiet": True,
        "max_threads": 2 * MAX_WAITING + 32,  # whoever waits in line holds one
        "strict_cors": True,
        "max_file_size": "20mb",
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "pwa": False,
        "show_error": False,
    }


def serve(studio: Studio, *, host: str, port: int, auth: tuple[str, str] | None = None) -> None:
    """Opens the page, then loads the model behind it: importing torch takes seconds nobody should wait for.

    Returns when the server is stopped. Raises OSError if the port cannot be had.
    """
    page = build_page(studio)
    page.launch(server_name=host, server_port=port, auth=auth, prevent_thread_lock=True, **launch_options(studio))
    print(f"Diffusion Studio is open at {page.local_url}", flush=True)
    studio.engine.start()
    page.block_thread()
