"""Where a picture can be sent: each tab that takes pictures describes itself to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gradio.components import Component
from PIL import Image

from studio.engine.job import JobRejected, Picture
from studio.library.store import Library

PICTURE_GONE = "This picture was deleted."


@dataclass(frozen=True)
class SendTarget:
    """A tab, and how a picture fills it.

    label: of the button.  tab: the id of its gr.Tab.  outputs: the components that `fill` may change.
    fill: returns their new values, given the owner and the picture.
    accepts: whether the tab can use this picture.
    name: of the target, by which buttons name it; "" for the id of the tab.
    """

    label: str
    tab: str
    outputs: Sequence[Component]
    fill: Callable[[str, Picture], dict[Component, Any]]
    accepts: Callable[[Picture], bool] = lambda picture: True
    name: str = ""

    def fill_from(self, library: Library, owner: str, picture_id: str) -> dict[Component, Any]:
        """Return what `fill` returns for the picture with this id. Raises JobRejected if it was deleted."""
        picture = library.get_picture(owner, picture_id)
        if picture is None:
            raise JobRejected(PICTURE_GONE)
        return self.fill(owner, picture)


def open_picture(picture: Picture) -> Image.Image:
    """Return the pixels of a kept picture, RGB or RGBA. Raises JobRejected if its file is gone."""
    try:
        with Image.open(picture.path) as file:
            return file.convert("RGBA" if file.has_transparency_data else "RGB")
    except OSError as problem:
        raise JobRejected(PICTURE_GONE) from problem
