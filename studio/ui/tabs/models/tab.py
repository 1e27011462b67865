"""The tab "Models": what is there, what each model is, and how to get more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.models.formats import ModelError
from studio.services.context import AppContext
from studio.ui.components.job_panel import CLICK_SCRIPT
from studio.ui.components.model_menu import ModelMenu, menu_html
from studio.ui.components.parts import QUICK, message_html
from studio.ui.events import Click, Events, Updates, Visitor
from studio.ui.scripts import on_event
from studio.ui.tabs.models.cards import cards_html, cards_key, folders_html
from studio.ui.tabs.models.changes import ChangesForm
from studio.ui.tabs.models.hub import HubDownloads

TAB = "models"
REFRESH_SECONDS = 1.0  # between two updates of a download
NOT_ALLOWED = "On this studio, visitors cannot change models."


class ModelsTab:
    """The tab; create it inside its gr.Tab."""

    def __init__(self, context: AppContext, token: gr.BrowserState, tab: gr.Tab, menu: ModelMenu) -> None:
        self._context, self._menu = context, menu
        folders = context.catalog.folders
        self._hub = HubDownloads(folders[0]) if folders and context.manages_models else None
        with gr.Row(elem_id="models-workspace", elem_classes="workspace", equal_height=False):
            with gr.Column(elem_classes="controls", scale=0, min_width=320):
                self._changes = ChangesForm.build()
                gr.HTML(folders_html(context), elem_id="model-folders", apply_default_css=False, js_on_load=None)
                self._rescan = gr.Button("Scan again", size="sm", elem_id="models-rescan", min_width=100)
                with gr.Column(visible=self._hub is not None, elem_id="hub"):
                    self._hub_id = gr.Textbox(
                        "",
                        label="Download from the Hugging Face hub",
                        placeholder="owner/name or owner/name/file.safetensors",
                        max_lines=1,
                        elem_id="hub-id",
                    )
                    self._check = gr.Button("Check", size="sm", elem_id="hub-check", min_width=100)
                    self._found = self._click_html("hub-found")
                    self._progress = self._click_html("hub-progress")
                self._message = gr.HTML("", elem_id="models-message", elem_classes="message", apply_default_css=False)
            with gr.Column(elem_classes="gallery", scale=1, min_width=320):
                self.cards = self._click_html("model-cards", cards_html(context, ""))
        self._timer = gr.Timer(REFRESH_SECONDS, active=False)
        events = Events(context, token, self._message, lambda sentence: message_html([sentence], "alert"))
        self._connect(events, tab)

    def refresh(self, model_id: str, key: str) -> tuple[str | None, str]:
        """Return the cards, None if nothing changed, and their key. key: of the cards that are shown."""
        new_key = cards_key(self._context, model_id)
        return (None if new_key == key else cards_html(self._context, model_id)), new_key

    # ---- handlers ----

    def show(self, visitor: Visitor, *, model_id: str) -> Updates:
        """Show the models as they are now."""
        is_running = self._hub is not None and self._hub.is_running
        return self._show(model_id) | {self._timer: gr.update(active=is_running)}

    def rescan(self, visitor: Visitor, *, model_id: str) -> Updates:
        """Look at the folders again."""
        before = {entry.id for entry in self._context.catalog.entries}
        self._context.catalog.rescan()
        after = {entry.id for entry in self._context.catalog.entries}
        new, gone = ", ".join(sorted(after - before)), ", ".join(sorted(before - after))
        notes = [f"New: {new}." if new else "", f"Gone: {gone}." if gone else ""]
        sentences = [note for note in notes if note] or ["Nothing has changed."]
        return self._show(model_id) | {self._message: message_html(sentences)}

    def handle_click(self, visitor: Visitor, event: gr.EventData) -> Updates:
        """Use a model, or show the form that changes what is known of it."""
        action, _, model_id = Click.of(event).pick.partition(":")
        entry = self._context.catalog.get(model_id)
        if action == "use":
            return {self._menu.model_id: entry.id}
        if action == "edit":
            self._require_manager()
            return self._changes.show(entry) | {self._message: ""}
        return {}

    def save_changes(self, visitor: Visitor, *, changed_id: str, model_id: str, **values: Any) -> Updates:
        """Keep what a person sets for a model."""
        return self._change(changed_id, model_id, ChangesForm.overrides(values))

    def undo_changes(self, visitor: Visitor, *, changed_id: str, model_id: str) -> Updates:
        """Take back all that was set for a model."""
        nothing = ChangesForm.overrides(dict.fromkeys(self._changes.controls, ""))
        return self._change(changed_id, model_id, nothing)

    def close_changes(self, visitor: Visitor) -> Updates:
        return self._changes.hide()

    def check_hub(self, visitor: Visitor, *, hub_id: str) -> Updates:
        """Show what a download would fetch."""
        return {self._found: self._downloads.find(hub_id), self._message: ""}

    def handle_hub_click(self, visitor: Visitor, event: gr.EventData) -> Updates:
        """Start or cancel a download."""
        action, _, hub_id = Click.of(event).pick.partition(":")
        if action == "download":
            self._downloads.start(hub_id)
        elif action == "cancel":
            self._downloads.cancel()
        return {
            self._found: "",
            self._progress: self._downloads.html(),
            self._timer: gr.update(active=True),
            self._message: "",
        }

    def follow_download(self, visitor: Visitor, *, model_id: str) -> Updates:
        """Show how far the download is; once it has ended, look at the folders again."""
        updates: Updates = {self._progress: self._downloads.html()}
        if self._downloads.is_running:
            return updates
        self._context.catalog.rescan()
        return updates | self._show(model_id) | {self._timer: gr.update(active=False)}

    # ---- helpers ----

    @property
    def _downloads(self) -> HubDownloads:
        if self._hub is None:
            raise ModelError(NOT_ALLOWED)
        return self._hub

    def _require_manager(self) -> None:
        if not self._context.manages_models:
            raise ModelError(NOT_ALLOWED)

    def _show(self, model_id: str) -> Updates:
        updates: Updates = {
            self.cards: cards_html(self._context, model_id),
            self._menu.html: menu_html(self._context, model_id),
        }
        return updates | ({self._progress: self._hub.html()} if self._hub else {})

    def _change(self, changed_id: str, model_id: str, fields: Mapping[str, Any]) -> Updates:
        self._require_manager()
        entry = self._context.catalog.override(changed_id, **fields)
        return {
            **self._show(model_id),
            **self._changes.show(entry),
            self._menu.show_again: ModelMenu.new_number(),
            self._message: message_html([f"Saved for {entry.name}."]),
        }

    @staticmethod
    def _click_html(elem_id: str, value: str = "") -> gr.HTML:
        return gr.HTML(value, elem_id=elem_id, apply_default_css=False, js_on_load=CLICK_SCRIPT)

    def _connect(self, events: Events, tab: gr.Tab) -> None:
        model, changes = {"model_id": self._menu.model_id}, self._changes
        shown = [self.cards, self._menu.html, self._progress]
        events.on([tab.select, self._menu.model_id.change], self.show, model, [*shown, self._timer])
        events.on(self._rescan.click, self.rescan, model, shown)
        events.on_click(self.cards, self.handle_click, [self._menu.model_id, *changes.outputs])
        changes.model_id.change(None, None, None, js=on_event("models.js", "scrollToForm()"), **QUICK)
        changed = {"changed_id": changes.model_id, **model}
        outputs = [*shown, *changes.outputs, self._menu.show_again]
        events.on(changes.save.click, self.save_changes, {**changed, **changes.controls}, outputs)
        events.on(changes.undo.click, self.undo_changes, changed, outputs)
        events.on(changes.close.click, self.close_changes, {}, changes.outputs)
        events.on([self._check.click, self._hub_id.submit], self.check_hub, {"hub_id": self._hub_id}, [self._found])
        for place in (self._found, self._progress):
            events.on_click(place, self.handle_hub_click, [self._found, self._progress, self._timer])
        events.on(self._timer.tick, self.follow_download, model, [*shown, self._timer])
