"""The tab "Noise": its parts, what the browser may call, and what other tabs put into it.

What is asked for is answered by noise_room.py; what is drawn is drawn by the scripts in noise_views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.services.noise import NoiseService
from studio.ui.components.parts import PRIVATE
from studio.ui.tabs.noise.panels import panels

if TYPE_CHECKING:
    from studio.services.context import AppContext

# One script, to which Gradio gives `element`, `trigger` and `server`.
_PARTS = ("drawing", "forward", "reverse", "compare", "plane", "rail", "take", "tour")
_SCRIPT = "\n".join(
    (Path(__file__).parents[2] / "static" / "noise" / f"{name}.js").read_text("utf-8") for name in _PARTS
)
# What is put in before the tab was ever opened is there when this first runs.
_INBOX = """const post = () => {
  window.noiseLetter = props.value;
  window.dispatchEvent(new Event("noise-letter"));
};
watch("value", post);
post();"""


@dataclass(frozen=True)
class NoiseTab:
    """The tab's parts that others reach: any event may put what these say of an owner's picture into `inbox`.

    open: how it was made, taken apart.  drown: the picture on its way into noise.
    """

    view: gr.HTML
    inbox: gr.HTML
    open: Callable[[str, str], str]
    drown: Callable[[str, str], str]


def build_noise(studio: AppContext, token: gr.BrowserState) -> NoiseTab:
    """The tab's parts; call it inside a gr.Tab. token: the browser's own, see owner.py."""
    room = NoiseService(studio)
    view = gr.HTML(
        panels(studio.capabilities.samplers),
        elem_id="noise",
        apply_default_css=False,
        js_on_load=_SCRIPT,
        server_functions=[
            _function(method)
            for method in (
                room.first,
                room.example_run,
                room.forward,
                room.plane_start,
                room.plane_train,
                room.look,
                room.animate,
            )
        ],
    )
    inbox = gr.HTML("", visible="hidden", html_template="<i></i>", js_on_load=_INBOX, elem_id="noise-inbox")

    def run(browser: str, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        yield from room.run(getattr(event, "asked", None), room.owner(request, browser))

    def compare(browser: str, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        yield from room.compare(getattr(event, "asked", None), room.owner(request, browser))

    def fetch(browser: str, event: gr.EventData, request: gr.Request) -> Iterator[str]:
        show = room.drown if getattr(event, "into", "") == "forward" else room.open
        yield show(room.owner(request, browser), str(getattr(event, "asked", "")))

    for event, answer in ((view.fetch, fetch), (view.run, run), (view.compare, compare)):
        event(answer, [token], [inbox], concurrency_limit=None, **PRIVATE)
    return NoiseTab(view, inbox, room.open, room.drown)


def _function(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Gradio marks what it may serve, which a bound method does not bear."""

    def function(asked: Any) -> Any:
        return method(asked)

    function.__name__ = method.__name__
    return function
