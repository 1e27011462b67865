"""The tab "Super-resolution": a small picture painted larger, or the noise taken out of one.

Reads the page into a SuperResolve or a Denoise request and submits it. What stands on the stage is watching.py's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component
from PIL import Image

from studio.engine.job import JobRejected
from studio.engine.requests import (
    MAX_GUIDANCE,
    MAX_NOISE_LEVEL,
    MAX_SEED,
    MAX_SIGMA,
    MAX_STEPS,
    Denoise,
    InvalidRequest,
    SuperResolve,
)
from studio.imaging.files import open_image
from studio.imaging.measure import estimate_noise_sigma
from studio.services.build_request import as_int
from studio.services.context import AppContext
from studio.services.picture_kind import PHOTOGRAPH, picture_kind
from studio.ui.components.formatting import PHOTOGRAPH_NOTE, format_duration
from studio.ui.components.inpaint_draft import PICTURE_CHANGED
from studio.ui.components.job_panel import CLICK_SCRIPT, JobPanel
from studio.ui.components.parts import (
    IMAGE_TYPES,
    QUICK,
    collapsible,
    keep_draft,
    message_html,
    run_buttons,
    uploaded_file,
    view_token_box,
)
from studio.ui.components.result import lanczos_html, shipped_example, url_of
from studio.ui.components.send_to import PICTURE_GONE, SendTarget
from studio.ui.components.views import example_html

TAB = "super-resolution"
WAYS = {"x2": "×2", "x4": "×4", "size": "To a size", "noise": "Take noise out"}
MODELS = (
    "Stable Diffusion x4 upscaler (stabilityai/stable-diffusion-x4-upscaler), Swin2SR or Real-ESRGAN; to take noise "
    "out, SwinIR or NAFNet"
)
WINDOW = 64  # px that the network sees at once


@dataclass(frozen=True)
class SuperResolutionTab:
    """The tab, as far as the rest of the page has to do with it."""

    easel: JobPanel
    small: gr.HTML

    @property
    def greeting(self) -> list[Component]:
        return [self.small, *self.easel.greeting]

    def greet(self, owner: str) -> dict[Component, Any]:
        """What an owner who opens the page finds."""
        return {self.small: small_html(self.easel.studio, owner)} | self.easel.greet(owner)

    @property
    def destination(self) -> SendTarget:
        return SendTarget.working_on("Open in Super-resolution", TAB, [self.small, self.easel.message], self.use)

    def use(self, owner: str, picture: Image.Image, kind: str = "", *notes: str) -> dict[Component, Any]:
        """Another picture to work on, of a kind as `kind_of` has it."""
        self.easel.studio.drafts.put(owner, TAB, "picture", picture, kind)
        return {self.small: small_html(self.easel.studio, owner), self.easel.message: message_html(notes)}


def build_super_resolution(studio: AppContext, page: gr.Blocks, token: gr.BrowserState) -> SuperResolutionTab:
    """The tab's parts and what they do; call it inside its gr.Tab."""
    example = shipped_example(studio.examples / TAB, "picture", "result")
    watched = view_token_box(TAB)
    with gr.Row(elem_id=f"{TAB}-workspace", elem_classes="workspace", equal_height=False):
        with gr.Column(elem_classes="controls", scale=0, min_width=320):
            with gr.Row(elem_classes="uploads"):
                upload = gr.UploadButton("Open a picture", size="sm", file_types=IMAGE_TYPES, elem_id=f"{TAB}-open")
            small = gr.HTML(small_html(studio, ""), elem_id=f"{TAB}-small", apply_default_css=False, js_on_load=None)
            way = gr.Radio(
                [(label, key) for key, label in WAYS.items()], value="x2", label="What to do",
                elem_id=f"{TAB}-way", elem_classes="joined",
            )  # fmt: skip
            with gr.Row(elem_classes="numbers", elem_id=f"{TAB}-size", visible=False) as sizes:
                width = gr.Number(128, step=1, label="Width, px", elem_id=f"{TAB}-width", min_width=120)
                height = gr.Number(128, step=1, label="Height, px", elem_id=f"{TAB}-height", min_width=120)
            creativity = gr.Number(
                0, step=0.05, label=f"Creativity, 0 to {MAX_NOISE_LEVEL:g}; more invents more",
                elem_id=f"{TAB}-creativity",
            )  # fmt: skip
            with gr.Row(elem_classes="numbers", elem_id=f"{TAB}-noise", visible=False) as noisy:
                sigma = gr.Textbox(
                    "", label=f"Noise, 0 to {MAX_SIGMA:g} of 255", placeholder="as it is measured",
                    elem_id=f"{TAB}-sigma", min_width=120, max_lines=1,
                )  # fmt: skip
                mean = gr.Radio(
                    [("Mean", "mean"), ("Full run", "run")], value="mean", label="Posterior",
                    elem_id=f"{TAB}-mean", elem_classes="joined",
                )  # fmt: skip
            prompt = gr.Textbox(
                "", label="Prompt, if you like", placeholder="what the picture shows", lines=1, max_lines=4,
                elem_id=f"{TAB}-prompt", elem_classes="prompt",
            )  # fmt: skip
            expected = gr.HTML("", elem_id=f"{TAB}-expected", elem_classes="expected", apply_default_css=False)
            run, stop, message = run_buttons(TAB, "Enlarge")
            with collapsible(f"{TAB}-more", "More"):
                with gr.Row(elem_classes="numbers"):
                    steps = gr.Number(2, step=1, label=f"Steps, 1 to {MAX_STEPS}", elem_id=f"{TAB}-steps",
                                      min_width=120)  # fmt: skip
                    guidance = gr.Number(
                        1, step=0.5, label=f"Guidance, 0 to {MAX_GUIDANCE:g}", elem_id=f"{TAB}-guidance",
                        min_width=120,
                    )  # fmt: skip
                with gr.Row(elem_classes="seeds"):
                    seed = gr.Number(0, label="Seed", elem_id=f"{TAB}-seed", min_width=120)
                    randomize = gr.Checkbox(True, label="New every time", elem_id=f"{TAB}-randomize", min_width=120)
        with gr.Column(elem_classes="gallery", scale=1, min_width=320):
            stage = gr.HTML(
                example_html(example), elem_id=f"{TAB}-stage", apply_default_css=False, js_on_load=CLICK_SCRIPT
            )

    easel = JobPanel(studio, TAB, (SuperResolve.task, Denoise.task), watched, stage, stop, message, [example])
    tab = SuperResolutionTab(easel, small)
    settings = [way, width, height, creativity, sigma, mean, prompt, steps, guidance]
    controls = [*settings, seed, randomize]

    def asked(owner: str, seed: Any, *values: Any) -> SuperResolve | Denoise:
        return request_of(open_draft(studio, owner), seed, *values)

    def submit(request: gr.Request, browser: str, seen: str, *values: Any) -> dict[Component, Any]:
        *values, number, new_seed = values
        owner, known = studio.owners.of_page(request, browser)
        try:
            if seen != small_html(studio, owner):
                raise ValueError(PICTURE_CHANGED)
            number = random.randrange(MAX_SEED + 1) if new_seed else number
            wanted = asked(owner, number, *values)
            job = studio.engine.submit(wanted, owner)
        except (InvalidRequest, JobRejected, ValueError) as problem:
            return {message: message_html([str(problem)], "alert")}
        shown = easel.show_job(job) | {seed: wanted.seed, message: ""}
        return shown | ({} if browser == known else {token: known})

    def foresee(request: gr.Request, browser: str, *values: Any) -> dict[Component, Any]:
        """How long it will take, before it is asked for; and only the fields that matter."""
        owner, _ = studio.owners.of_page(request, browser)
        denoises = values[0] == "noise"
        shown = {
            sizes: gr.update(visible=values[0] == "size"),
            noisy: gr.update(visible=denoises),
            creativity: gr.update(visible=not denoises),
            run: gr.update(value="Take noise out" if denoises else "Enlarge"),
        }
        try:
            return shown | {expected: expectation(studio, asked(owner, 0, *values))}
        except (InvalidRequest, ValueError) as problem:
            return shown | {expected: message_html([str(problem)])}

    def take(request: gr.Request, browser: str, path: str | None) -> dict[Component, Any]:
        owner, known = studio.owners.of_page(request, browser)
        try:
            with uploaded_file(path) as file:
                picture, notes = open_image(file, file.name)
                kind = picture_kind(picture, file)
            shown = tab.use(owner, picture, kind, *notes)
        except (JobRejected, ValueError, OSError) as problem:
            return {message: message_html([str(problem)], "alert")}
        return shown | ({} if browser == known else {token: known})

    def pick(request: gr.Request, event: gr.EventData, browser: str) -> Any:
        """Lanczos beside ours, or what was there before again."""
        owner, _ = studio.owners.of_page(request, browser)
        kind, _, id = str(event._data.get("key")).partition(":")
        what = event._data.get("pick")
        if kind != "picture" or what not in ("lanczos", "before"):
            return {message: gr.skip()}
        if what == "before":
            return {watched: easel.show(kind, id)[watched]}
        try:
            return {stage: lanczos_frame(studio, owner, id)}
        except JobRejected as problem:
            return {message: message_html([str(problem)], "alert")}

    run.click(
        submit, [token, small, *controls], [token, watched, seed, stop, message], trigger_mode="multiple", **QUICK
    )
    easel.connect(token)
    upload.upload(take, [token, upload], [small, message, token], **QUICK)
    gr.on(
        [small.change, page.load, *(part.change for part in settings if part is not prompt)],
        foresee, [token, *settings], [sizes, noisy, creativity, run, expected], trigger_mode="always_last", **QUICK,
    )  # fmt: skip
    stage.click(pick, [token], [stage, watched, message], trigger_mode="multiple", **QUICK)
    names = ["way", "width", "height", "creativity", "sigma", "mean", "prompt", "steps", "guidance", "seed",
             "randomize"]  # fmt: skip
    keep_draft(page, TAB, controls, names)
    return tab


def request_of(
    picture: Image.Image, seed: Any, way: Any, width: Any, height: Any, creativity: Any, sigma: Any, mean: Any,
    prompt: Any, steps: Any, guidance: Any,
) -> SuperResolve | Denoise:  # fmt: skip
    """Raises InvalidRequest."""
    shared = {"prompt": prompt or "", "guidance": guidance, "seed": as_int(seed)}
    if way == "noise":
        steps = 8 if mean != "run" or steps == 2 else as_int(steps)  # 2 are for enlarging; a full run needs more
        return Denoise(picture, _sigma(sigma), mean, steps=steps, **shared)
    target = (as_int(width), as_int(height)) if way == "size" else None
    scale = {"x2": 2, "x4": 4}.get(way, 2)
    return SuperResolve(picture, scale, noise_level=creativity, steps=as_int(steps), target=target, **shared)


def expectation(studio: AppContext, asked: SuperResolve | Denoise) -> str:
    """The size of the result and the time that it will take, as HTML."""
    width, height = asked.output_size if isinstance(asked, SuperResolve) else asked.image.size
    seconds = studio.engine.resolve(asked).seconds
    text = f"{width:,} × {height:,} px, about {format_duration(seconds)}."
    if isinstance(asked, Denoise) and asked.sigma is None:
        text += f" Its noise measures {estimate_noise_sigma(asked.image):.1f} of 255."
    return f'<p role="status">{escape(text)}</p>'


def open_draft(studio: AppContext, owner: str) -> Image.Image:
    """The picture that is worked on: the owner's, else the shipped one."""
    picture = studio.drafts.get(owner, TAB, "picture")
    if picture is None:
        try:
            with Image.open(studio.examples / TAB / "picture.png") as file:
                return file.convert("RGB")
        except OSError:
            return Image.new("RGB", (WINDOW, WINDOW), "white")
    return picture


def small_html(studio: AppContext, owner: str) -> str:
    """The picture that is worked on, with its size, and a word on what it is if that matters."""
    path = studio.drafts.get_path(owner, TAB, "picture") or (studio.examples / TAB / "picture.png").resolve()
    if not path.exists():
        return '<p class="small-picture">Open a picture.</p>'
    with Image.open(path) as picture:
        width, height = picture.size
    photograph = studio.drafts.get_note(owner, TAB, "picture") == PHOTOGRAPH
    note = f'<p class="note">{escape(PHOTOGRAPH_NOTE.format(models=MODELS))}</p>' if photograph else ""
    url = f"{url_of(str(path))}?v={path.stat().st_mtime_ns}"
    return (
        f'<figure class="small-picture"><img src="{escape(url)}" alt="The picture that is worked on" draggable="false">'
        f"<figcaption>{width:,} × {height:,} px</figcaption></figure>{note}"
    )


def lanczos_frame(studio: AppContext, owner: str, id: str) -> str:
    """Ours beside plain enlargement, which stands where the small picture stood. Raises Refusal."""
    picture = studio.library.get_picture(owner, id)
    if picture is None:
        raise JobRejected(PICTURE_GONE)
    try:
        with Image.open(studio.library.find_inputs(owner, id)["image"]) as small:
            plain = small.resize((picture.width, picture.height), Image.Resampling.LANCZOS)
    except (KeyError, OSError) as problem:
        raise JobRejected("What this picture was made from is not there any more.") from problem
    studio.drafts.put(owner, TAB, "lanczos", plain)
    kept = studio.drafts.get_path(owner, TAB, "lanczos")
    return lanczos_html(picture, f"{url_of(str(kept))}?v={kept.stat().st_mtime_ns}")


def _sigma(text: Any) -> float | None:
    """Raises InvalidRequest."""
    if text is None or not str(text).strip():
        return None
    try:
        return float(text)
    except ValueError as problem:
        shown = f'"{str(text)[:40]}"'
        raise InvalidRequest(f"The noise must be a number from 0 to {MAX_SIGMA:g}; it was {shown}.") from problem
