"""The controls of the tab "Text to image"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from studio.engine.requests import TextToImage
from studio.models.capabilities import Capabilities
from studio.services.build_request import as_int
from studio.services.context import AppContext
from studio.ui.components.image_card import ImageCard
from studio.ui.components.job_panel import CLICK_SCRIPT
from studio.ui.components.parts import (
    Control,
    choices,
    collapsible,
    count_control,
    negative_prompt_control,
    number_controls,
    run_buttons,
    seed_controls,
    style_and_background_controls,
    view_token_box,
)
from studio.ui.components.result import thumbnails_html
from studio.ui.components.views import example_html
from studio.ui.components.vocabulary_panel import hints_html, vocabulary_html

TAB = "text-to-image"
AUTO_SIZE = 0  # the model chooses the output size
# The controls' first values.
DEFAULTS = {item.name: item.default for item in fields(TextToImage) if item.name != "prompt"}


@dataclass(frozen=True)
class TextToImageForm:
    """The parts of the tab.

    controls: by the fields of TextToImage.  randomize: whether each job gets a new seed.
    asked_at: when the page last asked for a live picture, in ms since it was opened.
    """

    controls: dict[str, Control]
    randomize: gr.Checkbox
    preset: gr.Radio
    hints: gr.HTML
    generate: gr.Button
    stop: gr.Button
    message: gr.HTML
    upload: gr.UploadButton
    view_token: gr.Textbox
    asked_at: gr.Textbox
    result: gr.HTML
    strip: gr.HTML


def build_form(context: AppContext, examples: Sequence[ImageCard]) -> TextToImageForm:
    """Build the parts of the tab; call it inside its gr.Tab."""
    capabilities = context.capabilities
    view_token = view_token_box(TAB)
    asked_at = gr.Textbox("0", visible="hidden")
    controls: dict[str, Control] = {}
    with gr.Row(elem_id="workspace", elem_classes="workspace", equal_height=False):
        with gr.Column(elem_id="controls", elem_classes="controls", scale=0, min_width=320):
            controls["prompt"] = gr.Textbox(
                "",
                label="Prompt",
                placeholder="a red apple",
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
            controls |= style_and_background_controls(TAB, capabilities, TextToImage.style, TextToImage.background)
            controls["count"] = count_control(TAB, capabilities, "Pictures")
            preset = gr.Radio(
                choices(list(capabilities.presets)),
                value=preset_of(capabilities, DEFAULTS),
                label="Quality (Live paints while you type)",
                elem_id="preset",
                elem_classes="joined",
            )
            generate, stop, message = run_buttons(TAB, "Generate")
            with collapsible("more", "Advanced"):
                controls |= _advanced_controls(capabilities)
                seed, randomize = seed_controls(TAB)
                controls["seed"] = seed
            upload = gr.UploadButton("Load settings from a PNG", size="sm", elem_id="restore")
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
            if capabilities.vocabulary:
                words = vocabulary_html(capabilities.vocabulary)
                gr.HTML(words, elem_id="vocabulary", apply_default_css=False, js_on_load=None)
    return TextToImageForm(
        controls=controls,
        randomize=randomize,
        preset=preset,
        hints=hints,
        generate=generate,
        stop=stop,
        message=message,
        upload=upload,
        view_token=view_token,
        asked_at=asked_at,
        result=result,
        strip=strip,
    )


def preset_of(capabilities: Capabilities, settings: Mapping[str, Any]) -> str | None:
    """Return the name of the preset whose settings these are, or None."""
    for name, preset in capabilities.presets.items():
        if all(as_int(settings[field]) == value for field, value in preset.items()):
            return name
    return None


def _advanced_controls(capabilities: Capabilities) -> dict[str, Control]:
    controls: dict[str, Control] = {"negative_prompt": negative_prompt_control(TAB)}
    controls |= number_controls(TAB, capabilities, TextToImage.steps, TextToImage.guidance)
    controls["sampler"] = gr.Dropdown(
        [(label, key) for key, label in capabilities.samplers.items()],
        value=TextToImage.sampler,
        label="Sampler",
        elem_id="sampler",
    )
    controls["resolution"] = gr.Radio(
        [("Auto", AUTO_SIZE), *((str(side), side) for side in capabilities.resolutions)],
        value=AUTO_SIZE,
        label="Output size",
        elem_id="resolution",
        elem_classes="joined",
    )
    controls["one_pass"] = gr.Checkbox(
        TextToImage.one_pass, label="Faster guidance (slightly worse)", elem_id="one-pass", min_width=120
    )
    controls["style_emphasis"] = gr.Checkbox(
        TextToImage.style_emphasis, label="Emphasize the style", elem_id="emphasis", min_width=120
    )
    controls["randomize_style"] = gr.Checkbox(
        capabilities.vocabulary is not None,  # a model without one may not know the words for styles
        label="Vary style and background",
        elem_id="randomize-style",
        min_width=120,
    )
    return controls
