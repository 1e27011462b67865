"""The controls of the tab "Inpaint"."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from studio.engine.requests import AREAS, MAX_MASK_MARGIN, Inpaint
from studio.services.context import AppContext
from studio.ui.components.job_panel import CLICK_SCRIPT
from studio.ui.components.parts import IMAGE_TYPES, Control, collapsible, run_buttons, seed_controls, view_token_box
from studio.ui.controls.fields import add_count, add_negative_prompt, add_sampling, add_styles
from studio.ui.controls.follow import offer_button, shown_box, unable_notice
from studio.ui.controls.model_form import ModelForm
from studio.ui.tabs.inpaint_draft import TAB
from studio.ui.tabs.mask_editor import EDITOR_SCRIPT


@dataclass(frozen=True)
class CanvasForm:
    """The controls that make the canvas larger or move it. Lengths are px, or "25%" of a side."""

    left: gr.Textbox
    top: gr.Textbox
    right: gr.Textbox
    bottom: gr.Textbox
    extend: gr.Button
    factor: gr.Number
    zoom_out: gr.Button
    pan_right: gr.Textbox
    pan_down: gr.Textbox
    pan: gr.Button


@dataclass(frozen=True)
class InpaintForm:
    """The parts of the tab.

    fields: the controls by the fields of Inpaint.  randomize: whether each job gets a new seed.
    shown, offer, unable: see `ModelFollower`.  expected: the time that a job takes.
    painted_mask: hidden; mask_editor.js puts the mask into it as it is sent.
    """

    fields: ModelForm
    shown: gr.Textbox
    offer: gr.Button
    unable: gr.HTML
    randomize: gr.Checkbox
    canvas: CanvasForm
    fill: gr.Button
    stop: gr.Button
    expected: gr.HTML
    message: gr.HTML
    open_picture: gr.UploadButton
    open_mask: gr.UploadButton
    previous: gr.Button
    editor: gr.HTML
    painted_mask: gr.Textbox
    view_token: gr.Textbox
    result: gr.HTML

    @property
    def controls(self) -> dict[str, Control]:
        return self.fields.controls


def build_form(context: AppContext, editor_html: str, result_html: str) -> InpaintForm:
    """Build the parts of the tab; call it inside its gr.Tab.

    editor_html, result_html: what the editor and the result show at first.
    """
    view_token = view_token_box(TAB)
    painted_mask = gr.Textbox("", visible="hidden", elem_id="inpaint-strokes")
    shown, unable = shown_box(TAB), unable_notice(context, TAB, (Inpaint.task,))
    form = ModelForm(context.capabilities, Inpaint)
    with gr.Row(elem_id="inpaint-workspace", elem_classes="workspace", equal_height=False):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            form.add(
                "prompt",
                gr.Textbox,
                lambda model, values: {"placeholder": "a cat face" if model.vocabulary else "what is to be there"},
                label="Prompt (optional)",
                lines=2,
                max_lines=6,
                elem_id="inpaint-prompt",
                elem_classes="prompt",
            )
            add_styles(form, TAB)
            form.add(
                "strength",
                gr.Number,
                lambda model, values: {} if model.inpaint_strength else None,
                label="Strength, 0 to 1 (how much of the area may change)",
                step=0.05,
                elem_id="inpaint-strength",
            )
            add_count(form, TAB, "Results to choose from")
            offer = offer_button(form, TAB)
            fill, stop, message = run_buttons(TAB, "Fill")
            expected = gr.HTML("", elem_id="inpaint-expected", elem_classes="expected", apply_default_css=False)
            with collapsible("inpaint-mask", "Mask"):
                form.controls.update(_mask_controls())
            with collapsible("inpaint-extend", "Extend the picture (px or %)"):
                canvas = _canvas_controls()
            with collapsible("inpaint-more", "Advanced"):
                add_negative_prompt(form, TAB)
                add_sampling(form, TAB)
                seed, randomize = seed_controls(TAB)
                form.controls["seed"] = seed
        with gr.Column(elem_classes="canvas", scale=1, min_width=280):
            with gr.Row(elem_classes="uploads"):
                open_picture = gr.UploadButton(
                    "Open a picture", size="sm", file_types=IMAGE_TYPES, elem_id="inpaint-open"
                )
                open_mask = gr.UploadButton(
                    "Mask from a file", size="sm", file_types=IMAGE_TYPES, elem_id="inpaint-load"
                )
                previous = gr.Button("Previous picture", size="sm", elem_id="inpaint-back")
            editor = gr.HTML(editor_html, elem_id="inpaint-editor", apply_default_css=False, js_on_load=EDITOR_SCRIPT)
        with gr.Column(elem_classes="gallery", scale=1, min_width=280):
            result = gr.HTML(result_html, elem_id="inpaint-stage", apply_default_css=False, js_on_load=CLICK_SCRIPT)
    return InpaintForm(
        fields=form,
        shown=shown,
        offer=offer,
        unable=unable,
        randomize=randomize,
        canvas=canvas,
        fill=fill,
        stop=stop,
        expected=expected,
        message=message,
        open_picture=open_picture,
        open_mask=open_mask,
        previous=previous,
        editor=editor,
        painted_mask=painted_mask,
        view_token=view_token,
        result=result,
    )


def _mask_controls() -> dict[str, Control]:
    controls: dict[str, Control] = {
        "area": gr.Radio(
            [(label, key) for key, label in AREAS.items()],
            value=Inpaint.area,
            label="Work on",
            elem_id="inpaint-area",
            elem_classes="joined",
        )
    }
    with gr.Row(elem_classes="numbers"):
        controls["grow"] = gr.Number(
            Inpaint.grow, step=1, label="Grow or shrink mask (px)", elem_id="inpaint-grow", min_width=120
        )
        controls["feather"] = gr.Number(
            Inpaint.feather,
            step=1,
            label=f"Feather, 0 to {MAX_MASK_MARGIN} px",
            elem_id="inpaint-feather",
            min_width=120,
        )
    controls["invert"] = gr.Checkbox(Inpaint.invert, label="Invert mask", elem_id="inpaint-invert")
    return controls


def _canvas_controls() -> CanvasForm:
    with gr.Row(elem_classes="numbers"):
        left, top, right, bottom = (
            _length_box(name, "0", f"inpaint-{name.lower()}") for name in ("Left", "Top", "Right", "Bottom")
        )
    extend = gr.Button("Extend", size="sm", elem_id="inpaint-extend-by")
    with gr.Row(elem_classes="numbers"):
        factor = gr.Number(1.5, step=0.25, label="Zoom out, 1 to 16 times", elem_id="inpaint-factor", min_width=120)
        zoom_out = gr.Button("Zoom out", size="sm", elem_id="inpaint-zoom", min_width=100)
    with gr.Row(elem_classes="numbers"):
        pan_right = _length_box("Right", "25%", "inpaint-across")
        pan_down = _length_box("Down", "0", "inpaint-down")
        pan = gr.Button("Pan", size="sm", elem_id="inpaint-pan", min_width=60)
    return CanvasForm(left, top, right, bottom, extend, factor, zoom_out, pan_right, pan_down, pan)


def _length_box(label: str, value: str, elem_id: str) -> gr.Textbox:
    return gr.Textbox(value, label=label, elem_id=elem_id, min_width=60, max_lines=1)
