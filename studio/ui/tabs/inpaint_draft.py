"""The picture and the mask that an owner edits in the tab "Inpaint". They are on disk and survive a restart.

Before an owner opens a picture, the shipped example is there.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio.imaging.files import open_image
from studio.imaging.masks import ChangeCount, count_changes_outside, mask_to_hole
from studio.imaging.modes import normalize_mask
from studio.services.context import AppContext
from studio.services.picture_kind import PHOTOGRAPH

TAB = "inpaint"
MAX_VIEW_SIDE = 1600  # px of the longer side of the copy that the page shows of a large picture
MAX_MASK_LENGTH = 4_000_000  # characters of a painted mask
EXAMPLE_KEY = "example"
PLACEHOLDER_SIZE = (64, 64)  # px, where no example is shipped
PICTURE_CHANGED = "The picture was changed in another tab of the browser; load this page again to see it."
MASK_INCOMPLETE = "The mask did not arrive whole; please paint it again."


@dataclass(frozen=True)
class DraftView:
    """What the editor shows. key: changes with the picture.  size: (width, height) of the picture."""

    picture_path: Path | None
    mask_path: Path | None
    size: tuple[int, int]
    key: str
    is_photograph: bool


class InpaintDraft:
    """The drafts of all owners."""

    def __init__(self, context: AppContext) -> None:
        self._drafts = context.drafts
        self._example_folder = context.examples / TAB

    def picture(self, owner: str) -> Image.Image:
        """Return the owner's picture, RGB or RGBA."""
        return self._drafts.get(owner, TAB, "picture") or self._example("picture")

    def size(self, owner: str) -> tuple[int, int]:
        """Return (width, height) of the owner's picture."""
        path = self._path(owner, "picture")
        return _read_size(str(path), path.stat().st_mtime_ns) if path else PLACEHOLDER_SIZE

    def mask(self, owner: str) -> Image.Image:
        """Return the owner's mask: mode L, of the picture's size, black where nothing is painted."""
        size = self.size(owner)
        mask = self._drafts.get(owner, TAB, "mask")
        if mask is None and self._key(owner) == EXAMPLE_KEY:
            mask = self._example("mask")
        return mask.convert("L") if mask and mask.size == size else Image.new("L", size)

    def view(self, owner: str) -> DraftView:
        """Return what the editor shows."""
        return DraftView(
            picture_path=self._path(owner, "view") or self._path(owner, "picture"),
            mask_path=self._path(owner, "mask"),
            size=self.size(owner),
            key=self._key(owner),
            is_photograph=self._kind(owner) == PHOTOGRAPH,
        )

    def replace(self, owner: str, picture: Image.Image, mask: Image.Image | None = None, kind: str = "") -> None:
        """Edit another picture, RGB or RGBA. The one before can be restored. kind: see `picture_kind`."""
        previous, previous_mask, previous_kind = self.picture(owner), self.mask(owner), self._kind(owner)
        self._set(owner, picture, mask, kind)
        self._drafts.put(owner, TAB, "picture-before", previous, previous_kind)
        self._drafts.put(owner, TAB, "mask-before", previous_mask)

    def restore_previous(self, owner: str) -> bool:
        """Swap the picture with the one before. Return False if there is none."""
        previous = self._drafts.get(owner, TAB, "picture-before")
        if previous is None:
            return False
        kind = self._drafts.get_note(owner, TAB, "picture-before")
        self.replace(owner, previous, self._drafts.get(owner, TAB, "mask-before"), kind)
        return True

    def set_mask(self, owner: str, mask: Image.Image) -> None:
        """Set the mask. Raises ValueError if its size is not the picture's."""
        width, height = self.size(owner)
        if mask.size != (width, height):
            raise ValueError(
                f"The mask is {mask.width} x {mask.height} px and the picture {width} x {height} px; both must be of "
                "one size."
            )
        self._drafts.put(owner, TAB, "mask", mask)

    def set_painted_mask(self, owner: str, message: Any) -> None:
        """Set the mask from the editor's message: JSON with the mask as a data URI and the picture's key.

        Raises ValueError if the message is incomplete or belongs to another picture.
        """
        try:
            content = json.loads(message or "{}")
            data, key = content.get("mask"), content.get("key")
        except (ValueError, TypeError, AttributeError) as problem:
            raise ValueError(MASK_INCOMPLETE) from problem
        if key and key != self._key(owner):
            raise ValueError(PICTURE_CHANGED)
        if data is None:  # nothing was painted since the page got the mask
            return
        if not isinstance(data, str) or len(data) > MAX_MASK_LENGTH:
            raise ValueError(MASK_INCOMPLETE)
        try:
            file = io.BytesIO(base64.b64decode(data.partition(",")[2], validate=True))
        except binascii.Error as problem:
            raise ValueError(MASK_INCOMPLETE) from problem
        mask, _ = open_image(file, "The mask", normalize_mask)
        self._drafts.put(owner, TAB, "mask", _resize_mask(mask, self.size(owner)))

    def change_canvas(self, owner: str, change: Callable[[Image.Image], tuple[Image.Image, Image.Image]]) -> None:
        """Replace the picture with `change(picture)`: another picture, and the mask of its new area.

        Raises ValueError, with the sentence of `change`.
        """
        picture, mask = change(self.picture(owner))
        self.replace(owner, picture, mask, self._kind(owner))

    def count_example_changes(self) -> ChangeCount | None:
        """Count the pixels outside its mask that the shipped result changed; None if there is no shipped result."""
        try:
            with Image.open(self._example_folder / "result.png") as result:
                hole = mask_to_hole(self._example("mask"))
                return count_changes_outside(self._example("picture"), result.convert("RGB"), hole)
        except (OSError, ValueError):
            return None

    def _kind(self, owner: str) -> str:
        return self._drafts.get_note(owner, TAB, "picture")

    def _set(self, owner: str, picture: Image.Image, mask: Image.Image | None, kind: str) -> None:
        self._drafts.put(owner, TAB, "picture", picture, kind)
        if max(picture.size) > MAX_VIEW_SIDE:
            view = picture.copy()
            view.thumbnail((MAX_VIEW_SIDE, MAX_VIEW_SIDE))
            self._drafts.put(owner, TAB, "view", view)
        else:
            self._drafts.delete(owner, TAB, "view")
        if mask is not None and np.asarray(mask).any():
            self._drafts.put(owner, TAB, "mask", mask.convert("L"))
        else:
            self._drafts.delete(owner, TAB, "mask")

    def _key(self, owner: str) -> str:
        path = self._drafts.get_path(owner, TAB, "picture")
        return str(path.stat().st_mtime_ns) if path else EXAMPLE_KEY

    def _path(self, owner: str, name: str) -> Path | None:
        path = self._drafts.get_path(owner, TAB, name)
        if path is None and self._key(owner) == EXAMPLE_KEY:
            example = self._example_folder / f"{name}.png"
            return example.resolve() if example.exists() else None
        return path

    def _example(self, name: str) -> Image.Image:
        mode = "RGB" if name == "picture" else "L"
        try:
            with Image.open(self._example_folder / f"{name}.png") as picture:
                return picture.convert(mode)
        except OSError:
            return Image.new(mode, PLACEHOLDER_SIZE, "white")


def _resize_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a painted mask at the picture's size: white where at least half of a pixel is."""
    if mask.size == size:
        return mask
    is_smaller = size[0] * size[1] < mask.width * mask.height
    mask = mask.resize(size, Image.Resampling.BOX if is_smaller else Image.Resampling.BILINEAR)
    return mask.point([255 * (value >= 128) for value in range(256)])


@lru_cache(maxsize=256)
def _read_size(path: str, changed: int) -> tuple[int, int]:
    """Return (width, height) of a file. changed: its time of change, part of the cache's key."""
    with Image.open(path) as picture:
        return picture.size
