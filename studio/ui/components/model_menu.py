"""The menu of models in the page's header: which model each browser has chosen."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.engine.checks import InvalidRequest
from studio.models.capabilities import Capabilities
from studio.models.catalog import ModelEntry
from studio.services.context import AppContext
from studio.ui.components.parts import QUICK, keep_draft
from studio.ui.components.templates import render
from studio.ui.scripts import on_load

_numbers = itertools.count(time.time_ns())
STORED_AS = "page"  # name of the draft that keeps the choice in the browser


@dataclass(frozen=True)
class ModelMenu:
    """The parts of the menu.

    model_id: hidden; the id of the chosen model, "" for the default one. Tabs take it as an input of their events.
    show_again: hidden; changes when the chosen model has other capabilities than before.
    html: the menu.
    """

    context: AppContext
    model_id: gr.Textbox
    show_again: gr.Textbox
    html: gr.HTML

    @classmethod
    def build(cls, context: AppContext) -> ModelMenu:
        """Build the menu; call it where the header is."""
        return cls(
            context,
            gr.Textbox("", visible="hidden", elem_id="model-id"),
            gr.Textbox("", visible="hidden", elem_id="model-again"),
            gr.HTML(
                menu_html(context, ""),
                elem_id="model-menu",
                apply_default_css=False,
                js_on_load=on_load("models.js", "sendChoice(element, trigger)"),
            ),
        )

    @property
    def changes(self) -> list[Any]:
        """The events after which a tab shows the fields of the chosen model."""
        return [self.model_id.change, self.show_again.change]

    @staticmethod
    def new_number() -> str:
        """Return a new value of `show_again`."""
        return str(next(_numbers))

    def connect(self, page: gr.Blocks) -> None:
        """Take over a choice, and keep it in the browser."""
        self.html.click(self._choose, None, [self.model_id], trigger_mode="always_last", **QUICK)
        self.model_id.change(
            self._show, [self.model_id], [self.html, self.model_id], trigger_mode="always_last", **QUICK
        )
        keep_draft(page, STORED_AS, {"model": self.model_id})

    def capabilities(self, model_id: str) -> Capabilities:
        """Return what the chosen model can do; for one that is gone, what the default model can do."""
        try:
            return self.context.capabilities_of(model_id)
        except InvalidRequest:
            return self.context.capabilities

    def _choose(self, event: gr.EventData) -> Any:
        return str(event._data.get("model") or "")

    def _show(self, model_id: str) -> tuple[Any, Any]:
        """Show the choice in the menu. Return to the default model if the chosen one is gone."""
        is_known = model_id in ("", *(entry.id for entry in self.context.catalog.entries))
        return menu_html(self.context, model_id), gr.skip() if is_known else ""


def menu_html(context: AppContext, model_id: str) -> str:
    """Return the menu with a model selected. model_id: "" for the default one."""
    entries = context.catalog.entries
    selected = next((entry for entry in entries if entry.id == model_id), entries[0])
    loading = context.engine.status.loading
    return render(
        "model_menu.html",
        groups=_groups(entries),
        selected=selected,
        state="problem" if selected.problems else "loading" if loading == selected.id else "",
    )


def _groups(entries: Sequence[ModelEntry]) -> list[tuple[str, list[ModelEntry]]]:
    """Return the models that can paint, and those that cannot, under a heading each."""
    usable = [entry for entry in entries if not entry.problems]
    return [("Models", usable), ("Cannot be loaded", [entry for entry in entries if entry.problems])]
