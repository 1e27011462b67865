"""The tab "Text to image".

Reads the page into a TextToImage request and submits it; what then stands on the stage is watching.py's. Leaving the
page, or looking at something else, does not stop a job.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import gradio as gr
from gradio.components import Component
from PIL import Image

from studio.engine.job import JobRejected, Picture
from studio.engine.requests import (
    MAX_COUNT,
    MAX_GUIDANCE,
    MAX_SEED,
    MAX_STEPS,
    InvalidRequest,
    TextToImage,
)
from studio.models.capabilities import Capabilities
from studio.models.families.studio import PRESETS
from studio.prompts.captions import ANY
from studio.services.build_request import as_int, build_request
from studio.services.context import AppContext
from studio.services.examples import PAINTED
from studio.services.import_settings import ImportedSettings, import_settings, read_settings
from studio.ui.components import result as show
from studio.ui.components.job_panel import CLICK_SCRIPT, JobPanel
from studio.ui.components.parts import (
    QUICK,
    choices,
    collapsible,
    keep_draft,
    message_html,
    run_buttons,
    uploaded_file,
    view_token_box,
)
from studio.ui.components.result import ImageCard
from studio.ui.components.send_to import PICTURE_GONE, SendTarget
from studio.ui.components.views import LatestPerSession, example_html
from studio.ui.components.vocabulary_panel import hints_html, vocabulary_html
from studio.ui.scripts import on_event

TAB = "text-to-image"
# Also the order of the controls.
FIELDS = [
    *("prompt", "negative_prompt", "style", "background", "count", "steps", "guidance", "sampler", "seed"),
    *("resolution", "one_pass", "style_emphasis", "randomize_style"),
]
DEFAULTS = {field.name: field.default for field in fields(TextToImage) if field.name in FIELDS[1:]}
LATEST = 24  # small pictures in sight
VARIATIONS = {"subtle": 0.35, "strong": 0.65}  # strength: how far a variation may leave its picture
VARIED = 4  # variations at a time
FROM_STAGE = ("use", *(f"vary:{how}" for how in VARIATIONS))  # clicks that mean the picture on the stage
OWN_SIZE = 0  # the model's own choice of a size to finish at
LIVE, CHOSEN = "live", tuple(PRESETS["live"])


@dataclass(frozen=True)
class TextToImageTab:
    """The tab, as far as the rest of the page has to do with it.

    easel: where jobs and pictures stand.  filled: what `fill` changes: the controls with these settings.
    """

    easel: JobPanel
    strip: gr.HTML
    filled: Sequence[Component]
    fill: Callable[[ImportedSettings], dict[Component, Any]]

    @property
    def studio(self) -> AppContext:
        return self.easel.studio

    @property
    def examples(self) -> Sequence[ImageCard]:
        """The shipped pictures."""
        return self.easel.examples

    @property
    def destination(self) -> SendTarget:
        """For pictures of the library."""

        def fill(owner: str, picture: Picture) -> dict[Component, Any]:
            return self.fill(import_settings(picture.settings, self.studio.capabilities, self.studio.model))

        return SendTarget("Use these settings", TAB, self.filled, fill)

    @property
    def greeting(self) -> list[Component]:
        """What `greet` changes."""
        return [self.strip, *self.easel.greeting]

    def greet(self, owner: str) -> dict[Component, Any]:
        """What an owner who opens the page finds."""
        return {self.strip: self.latest(owner)[0]} | self.easel.greet(owner)

    def latest(self, owner: str) -> tuple[str, str]:
        """The strip, and what it is of: where that is the same, so is the strip."""
        pictures = self.studio.library.find_pictures(owner, task=TextToImage.task, limit=LATEST)
        own = [ImageCard.of(picture) for picture in pictures]
        return show.strip([("Latest", own), ("Examples", self.examples)]), " ".join(shown.key for shown in own)

    def use_example(self, number: int) -> dict[Component, Any]:
        """An example is there to be tried: it is shown, and fills the page in."""
        return self.easel.show("example", number) | self.fill(
            import_settings(self.examples[number].settings, self.studio.capabilities)
        )


def build_text_to_image(studio: AppContext, page: gr.Blocks, token: gr.BrowserState, tabs: gr.Tabs) -> TextToImageTab:
    """The tab's parts and what they do; call it inside its gr.Tab."""
    words, capabilities = studio.vocabulary, studio.capabilities
    samples = show.examples(studio.examples, _example_settings(capabilities))
    watched = view_token_box(TAB)
    moment = gr.Textbox("0", visible="hidden")  # at which the page asked for a sketch: ms since it was opened

    with gr.Row(elem_id="workspace", elem_classes="workspace", equal_height=False):
        with gr.Column(elem_id="controls", elem_classes="controls", scale=0, min_width=320):
            prompt = gr.Textbox(
                "",
                label="Prompt",
                placeholder="a red apple",
                lines=2,
                max_lines=6,
                autofocus=True,
                elem_id="prompt",
                elem_classes="prompt",
            )
            hint = gr.HTML(hints_html(capabilities, "", ANY, ANY), elem_id="hints", apply_default_css=False)
            style = gr.Radio(
                choices((ANY, *capabilities.styles)), value=ANY, label="Style", elem_id="style", elem_classes="joined"
            )
            background = gr.Radio(
                choices((ANY, *capabilities.backgrounds)),
                value=ANY,
                label="Ground colour",
                elem_id="background",
                elem_classes="swatches",
            )
            counts = [(str(n), n) for n in range(1, MAX_COUNT + 1)]
            count = gr.Radio(counts, value=1, label="Pictures", elem_id="count", elem_classes="joined")
            preset = gr.Radio(
                choices(PRESETS),
                value=preset_of(DEFAULTS),
                label="Quality; live paints as you type",
                elem_id="preset",
                elem_classes="joined",
            )
            generate, stop, message = run_buttons(TAB, "Generate")
            with collapsible("more", "More"):
                negative = gr.Textbox(
                    "", label="Negative prompt", placeholder="what to keep away from", max_lines=4, elem_id="negative"
                )
                # Numbers, not sliders, whose typed values the browser cuts to their ends without a word.
                with gr.Row(elem_id="numbers", elem_classes="numbers"):
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
                samplers = [(label, key) for key, label in capabilities.samplers.items()]
                sampler = gr.Dropdown(samplers, value=DEFAULTS["sampler"], label="Sampler", elem_id="sampler")
                sizes = [("Auto", OWN_SIZE), *((f"{side}", side) for side in capabilities.resolutions)]
                finish = gr.Radio(
                    sizes, value=OWN_SIZE, label="Size to finish at, px", elem_id="resolution", elem_classes="joined"
                )
                with gr.Row(elem_id="ways", elem_classes="seeds"):
                    one_pass = gr.Checkbox(
                        DEFAULTS["one_pass"], label="Guidance in one pass", elem_id="one-pass", min_width=120
                    )
                    emphasis = gr.Checkbox(
                        DEFAULTS["style_emphasis"], label="Emphasize the style", elem_id="emphasis", min_width=120
                    )
                # only where these are words of the model's
                randomize_style = gr.Checkbox(
                    words is not None,
                    label="The seed chooses what is left open",
                    elem_id="randomize-style",
                    min_width=120,
                )
                with gr.Row(elem_id="seeds", elem_classes="seeds"):
                    seed = gr.Number(0, label="Seed", elem_id="seed", min_width=120)
                    randomize = gr.Checkbox(True, label="New every time", elem_id="randomize", min_width=120)
            upload = gr.UploadButton("Take settings from a PNG", size="sm", elem_id="restore")
        with gr.Column(elem_id="gallery", elem_classes="gallery", scale=1, min_width=320):
            stage = gr.HTML(example_html(samples[0]), elem_id="stage", apply_default_css=False, js_on_load=CLICK_SCRIPT)
            rows = show.strip([("Examples", samples)])
            strip = gr.HTML(rows, elem_id="strip", apply_default_css=False, js_on_load=CLICK_SCRIPT)
            if words:
                gr.HTML(vocabulary_html(words), elem_id="vocabulary", apply_default_css=False, js_on_load=None)

    controls = [
        prompt, negative, style, background, count, steps, guidance, sampler, seed, finish, one_pass, emphasis, randomize_style,
    ]  # fmt: skip
    by_name = dict(zip(FIELDS, controls, strict=True))
    easel = JobPanel(studio, TAB, (TextToImage.task,), watched, stage, stop, message, samples)

    def fill(found: ImportedSettings, *before: str) -> dict[Component, Any]:
        """The controls with these settings, and what is to be said about it."""
        values = {by_name[name]: value for name, value in found.values.items()}
        keep_seed = {randomize: False} if "seed" in found.values else {}
        return values | keep_seed | {message: message_html([*before, *found.notes])}

    filled = [*controls, randomize, message]
    bench = TextToImageTab(easel, strip, filled, fill)
    sketches = LatestPerSession()

    def submit(
        request: gr.Request, at: str, browser: str, new_seed: bool, preset: str | None, *values: Any
    ) -> dict[Component, Any]:
        owner, known = studio.owners.of_page(request, browser)
        sketches.enter(request.session_hash, float(at))  # what was asked for before shall not take its place
        try:
            given = dict(zip(FIELDS, values, strict=True))
            if new_seed and preset != LIVE:  # there, what is in sight is to be kept
                given["seed"] = random.randrange(MAX_SEED + 1)
            asked = build_request(TextToImage, given | {"resolution": given["resolution"] or None})
            job = studio.engine.submit(asked, owner)
        except (InvalidRequest, JobRejected) as problem:
            return {message: message_html([str(problem)], "alert")}
        shown = easel.show_job(job) | {seed: asked.seed, message: ""}
        return shown | ({} if browser == known else {token: known})

    def sketch(
        request: gr.Request, at: str, browser: str, shown: str, preset: str, *values: Any
    ) -> dict[Component, Any]:
        """In live mode, a picture of the words as they stand. It is not kept, and takes the place of the last one."""
        prompt, negative, style, background, number, finish, by_seed = values
        newest = sketches.enter(request.session_hash, float(at))  # under load, older words may come after newer ones
        if preset != LIVE or not str(prompt or "").strip() or not newest():
            return {message: gr.skip()}
        owner, known = studio.owners.of_page(request, browser)
        try:
            asked = TextToImage(
                prompt, negative_prompt=negative or "", style=style, background=background, seed=as_int(number), resolution=as_int(finish) or None, randomize_style=by_seed,
                **PRESETS[LIVE],
            )  # fmt: skip
            easel.drop_sketch(request.session_hash, owner, shown)
            job = studio.engine.submit(asked, owner, save=False)
        except (InvalidRequest, JobRejected) as problem:
            return {message: message_html([str(problem)], "alert")}
        if not newest():  # meanwhile
            studio.engine.cancel(job, owner)
            return {message: gr.skip()}
        return easel.show_job(job) | {message: ""} | ({} if browser == known else {token: known})

    def vary(owner: str, id: str, how: str) -> dict[Component, Any]:
        """Pictures like one that is kept, from its own words and numbers."""
        try:
            asked = studio.library.load_request(owner, id)
            if not isinstance(asked, TextToImage):
                return {message: ""}
            style, background = studio.engine.resolve(asked).looks[0]  # whatever chose them, they stay
            with Image.open(asked_path(owner, id)) as picture:
                asked = replace(
                    asked, style=style, background=background, randomize_style=False, image=picture, strength=VARIATIONS[how],
                    count=VARIED, resolution=None, seed=random.randrange(MAX_SEED + 1),
                )  # fmt: skip
            return easel.show_job(studio.engine.submit(asked, owner)) | {message: ""}
        except (InvalidRequest, JobRejected, OSError) as problem:
            return {message: message_html([str(problem)], "alert")}

    def asked_path(owner: str, id: str) -> str:
        picture = studio.library.get_picture(owner, id)
        if picture is None:
            raise JobRejected(PICTURE_GONE)
        return picture.path

    def pick(request: gr.Request, event: gr.EventData, browser: str) -> dict[Component, Any]:
        owner, _ = studio.owners.of_page(request, browser)
        what = str(event._data.get("pick"))
        kind, _, id = str(event._data.get("key") if what in FROM_STAGE else what).partition(":")
        if kind == "picture" and what.partition(":")[2] in VARIATIONS:
            return vary(owner, id, what.partition(":")[2])
        if kind == "picture":
            if what != "use":
                return easel.show(kind, id)
            try:
                return bench.destination.fill_from(studio.library, owner, id)
            except JobRejected as problem:
                return {message: message_html([str(problem)], "alert")}
        if kind == "example" and id.isdigit() and int(id) < len(samples):
            return (
                fill(import_settings(samples[int(id)].settings, studio.capabilities))
                if what == "use"
                else bench.use_example(int(id))
            )
        return {message: ""}

    def take(path: str | None) -> dict[Component, Any]:
        """The settings of a file that was chosen, or dropped where no tab takes pictures to work on."""
        try:
            with uploaded_file(path) as file:
                found = read_settings(file, studio.capabilities, studio.model)
        except ValueError as problem:
            return {message: message_html([str(problem)], "alert"), tabs: gr.update(selected=TAB)}
        return fill(found, f"Settings taken from {file.name}.") | {tabs: gr.update(selected=TAB)}

    generate.click(
        submit,
        [moment, token, randomize, preset, *controls],
        [token, watched, seed, stop, message],
        js="(moment, ...values) => [String(performance.now()), ...values]",
        trigger_mode="multiple",
        **QUICK,
    )
    easel.connect(token)
    gr.on(
        [prompt.input, prompt.change, style.change, background.change],
        lambda *values: hints_html(capabilities, *values),
        [prompt, style, background],
        [hint],
        trigger_mode="always_last",
        **QUICK,
    )
    choosing = [steps, guidance, sampler, one_pass, emphasis]
    preset.input(
        lambda name: [PRESETS[name][field] for field in CHOSEN], [preset], choosing, trigger_mode="always_last", **QUICK
    )
    gr.on(
        [part.change for part in choosing],
        lambda *values: preset_of(dict(zip(CHOSEN, values, strict=True))),
        choosing,
        [preset],
        trigger_mode="always_last",
        **QUICK,
    )
    # of words, the change is told, too, where they were not typed but pasted; a draft put back is nobody's writing
    chosen = [part.input for part in (style, background, randomize_style, preset)]
    now = f"preset === '{LIVE}' ? String(performance.now()) : moment"
    edited = on_event("prompt.js", f"isEdited() && {now}", "moment, preset")
    for events, script in (([prompt.change], edited), (chosen, f"(moment, preset) => {now}")):
        gr.on(
            events,
            None,
            [moment, preset],
            [moment],
            js=script,
            trigger_mode="multiple",
            **QUICK,
        )
    moment.change(
        sketch,
        [moment, token, watched, preset, prompt, negative, style, background, seed, finish, randomize_style],
        [token, watched, stop, message],
        trigger_mode="always_last",
        **QUICK,
    )
    for place in (stage, strip):
        place.click(pick, [token], [watched, stop, *filled], trigger_mode="multiple", **QUICK)
    upload.upload(take, [upload], [*filled, tabs], **QUICK)
    keep_draft(page, TAB, [*controls, randomize], [*FIELDS, "randomize"])
    return bench


def preset_of(settings: Mapping[str, Any]) -> str | None:
    """The preset that has these numbers, or None."""
    numbers = {name: as_int(settings[name]) for name in CHOSEN}
    return next((name for name, preset in PRESETS.items() if preset == numbers), None)


def _example_settings(capabilities: Capabilities) -> list[dict[str, Any]]:
    """What the placeholders for examples say until there are shipped pictures."""
    return [
        request.settings() | {"caption": capabilities.caption(request.prompt, request.style, request.background)}
        for request in PAINTED
    ]
