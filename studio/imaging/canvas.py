"""Where a picture is painted again, and how it is put back: masks, crops and extensions, in whole pixels.

Knows Pillow and NumPy; knows nothing of networks, requests or pages. A hole is (H, W) bool, True where it is painted;
a box is (left, top, right, bottom), as in Pillow. Pictures are RGB or RGBA (see modes.py), never changed in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from studio.imaging.files import check_size
from studio.imaging.modes import flatten_alpha

Box = tuple[int, int, int, int]
CONTEXT = 0.5  # what is seen on either side of a hole, in sides of the hole
GRID = 8  # px: the side of what the network's smallest level sees as one
LONGEST = 16  # a picture of a greater aspect than this is padded, not enlarged, until it is as wide as the network


# ---- masks ----


def mask_to_hole(mask: Image.Image, invert: bool = False, grow: int = 0) -> np.ndarray:
    """The hole that a mask L means: from 128 on is painted, or below with invert; then larger or smaller by px."""
    hole = (np.asarray(mask) >= 128) ^ invert
    return grow_hole(hole, grow)


def grow_hole(hole: np.ndarray, pixels: int) -> np.ndarray:
    """The hole wider by so many px on every side, or narrower where that is negative; corners come out rounded.

    The picture's own border does not eat into a hole that touches it.
    """
    if pixels < 0:
        return ~grow_hole(~hole, -pixels)
    box = bounding_box(hole)
    if pixels == 0 or box is None:
        return hole.copy()
    left, top, right, bottom = box
    height, width = hole.shape
    here = np.s_[
        max(top - pixels, 0) : min(bottom + pixels, height), max(left - pixels, 0) : min(right + pixels, width)
    ]
    # an octagon: a square and a diamond added, the diamond out of two diagonals
    square = round(pixels * (2**0.5 - 1))
    diamond = pixels - square
    wide = hole[here]
    if diamond % 2:
        wide = _along(wide, 1, 0, 1) | _along(wide, 1, 1, 0)
    for steps, directions in ((square, ((0, 1), (1, 0))), (diamond // 2, ((1, 1), (1, -1)))):
        for down, across in directions:
            wide = _along(wide, steps, down, across)
    whole = np.zeros_like(hole)
    whole[here] = wide
    return whole


def _along(hole: np.ndarray, steps: int, down: int, across: int) -> np.ndarray:
    """The hole and what lies up to so many steps from it, either way in one direction."""
    for sign in (1, -1):
        done, wide = 0, hole
        while done < steps:  # each time up to twice as far
            shift = min(done + 1, steps - done)
            wide, done = wide | _shifted(wide, sign * shift * down, sign * shift * across), done + shift
        hole = wide
    return hole


def _shifted(hole: np.ndarray, down: int, across: int) -> np.ndarray:
    height, width = hole.shape
    moved = np.zeros_like(hole)
    if abs(down) < height and abs(across) < width:
        to = np.s_[max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)]
        of = np.s_[max(-down, 0) : height + min(-down, 0), max(-across, 0) : width + min(-across, 0)]
        moved[to] = hole[of]
    return moved


def opacity(hole: np.ndarray, feather: int = 0) -> np.ndarray:
    """(H, W) uint8: 255 in the hole, falling to 0 within so many px outside it. At 0, nothing outside is touched."""
    sharp = np.where(hole, np.uint8(255), np.uint8(0))
    if feather <= 0 or not hole.any():
        return sharp
    left, top, right, bottom = bounding_box(hole)
    height, width = hole.shape
    reach = 2 * feather
    here = np.s_[max(top - reach, 0) : min(bottom + reach, height), max(left - reach, 0) : min(right + reach, width)]
    middle = Image.fromarray(np.where(grow_hole(hole[here], (feather + 1) // 2), np.uint8(255), np.uint8(0)))
    soft = np.asarray(middle.filter(ImageFilter.BoxBlur(feather / 2)))
    inside = grow_hole(hole[here], feather)
    sharp[here] = np.where(inside, np.maximum(soft, sharp[here]), sharp[here])
    return sharp


def bounding_box(hole: np.ndarray) -> Box | None:
    """The smallest box around a hole; None if there is none."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class ChangeCount(NamedTuple):
    """So many pixels changed, of so many."""

    changed: int
    of: int


def count_changes_outside(before: Image.Image, after: Image.Image, hole: np.ndarray) -> ChangeCount:
    """Pixels outside the hole of which any value changed. Both pictures are of one size and mode."""
    first, second = np.asarray(before), np.asarray(after)
    if first.shape != second.shape or hole.shape != first.shape[:2]:
        raise ValueError(f"the pictures are {first.shape} and {second.shape}, the hole is {hole.shape}")
    changed = (first != second).reshape(*hole.shape, -1).any(-1)
    return ChangeCount(int((changed & ~hole).sum()), int((~hole).sum()))


# ---- the area that is worked on ----


def context_box(box: Box, size: tuple[int, int], least: int, context: float = CONTEXT) -> Box:
    """A square around a box with so many of its longer side on either side, at least `least` px, inside a picture of
    `size` (width, height): where the picture ends, it is moved, and where that is not enough, it is no square."""
    left, top, right, bottom = box
    side = max(round(max(right - left, bottom - top) * (1 + 2 * context)), least)
    edges = []
    for begin, end, length in ((left, right, size[0]), (top, bottom, size[1])):
        extent = min(side, length)
        start = min(max((begin + end - extent) // 2, 0), length - extent)
        edges.append((start, start + extent))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


class Fit(NamedTuple):
    """(width, height) at which a picture is worked on, and after padding on the right and below."""

    size: tuple[int, int]
    padded: tuple[int, int]


def fit(size: tuple[int, int], side: int) -> Fit:
    """Scaled so that the shorter side is `side`; one that is longer than LONGEST times as wide is padded to that."""
    scale = min(side / min(size), LONGEST * side / max(size))
    width, height = (max(round(length * scale), 1) for length in size)
    return Fit((width, height), (max(width, side), max(height, side)))


@dataclass(frozen=True)
class Area:
    """The part of a picture that is painted again."""

    picture: Image.Image  # the whole, RGB or RGBA
    box: Box  # of the part
    hole: np.ndarray  # (H, W) of the part
    opacity: np.ndarray  # (H, W) uint8 of the part: how much of what is painted is seen
    fit: Fit  # of the part, for the network

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the part."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    def known(self, factor: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The part `factor` times as large as the network begins with, padded: (H, W, 3) uint8, and the hole (H, W).

        Colours come from outside the hole alone; a pixel with any of the hole in it belongs to the hole, and is black.
        """
        width, height = (length * factor for length in self.fit.size)
        part = flatten_alpha(self.picture.crop(self.box))
        part.putalpha(Image.fromarray(np.where(self.hole, np.uint8(0), np.uint8(255))))  # Pillow weighs colours by it
        grows = width > self.size[0] or height > self.size[1]
        small = part.resize((width, height), Image.Resampling.BICUBIC if grows else Image.Resampling.BOX)
        values = np.asarray(small)
        hole = (values[..., 3] < 255) | _touched(self.hole, width, height)  # alpha has 255 steps, a hole may be less
        picture = np.where(hole[..., None], np.uint8(0), values[..., :3])
        pad = ((0, self.fit.padded[1] * factor - height), (0, self.fit.padded[0] * factor - width))
        return np.pad(picture, (*pad, (0, 0)), mode="edge"), np.pad(hole, pad, mode="edge")

    def put_back(self, painted: Image.Image) -> Image.Image:
        """The whole picture with the painted part (RGB, any size) in it; what is painted is opaque."""
        if painted.size != self.size:
            painted = painted.resize(self.size, Image.Resampling.BICUBIC)
        whole = self.picture.copy()
        whole.paste(painted.convert(whole.mode), self.box, Image.fromarray(self.opacity))
        return whole


def _touched(hole: np.ndarray, width: int, height: int) -> np.ndarray:
    """The hole at (height, width), larger or smaller: no pixel of it is lost."""
    rows, columns = (np.arange(new) * old // new for new, old in ((height, hole.shape[0]), (width, hole.shape[1])))
    return np.logical_or.reduceat(np.logical_or.reduceat(hole, rows, axis=0), columns, axis=1)


def area_around_hole(picture: Image.Image, hole: np.ndarray, feather: int, side: int, whole: bool = False) -> Area:
    """What to work on so that a hole is painted by a network that sees `side` px: a square around it, or the whole.

    Raises ValueError if there is no hole, or it is not of the picture's size.
    """
    if hole.shape != picture.size[::-1]:
        raise ValueError(f"the hole is {hole.shape[::-1]} and the picture {picture.size}; they must be of one size")
    shown = opacity(hole, feather)
    box = bounding_box(hole)
    if box is None:
        raise ValueError("the mask is empty: there is nothing to paint")
    # so wide that the feather's rim lies inside
    box = (0, 0, *picture.size) if whole else context_box(bounding_box(shown > 0), picture.size, side)
    here = np.s_[box[1] : box[3], box[0] : box[2]]
    return Area(picture, box, hole[here], shown[here], fit((box[2] - box[0], box[3] - box[1]), side))


# ---- larger canvases ----


def pixels(length: int | float | str, of: int) -> int:
    """A length in px: a number of px, or "25%" of a side. Raises ValueError with a sentence."""
    try:
        if isinstance(length, str) and length.strip().endswith("%"):
            share = float(length.strip()[:-1]) / 100
            if share == share and abs(share) < 1e6:
                return round(share * of)
        elif float(length) == int(float(length)):
            return int(float(length))
    except (ValueError, OverflowError, TypeError):
        pass
    raise ValueError(f'A length must be whole pixels or a percentage such as "25%"; it was {str(length)[:40]!r}.')


def extend(
    picture: Image.Image,
    left: int | str = 0,
    top: int | str = 0,
    right: int | str = 0,
    bottom: int | str = 0,
) -> tuple[Image.Image, Image.Image]:
    """Outpainting: a larger canvas with the picture on it, and the mask L, white where it is to be painted.

    Lengths are px or percentages of the picture's own side, 0 or more. The border's colours stand in the new part.
    Raises ValueError, with a sentence: also where the canvas would be larger than pictures may be.
    """
    width, height = picture.size
    left, right = pixels(left, width), pixels(right, width)
    top, bottom = pixels(top, height), pixels(bottom, height)
    if min(left, top, right, bottom) < 0:
        raise ValueError("A picture can be extended by 0 or more on each side; to cut it, crop it.")
    check_size("The larger canvas", left + width + right, top + height + bottom)
    return _padded(picture, left, top, right, bottom)


def _padded(picture: Image.Image, left: int, top: int, right: int, bottom: int) -> tuple[Image.Image, Image.Image]:
    width, height = picture.size
    values = np.pad(np.asarray(picture), ((top, bottom), (left, right), (0, 0)), mode="edge")
    mask = Image.new("L", (left + width + right, top + height + bottom), 255)
    mask.paste(0, (left, top, left + width, top + height))
    return Image.fromarray(values), mask


def zoom_out(picture: Image.Image, factor: float) -> tuple[Image.Image, Image.Image]:
    """A canvas `factor` times as large, 1 or more, with the picture in its middle, pixel for pixel; and the mask."""
    if not 1 <= factor <= 16:
        raise ValueError(f"A picture can be zoomed out of from 1 to 16 times; it was {factor:g}.")
    across, down = (round(length * factor) - length for length in picture.size)
    return extend(picture, across // 2, down // 2, across - across // 2, down - down // 2)


def pan(picture: Image.Image, right: int | str = 0, down: int | str = 0) -> tuple[Image.Image, Image.Image]:
    """A canvas of the same size that looks further to the right and down (to the left and up where negative), and the
    mask of what came into sight. Raises ValueError where nothing of the picture would be left."""
    width, height = picture.size
    across, down = pixels(right, width), pixels(down, height)
    if abs(across) >= width or abs(down) >= height:
        raise ValueError(f"Nothing of the picture would be left: it is {width} x {height} px.")
    whole, mask = _padded(picture, max(-across, 0), max(-down, 0), max(across, 0), max(down, 0))
    left, top = max(across, 0), max(down, 0)
    box = (left, top, left + width, top + height)
    return whole.crop(box), mask.crop(box)


# ---- windows ----


def tile_starts(length: int, size: int, overlap: int) -> list[int]:
    """Where windows of `size` begin so that they cover `length` >= size and overlap by `overlap` or more, evenly.

    All but the last begin at multiples of GRID, where the overlap allows it: a network that sees pixels in blocks then
    sees the same blocks in every window, and two tilings of one picture differ far less.
    """
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    grid = math.gcd(GRID, size - overlap)
    starts = [math.ceil(i * (length - size) / (count - 1) / grid) * grid for i in range(count - 1)]
    return [*starts, length - size]


def tile_count(height: int, width: int, size: int) -> int:
    """How many windows of `size` a picture is seen in, each overlapping the next by a quarter or more."""
    return len(tile_starts(height, size, size // 4)) * len(tile_starts(width, size, size // 4))


def estimate_seconds(
    windows: int, steps: int, seconds_per_window: float, guided: bool = False, count: int = 1
) -> float:
    """How long `count` pictures of so many windows take, where one window's network call takes so long."""
    return windows * steps * count * (2 if guided else 1) * seconds_per_window
