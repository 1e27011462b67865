"""Picture files from outside, opened safely: the format is read from the bytes, the size checked before decoding."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from studio.imaging.modes import MaskMeaning, normalize_image, read_mask
from studio.imaging.png_chunks import drop_large_chunks

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
FORMAT_NAMES = "PNG, JPEG, WebP, GIF, BMP or TIFF"
MAX_PIXELS = 16_000_000  # of a picture from outside, or of a result
MAX_SIDE = 20_000  # px of a picture's longer side
ANIMATED_FORMATS = ("PNG", "WEBP", "GIF")  # further pictures of the others are pages, or previews in phone pictures
MASK_NOTES: dict[MaskMeaning, str] = {
    "lightness": "White is repainted.",
    "opaque": "The mask has a clear background: its opaque part is repainted.",
    "erased": "The mask is a picture with an erased part: the erased part is repainted.",
}
_decoding_slots = threading.BoundedSemaphore(2)  # decoding a small file may take hundreds of MB of memory


class _TooLarge(ValueError):
    """A size that is refused; its text is a sentence for people."""


def open_image(
    file: str | Path | BinaryIO,
    name: str = "The file",
    normalize: Callable[[Image.Image], Image.Image] = normalize_image,
) -> tuple[Image.Image, tuple[str, ...]]:
    """Return a file's picture (upright RGB or RGBA, or as `normalize` makes it) and sentences about what is left out.

    name: of the file, for sentences.

    Raises ValueError with one sentence.
    """
    try:
        try:
            return _open(file, name, normalize)
        except (ValueError, SyntaxError) as problem:
            if isinstance(problem, _TooLarge):
                raise
            data = drop_large_chunks(_read(file))  # a profile or a text that Pillow refuses to unpack
            if data is None:
                raise
            return _open(io.BytesIO(data), name, normalize)
    except _TooLarge as problem:
        raise ValueError(str(problem)) from None
    except Image.DecompressionBombError as problem:
        raise ValueError(f"{name} has too many pixels: at most {MAX_PIXELS / 1e6:g} megapixels are read.") from problem
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error, ValueError, OverflowError) as problem:
        raise ValueError(f"{name} is damaged or is not a picture. Allowed: {FORMAT_NAMES}.") from problem


def open_mask(file: str | Path | BinaryIO, name: str = "The mask") -> tuple[Image.Image, tuple[str, ...]]:
    """Return a file's mask as L, 255 where it says to paint, and sentences about how it was read.

    Raises ValueError with one sentence.
    """
    meanings: list[MaskMeaning] = []

    def read(picture: Image.Image) -> Image.Image:
        mask, meaning = read_mask(picture)
        meanings.append(meaning)
        return mask

    mask, notes = open_image(file, name, read)
    return mask, (*notes, MASK_NOTES[meanings[-1]])


def _open(
    file: str | Path | BinaryIO, name: str, normalize: Callable[[Image.Image], Image.Image]
) -> tuple[Image.Image, tuple[str, ...]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd files that it can read
        with _decoding_slots, Image.open(file, formats=FORMATS) as image:
            check_size(name, *image.size)
            is_animated = image.format in ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1
            image.load()
            picture = normalize(image)
    return picture, (f"{name} is animated: its first picture was taken.",) if is_animated else ()


def _read(file: str | Path | BinaryIO) -> bytes:
    if isinstance(file, str | Path):
        return Path(file).read_bytes()
    file.seek(0)
    return file.read()


def check_size(name: str, width: int, height: int) -> None:
    """Raise ValueError with one sentence if a picture of that size (px) is not accepted."""
    if not 1 <= width * height <= MAX_PIXELS:
        raise _TooLarge(
            f"{name} has {width} x {height} px; a picture may have from one pixel to {MAX_PIXELS / 1e6:g} megapixels."
        )
    if max(width, height) > MAX_SIDE:
        raise _TooLarge(f"{name} has {width} x {height} px; its sides may be at most {MAX_SIDE:,} px.")
