"""Larger and moved canvases for outpainting: each function returns the new picture and the mask of its new part."""

from __future__ import annotations

import numpy as np
from PIL import Image

from studio.imaging.files import check_size

MAX_ZOOM = 16


def parse_length(length: int | float | str, side: int) -> int:
    """Return a length in px: a whole number of px, or a percentage of `side` such as "25%". May be negative.

    Raises ValueError with a sentence.
    """
    try:
        if isinstance(length, str) and length.strip().endswith("%"):
            share = float(length.strip()[:-1]) / 100
            if abs(share) < 1e6:  # False for NaN
                return round(share * side)
        elif float(length) == int(float(length)):
            return int(float(length))
    except (ValueError, OverflowError, TypeError):
        pass
    raise ValueError(f'A length must be whole pixels or a percentage such as "25%"; it was {str(length)[:40]!r}.')


def extend_canvas(
    picture: Image.Image,
    left: int | str = 0,
    top: int | str = 0,
    right: int | str = 0,
    bottom: int | str = 0,
) -> tuple[Image.Image, Image.Image]:
    """Return a larger canvas with the picture on it, and the mask, mode L, white in the new part.

    Lengths are px or percentages of the picture's own side, 0 or more. The new part repeats the border's colours.

    Raises ValueError with a sentence, also if the canvas would be larger than a picture may be.
    """
    width, height = picture.size
    left, right = parse_length(left, width), parse_length(right, width)
    top, bottom = parse_length(top, height), parse_length(bottom, height)
    if min(left, top, right, bottom) < 0:
        raise ValueError("A picture can be extended by 0 or more on each side; to cut it, crop it.")
    check_size("The larger canvas", left + width + right, top + height + bottom)
    return _pad(picture, left, top, right, bottom)


def zoom_out(picture: Image.Image, factor: float) -> tuple[Image.Image, Image.Image]:
    """Return a canvas `factor` times as large, with the unscaled picture in its middle, and the mask of the rest.

    factor: 1 to MAX_ZOOM.

    Raises ValueError with a sentence.
    """
    if not 1 <= factor <= MAX_ZOOM:
        raise ValueError(f"The zoom must be a number from 1 to {MAX_ZOOM}; it was {factor:g}.")
    across, down = (round(length * factor) - length for length in picture.size)
    return extend_canvas(picture, across // 2, down // 2, across - across // 2, down - down // 2)


def pan(picture: Image.Image, right: int | str = 0, down: int | str = 0) -> tuple[Image.Image, Image.Image]:
    """Return a canvas of the same size whose view moves to the right and down, and the mask of its new part.

    Lengths are px or percentages; a negative one moves the view to the left or up.

    Raises ValueError with a sentence if nothing of the picture would stay in view.
    """
    width, height = picture.size
    across, along = parse_length(right, width), parse_length(down, height)
    if abs(across) >= width or abs(along) >= height:
        raise ValueError(f"Nothing of the picture would be left: it is {width} x {height} px.")
    canvas, mask = _pad(picture, max(-across, 0), max(-along, 0), max(across, 0), max(along, 0))
    left, top = max(across, 0), max(along, 0)
    box = (left, top, left + width, top + height)
    return canvas.crop(box), mask.crop(box)


def _pad(picture: Image.Image, left: int, top: int, right: int, bottom: int) -> tuple[Image.Image, Image.Image]:
    """Pad the picture with its border's colours, and return it with the mask of the padding."""
    width, height = picture.size
    values = np.pad(np.asarray(picture), ((top, bottom), (left, right), (0, 0)), mode="edge")
    mask = Image.new("L", (left + width + right, top + height + bottom), 255)
    mask.paste(0, (left, top, left + width, top + height))
    return Image.fromarray(values), mask
