"""Connect the page's events to their handlers: find who sends an event, and show why something was refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.engine.job import JobRejected
from studio.models.formats import ModelError
from studio.services.context import AppContext
from studio.ui.components.parts import QUICK

Updates = dict[Any, Any]  # new values by component


@dataclass(frozen=True)
class Visitor:
    """Who sends an event. session: one page in one browser tab."""

    owner: str
    session: str | None


@dataclass(frozen=True)
class Click:
    """A click on a button inside HTML: what it asks for, and the picture that is selected there."""

    pick: str
    kind: str  # of the selected picture: "picture" or "example"; "" for none
    item_id: str

    @classmethod
    def of(cls, event: gr.EventData) -> Click:
        kind, _, item_id = str(event._data.get("key")).partition(":")
        return cls(str(event._data.get("pick")), kind, item_id)


@dataclass(frozen=True)
class Events:
    """Connects the events of a tab.

    A handler is called with the visitor and the inputs by their names, and returns the new values of outputs. The
    sentence of a request that is refused, or of a file that cannot be read, is shown in `message` as `problem_html`
    renders it.
    """

    context: AppContext
    token: gr.BrowserState
    message: gr.HTML
    problem_html: Callable[[str], str]

    def on(
        self,
        event: Any,
        handle: Callable[..., Updates],
        inputs: Mapping[str, Component],
        outputs: Sequence[Any],
        **options: Any,
    ) -> None:
        """Call `handle(visitor, **inputs)` on an event, or on each of a list of events."""

        def handler(request: gr.Request, token: str, *values: Any) -> Updates:
            return self._answer(request, token, handle, {}, dict(zip(inputs, values, strict=True)))

        self._connect(event, handler, inputs, outputs, options)

    def on_click(
        self,
        component: gr.HTML,
        handle: Callable[..., Updates],
        outputs: Sequence[Any],
        inputs: Mapping[str, Component] | None = None,
    ) -> None:
        """Call `handle(visitor, event, **inputs)` on a click inside HTML. `event` holds the data of the click."""
        inputs = inputs or {}

        def handler(request: gr.Request, event: gr.EventData, token: str, *values: Any) -> Updates:
            return self._answer(request, token, handle, {"event": event}, dict(zip(inputs, values, strict=True)))

        self._connect(component.click, handler, inputs, outputs, {"trigger_mode": "multiple"})

    def _answer(
        self,
        request: gr.Request,
        token: str,
        handle: Callable[..., Updates],
        extra: Mapping[str, Any],
        values: Mapping[str, Any],
    ) -> Updates:
        owner, valid_token = self.context.owners.of_page(request, token)
        try:
            updates = handle(Visitor(owner, request.session_hash), **extra, **values)
        except (JobRejected, ModelError, ValueError, OSError) as problem:  # InvalidRequest is a ValueError
            updates = {self.message: self.problem_html(str(problem))}
        if valid_token != token:
            updates = updates | {self.token: valid_token}
        return updates or {self.message: gr.skip()}  # Gradio takes an empty dictionary for a value

    def _connect(
        self,
        event: Any,
        handler: Callable[..., Updates],
        inputs: Mapping[str, Component],
        outputs: Sequence[Any],
        options: Mapping[str, Any],
    ) -> None:
        settings: dict[str, Any] = {
            "inputs": [self.token, *inputs.values()],
            "outputs": list(dict.fromkeys([*outputs, self.message, self.token])),
            # Requests are checked later, with better sentences. Gradio would refuse what only another model offers.
            "preprocess": any(isinstance(component, gr.UploadButton) for component in inputs.values()),
            **QUICK,
            **options,
        }
        if isinstance(event, list):
            gr.on(event, handler, **settings)
        else:
            event(handler, **settings)
