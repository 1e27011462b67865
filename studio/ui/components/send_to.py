"""Where a picture of the library can be sent: what each tab that takes pictures tells the others of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gradio.components import Component
from PIL import Image

from studio.engine.job import JobRejected, Picture
from studio.library.store import Library

PICTURE_GONE = "This picture is not there any more."


@dataclass(frozen=True)
class SendTarget:
    """A tab, and how it is filled in from a picture.

    label: what the button says.  tab: the id of its gr.Tab.  outputs: what `fill` may change.
    fill: the new values by component, given the owner and the picture.
    takes: whether there is anything in this picture for it.
    """

    label: str
    tab: str
    outputs: Sequence[Component]
    fill: Callable[[str, Picture], dict[Component, Any]]
    takes: Callable[[Picture], bool] = lambda picture: True

    def fill_from(self, library: Library, owner: str, id: str) -> dict[Component, Any]:
        """`fill`, given a picture's id. Raises Refusal if the picture is gone."""
        picture = library.get_picture(owner, id)
        if picture is None:
            raise JobRejected(PICTURE_GONE)
        return self.fill(owner, picture)

    @classmethod
    def working_on(
        cls,
        label: str,
        tab: str,
        outputs: Sequence[Component],
        use: Callable[[str, Image.Image], dict[Component, Any]],
    ) -> SendTarget:
        """A tab that works on pictures: `use` gets the owner, and the picture as RGB or RGBA."""

        def fill(owner: str, picture: Picture) -> dict[Component, Any]:
            try:
                with Image.open(picture.path) as file:
                    shown = file.convert("RGBA" if file.has_transparency_data else "RGB")
            except OSError as problem:
                raise JobRejected(PICTURE_GONE) from problem
            return use(owner, shown)

        return cls(label, tab, outputs, fill)
