"""The controls of the tab "Text to image"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.engine.requests import TextToImage
from studio.models.capabilities import Capabilities
from studio.services.build_request import as_int
from studio.services.context import AppContext
from studio.ui.components.image_card import ImageCard
from studio.ui.components.job_panel import CLICK_SCRIPT
from studio.ui.components.parts import (
    IMAGE_TYPES,
    Control,
    collapsible,
    run_buttons,
    seed_controls,
    view_token_box,
)
from studio.ui.components.result import thumbnails_html
from studio.ui.components.views import example_html
from studio.ui.components.vocabulary_panel import hints_html, vocabulary_html
from studio.ui.controls.fields import add_count, add_negative_prompt, add_sampling, add_styles, capitalized, with_range
from studio.ui.controls.follow import offer_button, shown_box, unable_notice
from studio.ui.controls.model_form import ModelForm, Values, shown_if
from studio.ui.controls.size import add_size, aspect_of
from studio.ui.tabs.start_picture import PREVIEW_SCRIPT

TAB = "text-to-image"
AUTO_SIZE = 0  # the model chooses the output size


@dataclass(frozen=True)
class TextToImageForm:
    """The parts of the tab.

    fields: the controls by the fields of TextToImage; `aspect` sets the width and the height.
    shown, offer, unable: see `ModelFollower`.
    randomize: whether each job gets a new seed.
    open_start, start: the button that opens a picture to start from, and that picture.
    expected: the time that a job takes.
    asked_at: when the page last asked for a live picture, in ms since it was opened.
    """

    fields: ModelForm
    shown: gr.Textbox
    offer: gr.Button
    unable: gr.HTML
    aspect: gr.Radio
    randomize: gr.Checkbox
    preset: gr.Radio
    hints: gr.HTML
    open_start: gr.UploadButton
    start: gr.HTML
    generate: gr.Button
    stop: gr.Button
    expected: gr.HTML
    message: gr.HTML
    upload: gr.UploadButton
    view_token: gr.Textbox
    asked_at: gr.Textbox
    result: gr.HTML
    strip: gr.HTML
    vocabulary: gr.HTML

    @property
    def controls(self) -> dict[str, Control]:
        return self.fields.controls


def build_form(context: AppContext, examples: Sequence[ImageCard]) -> TextToImageForm:
    """Build the parts of the tab; call it inside its gr.Tab."""
    capabilities = context.capabilities
    view_token = view_token_box(TAB)
    asked_at = gr.Textbox("0", visible="hidden")
    shown, unable = shown_box(TAB), unable_notice(context, TAB, (TextToImage.task,))
    form = ModelForm(capabilities, TextToImage, first_values)
    with gr.Row(elem_id="workspace", elem_classes="workspace", equal_height=False):
        with gr.Column(elem_id="controls", elem_classes="controls", scale=0, min_width=320):
            form.add(
                "prompt",
                gr.Textbox,
                lambda model, values: {"placeholder": "a red apple" if model.vocabulary else "what the picture shows"},
                label="Prompt",
                lines=2,
                max_lines=6,
                autofocus=True,
                elem_id="prompt",
                elem_classes="prompt",
            )
            hints = gr.HTML(
                hints_html(capabilities, "", TextToImage.style, TextToImage.background),
                elem_id="hints",
                apply_default_css=False,
            )
            add_styles(form, TAB)
            aspect = add_size(form)
            start = gr.HTML("", elem_id="start", apply_default_css=False, js_on_load=PREVIEW_SCRIPT)
            form.add(
                "strength",
                gr.Number,
                lambda model, values: {} if model.image_to_image else None,
                label="Strength, 0 to 1 (how much of the picture may change)",
                step=0.05,
                elem_id="strength",
            )
            add_count(form, TAB, "Pictures")
            preset = gr.Radio(
                capitalized(list(capabilities.presets)),
                value=preset_of(capabilities, form.defaults(capabilities)),
                label="Quality (Live paints while you type)",
                elem_id="preset",
                elem_classes="joined",
                visible=shown_if(bool(capabilities.presets)),
            )
            offer = offer_button(form, TAB)
            generate, stop, message = run_buttons(TAB, "Generate")
            expected = gr.HTML("", elem_id="expected", elem_classes="expected", apply_default_css=False)
            with collapsible("more", "Advanced"):
                add_negative_prompt(form, TAB)
                add_sampling(form, TAB)
                _add_own_fields(form)
                seed, randomize = seed_controls(TAB)
                form.controls["seed"] = seed
            with gr.Row(elem_id="files"):
                open_start = gr.UploadButton(
                    "Start from a picture",
                    size="sm",
                    file_types=IMAGE_TYPES,
                    elem_id="open-start",
                    elem_classes="link quiet",
                )
                upload = gr.UploadButton(
                    "Load settings from a PNG", size="sm", elem_id="restore", elem_classes="link quiet"
                )
        with gr.Column(elem_id="gallery", elem_classes="gallery", scale=1, min_width=320):
            result = gr.HTML(
                example_html(examples[0]), elem_id="stage", apply_default_css=False, js_on_load=CLICK_SCRIPT
            )
            strip = gr.HTML(
                thumbnails_html([("Examples", examples)]),
                elem_id="strip",
                apply_default_css=False,
                js_on_load=CLICK_SCRIPT,
            )
            vocabulary = gr.HTML(
                vocabulary_html(capabilities.vocabulary) if capabilities.vocabulary else "",
                elem_id="vocabulary",
                apply_default_css=False,
                js_on_load=None,
            )
    return TextToImageForm(
        fields=form,
        shown=shown,
        offer=offer,
        unable=unable,
        aspect=aspect,
        randomize=randomize,
        preset=preset,
        hints=hints,
        open_start=open_start,
        start=start,
        generate=generate,
        stop=stop,
        expected=expected,
        message=message,
        upload=upload,
        view_token=view_token,
        asked_at=asked_at,
        result=result,
        strip=strip,
        vocabulary=vocabulary,
    )


def first_values(capabilities: Capabilities) -> dict[str, Any]:
    """Return the first values of fields whose default follows from the model."""
    width, height = capabilities.size.default if capabilities.size else (0, 0)
    return {
        "width": width,
        "height": height,
        "resolution": AUTO_SIZE,
        "randomize_style": capabilities.vocabulary is not None,  # a model without one may not know words for styles
    }


def preset_of(capabilities: Capabilities, settings: Mapping[str, Any]) -> str | None:
    """Return the name of the preset whose settings these are, or None."""
    for name, preset in capabilities.presets.items():
        if all(as_int(settings[field]) == value for field, value in preset.items()):
            return name
    return None


def aspect_choice(capabilities: Capabilities, values: Values) -> str | None:
    """Return the aspect ratio to show as chosen."""
    return aspect_of(capabilities.size, values["width"], values["height"]) if capabilities.size else None


def _add_own_fields(form: ModelForm) -> None:
    """Add the fields that no other task has."""
    form.add(
        "refiner",
        gr.Dropdown,
        lambda model, values: (
            {"choices": [("None", ""), *((key, key) for key in model.refiners)]} if model.refiners else None
        ),
        label="Refiner",
        elem_id="refiner",
        elem_classes="framed",
    )
    form.add(
        "refiner_start",
        gr.Number,
        lambda model, values: {} if model.refiners and values["refiner"] else None,
        label=with_range("Refiner starts at", (0.01, 0.99)),
        step=0.05,
        elem_id="refiner-start",
    )
    form.add(
        "resolution",
        gr.Radio,
        lambda model, values: (
            {"choices": [("Auto", AUTO_SIZE), *((str(side), side) for side in model.resolutions)]}
            if model.resolutions
            else None
        ),
        label="Output size",
        elem_id="resolution",
        elem_classes="joined",
    )
    form.add(
        "one_pass",
        gr.Checkbox,
        lambda model, values: {} if model.one_pass_guidance else None,
        label="Faster guidance (slightly worse)",
        elem_id="one-pass",
        min_width=120,
    )
    form.add(
        "style_emphasis",
        gr.Checkbox,
        lambda model, values: {} if model.style_emphasis else None,
        label="Emphasize the style",
        elem_id="emphasis",
        min_width=120,
    )
    form.add(
        "randomize_style",
        gr.Checkbox,
        lambda model, values: {} if model.styles else None,
        label="Vary style and background",
        elem_id="randomize-style",
        min_width=120,
    )
