"""The controls of the tab "Super-resolution"."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from studio.engine.requests import DENOISE_METHODS, MAX_SIGMA, Denoise, SuperResolve
from studio.models.capabilities import Capabilities
from studio.models.families.studio import MAX_NOISE_LEVEL
from studio.ui.components.job_panel import CLICK_SCRIPT
from studio.ui.components.parts import (
    IMAGE_TYPES,
    Control,
    collapsible,
    number_controls,
    run_buttons,
    seed_controls,
    view_token_box,
)

TAB = "super-resolution"
ACTIONS = {"x2": "×2", "x4": "×4", "size": "To a size", "noise": "Remove noise"}


@dataclass(frozen=True)
class SuperResolutionForm:
    """The parts of the tab.

    controls: all controls by name; `action` is a key of ACTIONS, the others are fields of SuperResolve or Denoise, or
        the width and height of the result.
    size_row, noise_row: shown for some actions only.  expected: the size of the result and the time it takes.
    """

    controls: dict[str, Control]
    randomize: gr.Checkbox
    size_row: gr.Row
    noise_row: gr.Row
    expected: gr.HTML
    run: gr.Button
    stop: gr.Button
    message: gr.HTML
    open_picture: gr.UploadButton
    preview: gr.HTML
    view_token: gr.Textbox
    result: gr.HTML


def build_form(capabilities: Capabilities, preview_html: str, result_html: str) -> SuperResolutionForm:
    """Build the parts of the tab for a model; call it inside its gr.Tab.

    preview_html, result_html: what the picture's preview and the result show at first.
    """
    view_token = view_token_box(TAB)
    controls: dict[str, Control] = {}
    with gr.Row(elem_id=f"{TAB}-workspace", elem_classes="workspace", equal_height=False):
        with gr.Column(elem_classes="controls", scale=0, min_width=320):
            with gr.Row(elem_classes="uploads"):
                open_picture = gr.UploadButton(
                    "Open a picture", size="sm", file_types=IMAGE_TYPES, elem_id=f"{TAB}-open"
                )
            preview = gr.HTML(preview_html, elem_id=f"{TAB}-small", apply_default_css=False, js_on_load=None)
            controls["action"] = gr.Radio(
                [(label, key) for key, label in ACTIONS.items()],
                value="x2",
                label="What to do",
                elem_id=f"{TAB}-way",
                elem_classes="joined",
            )
            with gr.Row(elem_classes="numbers", elem_id=f"{TAB}-size", visible=False) as size_row:
                for name in ("width", "height"):
                    controls[name] = gr.Number(
                        128, step=1, label=f"{name.capitalize()}, px", elem_id=f"{TAB}-{name}", min_width=120
                    )
            controls["noise_level"] = gr.Number(
                SuperResolve.noise_level,
                step=0.05,
                label=f"Creativity, 0 to {MAX_NOISE_LEVEL:g} (higher invents more detail)",
                elem_id=f"{TAB}-creativity",
            )
            with gr.Row(elem_classes="numbers", elem_id=f"{TAB}-noise", visible=False) as noise_row:
                controls |= _noise_controls()
            controls["prompt"] = gr.Textbox(
                "",
                label="Prompt (optional)",
                placeholder="what the picture shows",
                lines=1,
                max_lines=4,
                elem_id=f"{TAB}-prompt",
                elem_classes="prompt",
            )
            expected = gr.HTML("", elem_id=f"{TAB}-expected", elem_classes="expected", apply_default_css=False)
            run, stop, message = run_buttons(TAB, "Enlarge")
            with collapsible(f"{TAB}-more", "Advanced"):
                controls |= number_controls(TAB, capabilities, SuperResolve.steps, SuperResolve.guidance)
                seed, randomize = seed_controls(TAB)
                controls["seed"] = seed
        with gr.Column(elem_classes="gallery", scale=1, min_width=320):
            result = gr.HTML(result_html, elem_id=f"{TAB}-stage", apply_default_css=False, js_on_load=CLICK_SCRIPT)
    return SuperResolutionForm(
        controls=controls,
        randomize=randomize,
        size_row=size_row,
        noise_row=noise_row,
        expected=expected,
        run=run,
        stop=stop,
        message=message,
        open_picture=open_picture,
        preview=preview,
        view_token=view_token,
        result=result,
    )


def _noise_controls() -> dict[str, Control]:
    return {
        "sigma": gr.Textbox(
            "",
            label=f"Noise, 0 to {MAX_SIGMA:g} (scale 0–255)",
            placeholder="auto",
            elem_id=f"{TAB}-sigma",
            min_width=120,
            max_lines=1,
        ),
        "method": gr.Radio(
            [(label, key) for key, label in DENOISE_METHODS.items()],
            value=Denoise.method,
            label="Method",
            elem_id=f"{TAB}-mean",
            elem_classes="joined",
        ),
    }
