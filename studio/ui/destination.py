"""Where a picture of the library can be sent: what each tab that takes pictures tells the others of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gradio.components import Component

from studio.engine.job import Picture


@dataclass(frozen=True)
class Destination:
    """A tab, and how it is filled in from a picture.

    label: what the button says.  tab: the id of its gr.Tab.  outputs: what `fill` may change.
    fill: the new values by component.  takes: whether there is anything in this picture for it.
    """

    label: str
    tab: str
    outputs: Sequence[Component]
    fill: Callable[[Picture], dict[Component, Any]]
    takes: Callable[[Picture], bool] = lambda picture: True
