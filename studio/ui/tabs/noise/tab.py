"""The Noise tab: its components, what its scripts may call, and what other tabs send to it.

`studio.services.noise` answers; the modules in static/noise draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.engine.checks import InvalidRequest
from studio.services.context import AppContext
from studio.services.noise.messages import model_message
from studio.ui.components.parts import PRIVATE
from studio.ui.scripts import on_load
from studio.ui.tabs.noise.panels import model_info, panels_html

# Gradio knows the tab's events by their names in this script.
_MOUNT = on_load(
    "noise/main.js",
    """mountNoise(element, server, {
  open: (data) => trigger("open", data),
  run: (data) => trigger("run", data),
  compare: (data) => trigger("compare", data),
})""",
)
_INBOX = on_load("noise/main.js", "watchInbox(props, watch)")


@dataclass(frozen=True)
class NoiseTab:
    """The tab's components that others use.

    inbox: takes messages for the tab's scripts, from any event.
    open: returns the message that shows how an owner's picture was made, step by step.
    open_forward: returns the message that adds noise to an owner's picture.
    """

    view: gr.HTML
    inbox: gr.HTML
    open: Callable[[str, str], str]
    open_forward: Callable[[str, str], str]


def build_noise(context: AppContext, token: gr.BrowserState, model_id: gr.Textbox) -> NoiseTab:
    """Build the tab's components, inside a gr.Tab.

    token: the browser's own, see `studio.services.owners`. model_id: of the chosen model, "" for the default one.
    """
    service, runs = context.noise, context.noise.runs
    methods = (
        service.first_view,
        service.example_run,
        service.forward,
        service.plane_start,
        service.plane_train,
        service.inspect,
        service.channels,
        service.decode,
        service.latents,
        service.animate,
    )
    view = gr.HTML(
        panels_html(context.capabilities),
        elem_id="noise",
        apply_default_css=False,
        js_on_load=_MOUNT,
        server_functions=[_function(method) for method in methods],
    )
    # Two: the newest message waits in its component until the tab is opened.
    inbox, chosen = (
        gr.HTML("", visible="hidden", html_template="<i></i>", js_on_load=_INBOX, elem_id=f"noise-{name}")
        for name in ("inbox", "model")
    )

    def owner_of(request: gr.Request, token: str) -> str:
        return context.owners.of_page(request, token)[0]

    def run(token: str, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        yield from runs.run(_data(event).get("params"), owner_of(request, token))

    def compare(token: str, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        yield from runs.compare(_data(event).get("params"), owner_of(request, token))

    def open_picture(token: str, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        open_ = runs.open_forward if _data(event).get("view") == "forward" else runs.open
        yield open_(owner_of(request, token), str(_data(event).get("picture")))

    for event, answer in ((view.open, open_picture), (view.run, run), (view.compare, compare)):
        event(answer, [token], [inbox], concurrency_limit=None, **PRIVATE)

    def choose_model(model_id: str) -> Any:
        try:
            return model_message(model_info(runs.capabilities_of(model_id)))
        except InvalidRequest:  # it is gone; the menu then chooses the default one
            return gr.skip()

    model_id.change(choose_model, [model_id], [chosen], concurrency_limit=None, **PRIVATE)
    return NoiseTab(view, inbox, runs.open, runs.open_forward)


def _data(event: gr.EventData) -> dict[str, Any]:
    return event._data if isinstance(event._data, dict) else {}


def _function(method: Callable[[object], dict[str, Any]]) -> Callable[[object], dict[str, Any]]:
    """Return a function that calls a method: Gradio sets an attribute on it, which methods do not allow."""

    def function(params: object) -> dict[str, Any]:
        return method(params)

    function.__name__ = method.__name__
    return function
