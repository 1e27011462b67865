"""The width and the height of a picture, with buttons for usual aspect ratios."""

from __future__ import annotations

from math import sqrt
from typing import Any

import gradio as gr

from studio.models.capabilities import Capabilities, SizeRange
from studio.services.build_request import as_int
from studio.ui.controls.fields import with_range
from studio.ui.controls.model_form import ModelForm, Values, shown_if

# Width over height by name.
ASPECTS = {"9:16": 9 / 16, "2:3": 2 / 3, "1:1": 1.0, "3:2": 3 / 2, "16:9": 16 / 9}


def add_size(form: ModelForm) -> gr.Radio:
    """Add width and height to the form of text to image. Return the choice of an aspect ratio that sets both."""
    has_size = form.capabilities.size is not None
    with gr.Row(elem_id="size", elem_classes="numbers", visible=shown_if(has_size)) as row:
        for name in ("width", "height"):
            form.add(name, gr.Number, _side(name), elem_id=name, min_width=120)
    form.add_row(row, "width", "height")
    aspect = gr.Radio(
        list(ASPECTS), label="Aspect ratio", elem_id="aspect", elem_classes="joined", visible=shown_if(has_size)
    )
    form.add_row(aspect, "width")
    return aspect


def size_with_aspect(size: SizeRange, aspect: str) -> tuple[int, int]:
    """Return the (width, height) with an aspect ratio whose area is nearest to that of the model's own size."""
    ratio = ASPECTS[aspect]
    side = sqrt(size.default[0] * size.default[1])
    return size.fit((round(side * sqrt(ratio)), round(side / sqrt(ratio))))


def aspect_of(size: SizeRange, width: Any, height: Any) -> str | None:
    """Return the aspect ratio whose button sets this size; None if there is none."""
    wanted = (as_int(width), as_int(height))
    return next((aspect for aspect in ASPECTS if size_with_aspect(size, aspect) == wanted), None)


def _side(name: str) -> Any:
    def properties(model: Capabilities, values: Values) -> dict[str, Any] | None:
        if model.size is None:
            return None
        label = with_range(f"{name.capitalize()} (px)", (model.size.minimum, model.size.maximum))
        return {"label": label, "step": model.size.multiple}

    return properties
