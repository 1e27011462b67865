"""The fields that several forms share, as properties of a control for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from studio.models.capabilities import Capabilities
from studio.models.samplers import SPACING_LABELS
from studio.prompts.captions import ANY
from studio.ui.components.parts import element_prefix
from studio.ui.controls.model_form import ModelForm, Values, shown_if


def add_styles(form: ModelForm, tab: str) -> None:
    """Add the choices of a style and a background."""
    prefix = element_prefix(tab)
    form.add(
        "style",
        gr.Radio,
        lambda model, values: {"choices": capitalized([ANY, *model.styles])} if model.styles else None,
        label="Style",
        elem_id=f"{prefix}style",
        elem_classes="joined",
    )
    form.add(
        "background",
        gr.Radio,
        lambda model, values: {"choices": capitalized([ANY, *model.backgrounds])} if model.backgrounds else None,
        label="Background",
        elem_id=f"{prefix}background",
        elem_classes="swatches",
    )


def add_count(form: ModelForm, tab: str, label: str) -> None:
    """Add the choice of how many pictures to paint."""
    form.add(
        "count",
        gr.Radio,
        lambda model, values: {"choices": [(str(number), number) for number in range(1, model.count[1] + 1)]},
        label=label,
        elem_id=f"{element_prefix(tab)}count",
        elem_classes="joined",
    )


def add_negative_prompt(form: ModelForm, tab: str) -> None:
    """Add the field for what to avoid."""
    form.add(
        "negative_prompt",
        gr.Textbox,
        lambda model, values: {} if model.negative_prompt else None,
        label="Negative prompt",
        placeholder="what to avoid",
        max_lines=4,
        elem_id=f"{element_prefix(tab)}negative",
    )


def add_sampling(form: ModelForm, tab: str) -> None:
    """Add steps, guidance, sampler, spacing, guidance rescale and clip skip.

    Numbers are no sliders: the browser cuts a typed value to a slider's range without a word.
    """
    prefix = element_prefix(tab)
    with gr.Row(elem_id=f"{prefix}numbers", elem_classes="numbers"):
        form.add(
            "steps",
            gr.Number,
            lambda model, values: {"label": with_range("Steps", model.steps)},
            step=1,
            elem_id=f"{prefix}steps",
            min_width=120,
        )
        form.add(
            "guidance",
            gr.Number,
            lambda model, values: {"label": with_range("Guidance", model.guidance)},
            step=0.5,
            elem_id=f"{prefix}guidance",
            min_width=120,
        )
    form.add(
        "sampler",
        gr.Dropdown,
        lambda model, values: {"choices": [(label, key) for key, label in model.samplers.items()]},
        label="Sampler",
        elem_id=f"{prefix}sampler",
        elem_classes="framed",
    )
    form.add(
        "spacing",
        gr.Dropdown,
        _spacing,
        label="Spacing of the steps",
        elem_id=f"{prefix}spacing",
        elem_classes="framed",
    )
    with gr.Row(elem_id=f"{prefix}fine", elem_classes="numbers", visible=shown_if(False)) as row:
        form.add(
            "clip_skip",
            gr.Number,
            lambda model, values: {"label": with_range("Clip skip", model.clip_skip)} if model.clip_skip else None,
            step=1,
            elem_id=f"{prefix}clip-skip",
            min_width=120,
        )
        form.add(
            "guidance_rescale",
            gr.Number,
            lambda model, values: {} if model.guidance_rescale else None,
            label=with_range("Guidance rescale", (0, 1)),
            step=0.1,
            elem_id=f"{prefix}rescale",
            min_width=120,
        )
    form.add_row(row, "clip_skip", "guidance_rescale")


def with_range(name: str, allowed: tuple[float, float]) -> str:
    """Return a label with the smallest and the largest allowed value."""
    return f"{name}, {allowed[0]:g} to {allowed[1]:g}"


def capitalized(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return choices whose labels are the capitalized keys."""
    return [(key.capitalize(), key) for key in keys]


def _spacing(model: Capabilities, values: Values) -> Mapping[str, Any] | None:
    """Return the spacings of the chosen sampler, where it has more than the model's own."""
    keys = model.spacings_of(str(values["sampler"]))
    return {"choices": [(SPACING_LABELS[key], key) for key in keys]} if len(keys) > 1 else None
