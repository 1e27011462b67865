"""Files that people bring, as plain pictures: what they are is read from their bytes, never from their names.

Knows Pillow and a few formats; knows nothing of requests or pages. Size is checked before a pixel is decoded.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from studio.imaging.modes import normalize_image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
NAMES = "PNG, JPEG, WebP, GIF, BMP or TIFF"
MAX_PIXELS = 16_000_000  # of a picture that comes in, or of all that super-resolution gives back
MAX_SIDE = 20_000  # px of a picture's longer side
_decoding = threading.BoundedSemaphore(2)  # a small file may take hundreds of MB on its way to a picture


def open_image(
    file: str | Path | BinaryIO, name: str = "The file", read: Callable[[Image.Image], Image.Image] = normalize_image
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in a file, RGB or RGBA, upright (or as `read` makes it); and sentences on what was not taken of it.

    name: of the file, for sentences.  Raises ValueError, with one sentence.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow remarks on odd files; what matters is said below
            with _decoding, Image.open(file, formats=FORMATS) as image:
                check_size(name, *image.size)
                frames = getattr(image, "n_frames", 1)
                image.load()
                picture = read(image)
    except Image.DecompressionBombError as problem:
        raise ValueError(f"{name} has too many pixels: at most {MAX_PIXELS / 1e6:g} megapixels are read.") from problem
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error, ValueError, OverflowError) as problem:
        if isinstance(problem, _TooLarge):
            raise ValueError(str(problem)) from None
        raise ValueError(f"{name} is not a whole picture: {NAMES} files can be read.") from problem
    return picture, (f"{name} is animated: its first picture was taken.",) if frames > 1 else ()


class _TooLarge(ValueError):
    pass


def check_size(name: str, width: int, height: int) -> None:
    """Raises ValueError, with one sentence, for a size that is not read."""
    if not 1 <= width * height <= MAX_PIXELS:
        raise _TooLarge(
            f"{name} has {width} x {height} px; a picture may have from one pixel to {MAX_PIXELS / 1e6:g} megapixels."
        )
    if max(width, height) > MAX_SIDE:
        raise _TooLarge(f"{name} has {width} x {height} px; its sides may be at most {MAX_SIDE:,} px.")
