"""The settings of the tab "Text to image": what follows from them and the model, and the request they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.engine.job import Picture
from studio.engine.requests import TextToImage
from studio.models.capabilities import Capabilities
from studio.services.build_request import build_request
from studio.services.context import AppContext
from studio.ui.components.model_menu import ModelMenu
from studio.ui.components.parts import QUICK, message_html, uploaded_file
from studio.ui.components.send_to import SendTarget, open_picture
from studio.ui.components.vocabulary_panel import hints_html, vocabulary_html
from studio.ui.controls.fields import capitalized
from studio.ui.controls.follow import ModelFollower, expected_html
from studio.ui.controls.model_form import Values, shown_if
from studio.ui.controls.size import size_with_aspect
from studio.ui.events import Click, Events, Updates, Visitor
from studio.ui.tabs.inpaint_draft import PICTURE_CHANGED
from studio.ui.tabs.start_picture import StartPicture
from studio.ui.tabs.text_to_image_form import TAB, TextToImageForm, aspect_choice, preset_of

TEXTS = ("prompt", "negative_prompt", "seed")  # fields on which the time of a job does not depend
DEPENDING = ("spacing", "refiner_start")  # fields that depend on others of the form


@dataclass(frozen=True)
class TextToImageSettings:
    """The settings of one tab."""

    context: AppContext
    menu: ModelMenu
    form: TextToImageForm

    @cached_property
    def start(self) -> StartPicture:
        return StartPicture(self.context)

    @cached_property
    def follower(self) -> ModelFollower:
        form = self.form
        return ModelFollower(self.menu, form.fields, (TextToImage.task,), form.shown, form.offer, form.unable)

    @property
    def target(self) -> SendTarget:
        """Where a picture is sent to start from it."""
        outputs = [self.form.start, self.form.message]
        return SendTarget("Start from this picture", TAB, outputs, self._start_from, name="start")

    def request(
        self, owner: str, model_id: str, values: Mapping[str, Any], *, start_html: str | None = None
    ) -> TextToImage:
        """Return the request of the controls' values, without the fields that the model does not have.

        start_html: the picture to start from as the page shows it. Raises InvalidRequest, and ValueError if that
        picture was replaced meanwhile.
        """
        capabilities = self.context.capabilities_of(model_id)
        fields = self.form.fields.visible(capabilities, values)
        if "resolution" in fields:
            fields["resolution"] = fields["resolution"] or None
        if capabilities.image_to_image:
            if start_html is not None and start_html != self.start.html(owner):
                raise ValueError(PICTURE_CHANGED)
            fields["image"] = self.start.get(owner)
        return build_request(TextToImage, {**fields, "model_id": model_id})

    # ---- handlers ----

    def show_settings(self, visitor: Visitor, *, model_id: str, **values: Any) -> Updates:
        """Show what follows from the settings: the preset, the aspect ratio, the spacings, the time of a job."""
        capabilities = self.menu.capabilities(model_id)
        depending, notes = self.form.fields.follow(capabilities, capabilities, values, DEPENDING)
        if notes:
            depending[self.form.message] = message_html(notes)
        depending[self.form.preset] = preset_of(capabilities, values)
        return depending | self._show_settings(visitor, capabilities, model_id, values)

    def set_aspect(self, visitor: Visitor, *, model_id: str, aspect: str) -> Updates:
        """Set the width and the height to an aspect ratio."""
        size = self.menu.capabilities(model_id).size
        if size is None:
            return {}
        width, height = size_with_aspect(size, aspect)
        return {self.form.controls["width"]: width, self.form.controls["height"]: height}

    def set_preset(self, visitor: Visitor, *, model_id: str, preset: str) -> Updates:
        """Set the controls of a preset."""
        settings = self.menu.capabilities(model_id).presets.get(preset, {})
        return {self.form.controls[name]: value for name, value in settings.items()}

    def load_start(self, visitor: Visitor, *, path: str | None, model_id: str) -> Updates:
        """Open a picture to start from, and set the size that is nearest to it."""
        with uploaded_file(path) as file:
            size, notes = self.start.load(visitor.owner, file)
        updates: Updates = {
            self.form.start: self.start.html(visitor.owner),
            self.form.message: message_html(notes),
        }
        if allowed := self.menu.capabilities(model_id).size:
            width, height = allowed.fit(size)
            updates |= {self.form.controls["width"]: width, self.form.controls["height"]: height}
        return updates

    def handle_start_click(self, visitor: Visitor, event: gr.EventData) -> Updates:
        """Remove the picture to start from."""
        if Click.of(event).pick == "remove":
            self.start.remove(visitor.owner)
        return {self.form.start: self.start.html(visitor.owner)}

    # ---- helpers ----

    @property
    def _depending(self) -> list[Component]:
        return [self.form.controls[name] for name in DEPENDING]

    def _start_from(self, owner: str, picture: Picture) -> Updates:
        self.start.put(owner, open_picture(picture))
        return {self.form.start: self.start.html(owner), self.form.message: ""}

    def _show_model(self, visitor: Visitor, capabilities: Capabilities, values: Values) -> Updates:
        """Show the parts that depend on the model: hints, presets, words, the picture to start from."""
        form, vocabulary, can_start = self.form, capabilities.vocabulary, capabilities.image_to_image
        return {
            form.preset: gr.update(
                visible=shown_if(bool(capabilities.presets)),
                choices=capitalized(list(capabilities.presets)),
                value=preset_of(capabilities, values),
            ),
            form.hints: hints_html(capabilities, values["prompt"] or "", values["style"], values["background"]),
            form.vocabulary: vocabulary_html(vocabulary) if vocabulary else "",
            form.start: self.start.html(visitor.owner) if can_start else "",
            form.open_start: gr.update(visible=shown_if(can_start)),
        } | self._show_settings(visitor, capabilities, capabilities.model_id, values)

    def _show_settings(self, visitor: Visitor, capabilities: Capabilities, model_id: str, values: Values) -> Updates:
        updates = self.follower.show_offer(capabilities, values)
        updates[self.form.aspect] = gr.update(
            value=aspect_choice(capabilities, values), visible=shown_if(capabilities.size is not None)
        )
        is_able = TextToImage.task in capabilities.tasks
        updates[self.form.expected] = (
            expected_html(self.context, lambda: self.request(visitor.owner, model_id, {**values, "seed": 0}))
            if is_able
            else ""
        )
        return updates

    # ---- wiring ----

    def connect(self, events: Events) -> None:
        """Connect the events of the settings."""
        form, controls, model = self.form, self.form.controls, {"model_id": self.menu.model_id}
        size = [controls["width"], controls["height"]]
        events.on(form.open_start.upload, self.load_start, {"path": form.open_start, **model}, [form.start, *size])
        events.on_click(form.start, self.handle_start_click, [form.start])
        events.on(form.aspect.input, self.set_aspect, {"aspect": form.aspect, **model}, size)
        events.on(
            form.preset.input,
            self.set_preset,
            {"preset": form.preset, **model},
            list(controls.values()),
            trigger_mode="always_last",
        )
        settings = [control.change for name, control in controls.items() if name not in TEXTS]
        events.on(
            [*settings, form.start.change],
            self.show_settings,
            {**model, **controls},
            [form.preset, form.aspect, form.expected, form.offer, *self._depending],
            trigger_mode="always_last",
        )
        parts = [form.preset, form.hints, form.vocabulary, form.start, form.open_start, form.aspect, form.expected]
        self.follower.connect(events, self._show_model, parts, controls)
        prompt, style, background = (controls[name] for name in ("prompt", "style", "background"))
        gr.on(
            [prompt.input, prompt.change, style.change, background.change],
            lambda prompt, style, background, model_id: hints_html(
                self.menu.capabilities(model_id), prompt, style, background
            ),
            [prompt, style, background, self.menu.model_id],
            [form.hints],
            trigger_mode="always_last",
            **QUICK,
        )
