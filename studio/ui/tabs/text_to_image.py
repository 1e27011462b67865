"""The tab "Text to image": requests from its controls, live pictures, variations and settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.engine.job import JobRejected, Picture
from studio.engine.requests import TextToImage
from studio.services.build_request import random_seed
from studio.services.context import AppContext
from studio.services.examples import EXAMPLES
from studio.services.import_settings import ImportedSettings, import_settings, read_settings
from studio.ui.components.examples import example_cards
from studio.ui.components.image_card import ImageCard
from studio.ui.components.job_panel import JobPanel
from studio.ui.components.model_menu import ModelMenu
from studio.ui.components.parts import QUICK, keep_draft, message_html, uploaded_file
from studio.ui.components.result import thumbnails_html
from studio.ui.components.send_to import PICTURE_GONE, SendTarget, open_picture
from studio.ui.components.views import LatestPerSession
from studio.ui.events import Click, Updates, Visitor
from studio.ui.scripts import on_event
from studio.ui.tabs.text_to_image_form import TAB, TextToImageForm, build_form
from studio.ui.tabs.text_to_image_settings import TextToImageSettings

LATEST_PICTURES = 24  # in the strip
VARIATIONS = {"subtle": 0.35, "strong": 0.65}  # strength: how far a variation may leave its picture
VARIATION_COUNT = 4  # pictures of one variation job
# What a live picture takes from the controls; the preset has the rest.
LIVE_FIELDS = ("prompt", "negative_prompt", "style", "background", "seed", "resolution", "randomize_style", "strength")
LIVE = "live"  # the preset that paints while a person types, of models that have one


class TextToImageTab:
    """The tab; create it inside its gr.Tab."""

    def __init__(
        self, context: AppContext, page: gr.Blocks, token: gr.BrowserState, tabs: gr.Tabs, menu: ModelMenu
    ) -> None:
        placeholders = [
            request.settings()
            | {"caption": context.capabilities.caption(request.prompt, request.style, request.background)}
            for request in EXAMPLES
        ]
        self.examples: Sequence[ImageCard] = example_cards(context.examples, placeholders)
        self._context, self._menu, self._tabs = context, menu, tabs
        self._form = form = build_form(context, self.examples)
        self._settings = TextToImageSettings(context, menu, form)
        self.panel = JobPanel(
            context=context,
            token=token,
            tab=TAB,
            tasks=(TextToImage.task,),
            view_token=form.view_token,
            result=form.result,
            stop=form.stop,
            message=form.message,
            examples=self.examples,
        )
        self._live_requests = LatestPerSession()
        self._connect(form, page)

    @property
    def strip(self) -> gr.HTML:
        """The latest pictures and the examples."""
        return self._form.strip

    @property
    def settings_outputs(self) -> list[Component]:
        """What settings that are used may change."""
        form = self._form
        return [*form.controls.values(), form.randomize, form.message, form.shown, self._menu.model_id]

    @property
    def target(self) -> SendTarget:
        return SendTarget("Use these settings", TAB, self.settings_outputs, self._use_picture)

    @property
    def start_target(self) -> SendTarget:
        return self._settings.target

    @property
    def restored_outputs(self) -> list[Component]:
        return [self.strip, self._form.start, *self.panel.restored_outputs]

    def restore_view(self, owner: str) -> Updates:
        own: Updates = {self.strip: self.latest(owner)[0], self._form.start: self._settings.start.html(owner)}
        return own | self.panel.restore_view(owner)

    def latest(self, owner: str) -> tuple[str, str]:
        """Return the strip of pictures as HTML, and a text that changes with it."""
        pictures = self._context.library.find_pictures(owner, task=TextToImage.task, limit=LATEST_PICTURES)
        cards = [ImageCard.of(picture) for picture in pictures]
        return thumbnails_html([("Latest", cards), ("Examples", self.examples)]), " ".join(card.key for card in cards)

    def use_example(self, number: int) -> Updates:
        """Show an example, and use its settings."""
        return self.panel.show("example", number) | self._use_example_settings(number)

    # ---- handlers ----

    def submit(
        self,
        visitor: Visitor,
        *,
        asked_at: str,
        preset: str | None,
        randomize: bool,
        model_id: str,
        start: str,
        **values: Any,
    ) -> Updates:
        """Queue a job of the controls' settings, and show it."""
        self._live_requests.enter(visitor.session, float(asked_at))  # no earlier live picture may replace this job
        is_live = preset == LIVE and self._menu.capabilities(model_id).live_preset is not None
        if randomize and not is_live:  # with Live, the picture in sight is the one to keep
            values["seed"] = random_seed()
        request = self._settings.request(visitor.owner, model_id, values, start_html=start)
        job_id = self._context.engine.submit(request, visitor.owner)
        return self.panel.show_job(job_id) | {self._form.controls["seed"]: request.seed, self._form.message: ""}

    def paint_live(
        self, visitor: Visitor, *, asked_at: str, view_token: str, preset: str | None, model_id: str, **values: Any
    ) -> Updates:
        """Paint the prompt as it stands. The picture is not kept, and replaces the one before."""
        # On a busy server an earlier prompt may arrive after a later one.
        is_latest = self._live_requests.enter(visitor.session, float(asked_at))
        capabilities = self._menu.capabilities(model_id)
        if preset != LIVE or not capabilities.live_preset or not str(values["prompt"] or "").strip() or not is_latest():
            return {}
        values |= capabilities.presets[capabilities.live_preset]
        request = self._settings.request(visitor.owner, model_id, values)
        self.panel.drop_live_job(visitor.session, visitor.owner, view_token)
        job_id = self._context.engine.submit(request, visitor.owner, save=False)
        if not is_latest():
            self._context.engine.cancel(job_id, visitor.owner)
            return {}
        return self.panel.show_job(job_id) | {self._form.message: ""}

    def handle_click(self, visitor: Visitor, event: gr.EventData) -> Updates:
        """Show, use or vary the picture or example that was clicked or is selected."""
        click = Click.of(event)
        action, _, variation = click.pick.partition(":")
        kind, item_id = click.kind, click.item_id
        if action in ("picture", "example"):  # a small picture of the strip
            kind, _, item_id = click.pick.partition(":")
        if kind == "picture" and action == "vary" and variation in VARIATIONS:
            return self._vary(visitor.owner, item_id, VARIATIONS[variation])
        if kind == "picture" and action == "use":
            return self.target.fill_from(self._context.library, visitor.owner, item_id)
        if kind == "picture" and action == "picture":
            return self.panel.show(kind, item_id)
        if kind == "example" and item_id.isdigit() and int(item_id) < len(self.examples):
            if action == "use":
                return self._use_example_settings(int(item_id))
            return self.use_example(int(item_id))
        return {}

    def load_settings(self, visitor: Visitor, *, path: str | None, model_id: str) -> Updates:
        """Use the settings of a file that was chosen, or dropped on a tab that opens no pictures."""
        show_tab: Updates = {self._tabs: gr.update(selected=TAB)}
        try:
            with uploaded_file(path) as file:
                imported = read_settings(file, self._context.models, model_id)
        except ValueError as problem:
            return show_tab | {self._form.message: message_html([str(problem)], "alert")}
        return show_tab | self._use(imported, f"Settings loaded from {file.name}.")

    # ---- helpers ----

    def _use_example_settings(self, number: int) -> Updates:
        return self._use(import_settings(self.examples[number].settings, self._context.models))

    def _use_picture(self, owner: str, picture: Picture) -> Updates:
        return self._use(import_settings(picture.settings, self._context.models))

    def _use(self, imported: ImportedSettings, *notes: str) -> Updates:
        """Set the controls to imported settings, and show notes about them."""
        form = self._form
        updates: Updates = {
            form.controls[name]: value for name, value in imported.values.items() if name in form.controls
        }
        if "seed" in imported.values:
            updates[form.randomize] = False
        if imported.model_id:
            # The form shows this model already: none of these values is to become the model's default.
            updates |= {self._menu.model_id: imported.model_id, form.shown: imported.model_id}
        return updates | {form.message: message_html([*notes, *imported.notes])}

    def _vary(self, owner: str, picture_id: str, strength: float) -> Updates:
        """Queue pictures like a kept one, with its own prompt and numbers."""
        original = self._context.library.load_request(owner, picture_id)
        picture = self._context.library.get_picture(owner, picture_id)
        if picture is None:
            raise JobRejected(PICTURE_GONE)
        if not isinstance(original, TextToImage):
            return {}
        style, background = self._context.engine.resolve(original).styles_and_backgrounds[0]
        request = replace(
            original,
            style=style,
            background=background,
            randomize_style=False,
            image=open_picture(picture),
            strength=strength,
            count=VARIATION_COUNT,
            resolution=None,
            seed=random_seed(),
        )
        job_id = self._context.engine.submit(request, owner)
        return self.panel.show_job(job_id) | {self._form.message: ""}

    # ---- wiring ----

    def _connect(self, form: TextToImageForm, page: gr.Blocks) -> None:
        events, controls, view_outputs = self.panel.events, form.controls, self.panel.view_outputs
        model = {"model_id": self._menu.model_id}
        self.panel.connect()
        events.on(
            form.generate.click,
            self.submit,
            {
                "asked_at": form.asked_at,
                "preset": form.preset,
                "randomize": form.randomize,
                "start": form.start,
                **model,
                **controls,
            },
            [*view_outputs, controls["seed"]],
            js="(token, asked_at, ...values) => [token, String(performance.now()), ...values]",
            trigger_mode="multiple",
        )
        for place in (form.result, form.strip):
            events.on_click(place, self.handle_click, [*view_outputs, *self.settings_outputs])
        events.on(
            form.upload.upload,
            self.load_settings,
            {"path": form.upload, "model_id": self._menu.model_id},
            [*self.settings_outputs, self._tabs],
        )
        self._connect_live(form)
        self._settings.connect(events)
        keep_draft(page, TAB, controls | {"randomize": form.randomize, "shown": form.shown})

    def _connect_live(self, form: TextToImageForm) -> None:
        """Ask for a live picture whenever the prompt is edited, or a choice that matters to it is made."""
        controls = form.controls
        # A pasted prompt changes without an input event; a restored draft is no edit.
        now = f"preset === {json.dumps(LIVE)} ? String(performance.now()) : asked_at"
        edited = on_event("prompt.js", f"isEdited() && {now}", "asked_at, preset")
        choices = [controls[name].input for name in ("style", "background", "randomize_style")] + [form.preset.input]
        for triggers, script in (
            ([controls["prompt"].change], edited),
            (choices, f"(asked_at, preset) => {now}"),
        ):
            gr.on(
                triggers,
                None,
                [form.asked_at, form.preset],
                [form.asked_at],
                js=script,
                trigger_mode="multiple",
                **QUICK,
            )
        inputs = {"asked_at": form.asked_at, "view_token": form.view_token, "preset": form.preset}
        self.panel.events.on(
            form.asked_at.change,
            self.paint_live,
            inputs | {"model_id": self._menu.model_id} | {name: controls[name] for name in LIVE_FIELDS},
            self.panel.view_outputs,
            trigger_mode="always_last",
        )
