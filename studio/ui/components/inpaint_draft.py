"""The picture and the mask that an owner works on in the tab "Inpaint": kept on the disk, over errors and a refresh.

Knows drafts and pictures; knows nothing of Gradio. Until something else is brought, a shipped example is there.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable
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
from studio.ui.components.formatting import PHOTOGRAPH_NOTE
from studio.ui.components.mask_editor import mask_editor_html
from studio.ui.components.result import url_of

TAB = "inpaint"
SEEN = 1600  # px of the longer side of what is shown of a large picture
PICTURE_CHANGED = "The picture was changed in another tab of the browser; load this page again to see it."
MOST_MASK = 4_000_000  # characters of a painted mask
MODELS = (
    "Stable Diffusion XL inpainting (diffusers/stable-diffusion-xl-1.0-inpainting-0.1), FLUX.1 Fill or Kandinsky 2.2"
)


class InpaintDraft:
    """One for all owners."""

    def __init__(self, studio: AppContext):
        self._drafts = studio.drafts
        self._example = studio.examples / TAB

    def picture(self, owner: str) -> Image.Image:
        return self._drafts.get(owner, TAB, "picture") or self._shipped("picture").convert("RGB")

    def size(self, owner: str) -> tuple[int, int]:
        """Of the picture."""
        return _size(*_stamp(self._path(owner, "picture")))

    def mask(self, owner: str) -> Image.Image:
        """L, of the picture's size, black where nothing was painted."""
        size = self.size(owner)
        mask = self._drafts.get(owner, TAB, "mask")
        if mask is None and self._key(owner) == "example":
            mask = self._shipped("mask")
        return mask.convert("L") if mask and mask.size == size else Image.new("L", size)

    def html(self, owner: str) -> str:
        """As the editor shows it."""
        files = {what: self._path(owner, what) for what in ("picture", "mask", "view")}
        seen = files["view"] or files["picture"]
        photograph = self._kind(owner) == PHOTOGRAPH
        notes = (PHOTOGRAPH_NOTE.format(models=MODELS),) if photograph else ()
        return mask_editor_html(_url(seen), _url(files["mask"]), self.size(owner), self._key(owner), notes)

    def put(self, owner: str, picture: Image.Image, mask: Image.Image | None = None, kind: str = "") -> None:
        """Another picture, RGB or RGBA, of a kind as `kind_of` has it; the one before can be brought back."""
        before, marked, what = self.picture(owner), self.mask(owner), self._kind(owner)
        self._set(owner, picture, mask, kind)
        self._drafts.put(owner, TAB, "picture-before", before, what)
        self._drafts.put(owner, TAB, "mask-before", marked)

    def back(self, owner: str) -> bool:
        """The picture before; and back again. False if there is none."""
        before = self._drafts.get(owner, TAB, "picture-before")
        if before is None:
            return False
        kind = self._drafts.get_note(owner, TAB, "picture-before")
        self.put(owner, before, self._drafts.get(owner, TAB, "mask-before"), kind)
        return True

    def put_mask(self, owner: str, mask: Image.Image) -> None:
        """A mask from a file. Raises ValueError if it is of another size than the picture."""
        size = self.size(owner)
        if mask.size != size:
            raise ValueError(
                f"The mask is {mask.width} x {mask.height} px and the picture {size[0]} x {size[1]} px; both must be "
                "of one size."
            )
        self._drafts.put(owner, TAB, "mask", mask)

    def painted(self, owner: str, message: Any) -> None:
        """What the editor says of its mask. Raises ValueError if it is not of this picture, or not whole."""
        try:
            told = json.loads(message or "{}")
            data, key = told.get("mask"), told.get("key")
        except (ValueError, TypeError, AttributeError) as problem:
            raise ValueError("The mask did not arrive whole; please paint it again.") from problem
        if key and key != self._key(owner):
            raise ValueError(PICTURE_CHANGED)
        if data is None:  # as it came
            return
        if not isinstance(data, str) or len(data) > MOST_MASK:
            raise ValueError("The mask did not arrive whole; please paint it again.")
        try:
            file = io.BytesIO(base64.b64decode(data.partition(",")[2], validate=True))
        except binascii.Error as problem:
            raise ValueError("The mask did not arrive whole; please paint it again.") from problem
        mask, _ = open_image(file, "The mask", normalize_mask)
        self._drafts.put(owner, TAB, "mask", _fitted(mask, self.size(owner)))

    def change(self, owner: str, make: Callable[[Image.Image], tuple[Image.Image, Image.Image]]) -> None:
        """Another canvas: `make` gives the picture on it and the mask of what is new. Raises ValueError."""
        self.put(owner, *make(self.picture(owner)), self._kind(owner))

    def example_count(self) -> ChangeCount | None:
        """How many pixels outside its mask the shipped result has changed; None where there is no such result."""
        try:
            with Image.open(self._example / "result.png") as result:
                hole = mask_to_hole(self._shipped("mask"))
                return count_changes_outside(self._shipped("picture"), result.convert("RGB"), hole)
        except (OSError, ValueError):
            return None

    def _kind(self, owner: str) -> str:
        return self._drafts.get_note(owner, TAB, "picture")

    def _set(self, owner: str, picture: Image.Image, mask: Image.Image | None, kind: str) -> None:
        self._drafts.put(owner, TAB, "picture", picture, kind)
        if max(picture.size) > SEEN:
            view = picture.copy()
            view.thumbnail((SEEN, SEEN))
            self._drafts.put(owner, TAB, "view", view)
        else:
            self._drafts.delete(owner, TAB, "view")
        if mask is not None and np.asarray(mask).any():
            self._drafts.put(owner, TAB, "mask", mask.convert("L"))
        else:
            self._drafts.delete(owner, TAB, "mask")

    def _key(self, owner: str) -> str:
        path = self._drafts.get_path(owner, TAB, "picture")
        return str(path.stat().st_mtime_ns) if path else "example"

    def _path(self, owner: str, what: str) -> Path | None:
        path = self._drafts.get_path(owner, TAB, what)
        if path is None and self._key(owner) == "example":
            shipped = self._example / f"{what}.png"
            return shipped.resolve() if shipped.exists() else None
        return path

    def _shipped(self, what: str) -> Image.Image:
        try:
            with Image.open(self._example / f"{what}.png") as picture:
                return picture.convert("RGB" if what == "picture" else "L")
        except OSError:
            return Image.new("RGB" if what == "picture" else "L", (64, 64), "white")


def _fitted(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A painted mask at the picture's size: white where at least half of a pixel is."""
    if mask.size == size:
        return mask
    smaller = size[0] * size[1] < mask.width * mask.height
    mask = mask.resize(size, Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
    return mask.point(lambda value: 255 * (value >= 128))


def _url(path: Path | None) -> str:
    return f"{url_of(str(path))}?v={path.stat().st_mtime_ns}" if path else ""


def _stamp(path: Path | None) -> tuple[str, int]:
    return (str(path), path.stat().st_mtime_ns) if path else ("", 0)


@lru_cache(maxsize=256)
def _size(path: str, changed: int) -> tuple[int, int]:
    if not path:
        return 64, 64
    with Image.open(path) as picture:
        return picture.size
