"""The tab "Super-resolution": enlarge a small picture, or remove the noise from one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from PIL import Image

from studio.engine.job import JobRejected, Picture
from studio.engine.requests import MAX_SIGMA, Denoise, InvalidRequest, SuperResolve
from studio.imaging.files import open_image
from studio.imaging.measure import estimate_noise_sigma
from studio.models.capabilities import Capabilities
from studio.services.build_request import as_int, build_request, random_seed
from studio.services.context import AppContext
from studio.services.picture_kind import PHOTOGRAPH, picture_kind
from studio.ui.components.examples import example_pair
from studio.ui.components.formatting import PHOTOGRAPH_NOTE, format_duration
from studio.ui.components.image_card import versioned_url
from studio.ui.components.job_panel import JobPanel
from studio.ui.components.model_menu import ModelMenu
from studio.ui.components.parts import keep_draft, message_html, uploaded_file
from studio.ui.components.result import lanczos_html
from studio.ui.components.send_to import PICTURE_GONE, SendTarget, open_picture
from studio.ui.components.templates import render
from studio.ui.components.views import example_html
from studio.ui.controls.follow import ModelFollower
from studio.ui.controls.model_form import Values
from studio.ui.events import Click, Updates, Visitor
from studio.ui.tabs.inpaint_draft import PICTURE_CHANGED
from studio.ui.tabs.super_resolution_form import TAB, TASKS, SuperResolutionForm, build_form

MODELS = (
    "Stable Diffusion x4 upscaler (stabilityai/stable-diffusion-x4-upscaler), Swin2SR or Real-ESRGAN; to remove "
    "noise, SwinIR or NAFNet"
)
NO_OWNER = ""  # whose picture is the shipped example
PLACEHOLDER_SIZE = (64, 64)  # px, where no example is shipped
TEXTS = ("prompt", "seed")  # fields on which the time of a job does not depend
DEPENDING = ("noise_level", "spacing")  # fields that depend on others of the form
SHARED = ("prompt", "guidance", "seed", "model_id", "clip_skip", "guidance_rescale")  # fields of both requests
ENLARGING = ("noise_level", "sampler", "spacing")  # fields of SuperResolve alone


class SuperResolutionTab:
    """The tab; create it inside its gr.Tab."""

    def __init__(self, context: AppContext, page: gr.Blocks, token: gr.BrowserState, menu: ModelMenu) -> None:
        self._context, self._menu = context, menu
        example = example_pair(context.examples / TAB)
        self._form = form = build_form(context, self._preview_html(NO_OWNER), example_html(example))
        self._follower = ModelFollower(menu, form.fields, TASKS, form.shown, form.offer, form.unable)
        self.panel = JobPanel(
            context=context,
            token=token,
            tab=TAB,
            tasks=TASKS,
            view_token=form.view_token,
            result=form.result,
            stop=form.stop,
            message=form.message,
            examples=[example],
        )
        self._connect(form, page)

    @property
    def target(self) -> SendTarget:
        return SendTarget("Open in Super-resolution", TAB, [self._form.preview, self._form.message], self._use_picture)

    @property
    def restored_outputs(self) -> list[Component]:
        return [self._form.preview, *self.panel.restored_outputs]

    def restore_view(self, owner: str) -> Updates:
        return {self._form.preview: self._preview_html(owner)} | self.panel.restore_view(owner)

    # ---- handlers ----

    def submit(self, visitor: Visitor, *, model_id: str, preview: str, randomize: bool, **values: Any) -> Updates:
        """Queue a job of the picture and the controls' settings, and show it."""
        if preview != self._preview_html(visitor.owner):
            raise ValueError(PICTURE_CHANGED)
        if randomize:
            values["seed"] = random_seed()
        request = self._request(visitor.owner, model_id, values)
        job_id = self._context.engine.submit(request, visitor.owner)
        return self.panel.show_job(job_id) | {self._form.controls["seed"]: request.seed, self._form.message: ""}

    def show_settings(self, visitor: Visitor, *, model_id: str, **values: Any) -> Updates:
        """Show the controls of the chosen action, the size of the result and the time it takes."""
        form, capabilities = self._form, self._menu.capabilities(model_id)
        depending, notes = form.fields.follow(capabilities, capabilities, values, DEPENDING)
        note: Updates = {form.message: message_html(notes)} if notes else {}
        return depending | note | self._show_model(visitor, capabilities, values)

    def load_picture(self, visitor: Visitor, *, path: str | None) -> Updates:
        with uploaded_file(path) as file:
            picture, notes = open_image(file, file.name)
            kind = picture_kind(picture, file)
        return self._set_picture(visitor.owner, picture, kind, *notes)

    def handle_click(self, visitor: Visitor, event: gr.EventData) -> Updates:
        """Compare the selected result with a Lanczos enlargement, or with the small picture again."""
        click = Click.of(event)
        if click.kind == "picture" and click.pick == "lanczos":
            return {self._form.result: self._lanczos_html(visitor.owner, click.item_id)}
        if click.kind == "picture" and click.pick == "before":
            return self.panel.show(click.kind, click.item_id)
        return {}

    # ---- helpers ----

    def _picture_path(self, owner: str) -> Path:
        """Return the file of the owner's picture, else of the shipped one, which may be missing."""
        example = self._context.examples / TAB / "picture.png"
        return self._context.drafts.get_path(owner, TAB, "picture") or example.resolve()

    def _picture(self, owner: str) -> Image.Image:
        """Return the owner's picture, else the shipped one."""
        picture = self._context.drafts.get(owner, TAB, "picture")
        if picture is not None:
            return picture
        try:
            with Image.open(self._picture_path(owner)) as file:
                return file.convert("RGB")
        except OSError:
            return Image.new("RGB", PLACEHOLDER_SIZE, "white")

    def _set_picture(self, owner: str, picture: Image.Image, kind: str = "", *notes: str) -> Updates:
        self._context.drafts.put(owner, TAB, "picture", picture, kind)
        return {self._form.preview: self._preview_html(owner), self._form.message: message_html(notes)}

    def _use_picture(self, owner: str, picture: Picture) -> Updates:
        return self._set_picture(owner, open_picture(picture))

    def _preview_html(self, owner: str) -> str:
        """Return the owner's picture with its size, and a note if it is a photograph."""
        path = self._picture_path(owner)
        if not path.exists():
            return '<p class="small-picture">Open a picture.</p>'
        with Image.open(path) as picture:
            width, height = picture.size
        is_photograph = self._context.drafts.get_note(owner, TAB, "picture") == PHOTOGRAPH
        return render(
            "small_picture.html",
            url=versioned_url(path),
            width=width,
            height=height,
            note=PHOTOGRAPH_NOTE.format(models=MODELS) if is_photograph else "",
        )

    def _request(self, owner: str, model_id: str, values: Mapping[str, Any]) -> SuperResolve | Denoise:
        """Return the request of the controls' values, without the fields that the model does not have."""
        fields = self._form.fields.visible(self._context.capabilities_of(model_id), values)
        return request_of(self._picture(owner), {**fields, "model_id": model_id})

    def _show_model(self, visitor: Visitor, capabilities: Capabilities, values: Values) -> Updates:
        """Show the controls of the chosen action, the offer of the model's settings, and the time of a job."""
        form, removes_noise = self._form, values["action"] == "noise"
        updates: Updates = {
            form.size_row: gr.update(visible=values["action"] == "size"),
            form.noise_row: gr.update(visible=removes_noise),
            form.run: gr.update(value="Remove noise" if removes_noise else "Enlarge"),
        }
        try:
            request = self._request(visitor.owner, capabilities.model_id, {**values, "seed": 0})
            sentence = self._expected(request)
        except ValueError as problem:
            sentence = str(problem)
        if not set(TASKS) & set(capabilities.tasks):
            sentence = ""
        return updates | self._follower.show_offer(capabilities, values) | {form.expected: message_html([sentence])}

    def _expected(self, request: SuperResolve | Denoise) -> str:
        """Return the size of the result and the time it takes, as a sentence."""
        width, height = request.output_size if isinstance(request, SuperResolve) else request.image.size
        seconds = self._context.engine.resolve(request).seconds
        text = f"{width:,} × {height:,} px, about {format_duration(seconds)}."
        if isinstance(request, Denoise) and request.sigma is None:
            text += f" Measured noise: {estimate_noise_sigma(request.image):.1f} (scale 0–255)."
        return text

    def _lanczos_html(self, owner: str, picture_id: str) -> str:
        """Return a result beside the Lanczos enlargement of its picture. Raises JobRejected if one is gone."""
        picture = self._context.library.get_picture(owner, picture_id)
        if picture is None:
            raise JobRejected(PICTURE_GONE)
        try:
            with Image.open(self._context.library.find_inputs(owner, picture_id)["image"]) as small:
                lanczos = small.resize((picture.width, picture.height), Image.Resampling.LANCZOS)
        except (KeyError, OSError) as problem:
            raise JobRejected("The small picture of this result was deleted.") from problem
        self._context.drafts.put(owner, TAB, "lanczos", lanczos)
        return lanczos_html(picture, versioned_url(self._context.drafts.get_path(owner, TAB, "lanczos")))

    # ---- wiring ----

    def _connect(self, form: SuperResolutionForm, page: gr.Blocks) -> None:
        events, controls = self.panel.events, form.controls
        self.panel.connect()
        events.on(
            form.run.click,
            self.submit,
            {"model_id": self._menu.model_id, "preview": form.preview, "randomize": form.randomize, **controls},
            [*self.panel.view_outputs, controls["seed"]],
            trigger_mode="multiple",
        )
        events.on(form.open_picture.upload, self.load_picture, {"path": form.open_picture}, [form.preview])
        settings = [control.change for name, control in controls.items() if name not in TEXTS]
        shown = [form.size_row, form.noise_row, form.run, form.expected]
        events.on(
            [form.preview.change, page.load, *settings],
            self.show_settings,
            {"model_id": self._menu.model_id, **controls},
            [*shown, form.offer, *(controls[name] for name in DEPENDING)],
            trigger_mode="always_last",
        )
        self._follower.connect(events, self._show_model, shown, controls)
        events.on_click(form.result, self.handle_click, [form.result, *self.panel.view_outputs])
        keep_draft(page, TAB, controls | {"randomize": form.randomize, "shown": form.shown})


def request_of(picture: Image.Image, values: Mapping[str, Any]) -> SuperResolve | Denoise:
    """Return the request of the tab's controls for a picture. Raises InvalidRequest."""
    shared = {name: values[name] for name in SHARED if name in values} | {"image": picture}
    steps, action = as_int(values["steps"]), values["action"]
    if action == "noise":
        is_full_run = values["method"] == "run"
        # The default of the control is for enlarging, and too few steps for a full run.
        steps = steps if is_full_run and steps != SuperResolve.steps else Denoise.steps
        return build_request(
            Denoise, shared | {"sigma": _parse_sigma(values["sigma"]), "method": values["method"], "steps": steps}
        )
    target = (values["width"], values["height"]) if action == "size" else None
    scale = 4 if action == "x4" else 2
    own = {name: values[name] for name in ENLARGING if name in values}
    return build_request(SuperResolve, shared | own | {"scale": scale, "target": target, "steps": steps})


def _parse_sigma(text: Any) -> float | None:
    """Return the noise in levels of 255; None, to measure it, if the field is empty. Raises InvalidRequest."""
    if text is None or not str(text).strip():
        return None
    try:
        return float(text)
    except ValueError as problem:
        quoted = f'"{str(text)[:40]}"'
        allowed = f"above 0 and at most {MAX_SIGMA:g}"
        raise InvalidRequest(f"The noise must be a number {allowed}; it was {quoted}.") from problem
