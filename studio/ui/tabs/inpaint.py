"""The tab "Inpaint": paint a mask on a picture and fill it, also beyond the picture's borders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from gradio.components import Component
from PIL import Image

from studio.engine.job import Picture
from studio.engine.requests import Inpaint
from studio.imaging.canvas import extend_canvas, pan, zoom_out
from studio.imaging.files import open_image, open_mask
from studio.models.capabilities import Capabilities
from studio.services.build_request import build_request, random_seed
from studio.services.comparison import change_sentence
from studio.services.context import AppContext
from studio.services.picture_kind import picture_kind
from studio.ui.components.examples import example_pair
from studio.ui.components.job_panel import JobPanel
from studio.ui.components.model_menu import ModelMenu
from studio.ui.components.parts import keep_draft, message_html, uploaded_file
from studio.ui.components.send_to import SendTarget, open_picture
from studio.ui.components.views import example_html
from studio.ui.controls.follow import ModelFollower, expected_html
from studio.ui.controls.model_form import Values
from studio.ui.events import Click, Updates, Visitor
from studio.ui.tabs.inpaint_draft import TAB, InpaintDraft
from studio.ui.tabs.inpaint_form import InpaintForm, build_form
from studio.ui.tabs.mask_editor import ADD_MASK, mask_editor_html

TEXTS = ("prompt", "negative_prompt", "seed")  # fields on which the time of a job does not depend
NO_OWNER = ""  # whose draft is the shipped example


class InpaintTab:
    """The tab; create it inside its gr.Tab."""

    def __init__(self, context: AppContext, page: gr.Blocks, token: gr.BrowserState, menu: ModelMenu) -> None:
        self._context, self._menu = context, menu
        self._draft = InpaintDraft(context)
        example = example_pair(context.examples / TAB)
        changes = self._draft.count_example_changes()
        notes = [change_sentence(*changes)] if changes else []
        self._form = form = build_form(context, self._editor_html(NO_OWNER), example_html(example, notes))
        self._follower = ModelFollower(menu, form.fields, (Inpaint.task,), form.shown, form.offer, form.unable)
        self.panel = JobPanel(
            context=context,
            token=token,
            tab=TAB,
            tasks=(Inpaint.task,),
            view_token=form.view_token,
            result=form.result,
            stop=form.stop,
            message=form.message,
            examples=[example],
        )
        self._connect(form, page)

    @property
    def target(self) -> SendTarget:
        return SendTarget("Open in Inpaint", TAB, [self._form.editor, self._form.message], self._use_picture)

    @property
    def restored_outputs(self) -> list[Component]:
        return [self._form.editor, *self.panel.restored_outputs]

    def restore_view(self, owner: str) -> Updates:
        return {self._form.editor: self._editor_html(owner)} | self.panel.restore_view(owner)

    # ---- handlers ----

    def submit(self, visitor: Visitor, *, model_id: str, randomize: bool, painted_mask: str, **values: Any) -> Updates:
        """Queue a job of the picture, its mask and the controls' settings, and show it."""
        self._draft.set_painted_mask(visitor.owner, painted_mask)
        if randomize:
            values["seed"] = random_seed()
        pictures = {"image": self._draft.picture(visitor.owner), "mask": self._draft.mask(visitor.owner)}
        request = self._request(model_id, values | pictures)
        job_id = self._context.engine.submit(request, visitor.owner)
        return self.panel.show_job(job_id) | {self._form.controls["seed"]: request.seed, self._form.message: ""}

    def show_settings(self, visitor: Visitor, *, model_id: str, **values: Any) -> Updates:
        """Show what follows from the settings: the spacings of the sampler, the time of a job."""
        capabilities = self._menu.capabilities(model_id)
        depending, notes = self._form.fields.follow(capabilities, capabilities, values, ("spacing",))
        note: Updates = {self._form.message: message_html(notes)} if notes else {}
        return depending | note | self._show_model(visitor, capabilities, values)

    def save_mask(self, visitor: Visitor, *, painted_mask: str) -> Updates:
        """Keep the mask after a stroke, so that it survives a refresh."""
        self._draft.set_painted_mask(visitor.owner, painted_mask)
        return {}

    def load_picture(self, visitor: Visitor, *, path: str | None) -> Updates:
        with uploaded_file(path) as file:
            picture, notes = open_image(file, file.name)
            kind = picture_kind(picture, file)
        self._draft.replace(visitor.owner, picture, kind=kind)
        return self._show_draft(visitor.owner, *notes)

    def load_mask(self, visitor: Visitor, *, path: str | None) -> Updates:
        with uploaded_file(path) as file:
            mask, notes = open_mask(file, file.name)
        self._draft.set_mask(visitor.owner, mask)
        return self._show_draft(visitor.owner, *notes)

    def restore_previous(self, visitor: Visitor) -> Updates:
        if not self._draft.restore_previous(visitor.owner):
            return {self._form.message: message_html(["There is no previous picture."])}
        return self._show_draft(visitor.owner)

    def extend(self, visitor: Visitor, *, left: str, top: str, right: str, bottom: str) -> Updates:
        lengths = [length or "0" for length in (left, top, right, bottom)]
        return self._change_canvas(visitor.owner, lambda picture: extend_canvas(picture, *lengths))

    def zoom_out(self, visitor: Visitor, *, factor: Any) -> Updates:
        if not isinstance(factor, int | float):
            raise ValueError("The zoom must be a number from 1 to 16; it was empty.")
        return self._change_canvas(visitor.owner, lambda picture: zoom_out(picture, factor))

    def pan(self, visitor: Visitor, *, right: str, down: str) -> Updates:
        return self._change_canvas(visitor.owner, lambda picture: pan(picture, right or "0", down or "0"))

    def handle_click(self, visitor: Visitor, event: gr.EventData) -> Updates:
        """Edit the selected result."""
        click = Click.of(event)
        if click.pick != "input" or click.kind != "picture":
            return {}
        return self.target.fill_from(self._context.library, visitor.owner, click.item_id)

    # ---- helpers ----

    def _editor_html(self, owner: str) -> str:
        return mask_editor_html(self._draft.view(owner))

    def _request(self, model_id: str, values: Mapping[str, Any]) -> Inpaint:
        """Return the request of these values, without the fields that the model does not have."""
        fields = self._form.fields.visible(self._context.capabilities_of(model_id), values)
        return build_request(Inpaint, {**fields, "model_id": model_id})

    def _show_model(self, visitor: Visitor, capabilities: Capabilities, values: Values) -> Updates:
        """Show the offer of the model's settings, and the time of a job with a model that is not made for live use."""
        updates = self._follower.show_offer(capabilities, values)
        if capabilities.live_preset or Inpaint.task not in capabilities.tasks:
            return updates | {self._form.expected: ""}
        picture = self._draft.picture(visitor.owner)
        pictures = {"image": picture, "mask": Image.new("L", picture.size, 255)}
        return updates | {
            self._form.expected: expected_html(
                self._context, lambda: self._request(capabilities.model_id, {**values, **pictures, "seed": 0})
            )
        }

    def _show_draft(self, owner: str, *notes: str) -> Updates:
        return {self._form.editor: self._editor_html(owner), self._form.message: message_html(notes)}

    def _use_picture(self, owner: str, picture: Picture) -> Updates:
        self._draft.replace(owner, open_picture(picture))
        return self._show_draft(owner)

    def _change_canvas(self, owner: str, change: Callable[[Image.Image], tuple[Image.Image, Image.Image]]) -> Updates:
        self._draft.change_canvas(owner, change)
        return self._show_draft(owner, "The new area is already selected. Press Fill.")

    # ---- wiring ----

    def _connect(self, form: InpaintForm, page: gr.Blocks) -> None:
        events, canvas = self.panel.events, form.canvas
        self.panel.connect()
        events.on(
            form.fill.click,
            self.submit,
            {
                "model_id": self._menu.model_id,
                **form.controls,
                "randomize": form.randomize,
                "painted_mask": form.painted_mask,
            },
            [*self.panel.view_outputs, form.controls["seed"]],
            js=ADD_MASK,
            trigger_mode="multiple",
        )
        events.on(
            form.editor.paint,
            self.save_mask,
            {"painted_mask": form.painted_mask},
            [],
            js=ADD_MASK,
            trigger_mode="always_last",
        )
        events.on(form.open_picture.upload, self.load_picture, {"path": form.open_picture}, [form.editor])
        events.on(form.open_mask.upload, self.load_mask, {"path": form.open_mask}, [form.editor])
        events.on(form.previous.click, self.restore_previous, {}, [form.editor])
        sides = {"left": canvas.left, "top": canvas.top, "right": canvas.right, "bottom": canvas.bottom}
        events.on(canvas.extend.click, self.extend, sides, [form.editor])
        events.on(canvas.zoom_out.click, self.zoom_out, {"factor": canvas.factor}, [form.editor])
        events.on(canvas.pan.click, self.pan, {"right": canvas.pan_right, "down": canvas.pan_down}, [form.editor])
        events.on_click(form.result, self.handle_click, [form.editor])
        settings = {name: control for name, control in form.controls.items() if name not in TEXTS}
        events.on(
            [control.change for control in settings.values()],
            self.show_settings,
            {"model_id": self._menu.model_id, **form.controls},
            [form.expected, form.offer, form.controls["spacing"]],
            trigger_mode="always_last",
        )
        self._follower.connect(events, self._show_model, [form.expected], form.controls)
        keep_draft(page, TAB, form.controls | {"randomize": form.randomize, "shown": form.shown})
