"""The picture that text to image starts from: an owner's own one, kept as a draft."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from studio.imaging.files import open_image
from studio.services.context import AppContext
from studio.ui.components.image_card import versioned_url
from studio.ui.components.templates import render
from studio.ui.scripts import on_load

TAB, NAME = "text-to-image", "start"  # of the draft
PREVIEW_SCRIPT = on_load("result.js", "sendPicks(element, trigger)")


@dataclass(frozen=True)
class StartPicture:
    """The pictures to start from, one per owner."""

    context: AppContext

    def get(self, owner: str) -> Image.Image | None:
        return self.context.drafts.get(owner, TAB, NAME)

    def load(self, owner: str, file: Path) -> tuple[tuple[int, int], list[str]]:
        """Keep the picture of a file. Return its size in px, and notes about it. Raises ValueError, JobRejected."""
        picture, notes = open_image(file, file.name)
        self.put(owner, picture)
        return picture.size, list(notes)

    def put(self, owner: str, picture: Image.Image) -> None:
        self.context.drafts.put(owner, TAB, NAME, picture)

    def remove(self, owner: str) -> None:
        self.context.drafts.delete(owner, TAB, NAME)

    def html(self, owner: str) -> str:
        """Return the picture with its size and a button that removes it; nothing if there is none."""
        path = self.context.drafts.get_path(owner, TAB, NAME)
        if path is None:
            return ""
        with Image.open(path) as picture:
            width, height = picture.size
        return render("start_picture.html", url=versioned_url(path), width=width, height=height)
