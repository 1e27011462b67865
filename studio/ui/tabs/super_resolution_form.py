"""The controls of the tab "Super-resolution"."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from studio.engine.requests import DENOISE_METHODS, MAX_SIGMA, Denoise, SuperResolve
from studio.models.capabilities import Capabilities
from studio.services.context import AppContext
from studio.ui.components.job_panel import CLICK_SCRIPT
from studio.ui.components.parts import (
    IMAGE_TYPES,
    Control,
    collapsible,
    run_buttons,
    seed_controls,
    view_token_box,
)
from studio.ui.controls.fields import add_sampling, with_range
from studio.ui.controls.follow import offer_button, shown_box, unable_notice
from studio.ui.controls.model_form import ModelForm, Values

TAB = "super-resolution"
TASKS = (SuperResolve.task, Denoise.task)
ACTIONS = {"x2": "×2", "x4": "×4", "size": "To a size", "noise": "Remove noise"}


@dataclass(frozen=True)
class SuperResolutionForm:
    """The parts of the tab.

    fields: all controls by name; `action` is a key of ACTIONS, the others are fields of SuperResolve or Denoise, or
        the width and height of the result.
    shown, offer, unable: see `ModelFollower`.
    size_row, noise_row: shown for some actions only.  expected: the size of the result and the time it takes.
    """

    fields: ModelForm
    shown: gr.Textbox
    offer: gr.Button
    unable: gr.HTML
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

    @property
    def controls(self) -> dict[str, Control]:
        return self.fields.controls


def build_form(context: AppContext, preview_html: str, result_html: str) -> SuperResolutionForm:
    """Build the parts of the tab; call it inside its gr.Tab.

    preview_html, result_html: what the picture's preview and the result show at first.
    """
    view_token = view_token_box(TAB)
    shown, unable = shown_box(TAB), unable_notice(context, TAB, TASKS)
    form = ModelForm(context.capabilities, SuperResolve, first_values)
    with gr.Row(elem_id=f"{TAB}-workspace", elem_classes="workspace", equal_height=False):
        with gr.Column(elem_classes="controls", scale=0, min_width=320):
            with gr.Row(elem_classes="uploads"):
                open_picture = gr.UploadButton(
                    "Open a picture", size="sm", file_types=IMAGE_TYPES, elem_id=f"{TAB}-open"
                )
            preview = gr.HTML(preview_html, elem_id=f"{TAB}-small", apply_default_css=False, js_on_load=None)
            form.add("action", gr.Radio, _actions, label="What to do", elem_id=f"{TAB}-way", elem_classes="joined")
            with gr.Row(elem_classes="numbers", elem_id=f"{TAB}-size", visible=False) as size_row:
                for name in ("width", "height"):
                    form.controls[name] = gr.Number(
                        128, step=1, label=f"{name.capitalize()}, px", elem_id=f"{TAB}-{name}", min_width=120
                    )
            form.add("noise_level", gr.Number, _noise_level, elem_id=f"{TAB}-creativity")
            with gr.Row(elem_classes="numbers", elem_id=f"{TAB}-noise", visible=False) as noise_row:
                form.controls.update(_noise_controls())
            form.controls["prompt"] = gr.Textbox(
                "",
                label="Prompt (optional)",
                placeholder="what the picture shows",
                lines=1,
                max_lines=4,
                elem_id=f"{TAB}-prompt",
                elem_classes="prompt",
            )
            offer = offer_button(form, TAB)
            expected = gr.HTML("", elem_id=f"{TAB}-expected", elem_classes="expected", apply_default_css=False)
            run, stop, message = run_buttons(TAB, "Enlarge")
            with collapsible(f"{TAB}-more", "Advanced"):
                add_sampling(form, TAB)
                seed, randomize = seed_controls(TAB)
                form.controls["seed"] = seed
        with gr.Column(elem_classes="gallery", scale=1, min_width=320):
            result = gr.HTML(result_html, elem_id=f"{TAB}-stage", apply_default_css=False, js_on_load=CLICK_SCRIPT)
    return SuperResolutionForm(
        fields=form,
        shown=shown,
        offer=offer,
        unable=unable,
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


def first_values(capabilities: Capabilities) -> dict[str, object]:
    """Return the first values of fields whose default follows from the model."""
    level = capabilities.noise_level
    return {"action": f"x{min(capabilities.scales, default=2)}", "noise_level": level.default if level else 0.0}


def _actions(model: Capabilities, values: Values) -> dict[str, object]:
    """Return what the model can do with a picture."""
    keys = [f"x{scale}" for scale in model.scales]
    if SuperResolve.task in model.tasks:
        keys.append("size")
    if Denoise.task in model.tasks:
        keys.append("noise")
    return {"choices": [(ACTIONS[key], key) for key in keys or ACTIONS]}


def _noise_level(model: Capabilities, values: Values) -> dict[str, object] | None:
    level = model.noise_level
    if level is None or values["action"] == "noise":
        return None
    label = f"{with_range(level.label, (level.low, level.high))} ({level.meaning})"
    return {"label": label, "step": 0.05 if level.high <= 1 else 1}


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
