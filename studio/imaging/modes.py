"""Conversion of any Pillow mode: pictures to RGB or RGBA, masks to L; upright, 8 bits a channel, no metadata.

Functions raise what Pillow raises for a damaged picture: OSError, ValueError or SyntaxError.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

# Lookup tables over the 256 values of a channel.
ZERO = [255] + [0] * 255
NONZERO = [0] + [255] * 255


def normalize_image(picture: Image.Image) -> Image.Image:
    """Return an upright copy, RGBA if the picture can be transparent, else RGB; of an animation, its current frame."""
    picture = _convert_to_8_bit(ImageOps.exif_transpose(picture))
    return _strip_metadata(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))


def normalize_mask(mask: Image.Image) -> Image.Image:
    """Return a copy as L: the alpha of a mask that is transparent anywhere, else its luminance."""
    mask = _convert_to_8_bit(ImageOps.exif_transpose(mask))
    if mask.has_transparency_data:
        mask = mask.convert("RGBA")
        alpha = mask.getchannel("A")
        if alpha.histogram()[255] < alpha.width * alpha.height:  # not all pixels are opaque
            return _strip_metadata(alpha)
        mask = mask.convert("RGB")
    return _strip_metadata(mask.convert("L"))


def flatten_alpha(picture: Image.Image, background: str = "white") -> Image.Image:
    """Return the picture (RGB or RGBA) as RGB, composited on a background colour."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", picture.size, background), picture).convert("RGB")


def bleed_colors(picture: Image.Image) -> Image.Image:
    """Return the picture (RGB or RGBA) as RGB, with fully transparent pixels in the colours of visible ones nearby.

    Resizing the result mixes in no hidden colour. A picture with no visible pixel becomes white.
    """
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    if not _select_transparent(picture).getbbox():
        return picture.convert("RGB")
    # A pyramid of halves, filled from the coarsest level down. Pillow weights colours by alpha when it resizes.
    levels = [picture]
    while max(levels[-1].size) > 1:
        width, height = levels[-1].size
        half = levels[-1].resize((-(-width // 2), -(-height // 2)), Image.Resampling.BOX)
        # Visible pixels become opaque, so that the weight of a small visible part does not fade from level to level.
        half.putalpha(half.getchannel("A").point(NONZERO))
        levels.append(half)
    coarsest = levels[-1]
    filled = coarsest.convert("RGB") if coarsest.getchannel("A").getbbox() else flatten_alpha(coarsest)
    for level in reversed(levels[:-1]):
        filled = filled.resize(level.size, Image.Resampling.BILINEAR)
        filled = Image.composite(filled, level.convert("RGB"), _select_transparent(level))
    return filled


def _select_transparent(picture: Image.Image) -> Image.Image:
    """Return a mask, mode L, of an RGBA picture's fully transparent pixels."""
    return picture.getchannel("A").point(ZERO)


def _convert_to_8_bit(picture: Image.Image) -> Image.Image:
    """Return the picture in a mode of 8 bits a channel that Pillow can convert from."""
    if picture.mode in ("La", "RGBa"):  # colours are premultiplied by alpha
        return picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
    if picture.mode.startswith("I"):
        values = np.asarray(picture.convert("I"), dtype=np.float64)
        is_16_bit = picture.mode != "I" or values.max(initial=0) > 255
        values = (values / 257 if is_16_bit else values).round().clip(0, 255)
        return Image.fromarray(values.astype(np.uint8))
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64), nan=0.0)
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    return picture


def _strip_metadata(picture: Image.Image) -> Image.Image:
    """Return a copy without file, EXIF and info, so that two pictures are equal if their pixels are."""
    return Image.frombytes(picture.mode, picture.size, picture.tobytes())
