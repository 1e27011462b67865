"""Masks of the part to repaint: read, invert, grow, shrink and feather them, in whole pixels.

A hole is an (H, W) bool array, True where the picture is repainted. A mask is the picture, mode L, that it comes from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Box = tuple[int, int, int, int]  # (left, top, right, bottom), as in Pillow
Hole = npt.NDArray[np.bool_]  # (H, W)
Bytes = npt.NDArray[np.uint8]


def mask_to_hole(mask: Image.Image, invert: bool = False, grow: int = 0) -> Hole:
    """Return the hole of a mask: its pixels from 128 on, or with `invert` those below 128.

    grow: px by which the hole then grows, or shrinks if negative.
    """
    hole = (np.asarray(mask) >= 128) ^ invert
    return grow_hole(hole, grow)


def grow_hole(hole: Hole, pixels: int) -> Hole:
    """Return the hole grown by so many px on every side, or shrunk if negative. Corners come out rounded.

    A hole that touches the picture's border does not shrink there.
    """
    if pixels < 0:
        return ~grow_hole(~hole, -pixels)
    box = find_bounding_box(hole)
    if pixels == 0 or box is None:
        return hole.copy()
    window = _slice_around(box, pixels, hole.shape)
    # The structuring element is an octagon: the Minkowski sum of a square and a diamond, the diamond of two diagonals.
    square = round(pixels * (2**0.5 - 1))
    diamond = pixels - square
    grown = hole[window]
    if diamond % 2:
        grown = _dilate_line(grown, 1, 0, 1) | _dilate_line(grown, 1, 1, 0)
    for steps, directions in ((square, ((0, 1), (1, 0))), (diamond // 2, ((1, 1), (1, -1)))):
        for down, across in directions:
            grown = _dilate_line(grown, steps, down, across)
    result = np.zeros_like(hole)
    result[window] = grown
    return result


def feather_hole(hole: Hole, feather: int = 0) -> Bytes:
    """Return the opacity (H, W) of what is painted: 255 in the hole, falling to 0 within `feather` px outside it.

    Without a feather, every pixel outside the hole keeps its value.
    """
    opacity = np.where(hole, np.uint8(255), np.uint8(0))
    box = find_bounding_box(hole)
    if feather <= 0 or box is None:
        return opacity
    window = _slice_around(box, 2 * feather, hole.shape)
    near = hole[window]
    middle = np.where(grow_hole(near, (feather + 1) // 2), np.uint8(255), np.uint8(0))
    blurred = np.asarray(Image.fromarray(middle).filter(ImageFilter.BoxBlur(feather / 2)))
    reached = grow_hole(near, feather)
    opacity[window] = np.where(reached, np.maximum(blurred, opacity[window]), opacity[window])
    return opacity


def find_bounding_box(hole: Hole) -> Box | None:
    """Return the smallest box around a hole, or None if the hole is empty."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class ChangeCount(NamedTuple):
    """A number of changed pixels, out of how many."""

    changed: int
    of: int


def count_changes_outside(before: Image.Image, after: Image.Image, hole: Hole) -> ChangeCount:
    """Count the pixels outside the hole of which any channel changed.

    Raises ValueError if the pictures and the hole differ in size, or the pictures in mode.
    """
    first, second = np.asarray(before), np.asarray(after)
    if first.shape != second.shape or hole.shape != first.shape[:2]:
        raise ValueError(f"the pictures are {first.shape} and {second.shape}, the hole is {hole.shape}")
    changed = (first != second).reshape(*hole.shape, -1).any(-1)
    return ChangeCount(int((changed & ~hole).sum()), int((~hole).sum()))


def _slice_around(box: Box, margin: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the slices (rows, columns) of a box with a margin, inside an array of that shape."""
    left, top, right, bottom = box
    height, width = shape
    return (
        slice(max(top - margin, 0), min(bottom + margin, height)),
        slice(max(left - margin, 0), min(right + margin, width)),
    )


def _dilate_line(hole: Hole, steps: int, down: int, across: int) -> Hole:
    """Dilate the hole by a line that reaches so many steps either way in one direction."""
    for sign in (1, -1):
        done, dilated = 0, hole
        while done < steps:
            # A hole that already reaches `done` steps may be shifted by done + 1 without a gap: the reach doubles.
            shift = min(done + 1, steps - done)
            dilated = dilated | _shift(dilated, sign * shift * down, sign * shift * across)
            done += shift
        hole = dilated
    return hole


def _shift(hole: Hole, down: int, across: int) -> Hole:
    """Move the hole by so many px; what leaves the array is lost, and nothing comes in."""
    height, width = hole.shape
    moved = np.zeros_like(hole)
    if abs(down) < height and abs(across) < width:
        target = np.s_[max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)]
        source = np.s_[max(-down, 0) : height + min(-down, 0), max(-across, 0) : width + min(-across, 0)]
        moved[target] = hole[source]
    return moved
