"""The page's frame: header, tabs, footer, and how Gradio is to serve them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr

from studio.engine.job import JobRejected
from studio.services.context import AppContext
from studio.ui.components.inpaint_draft import TAB as INPAINT
from studio.ui.components.job_panel import JobPanel
from studio.ui.components.parts import QUICK, message_html
from studio.ui.components.queue_panel import queue_panel
from studio.ui.components.send_to import SendTarget
from studio.ui.components.views import parse_view_token
from studio.ui.scripts import STATIC, head_html, module_routes, on_load
from studio.ui.tabs.inpaint import InpaintTab, build_inpaint
from studio.ui.tabs.library import build_library
from studio.ui.tabs.noise.tab import NoiseTab, build_noise
from studio.ui.tabs.super_resolution import TAB as SUPER_RESOLUTION
from studio.ui.tabs.super_resolution import SuperResolutionTab, build_super_resolution
from studio.ui.tabs.text_to_image import TAB, TextToImageTab, build_text_to_image
from studio.ui.theme import studio_theme

NOISE = "noise"

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


def build_page(studio: AppContext) -> gr.Blocks:
    """The whole page. Nothing is computed: pictures on first sight are shipped ones."""
    with gr.Blocks(
        title="Diffusion Studio", fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400)
    ) as page:
        token = gr.BrowserState("", storage_key="diffusion-studio", secret=studio.library.secret)
        header = gr.HTML(header_html(studio), elem_id="header", apply_default_css=False, js_on_load=None)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Text to image", id=TAB, elem_id="tab-text-to-image"):
                bench = build_text_to_image(studio, page, token, tabs)
            with gr.Tab("Inpaint", id=INPAINT, elem_id="tab-inpaint"):
                inpaint = build_inpaint(studio, page, token)
            with gr.Tab("Super-resolution", id=SUPER_RESOLUTION, elem_id="tab-super-resolution"):
                enlarge = build_super_resolution(studio, page, token)
            with gr.Tab("Noise", id=NOISE, elem_id="tab-noise"):
                noise = build_noise(studio, token)
            destinations = [bench.destination, inpaint.destination, enlarge.destination, *_noise_destinations(noise)]
            with gr.Tab("Library", id="library", elem_id="tab-library") as tab:
                build_library(studio, token, tabs, tab, destinations, bench)
        gr.HTML(
            f"<footer><p>{_CREDITS}</p>{_PROGRAM}</footer>",
            elem_id="footer",
            apply_default_css=False,
            js_on_load=None,
        )
        queue = gr.HTML(
            queue_panel([], set()),
            elem_id="queue",
            apply_default_css=False,
            js_on_load=on_load("actions.js", "sendActions(element, trigger)"),
        )
        _connect(studio, page, token, tabs, [bench, inpaint, enlarge], header, queue)
        _connect_stages(studio, token, tabs, [bench, inpaint, enlarge], destinations)
    return page


def _connect(
    studio: AppContext,
    page: gr.Blocks,
    token: gr.BrowserState,
    tabs: gr.Tabs,
    painting: Sequence[TextToImageTab | InpaintTab | SuperResolutionTab],
    header: gr.HTML,
    queue: gr.HTML,
) -> None:
    """What is not one tab's: who opens the page, the header and the queue that follow the engine."""
    seen = gr.State("")  # what the strip of latest pictures is of
    bench, easels = painting[0], [tab.easel for tab in painting]
    tickets = [easel.watched for easel in easels]

    def lines(owner: str, tickets: Iterable[str]) -> dict[Any, Any]:
        shown = {id for kind, id in map(parse_view_token, tickets) if kind == "job"}
        panel = queue_panel(studio.engine.jobs(owner), shown, loading=studio.engine.status.phase == "loading")
        return {header: header_html(studio), queue: panel}

    def greet(request: gr.Request, browser: str) -> dict[Any, Any]:
        owner, known = studio.owners.of_page(request, browser)
        found: dict[Any, Any] = {}
        for tab in painting:
            try:
                found |= tab.greet(owner)
            except JobRejected as problem:
                found |= {tab.easel.message: message_html([str(problem)], "alert")}
        shown = [found.get(ticket, "") for ticket in tickets]
        return found | lines(owner, shown) | ({} if browser == known else {token: known})

    def pulse(request: gr.Request, browser: str, before: str, *shown: str) -> dict[Any, Any]:
        owner, _ = studio.owners.of_page(request, browser)
        try:
            html, now = bench.latest(owner)
        except JobRejected:  # said where something is asked for
            return lines(owner, shown)
        return lines(owner, shown) | ({} if now == before else {bench.strip: html, seen: now})

    def act(request: gr.Request, event: gr.EventData, browser: str, *shown: str) -> dict[Any, Any]:
        owner, _ = studio.owners.of_page(request, browser)
        what, job = event._data.get("act"), str(event._data.get("job"))
        changed: dict[Any, Any] = {}
        if what == "cancel":
            studio.engine.cancel(job, owner)
        elif what in ("up", "down"):
            studio.engine.move(job, owner, what)
        elif what == "show" and (view := studio.engine.view(job, owner)):
            easel = next((easel for easel in easels if view.task in easel.tasks), easels[0])
            changed = easel.show_job(job) | {tabs: gr.update(selected=easel.tab)}
        return changed | lines(owner, [changed.get(ticket, now) for ticket, now in zip(tickets, shown, strict=True)])

    greeting = [part for tab in painting for part in tab.greeting]
    page.load(greet, [token], [token, header, queue, *greeting], **QUICK)
    gr.Timer(1.0).tick(pulse, [token, seen, *tickets], [header, queue, bench.strip, seen], **QUICK)
    queue.click(
        act, [token, *tickets], [header, queue, tabs, *tickets, *(easel.stop for easel in easels)],
        trigger_mode="multiple", **QUICK,
    )  # fmt: skip


def _noise_destinations(noise: NoiseTab) -> list[SendTarget]:
    """Pictures that left a trace are taken apart in the tab Noise, and any goes into noise there."""
    return [
        SendTarget(
            "See how it was made",
            NOISE,
            [noise.inbox],
            lambda owner, picture: {noise.inbox: noise.open(owner, picture.id)},
            lambda picture: picture.has_trace,
        ),
        SendTarget(
            "Put noise on it",
            NOISE,
            [noise.inbox],
            lambda owner, picture: {noise.inbox: noise.drown(owner, picture.id)},
        ),
    ]


def _connect_stages(
    studio: AppContext,
    token: gr.BrowserState,
    tabs: gr.Tabs,
    painting: Sequence[TextToImageTab | InpaintTab | SuperResolutionTab],
    destinations: Sequence[SendTarget],
) -> None:
    """The picture on any stage opens in the tab that a click names."""

    def connect(easel: JobPanel) -> None:
        def send(request: gr.Request, event: gr.EventData, browser: str) -> dict[Any, Any]:
            kind, _, id = str(event._data.get("key")).partition(":")
            what, _, tab = str(event._data.get("pick")).partition(":")
            to = next((to for to in destinations if to.tab == tab), None)
            if to is None or what != "to" or kind != "picture":
                return {tabs: gr.skip()}
            owner, _ = studio.owners.of_page(request, browser)
            try:
                return to.fill_from(studio.library, owner, id) | {tabs: gr.update(selected=to.tab)}
            except JobRejected as problem:
                return {easel.message: message_html([str(problem)], "alert")}

        outputs = dict.fromkeys([tabs, easel.message, *(part for to in destinations for part in to.outputs)])
        easel.stage.click(send, [token], list(outputs), trigger_mode="multiple", **QUICK)

    for tab in painting:
        connect(tab.easel)


def header_html(studio: AppContext) -> str:
    status = studio.engine.status
    if status.phase == "loading":
        state = "model is loading"
    elif status.phase == "failed":
        state = "no model"
    elif status.phase == "running":
        state = f"{status.running} running" if status.running > 1 or status.waiting else "painting"
        state += f", {status.waiting} waiting" if status.waiting else ""
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
        + f'</p><p class="state" data-phase="{status.phase}"><span role="status">{escape(state)}</span>'
        '<button type="button" class="queue" data-tray="toggle">Queue</button></p>'
        '<button type="button" class="shade" data-shade title="Light or dark" aria-label="Light or dark">'
        "</button>"
        f"</header>{problem}"
    )


def launch_options(studio: AppContext) -> dict[str, Any]:
    """How Gradio serves the page: its look, no foreign hosts, no share link, and only these files."""
    # Names of files in drafts/ cannot be guessed; those in inputs/ say what is in them, to who has it.
    allowed = [*(studio.library.folder / name for name in ("pictures", "inputs", "drafts")), studio.examples]
    if studio.vocabulary and studio.vocabulary.thumbnails:
        allowed.append(studio.vocabulary.thumbnails.path)
    icon = "data:image/svg+xml," + quote(_MARK.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"'))
    return {
        "theme": studio_theme("".join((STATIC / name).read_text("utf-8") for name in ("style.css", "noise.css"))),
        "head": f'<link rel="icon" href="{icon}">{head_html()}',
        "app_kwargs": {"routes": module_routes()},
        "allowed_paths": [str(path.resolve()) for path in allowed],
        "footer_links": [],
        "share": False,
        "quiet": True,
        "max_threads": 512,  # whoever follows a job holds one
        "strict_cors": True,
        "max_file_size": "70mb",  # 16 megapixels without compression, and with transparency
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "pwa": False,
        "show_error": False,
    }
