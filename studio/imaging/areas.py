"""The area of a picture that is repainted: its crop, its size for the network, and how the result is pasted back.

Pictures are RGB or RGBA (see modes.py) and are never changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from studio.imaging.masks import Box, Bytes, Hole, feather_hole, find_bounding_box
from studio.imaging.modes import flatten_alpha

CONTEXT = 0.5  # margin on each side of a hole, in sides of the hole
MAX_ASPECT = 16  # the longer side, in sides of the network; a narrower picture is padded instead of enlarged further


class Fit(NamedTuple):
    """Sizes (width, height) at which the network works on a picture."""

    size: tuple[int, int]
    padded: tuple[int, int]  # after padding on the right and below


def fit_to_side(size: tuple[int, int], side: int) -> Fit:
    """Scale a size (width, height) so that its shorter side is `side`.

    If the longer side would exceed MAX_ASPECT * side, scale to that and pad the shorter side to `side`.
    """
    scale = min(side / min(size), MAX_ASPECT * side / max(size))
    width, height = (max(round(length * scale), 1) for length in size)
    return Fit((width, height), (max(width, side), max(height, side)))


def expand_box(box: Box, size: tuple[int, int], min_side: int, context: float = CONTEXT) -> Box:
    """Return a square around a box, inside a picture of `size` (width, height).

    The square adds `context` of the box's longer side on each side, and is at least `min_side` px wide. Where it leaves
    the picture, it moves; where the picture is too small for it, it becomes a rectangle.
    """
    left, top, right, bottom = box
    side = max(round(max(right - left, bottom - top) * (1 + 2 * context)), min_side)
    edges: list[tuple[int, int]] = []
    for begin, end, length in ((left, right, size[0]), (top, bottom, size[1])):
        extent = min(side, length)
        start = min(max((begin + end - extent) // 2, 0), length - extent)
        edges.append((start, start + extent))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


@dataclass(frozen=True)
class Area:
    """The part of a picture that is repainted."""

    picture: Image.Image  # the whole picture, RGB or RGBA
    box: Box  # of the part
    hole: Hole  # (H, W) of the part
    opacity: Bytes  # (H, W) of the part: how much the painted result covers
    fit: Fit  # of the part, for the network

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the part."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    def scale_known(self, factor: int = 1) -> tuple[Bytes, Hole]:
        """Return the known pixels (H, W, 3) and the hole (H, W), scaled and padded for the network, times `factor`.

        Known colours come from outside the hole alone. A pixel that contains any of the hole belongs to the hole and is
        black.
        """
        width, height = (length * factor for length in self.fit.size)
        part = flatten_alpha(self.picture.crop(self.box))
        # Pillow weights colours by alpha when it resizes, so transparent pixels do not bleed into known ones.
        part.putalpha(Image.fromarray(np.where(self.hole, np.uint8(0), np.uint8(255))))
        is_enlarged = width > self.size[0] or height > self.size[1]
        resampling = Image.Resampling.BICUBIC if is_enlarged else Image.Resampling.BOX
        values = np.asarray(part.resize((width, height), resampling))
        # Alpha has 255 levels only: a smaller hole would round away, so the hole is also resized exactly.
        hole = (values[..., 3] < 255) | _resize_hole(self.hole, width, height)
        known = np.where(hole[..., None], np.uint8(0), values[..., :3])
        pad = ((0, self.fit.padded[1] * factor - height), (0, self.fit.padded[0] * factor - width))
        return np.pad(known, (*pad, (0, 0)), mode="edge"), np.pad(hole, pad, mode="edge")

    def scale_content(self) -> Bytes:
        """Return all pixels (H, W, 3), those in the hole too, scaled and padded for the network."""
        part = flatten_alpha(self.picture.crop(self.box))
        is_enlarged = self.fit.size[0] > self.size[0] or self.fit.size[1] > self.size[1]
        small = part.resize(self.fit.size, Image.Resampling.BICUBIC if is_enlarged else Image.Resampling.BOX)
        pad = ((0, self.fit.padded[1] - small.height), (0, self.fit.padded[0] - small.width), (0, 0))
        return np.pad(np.asarray(small), pad, mode="edge")

    def paste_back(self, painted: Image.Image) -> Image.Image:
        """Return the whole picture with the painted part (RGB, any size) in it. The painted part is opaque."""
        if painted.size != self.size:
            painted = painted.resize(self.size, Image.Resampling.BICUBIC)
        result = self.picture.copy()
        result.paste(painted.convert(result.mode), self.box, Image.fromarray(self.opacity))
        return result


def select_area(picture: Image.Image, hole: Hole, feather: int, side: int, whole: bool = False) -> Area:
    """Return the area to repaint for a network of `side` px: a square around the hole, or the whole picture.

    feather: px outside the hole within which the result fades out.

    Raises ValueError if the hole is empty or not of the picture's size.
    """
    if hole.shape != picture.size[::-1]:
        raise ValueError(f"the hole is {hole.shape[::-1]} and the picture {picture.size}; they must be of one size")
    opacity = feather_hole(hole, feather)
    visible_box = find_bounding_box(opacity > 0)
    if visible_box is None:
        raise ValueError("the mask is empty: there is nothing to paint")
    box = (0, 0, *picture.size) if whole else expand_box(visible_box, picture.size, side)
    window = np.s_[box[1] : box[3], box[0] : box[2]]
    return Area(picture, box, hole[window], opacity[window], fit_to_side((box[2] - box[0], box[3] - box[1]), side))


def _resize_hole(hole: Hole, width: int, height: int) -> Hole:
    """Resize a hole to (height, width) so that no pixel of it is lost."""
    rows = np.arange(height) * hole.shape[0] // height
    columns = np.arange(width) * hole.shape[1] // width
    return np.logical_or.reduceat(np.logical_or.reduceat(hole, rows, axis=0), columns, axis=1)
