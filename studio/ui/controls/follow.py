"""Keep a form in step with the chosen model: its fields, the offer of its own settings, and what it cannot do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.engine.requests import InvalidRequest, Request
from studio.models.capabilities import Capabilities
from studio.models.samplers import SPACING_LABELS
from studio.services.context import AppContext
from studio.services.naming import TASK_NAMES
from studio.ui.components.formatting import format_duration
from studio.ui.components.model_menu import ModelMenu
from studio.ui.components.parts import message_html
from studio.ui.components.templates import render
from studio.ui.controls.model_form import ModelForm, Values, shown_if
from studio.ui.events import Events, Updates, Visitor
from studio.ui.scripts import on_load

WORTH_SAYING = 3.0  # seconds of a job from which on its time is shown beforehand


@dataclass(frozen=True)
class ModelFollower:
    """The parts of a tab that follow the chosen model.

    shown: hidden; the id of the model that the form shows.
    offer: a button that sets the model's own settings; out of sight where they are set.
    unable: says that the model has no task of this tab.
    """

    menu: ModelMenu
    form: ModelForm
    tasks: tuple[str, ...]
    shown: gr.Textbox
    offer: gr.Button
    unable: gr.HTML

    @property
    def drafts(self) -> dict[str, Any]:
        """What is kept in the browser beside the form's values."""
        return {"shown": self.shown}

    def show_offer(self, capabilities: Capabilities, values: Values) -> Updates:
        """Offer the model's own settings where the form has others. Presets make the offer needless."""
        is_open = not capabilities.presets and self.form.differs(capabilities, values)
        label = offer_text(capabilities, self.form.kind.task)
        return {self.offer: gr.update(visible=shown_if(is_open), value=label)}

    def connect(
        self,
        events: Events,
        show: Callable[[Visitor, Capabilities, Values], Updates],
        outputs: Sequence[Any],
        controls: Mapping[str, Any],
    ) -> None:
        """Show the chosen model's fields whenever another one is chosen.

        show: returns the updates of the tab's other parts.  controls: the inputs whose values it gets.
        """

        def follow(visitor: Visitor, *, model_id: str, shown: str, **values: Any) -> Updates:
            capabilities, before = self.menu.capabilities(model_id), self.menu.capabilities(shown)
            updates, notes = self.form.follow(capabilities, before, values)
            changed = {name: self._value(updates, name, value) for name, value in values.items()}
            return {
                **updates,
                **self.show_offer(capabilities, changed),
                **show(visitor, capabilities, changed),
                self.shown: model_id,
                self.unable: unable_html(self.menu.context, capabilities, self.tasks),
                **({events.message: message_html(notes)} if notes else {}),
            }

        own = [*self.form.outputs, self.offer, self.unable, self.shown]
        inputs = {"model_id": self.menu.model_id, "shown": self.shown, **controls}
        events.on(self.menu.changes, follow, inputs, [*own, *outputs], trigger_mode="always_last")

        def reset(visitor: Visitor, *, model_id: str) -> Updates:
            return self.form.reset(self.menu.capabilities(model_id))

        def choose(visitor: Visitor, event: gr.EventData) -> Updates:
            return {self.menu.model_id: str(event._data.get("pick") or "")}

        events.on_click(self.unable, choose, [self.menu.model_id])
        events.on(self.offer.click, reset, {"model_id": self.menu.model_id}, list(self.form.controls.values()))

    def _value(self, updates: Updates, name: str, value: Any) -> Any:
        control = self.form.controls.get(name)
        return updates.get(control, {}).get("value", value) if control is not None else value


def offer_button(form: ModelForm, tab: str) -> gr.Button:
    """Return the button that sets the model's own settings; `ModelFollower` shows it where it is needed."""
    return gr.Button(
        offer_text(form.capabilities, form.kind.task),
        size="sm",
        visible=shown_if(False),
        elem_id=f"{tab}-offer",
        elem_classes="link",
    )


def unable_notice(context: AppContext, tab: str, tasks: tuple[str, ...]) -> gr.HTML:
    """Return the place for a sentence that hides the tab's other parts where the model has none of its tasks."""
    return gr.HTML(
        unable_html(context, context.capabilities, tasks),
        elem_id=f"{tab}-unable",
        elem_classes="unable",
        apply_default_css=False,
        js_on_load=on_load("result.js", "sendPicks(element, trigger)"),
    )


def shown_box(tab: str) -> gr.Textbox:
    """Return the hidden field that names the model whose fields a form shows."""
    return gr.Textbox("", visible="hidden", elem_id=f"{tab}-shown")


def offer_text(capabilities: Capabilities, task: str) -> str:
    """Return the label of the offer: "Use this model's settings: Euler, 20 steps, guidance 7, 512 × 512 px"."""
    return f"Use this model's settings: {settings_text(capabilities, task)}"


def settings_text(capabilities: Capabilities, task: str) -> str:
    """Return a model's own settings of a task for people."""
    own = capabilities.defaults.get(task, {})
    parts: list[str] = []
    if sampler := own.get("sampler"):
        parts.append(capabilities.samplers.get(sampler, sampler))
    if spacing := own.get("spacing"):
        parts.append(f"{SPACING_LABELS.get(spacing, spacing)} spacing")
    if "steps" in own:
        parts.append(f"{own['steps']} steps")
    if "guidance" in own:
        parts.append(f"guidance {own['guidance']:g}")
    if own.get("width") and own.get("height"):
        parts.append(f"{own['width']}\xa0×\xa0{own['height']}\xa0px")
    if own.get("clip_skip"):
        parts.append(f"clip skip {own['clip_skip']}")
    return ", ".join(parts)


def expected_html(context: AppContext, build: Callable[[], Request]) -> str:
    """Return how long a job takes, where that is worth knowing, or why it is not possible.

    build: makes its request; may raise InvalidRequest.
    """
    try:
        resolved = context.engine.resolve(build())
    except InvalidRequest as problem:
        return message_html([str(problem)])
    if resolved.seconds < WORTH_SAYING:
        return ""
    text = f"{resolved.width:,} × {resolved.height:,} px, about {format_duration(resolved.seconds)}."
    if not set(resolved.model_ids) <= set(context.engine.loaded):
        text += " The model is loaded first."
    return message_html([text])


def unable_html(context: AppContext, capabilities: Capabilities, tasks: Sequence[str]) -> str:
    """Return a sentence that the model has none of these tasks, and the models that have; "" where it has one."""
    if set(tasks) & set(capabilities.tasks):
        return ""
    others = [
        entry
        for entry in context.catalog.entries
        if not entry.problems and set(tasks) & set(context.capabilities_of(entry.id).tasks)
    ]
    return render("unable.html", model=capabilities.name, task=TASK_NAMES[tasks[0]], others=others)
