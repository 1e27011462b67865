"""The form that changes what is known of a model: what it is, and its own settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio.models.catalog import ModelEntry
from studio.models.identify import FAMILIES, PREDICTION_TYPES, VARIANTS
from studio.models.samplers import SAMPLER_LABELS, SPACING_LABELS
from studio.services.build_request import as_int
from studio.ui.components.parts import Control
from studio.ui.tabs.models.cards import FAMILY_NAMES, PREDICTION_NAMES, VARIANT_NAMES

DETECTED = ""  # stands for what the files say
IDENTITY = ("family", "variant", "prediction_type")
NUMBERS = {
    "steps": "Steps",
    "guidance": "Guidance",
    "width": "Width, px",
    "height": "Height, px",
    "clip_skip": "Clip skip",
}
_CHOICES: dict[str, tuple[str, Iterable[str], Mapping[str, str]]] = {
    "family": ("Family", FAMILIES, FAMILY_NAMES),
    "variant": ("Variant", VARIANTS, VARIANT_NAMES),
    "prediction_type": ("What the network predicts", PREDICTION_TYPES, PREDICTION_NAMES),
}


@dataclass(frozen=True)
class ChangesForm:
    """The parts of the form.

    panel: all of it; hidden until a model is chosen.  model_id: hidden; the model that is changed.
    controls: by the names of overrides and of defaults.
    """

    panel: gr.Column
    model_id: gr.Textbox
    heading: gr.HTML
    controls: dict[str, Control]
    save: gr.Button
    undo: gr.Button
    close: gr.Button

    @classmethod
    def build(cls) -> ChangesForm:
        """Build the form where it is to stand."""
        # Beside the panel: Gradio shows a hidden part of a panel that is hidden and shown again.
        model_id = gr.Textbox("", visible="hidden", elem_id="changed-model")
        with gr.Column(visible=False, elem_id="model-changes") as panel:
            heading = gr.HTML("", elem_id="changes-heading", apply_default_css=False, js_on_load=None)
            controls: dict[str, Control] = {}
            for name, (label, keys, names) in _CHOICES.items():
                options = [("As its files say", DETECTED), *((names[key], key) for key in keys)]
                controls[name] = gr.Dropdown(
                    options, value=DETECTED, label=label, elem_id=f"change-{name.split('_')[0]}", elem_classes="framed"
                )
            controls["trigger_words"] = gr.Textbox(
                "", label="Trigger words", placeholder="words that it was trained on", elem_id="change-trigger"
            )
            for name, label, labels in (("sampler", "Sampler", SAMPLER_LABELS), ("spacing", "Spacing", SPACING_LABELS)):
                options = [("As usual for its family", ""), *((text, key) for key, text in labels.items() if key)]
                controls[name] = gr.Dropdown(
                    options, value="", label=label, elem_id=f"change-{name}", elem_classes="framed"
                )
            with gr.Row(elem_classes="numbers"):
                for name, label in NUMBERS.items():
                    controls[name] = gr.Number(
                        None, label=label, elem_id=f"change-{name.replace('_', '-')}", min_width=100
                    )
            with gr.Row(elem_classes="numbers"):
                save = gr.Button("Save", size="sm", variant="primary", elem_id="changes-save", min_width=80)
                undo = gr.Button("As detected", size="sm", elem_id="changes-undo", min_width=100)
                close = gr.Button("Close", size="sm", elem_id="changes-close", min_width=80)
        return cls(panel, model_id, heading, controls, save, undo, close)

    @property
    def outputs(self) -> list[Any]:
        """What `show` and `hide` change."""
        return [self.panel, self.model_id, self.heading, *self.controls.values()]

    def show(self, entry: ModelEntry) -> dict[Any, Any]:
        """Show what a person has set for a model."""
        own = {**entry.overrides, **entry.overrides.get("defaults", {})}
        updates: dict[Any, Any] = {}
        for name, control in self.controls.items():
            empty = None if name in NUMBERS else ""
            value = own.get(name)
            updates[control] = empty if value is None else value
        heading = f"<h2>{escape(entry.name)}</h2>"
        return {**updates, self.panel: gr.update(visible=True), self.model_id: entry.id, self.heading: heading}

    def hide(self) -> dict[Any, Any]:
        return {self.panel: gr.update(visible=False), self.model_id: ""}

    @staticmethod
    def overrides(values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the controls as fields of `Catalog.override`; None for what is left as detected."""
        fields: dict[str, Any] = {name: values[name] or None for name in (*IDENTITY, "trigger_words")}
        defaults = {
            name: as_int(values[name]) for name in ("sampler", "spacing", *NUMBERS) if values[name] not in ("", None)
        }
        return {**fields, "defaults": defaults or None}
