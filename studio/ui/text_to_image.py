"""The tab "Text to image".

Reads the page into a TextToImage request and submits it; what then stands on the stage is watching.py's. Leaving the
page, or looking at something else, does not stop a job.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.engine.job import Picture, Refusal
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
from studio.ui.destination import Destination
from studio.ui.endpoint import paint_request
from studio.ui.panel import hints, vocabulary_panel
from studio.ui.parts import folded
from studio.ui.restore import Restored, read_settings, restored
from studio.ui.stage import Shown
from studio.ui.studio import Studio
from studio.ui.watching import Audience, done_frame, example_frame, frames, watch, watched

TAB = "text-to-image"
FIELDS = [field.name for field in fields(TextToImage)]  # also the order of the controls
DEFAULTS = {field.name: field.default for field in fields(TextToImage) if field.name != "prompt"}
LATEST = 24  # small pictures in sight
EXAMPLE_PROMPTS = [
    {"prompt": "a red apple", "style": "glossy", "ground": "blue"},
    {"prompt": "a cat face", "style": "noto", "ground": "yellow"},
    {"prompt": "a rocket", "style": "flat", "ground": "pink"},
    {"prompt": "a cactus", "style": "twemoji", "ground": "white"},
    {"prompt": "a blue butterfly", "style": "noto", "ground": "green"},
    {"prompt": "a pizza", "style": "glossy", "ground": "gray"},
]
_PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
_QUICK = _PRIVATE | {"queue": False}
# A click on anything that says data-pick reaches Python with the picture that is chosen on the stage.
_PICK = """element.addEventListener("click", (event) => {
  const target = event.target.closest("[data-pick]");
  const key = element.querySelector(".stage")?.dataset.key;
  if (target) trigger("click", { pick: target.dataset.pick, key });
});"""


@dataclass(frozen=True)
class Bench:
    """The tab, as far as the rest of the page has to do with it.

    watched: what stands on the stage, a ticket of `watch`.  filled: what `fill` changes: the controls with these
    settings.  examples: the shipped pictures.
    """

    studio: Studio
    watched: gr.Textbox
    stage: gr.HTML
    strip: gr.HTML
    stop: gr.Button
    message: gr.HTML
    filled: Sequence[Component]
    fill: Callable[[Restored], dict[Component, Any]]
    examples: Sequence[Shown]

    @property
    def greeting(self) -> list[Component]:
        """What `greet` changes."""
        return [self.watched, self.stage, self.strip, self.stop, self.message]

    @property
    def destination(self) -> Destination:
        """For pictures of the library."""

        def fill(picture: Picture) -> dict[Component, Any]:
            return self.fill(restored(picture.settings, self.studio.model))

        return Destination("Use these settings", TAB, self.filled, fill)

    def greet(self, owner: str) -> dict[Component, Any]:
        """What an owner who opens the page finds: the newest job under way, else the newest that is done."""
        found: dict[Component, Any] = {self.strip: self.latest(owner)[0]}
        under_way = [job for job in self.studio.engine.jobs(owner) if job.task == TextToImage.task]
        if under_way:
            newest = max(under_way, key=lambda job: job.created)
            return found | {self.watched: watch("job", newest.id), self.stop: gr.update(interactive=True)}
        ended = [job for job in self.studio.library.recent_jobs(owner, 12) if job.task == TextToImage.task]
        if ended and ended[0].state == "failed":
            found[self.message] = said([ended[0].error or ""], "alert")
        if done := next((job for job in ended if job.pictures), None):
            found[self.stage] = done_frame(self.studio, done)
        return found

    def latest(self, owner: str) -> tuple[str, str]:
        """The strip, and what it is of: where that is the same, so is the strip."""
        pictures = self.studio.library.pictures(owner, task=TextToImage.task, limit=LATEST)
        own = [Shown.of(picture) for picture in pictures]
        return show.strip([("Latest", own), ("Examples", self.examples)]), " ".join(shown.key for shown in own)

    def use_example(self, number: int) -> dict[Component, Any]:
        """An example is there to be tried: it is shown, and fills the page in."""
        shown = {self.watched: watch("example", number), self.stop: gr.update(interactive=False)}
        return shown | self.fill(restored(self.examples[number].settings))


def build_text_to_image(studio: Studio, page: gr.Blocks, token: gr.BrowserState, tabs: gr.Tabs) -> Bench:
    """The tab's parts and what they do; call it inside its gr.Tab."""
    words = studio.vocabulary
    samples = show.examples(studio.examples, _example_settings())
    styles, grounds = (words.styles, words.grounds) if words else (STYLES, GROUNDS)
    audience = Audience()
    # Not a gr.State, whose `change` is not noticed after events that do not go through Gradio's queue.
    ticket = gr.Textbox("", visible="hidden", elem_id="watched")

    with gr.Row(elem_id="bench", equal_height=False):
        with gr.Column(elem_id="controls", scale=0, min_width=320):
            prompt = gr.Textbox(
                "", label="Prompt", placeholder="a red apple", lines=2, max_lines=6, autofocus=True, elem_id="prompt"
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
            with folded("more", "More"):
                negative = gr.Textbox(
                    "", label="Negative prompt", placeholder="what to keep away from", max_lines=4, elem_id="negative"
                )
                # Numbers, not sliders, whose typed values the browser cuts to their ends without a word.
                with gr.Row(elem_id="numbers"):
                    steps = gr.Number(
                        DEFAULTS["steps"], step=1, label=f"Steps, 1 to {MAX_STEPS}", elem_id="steps", min_width=120
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
            upload = gr.UploadButton("Take settings from a PNG", size="sm", elem_id="restore")
        with gr.Column(elem_id="gallery", scale=1, min_width=320):
            stage = gr.HTML(example_frame(samples[0]), elem_id="stage", apply_default_css=False, js_on_load=_PICK)
            rows = show.strip([("Examples", samples)])
            strip = gr.HTML(rows, elem_id="strip", apply_default_css=False, js_on_load=_PICK)
            if words:
                gr.HTML(vocabulary_panel(words), elem_id="vocabulary", apply_default_css=False, js_on_load=None)

    controls = [prompt, negative, style, ground, count, steps, guidance, sampler, seed]
    named = dict(zip(FIELDS, controls, strict=True))

    def fill(found: Restored, *before: str) -> dict[Component, Any]:
        """The controls with these settings, and what is to be said about it."""
        values = {named[name]: value for name, value in found.values.items()}
        keep_seed = {randomize: False} if "seed" in found.values else {}
        return values | keep_seed | {message: said([*before, *found.notes])}

    filled = [*controls, randomize, message]
    bench = Bench(studio, ticket, stage, strip, stop, message, filled, fill, samples)

    def submit(
        request: gr.Request, browser: str, new_seed: bool,
        prompt: Any, negative: Any, style: Any, ground: Any, count: Any, steps: Any, guidance: Any, sampler: Any,
        number: Any,
    ) -> dict[Component, Any]:  # fmt: skip
        owner, known = studio.owners.of_page(request, browser)
        try:
            number = random.randrange(MAX_SEED + 1) if new_seed else number
            asked = paint_request(prompt, negative, style, ground, count, steps, guidance, sampler, number)
            job = studio.engine.submit(asked, owner)
        except (InvalidRequest, Refusal) as problem:
            return {message: said([str(problem)], "alert")}
        shown = {ticket: watch("job", job), seed: asked.seed, stop: gr.update(interactive=True), message: ""}
        return shown | ({} if browser == known else {token: known})

    def stream(request: gr.Request, browser: str, shown: str) -> Iterator[Any]:
        owner, _ = studio.owners.of_page(request, browser)
        newest = audience.enter(request.session_hash)
        for frame in frames(studio, owner, shown, samples):
            if not newest():
                break
            yield frame
        # Gradio sends the last value of a stream once more at its end, when something newer may stand there.
        yield gr.skip()

    def settle(request: gr.Request, browser: str, shown: str) -> Any:
        """Stop is there for as long as there is something to stop."""
        kind, id = watched(shown)
        job = studio.engine.view(id, studio.owners.of_page(request, browser)[0]) if kind == "job" else None
        return gr.update(interactive=job is not None and not job.ended)

    def cancel(request: gr.Request, browser: str, shown: str) -> None:
        kind, id = watched(shown)
        if kind == "job":
            studio.engine.cancel(id, studio.owners.of_page(request, browser)[0])

    def pick(request: gr.Request, event: gr.EventData, browser: str) -> dict[Component, Any]:
        owner, _ = studio.owners.of_page(request, browser)
        what = str(event._data.get("pick"))
        kind, _, id = str(event._data.get("key") if what == "use" else what).partition(":")
        if kind == "picture":
            if what != "use":
                return {ticket: watch(kind, id), stop: gr.update(interactive=False)}
            picture = studio.library.picture(owner, id)
            return fill(restored(picture.settings, studio.model)) if picture else {message: ""}
        if kind == "example" and id.isdigit() and int(id) < len(samples):
            return fill(restored(samples[int(id)].settings)) if what == "use" else bench.use_example(int(id))
        return {message: ""}

    def take(path: str | None) -> dict[Component, Any]:
        """The settings of a file that was chosen, or dropped anywhere on the page."""
        try:
            if not path:
                return {message: ""}
            found = read_settings(path, studio.model)
        except ValueError as problem:
            return {message: said([str(problem)], "alert"), tabs: gr.update(selected=TAB)}
        finally:
            Path(path or "").is_file() and Path(path).unlink(missing_ok=True)
        return fill(found, f"Settings taken from {Path(path).name}.") | {tabs: gr.update(selected=TAB)}

    generate.click(
        submit, [token, randomize, *controls], [token, ticket, seed, stop, message], trigger_mode="multiple", **_QUICK
    )
    ticket.change(
        stream, [token, ticket], [stage], concurrency_limit=None, trigger_mode="multiple", **_PRIVATE
    ).then(settle, [token, ticket], [stop], trigger_mode="multiple", **_QUICK)
    stop.click(cancel, [token, ticket], None, **_QUICK)
    gr.on(
        [prompt.input, prompt.change, style.change, ground.change],
        lambda *values: hints(words, *values),
        [prompt, style, ground],
        [hint],
        trigger_mode="always_last",
        **_QUICK,
    )
    for place in (stage, strip):
        place.click(pick, [token], [ticket, stop, *filled], trigger_mode="multiple", **_QUICK)
    upload.upload(take, [upload], [*filled, tabs], **_QUICK)
    _keep_draft(page, [*controls, randomize], [*FIELDS, "randomize"])
    return bench


def _keep_draft(page: gr.Blocks, parts: Sequence[Component], names: Sequence[str]) -> None:
    """What is typed and chosen stays in the browser, over a refresh and a restart; the server has no part in it."""
    meta = f"{json.dumps(TAB)}, {json.dumps(names)}"
    defaults = json.dumps([part.value for part in parts])
    gr.on(
        [part.change for part in parts],
        None,
        parts,
        None,
        js=f"(...values) => window.studio.keep({meta}, values)",
        trigger_mode="multiple",
        **_QUICK,
    )
    page.load(
        None, parts, parts, js=f"(...values) => window.studio.draft({meta}, {defaults}, values)", **_QUICK
    )


def said(sentences: Sequence[str], role: str = "status") -> str:
    """What is said under the buttons: a mistake as an "alert"."""
    return "".join(f'<p role="{role}">{escape(sentence)}</p>' for sentence in sentences if sentence)


def _named(keys: Sequence[str]) -> list[tuple[str, str]]:
    return [(key.capitalize(), key) for key in keys]


def _example_settings() -> list[dict[str, Any]]:
    """What the placeholders for examples say until there are shipped pictures."""
    return [
        DEFAULTS | example | {"caption": caption(**example), "seed": index + 1}
        for index, example in enumerate(EXAMPLE_PROMPTS)
    ]
