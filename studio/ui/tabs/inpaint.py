"""The tab "Inpaint": a picture, a mask painted on it, and what the model puts there; also beyond its borders.

Reads the page into an Inpaint request and submits it. What is worked on is sheet.py's, what is painted with is
editor.js's, what stands on the stage is watching.py's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component
from PIL import Image

from studio.engine.job import JobRejected
from studio.engine.requests import (
    AREAS,
    MAX_COUNT,
    MAX_GUIDANCE,
    MAX_MASK_MARGIN,
    MAX_SEED,
    MAX_STEPS,
    Inpaint,
    InvalidRequest,
)
from studio.imaging import canvas as canvases
from studio.imaging.files import open_image
from studio.imaging.modes import normalize_mask
from studio.prompts.captions import ANY
from studio.services.build_request import as_int
from studio.services.comparison import change_sentence
from studio.services.context import AppContext
from studio.services.picture_kind import picture_kind
from studio.ui.components.inpaint_draft import TAB, InpaintDraft
from studio.ui.components.job_panel import CLICK_SCRIPT, JobPanel
from studio.ui.components.mask_editor import ADD_MASK, EDITOR_SCRIPT
from studio.ui.components.parts import (
    IMAGE_TYPES,
    QUICK,
    choices,
    collapsible,
    keep_draft,
    message_html,
    run_buttons,
    uploaded_file,
    view_token_box,
)
from studio.ui.components.result import shipped_example
from studio.ui.components.send_to import SendTarget
from studio.ui.components.views import example_html


@dataclass(frozen=True)
class InpaintTab:
    """The tab, as far as the rest of the page has to do with it."""

    easel: JobPanel
    sheet: InpaintDraft
    editor: gr.HTML

    @property
    def greeting(self) -> list[Component]:
        return [self.editor, *self.easel.greeting]

    def greet(self, owner: str) -> dict[Component, Any]:
        """What an owner who opens the page finds: what was worked on, and what came of it."""
        return {self.editor: self.sheet.html(owner)} | self.easel.greet(owner)

    @property
    def destination(self) -> SendTarget:
        return SendTarget.working_on("Open in Inpaint", TAB, [self.editor, self.easel.message], self.use)

    def use(self, owner: str, picture: Image.Image, kind: str = "", *notes: str) -> dict[Component, Any]:
        """Another picture to work on."""
        self.sheet.put(owner, picture, kind=kind)
        return {self.editor: self.sheet.html(owner), self.easel.message: message_html(notes)}


def build_inpaint(studio: AppContext, page: gr.Blocks, token: gr.BrowserState) -> InpaintTab:
    """The tab's parts and what they do; call it inside its gr.Tab."""
    sheet = InpaintDraft(studio)
    example = shipped_example(studio.examples / TAB, "picture", "result")
    watched = view_token_box(TAB)
    strokes = gr.Textbox("", visible="hidden", elem_id="inpaint-strokes")  # filled in by editor.js as it is sent

    with gr.Row(elem_id="inpaint-workspace", elem_classes="workspace", equal_height=False):
        with gr.Column(elem_classes="controls", scale=0, min_width=300):
            prompt = gr.Textbox(
                "", label="Prompt, if you like", placeholder="a cat face", lines=2, max_lines=6,
                elem_id="inpaint-prompt", elem_classes="prompt",
            )  # fmt: skip
            style = gr.Radio(
                choices((ANY, *studio.capabilities.styles)), value=ANY, label="Style", elem_id="inpaint-style", elem_classes="joined"
            )
            background = gr.Radio(
                choices((ANY, *studio.capabilities.backgrounds)), value=ANY, label="Ground colour", elem_id="inpaint-background",
                elem_classes="swatches",
            )  # fmt: skip
            counts = [(str(n), n) for n in range(1, MAX_COUNT + 1)]
            count = gr.Radio(
                counts, value=1, label="Results to choose from", elem_id="inpaint-count", elem_classes="joined"
            )
            fill, stop, message = run_buttons(TAB, "Fill")
            with collapsible("inpaint-mask", "Mask"):
                area = gr.Radio(
                    [(label, key) for key, label in AREAS.items()], value="painted", label="Work on",
                    elem_id="inpaint-area", elem_classes="joined",
                )  # fmt: skip
                with gr.Row(elem_classes="numbers"):
                    grow = gr.Number(
                        0,
                        step=1,
                        label=f"Grow, -{MAX_MASK_MARGIN} to {MAX_MASK_MARGIN} px",
                        elem_id="inpaint-grow",
                        min_width=120,
                    )
                    feather = gr.Number(
                        0, step=1, label=f"Feather, 0 to {MAX_MASK_MARGIN} px", elem_id="inpaint-feather", min_width=120
                    )
                invert = gr.Checkbox(False, label="Fill what is not painted over", elem_id="inpaint-invert")
            with collapsible("inpaint-extend", "Extend the picture"):
                with gr.Row(elem_classes="numbers"):
                    sides = [
                        gr.Textbox("0", label=side, elem_id=f"inpaint-{side.lower()}", min_width=60, max_lines=1)
                        for side in ("Left", "Top", "Right", "Bottom")
                    ]
                extend = gr.Button("Extend by px or %", size="sm", elem_id="inpaint-extend-by")
                with gr.Row(elem_classes="numbers"):
                    factor = gr.Number(1.5, step=0.25, label="Zoom out, 1 to 16 times", elem_id="inpaint-factor",
                                       min_width=120)  # fmt: skip
                    zoom = gr.Button("Zoom out", size="sm", elem_id="inpaint-zoom", min_width=100)
                with gr.Row(elem_classes="numbers"):
                    across = gr.Textbox("25%", label="Right", elem_id="inpaint-across", min_width=60, max_lines=1)
                    down = gr.Textbox("0", label="Down", elem_id="inpaint-down", min_width=60, max_lines=1)
                    pan = gr.Button("Pan", size="sm", elem_id="inpaint-pan", min_width=60)
            with collapsible("inpaint-more", "More"):
                negative = gr.Textbox(
                    "", label="Negative prompt", placeholder="what to keep away from", max_lines=4,
                    elem_id="inpaint-negative",
                )  # fmt: skip
                with gr.Row(elem_classes="numbers"):
                    steps = gr.Number(
                        Inpaint.steps, step=1, label=f"Steps, 1 to {MAX_STEPS}", elem_id="inpaint-steps", min_width=120
                    )
                    guidance = gr.Number(
                        Inpaint.guidance,
                        step=0.5,
                        label=f"Guidance, 0 to {MAX_GUIDANCE:g}",
                        elem_id="inpaint-guidance",
                        min_width=120,
                    )
                with gr.Row(elem_classes="seeds"):
                    seed = gr.Number(0, label="Seed", elem_id="inpaint-seed", min_width=120)
                    randomize = gr.Checkbox(True, label="New every time", elem_id="inpaint-randomize", min_width=120)
        with gr.Column(elem_classes="canvas", scale=1, min_width=280):
            with gr.Row(elem_classes="uploads"):
                upload = gr.UploadButton("Open a picture", size="sm", file_types=IMAGE_TYPES, elem_id="inpaint-open")
                upload_mask = gr.UploadButton(
                    "Mask from a file", size="sm", file_types=IMAGE_TYPES, elem_id="inpaint-load"
                )
                back = gr.Button("Previous picture", size="sm", elem_id="inpaint-back")
            editor = gr.HTML(
                sheet.html(""), elem_id="inpaint-editor", apply_default_css=False, js_on_load=EDITOR_SCRIPT
            )
        with gr.Column(elem_classes="gallery", scale=1, min_width=280):
            first = example_html(example, [_example_sentence(sheet)])
            stage = gr.HTML(first, elem_id="inpaint-stage", apply_default_css=False, js_on_load=CLICK_SCRIPT)

    easel = JobPanel(studio, TAB, (Inpaint.task,), watched, stage, stop, message, [example])
    tab = InpaintTab(easel, sheet, editor)
    controls = [
        prompt, negative, style, background, count, steps, guidance, seed, area, grow, feather, invert, randomize,
    ]  # fmt: skip

    def submit(
        request: gr.Request, browser: str,
        prompt: Any, negative: Any, style: Any, background: Any, count: Any, steps: Any, guidance: Any, number: Any,
        area: Any, grow: Any, feather: Any, invert: Any, new_seed: bool, strokes: Any,
    ) -> dict[Component, Any]:  # fmt: skip
        owner, known = studio.owners.of_page(request, browser)
        try:
            sheet.painted(owner, strokes)
            number = random.randrange(MAX_SEED + 1) if new_seed else number
            asked = Inpaint(
                prompt or "", sheet.picture(owner), sheet.mask(owner), negative_prompt=negative or "",
                count=as_int(count), steps=as_int(steps), guidance=guidance, seed=as_int(number), grow=as_int(grow), feather=as_int(feather),
                invert=invert, area=area, style=style, background=background,
            )  # fmt: skip
            job = studio.engine.submit(asked, owner)
        except (InvalidRequest, JobRejected, ValueError) as problem:
            return {message: message_html([str(problem)], "alert")}
        shown = easel.show_job(job) | {seed: asked.seed, message: ""}
        return shown | ({} if browser == known else {token: known})

    def with_owner(change: Callable[..., dict[Component, Any]]) -> Callable[..., dict[Component, Any]]:
        """An event that changes what is worked on: what cannot be done is a sentence, and all stays as it was."""

        def event(request: gr.Request, browser: str, *values: Any) -> dict[Component, Any]:
            owner, known = studio.owners.of_page(request, browser)
            try:
                changed = change(owner, *values)
            except (InvalidRequest, JobRejected, ValueError, OSError) as problem:
                return {message: message_html([str(problem)], "alert")}
            return changed | ({} if browser == known else {token: known})

        return event

    def take(owner: str, path: str | None) -> dict[Component, Any]:
        with uploaded_file(path) as file:
            picture, notes = open_image(file, file.name)
            kind = picture_kind(picture, file)
        return tab.use(owner, picture, kind, *notes)

    def take_mask(owner: str, path: str | None) -> dict[Component, Any]:
        with uploaded_file(path) as file:
            mask, notes = open_image(file, file.name, normalize_mask)
        sheet.put_mask(owner, mask)
        return {editor: sheet.html(owner), message: message_html(notes)}

    def canvas(owner: str, make: Callable[[Image.Image], tuple[Image.Image, Image.Image]]) -> dict[Component, Any]:
        sheet.change(owner, make)
        return {editor: sheet.html(owner), message: message_html(["What is new is marked already: press Fill."])}

    def on_extend(owner: str, *lengths: str) -> dict[Component, Any]:
        return canvas(owner, lambda picture: canvases.extend_canvas(picture, *(length or "0" for length in lengths)))

    def on_zoom(owner: str, factor: Any) -> dict[Component, Any]:
        if not isinstance(factor, int | float):
            raise ValueError("The zoom must be a number from 1 to 16; it was empty.")
        return canvas(owner, lambda picture: canvases.zoom_out(picture, factor))

    def on_pan(owner: str, right: str, down: str) -> dict[Component, Any]:
        return canvas(owner, lambda picture: canvases.pan(picture, right or "0", down or "0"))

    def on_back(owner: str) -> dict[Component, Any]:
        if not sheet.back(owner):
            return {message: message_html(["There was no other picture before this one."])}
        return {editor: sheet.html(owner), message: ""}

    def paint(request: gr.Request, browser: str, strokes: str) -> dict[Component, Any]:
        """A stroke: kept, so that a refresh finds it."""
        owner, known = studio.owners.of_page(request, browser)
        try:
            sheet.painted(owner, strokes)
        except (JobRejected, ValueError, OSError) as problem:
            return {message: message_html([str(problem)], "alert")}
        return {token: gr.skip() if browser == known else known}

    def pick(request: gr.Request, event: gr.EventData, browser: str) -> dict[Component, Any]:
        """What was painted becomes what is worked on."""
        owner, _ = studio.owners.of_page(request, browser)
        kind, _, id = str(event._data.get("key")).partition(":")
        if event._data.get("pick") != "input" or kind != "picture":
            return {message: gr.skip()}
        try:
            return tab.destination.fill_from(studio.library, owner, id)
        except JobRejected as problem:
            return {message: message_html([str(problem)], "alert")}

    changed = [editor, message, token]
    fill.click(
        submit, [token, *controls, strokes], [token, watched, seed, stop, message],
        js=ADD_MASK, trigger_mode="multiple", **QUICK,
    )  # fmt: skip
    easel.connect(token)
    upload.upload(with_owner(take), [token, upload], changed, **QUICK)
    upload_mask.upload(with_owner(take_mask), [token, upload_mask], changed, **QUICK)
    extend.click(with_owner(on_extend), [token, *sides], changed, **QUICK)
    zoom.click(with_owner(on_zoom), [token, factor], changed, **QUICK)
    pan.click(with_owner(on_pan), [token, across, down], changed, **QUICK)
    back.click(with_owner(on_back), [token], changed, **QUICK)
    editor.paint(
        paint, [token, strokes], [message, token], js=ADD_MASK,
        trigger_mode="always_last", **QUICK,
    )  # fmt: skip
    stage.click(pick, [token], [editor, message], trigger_mode="multiple", **QUICK)
    names = ["prompt", "negative", "style", "background", "count", "steps", "guidance", "seed", "area", "grow", "feather",
             "invert", "randomize"]  # fmt: skip
    keep_draft(page, TAB, controls, names)
    return tab


def _example_sentence(sheet: InpaintDraft) -> str:
    """The count, of the shipped example; "" where there is none."""
    count = sheet.example_count()
    return change_sentence(*count) if count else ""
