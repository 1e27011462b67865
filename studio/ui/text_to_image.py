"""The tab "Text to image" and the endpoint /text_to_image.

Reads the page into a TextToImage request and its progress into the page; no arithmetic on tensors.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields
from html import escape
from typing import Any

import gradio as gr

from studio.engine.engine import EngineError, Progress
from studio.engine.requests import (
    ANY,
    GROUNDS,
    MAX_COUNT,
    MAX_GUIDANCE,
    MAX_SEED,
    MAX_STEPS,
    SAMPLERS,
    STYLES,
    InvalidRequest,
    TextToImage,
    caption,
)
from studio.ui import stage as show
from studio.ui.panel import hints, vocabulary_panel
from studio.ui.stage import Shown
from studio.ui.studio import Studio

FIELDS = [field.name for field in fields(TextToImage)]  # also the order of the controls
DEFAULTS = {field.name: field.default for field in fields(TextToImage) if field.name != "prompt"}
LATEST = 24  # small pictures kept in sight
EXAMPLE_PROMPTS = [
    {"prompt": "a red apple", "style": "glossy", "ground": "blue"},
    {"prompt": "a cat face", "style": "noto", "ground": "yellow"},
    {"prompt": "a rocket", "style": "flat", "ground": "pink"},
    {"prompt": "a cactus", "style": "twemoji", "ground": "white"},
    {"prompt": "a blue butterfly", "style": "noto", "ground": "green"},
    {"prompt": "a pizza", "style": "glossy", "ground": "gray"},
]
# A click on anything that says data-pick reaches Python as its value.
_PICK = """element.addEventListener("click", (event) => {
  const target = event.target.closest("[data-pick]");
  const seed = element.querySelector("[data-slot=seed]")?.innerText;
  if (target) trigger("click", { pick: target.dataset.pick, seed });
});"""


def add_endpoint(studio: Studio) -> None:
    """/text_to_image, for gradio_client and any other program."""

    def text_to_image(
        prompt: str,
        negative_prompt: str = DEFAULTS["negative_prompt"],
        style: str = DEFAULTS["style"],
        ground: str = DEFAULTS["ground"],
        count: int = DEFAULTS["count"],
        steps: int = DEFAULTS["steps"],
        guidance: float = DEFAULTS["guidance"],
        sampler: str = DEFAULTS["sampler"],
        seed: int | None = None,
    ) -> tuple[list[gr.FileData], dict]:
        """Paints 1 to 9 pictures from words and returns them as PNG files, with
        {"seed", "seeds", "seconds", "prompt", "notes"}.

        Args:
            prompt: what to paint; empty lets the model choose
            negative_prompt: what to keep away from
            style: noto, twemoji, flat, glossy or any
            ground: white, black, red, green, blue, yellow, pink, purple, orange, gray or any
            count: number of pictures, 1 to 9
            steps: denoising steps, 1 to 1000
            guidance: how closely to follow the prompt, 0 to 30
            sampler: studio, ddim, ddpm, dpm++2m, unipc, euler or heun
            seed: 0 to 4294967295; left out, one is drawn
        """
        seed = random.randrange(MAX_SEED + 1) if seed is None else seed
        try:
            request = _request(prompt, negative_prompt, style, ground, count, steps, guidance, sampler, seed)
            *_, finished = studio.paint(request, studio.engine.submit(request))
        except (InvalidRequest, EngineError) as problem:
            raise gr.Error(str(problem), print_exception=False) from problem
        files = [
            gr.FileData(path=picture.source, orig_name=picture.file_name, mime_type="image/png").model_dump()
            for picture in finished.pictures
        ]
        info = {
            "seed": request.seed,
            "seeds": request.seeds,
            "seconds": round(finished.result.seconds, 3),
            "prompt": request.caption,
            "notes": list(finished.notes),
        }
        return files, info

    gr.api(text_to_image, api_name="text_to_image", concurrency_limit=None)


def build_tab(studio: Studio) -> None:
    """The tab's parts and what they do; call it inside a gr.Tab."""
    words = studio.vocabulary
    samples = show.examples(studio.examples, _example_settings())
    styles, grounds = (words.styles, words.grounds) if words else (STYLES, GROUNDS)

    run_id = gr.State(None)
    latest = gr.State([])  # of Shown, newest first
    current = gr.State(samples[0].settings)  # what "Use these settings" takes

    with gr.Row(elem_id="bench", equal_height=False):
        with gr.Column(elem_id="controls", scale=0, min_width=320):
            prompt = gr.Textbox(
                "",
                label="Prompt",
                placeholder="a red apple",
                lines=2,
                max_lines=6,
                autofocus=True,
                elem_id="prompt",
            )
            hint = gr.HTML(hints(words, "", ANY, ANY), elem_id="hints", apply_default_css=False)
            style = gr.Radio(_named((ANY, *styles)), value=ANY, label="Style", elem_id="style")
            ground = gr.Radio(_named((ANY, *grounds)), value=ANY, label="Ground colour", elem_id="ground")
            counts = [(str(n), n) for n in range(1, MAX_COUNT + 1)]
            count = gr.Radio(counts, value=1, label="Pictures", elem_id="count")
            with gr.Row(elem_id="run"):
                generate = gr.Button(
                    "Generate", variant="primary", size="lg", elem_id="generate", scale=3, min_width=120
                )
                stop = gr.Button("Stop", size="lg", elem_id="stop", interactive=False, scale=1, min_width=80)
            message = gr.HTML("", elem_id="message", apply_default_css=False)
            with gr.Accordion("More", open=False, elem_id="more"):
                negative = gr.Textbox(
                    "",
                    label="Negative prompt",
                    placeholder="what to keep away from",
                    max_lines=4,
                    elem_id="negative",
                )
                # Numbers, not sliders, whose typed values the browser cuts to their ends without a word.
                with gr.Row(elem_id="numbers"):
                    steps = gr.Number(
                        DEFAULTS["steps"],
                        step=1,
                        label=f"Steps, 1 to {MAX_STEPS}",
                        elem_id="steps",
                        min_width=120,
                    )
                    guidance = gr.Number(
                        DEFAULTS["guidance"],
                        step=0.5,
                        label=f"Guidance, 0 to {MAX_GUIDANCE:g}",
                        elem_id="guidance",
                        min_width=120,
                    )
                samplers = [(label, key) for key, label in SAMPLERS.items()]
                sampler = gr.Dropdown(samplers, value=DEFAULTS["sampler"], label="Sampler", elem_id="sampler")
                with gr.Row(elem_id="seeds"):
                    seed = gr.Number(0, label="Seed", elem_id="seed", min_width=120)
                    randomize = gr.Checkbox(True, label="New every time", elem_id="randomize", min_width=120)
        with gr.Column(elem_id="gallery", scale=1, min_width=320):
            first = show.stage(samples[:1], show.done_label(samples[0], heading="Example"), kind="example")
            stage = gr.HTML(first, elem_id="stage", apply_default_css=False, js_on_load=_PICK)
            rows = show.strip([("Examples", "example", samples)])
            strip = gr.HTML(rows, elem_id="strip", apply_default_css=False, js_on_load=_PICK)
            if words:
                gr.HTML(vocabulary_panel(words), elem_id="vocabulary", apply_default_css=False, js_on_load=None)

    controls = [prompt, negative, style, ground, count, steps, guidance, sampler, seed]

    def run(*values: Any) -> Iterator[dict]:
        *values, new_seed, pictures = values
        try:
            if new_seed:
                values[-1] = random.randrange(MAX_SEED + 1)
            request = _request(*values)
            this_run = studio.engine.submit(request)
        except (InvalidRequest, EngineError) as problem:
            yield {message: _problem(problem)}
            return
        busy = {generate: gr.Button(interactive=False), stop: gr.Button(interactive=True)}
        idle = {generate: gr.Button(interactive=True), stop: gr.Button(interactive=False)}
        yield {message: "", run_id: this_run, seed: request.seed, **busy}
        try:
            for event in studio.paint(request, this_run):
                if isinstance(event, Progress):
                    yield {stage: _progress(request, event)}
                    continue
                result = event.result
                if result.stopped:
                    label = show.stopped_label(request.caption, result.step, result.steps)
                    frames = _frames(request, result.previews)
                    yield {stage: show.stage(frames, label, kind="stopped"), **idle}
                    continue
                pictures = [*event.pictures, *pictures][:LATEST]
                label = show.done_label(event.pictures[0], notes=event.notes, count=request.count)
                yield {
                    stage: show.stage(event.pictures, label),
                    strip: show.strip([("Latest", "latest", pictures), ("Examples", "example", samples)]),
                    latest: pictures,
                    current: event.pictures[0].settings,
                    **idle,
                }
        except EngineError as problem:
            yield {message: _problem(problem), stage: _failed(request), **idle}

    def pick(own: list[Shown], settings: dict, event: gr.EventData) -> dict:
        what, _, index = str(event.pick).partition(":")
        if what == "use":
            chosen = str(getattr(event, "seed", "") or "")
            return _use(settings | ({"seed": int(chosen)} if chosen.isdigit() else {}))
        pictures = {"latest": own, "example": samples}.get(what, [])
        if not index.isdigit() or int(index) >= len(pictures):
            return {message: ""}
        picture = pictures[int(index)]
        label = show.done_label(picture, heading="Example" if what == "example" else "")
        shown = {stage: show.stage([picture], label, kind="example" if what == "example" else "done")}
        # An example is there to be tried: it fills the page in. A picture of one's own is only looked at.
        return shown | {current: picture.settings} | (_use(picture.settings) if what == "example" else {})

    def _use(settings: dict) -> dict:
        parts = dict(zip(FIELDS, controls, strict=True))
        values = {parts[name]: settings[name] for name in parts if name in settings and name != "count"}
        return values | ({randomize: False} if "seed" in settings else {}) | {message: ""}

    private = {"api_visibility": "private", "show_progress": "hidden"}
    everything = [stage, strip, message, run_id, seed, latest, current, generate, stop]
    generate.click(run, [*controls, randomize, latest], everything, concurrency_limit=None, **private)
    stop.click(studio.engine.stop, [run_id], None, queue=False, **private)
    gr.on(
        [prompt.input, prompt.change, style.change, ground.change],
        lambda *values: hints(words, *values),
        [prompt, style, ground],
        [hint],
        trigger_mode="always_last",
        queue=False,
        **private,
    )
    targets = [stage, current, message, randomize, *controls]
    for place in (stage, strip):
        place.click(pick, [latest, current], targets, queue=False, **private)


def _request(prompt, negative, style, ground, count, steps, guidance, sampler, seed) -> TextToImage:
    """Raises InvalidRequest. 15.0 is taken as 15, which browsers and JSON do not tell apart."""

    def whole(value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return TextToImage(prompt, negative, style, ground, whole(count), whole(steps), guidance, sampler, whole(seed))


def _progress(request: TextToImage, event: Progress) -> str:
    frames = _frames(request, event.previews)
    if event.phase == "running":
        label = show.running_label(request.caption, event.step, event.steps)
        return show.stage(frames, label, kind="running")
    if event.phase == "loading":
        text = "The model is loading. Your picture starts by itself as soon as it is there."
    else:
        text = f"{event.ahead} before you in line." if event.ahead else "Starting."
    return show.stage(frames, show.waiting_label(request.caption, text), kind="waiting")


def _frames(request: TextToImage, previews: tuple) -> list[Shown]:
    settings = {"caption": request.caption}
    if not previews:
        return [Shown(show.noise(), settings)] * request.count
    return [Shown(show.data_uri(preview), settings) for preview in previews]


def _failed(request: TextToImage) -> str:
    return show.stage(_frames(request, ()), show.stopped_label(request.caption, 0, request.steps), kind="stopped")


def _problem(problem: Exception) -> str:
    return f'<p role="alert">{escape(str(problem))}</p>'


def _named(keys: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(key.capitalize(), key) for key in keys]


def _example_settings() -> list[dict]:
    """What the placeholders for examples say until there are shipped pictures."""
    return [
        DEFAULTS | example | {"caption": caption(**example), "seed": index + 1}
        for index, example in enumerate(EXAMPLE_PROMPTS)
    ]
