"""The page: header, tabs and footer, the events that several tabs share, and how Gradio serves it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from studio.engine.job import JobRejected
from studio.services.context import AppContext
from studio.ui.components.header import footer_html, header_html, icon_uri
from studio.ui.components.job_panel import JobPanel, JobTab
from studio.ui.components.model_menu import ModelMenu, menu_html
from studio.ui.components.parts import QUICK, message_html
from studio.ui.components.queue_panel import queue_html
from studio.ui.components.send_to import SendTarget
from studio.ui.components.views import parse_view_token
from studio.ui.events import Click, Updates, Visitor
from studio.ui.scripts import head_html, module_routes, on_load
from studio.ui.tabs.inpaint import InpaintTab
from studio.ui.tabs.library import LibraryTab
from studio.ui.tabs.models.tab import ModelsTab
from studio.ui.tabs.noise.tab import NoiseTab, build_noise
from studio.ui.tabs.super_resolution import SuperResolutionTab
from studio.ui.tabs.text_to_image import TextToImageTab
from studio.ui.theme import studio_theme

NOISE_TAB = "noise"
REFRESH_SECONDS = 1.0  # between two updates of the header and the queue


def build_page(context: AppContext) -> gr.Blocks:
    """Return the page. Building it loads no model: the pictures on it are shipped ones."""
    with gr.Blocks(
        title="Diffusion Studio", fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400)
    ) as page:
        token = gr.BrowserState("", storage_key="diffusion-studio", secret=context.library.secret)
        with gr.Row(elem_id="top"):
            header = gr.HTML(header_html(context, ""), elem_id="header", apply_default_css=False, js_on_load=None)
            menu = ModelMenu.build(context)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Text to image", id="text-to-image", elem_id="tab-text-to-image"):
                text_to_image = TextToImageTab(context, page, token, tabs, menu)
            with gr.Tab("Inpaint", id="inpaint", elem_id="tab-inpaint"):
                inpaint = InpaintTab(context, page, token, menu)
            with gr.Tab("Super-resolution", id="super-resolution", elem_id="tab-super-resolution"):
                super_resolution = SuperResolutionTab(context, page, token, menu)
            with gr.Tab("Noise", id=NOISE_TAB, elem_id="tab-noise"):
                noise = build_noise(context, token, menu.model_id)
            job_tabs: list[JobTab] = [text_to_image, inpaint, super_resolution]
            targets = [*(tab.target for tab in job_tabs), text_to_image.start_target, *_noise_targets(noise)]
            with gr.Tab("Library", id="library", elem_id="tab-library") as library_tab:
                LibraryTab(context, token, tabs, library_tab, targets, text_to_image)
            with gr.Tab("Models", id="models", elem_id="tab-models") as models_tab:
                models = ModelsTab(context, token, models_tab, menu)
        gr.HTML(footer_html(), elem_id="footer", apply_default_css=False, js_on_load=None)
        queue = gr.HTML(
            queue_html([], set()),
            elem_id="queue",
            apply_default_css=False,
            js_on_load=on_load("actions.js", "sendActions(element, trigger)"),
        )
        _SharedEvents(context, token, tabs, menu, text_to_image, job_tabs, models, header, queue).connect(page, targets)
    return page


def launch_options(context: AppContext) -> dict[str, Any]:
    """Return how Gradio serves the page: its look, no foreign hosts, no share link, and these files alone."""
    # The names in pictures/ and drafts/ cannot be guessed; those in inputs/ are hashes of what the files hold.
    folders = [*(context.library.folder / name for name in ("pictures", "inputs", "drafts")), context.examples]
    if context.vocabulary and context.vocabulary.thumbnails:
        folders.append(context.vocabulary.thumbnails.path)
    return {
        "theme": studio_theme(),
        "head": f'<link rel="icon" href="{icon_uri()}">{head_html()}',
        "app_kwargs": {"routes": module_routes()},
        "allowed_paths": [str(path.resolve()) for path in folders],
        "footer_links": [],
        "share": False,
        "quiet": True,
        "max_threads": 512,  # everyone who follows a job holds one
        "strict_cors": True,
        "max_file_size": "70mb",  # 16 megapixels without compression, and with transparency
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "pwa": False,
        "show_error": False,
    }


class _SharedEvents:
    """The events that belong to no single tab: opening the page, the header, the queue, sending pictures."""

    def __init__(
        self,
        context: AppContext,
        token: gr.BrowserState,
        tabs: gr.Tabs,
        menu: ModelMenu,
        text_to_image: TextToImageTab,
        job_tabs: Sequence[JobTab],
        models: ModelsTab,
        header: gr.HTML,
        queue: gr.HTML,
    ) -> None:
        self._context, self._token, self._tabs, self._menu = context, token, tabs, menu
        self._text_to_image, self._job_tabs, self._models = text_to_image, job_tabs, models
        self._header, self._queue = header, queue
        self._panels = [tab.panel for tab in job_tabs]
        self._view_tokens = [panel.view_token for panel in self._panels]
        self._latest_keys = gr.State("")  # names the pictures in the strip of the latest ones
        self._cards_key = gr.State("")  # changes with the cards of the models

    def connect(self, page: gr.Blocks, targets: Sequence[SendTarget]) -> None:
        """Connect all events. targets: where pictures can be sent."""
        status, strip = [self._header, self._queue, self._menu.html], self._text_to_image.strip
        self._menu.connect(page)
        restored = [output for tab in self._job_tabs for output in tab.restored_outputs]
        page.load(self.restore_view, [self._token, self._menu.model_id], [self._token, *status, *restored], **QUICK)
        gr.Timer(REFRESH_SECONDS).tick(
            self.refresh,
            [self._token, self._menu.model_id, self._latest_keys, self._cards_key, *self._view_tokens],
            [*status, strip, self._latest_keys, self._models.cards, self._cards_key],
            **QUICK,
        )
        self._queue.click(
            self.handle_queue_action,
            [self._token, self._menu.model_id, *self._view_tokens],
            [*status, self._tabs, *self._view_tokens, *(panel.stop for panel in self._panels)],
            trigger_mode="multiple",
            **QUICK,
        )
        for panel in self._panels:
            self._connect_sends(panel, targets)

    # ---- handlers ----

    def restore_view(self, request: gr.Request, token: str, model_id: str) -> Updates:
        """Show what an owner who opens the page finds in each tab."""
        owner, valid_token = self._context.owners.of_page(request, token)
        updates: Updates = {}
        for tab in self._job_tabs:
            try:
                updates |= tab.restore_view(owner)
            except JobRejected as problem:
                updates[tab.panel.message] = message_html([str(problem)], "alert")
        shown = [updates.get(view_token, "") for view_token in self._view_tokens]
        return (
            updates
            | self._status(owner, model_id, shown)
            | ({} if valid_token == token else {self._token: valid_token})
        )

    def refresh(
        self, request: gr.Request, token: str, model_id: str, latest_keys: str, cards_key: str, *view_tokens: str
    ) -> Updates:
        """Bring the header, the queue, the strip of the latest pictures and the models up to date."""
        owner, _ = self._context.owners.of_page(request, token)
        status = self._status(owner, model_id, view_tokens)
        cards, new_key = self._models.refresh(model_id, cards_key)
        if cards is not None:
            status |= {self._models.cards: cards, self._cards_key: new_key}
        try:
            strip_html, keys = self._text_to_image.latest(owner)
        except JobRejected:  # the disk's problem is reported where something is asked for
            return status
        return (
            status if keys == latest_keys else status | {self._text_to_image.strip: strip_html, self._latest_keys: keys}
        )

    def handle_queue_action(
        self, request: gr.Request, event: gr.EventData, token: str, model_id: str, *view_tokens: str
    ) -> Updates:
        """Cancel, move or show a job of the queue."""
        owner, _ = self._context.owners.of_page(request, token)
        engine, action, job_id = self._context.engine, event._data.get("act"), str(event._data.get("job"))
        updates: Updates = {}
        if action == "cancel":
            engine.cancel(job_id, owner)
        elif action in ("up", "down"):
            engine.move(job_id, owner, action)
        elif action == "show" and (job := engine.view(job_id, owner)):
            panel = next((panel for panel in self._panels if job.task in panel.tasks), self._panels[0])
            updates = panel.show_job(job_id) | {self._tabs: gr.update(selected=panel.tab)}
        shown = [updates.get(box, shown_token) for box, shown_token in zip(self._view_tokens, view_tokens, strict=True)]
        return updates | self._status(owner, model_id, shown)

    # ---- helpers ----

    def _status(self, owner: str, model_id: str, view_tokens: Iterable[str]) -> Updates:
        """Return the header, the menu of models and the queue. view_tokens: what the tabs show."""
        shown_ids = {item_id for kind, item_id in map(parse_view_token, view_tokens) if kind == "job"}
        engine, entries = self._context.engine, self._context.catalog.entries
        loading = next((entry.name for entry in entries if entry.id == engine.status.loading), "")
        queue = queue_html(engine.jobs(owner), shown_ids, loading=loading, names_models=len(entries) > 1)
        return {
            self._header: header_html(self._context, model_id),
            self._menu.html: menu_html(self._context, model_id),
            self._queue: queue,
        }

    def _connect_sends(self, panel: JobPanel, targets: Sequence[SendTarget]) -> None:
        """Open the selected picture in the tab that a button names: "to:inpaint"."""

        def send(visitor: Visitor, event: gr.EventData) -> Updates:
            click = Click.of(event)
            action, _, name = click.pick.partition(":")
            target = next((target for target in targets if name in (target.name, target.tab)), None)
            if target is None or action != "to" or click.kind != "picture":
                return {}
            updates = target.fill_from(self._context.library, visitor.owner, click.item_id)
            return updates | {self._tabs: gr.update(selected=target.tab)}

        panel.events.on_click(
            panel.result, send, [self._tabs, *(output for target in targets for output in target.outputs)]
        )


def _noise_targets(noise: NoiseTab) -> list[SendTarget]:
    """Return the targets of the noise tab, which opens runs step by step and adds noise to any picture."""
    return [
        SendTarget(
            "See how it was made",
            NOISE_TAB,
            [noise.inbox],
            lambda owner, picture: {noise.inbox: noise.open(owner, picture.id)},
            lambda picture: picture.has_trace,
        ),
        SendTarget(
            "Add noise",
            NOISE_TAB,
            [noise.inbox],
            lambda owner, picture: {noise.inbox: noise.open_forward(owner, picture.id)},
        ),
    ]
