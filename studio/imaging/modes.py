"""Conversion of any Pillow mode: pictures to RGB or RGBA, masks to L; upright, 8 bits a channel, no metadata.

Functions raise what Pillow raises for a damaged picture: OSError, ValueError or SyntaxError.
"""

from __future__ import annotations

import struct
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

MaskMeaning = Literal["lightness", "opaque", "erased"]
BLACK_AND_WHITE_TOLERANCE = 40  # levels by which black, white and gray may be off
BLACK_AND_WHITE_SHARE = 0.85  # of a mask's visible pixels; the rest are soft edges
# Lookup tables over the 256 values of a channel.
ZERO = [255] + [0] * 255
NONZERO = [0] + [255] * 255


def normalize_image(picture: Image.Image) -> Image.Image:
    """Return an upright copy, RGBA if the picture can be transparent, else RGB; of an animation, its current frame."""
    picture = _convert_to_8_bit(_upright(picture))
    return _strip_metadata(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))


def normalize_mask(mask: Image.Image) -> Image.Image:
    """Return a copy as L, 255 where the mask says to paint; see `read_mask`."""
    return read_mask(mask)[0]


def read_mask(mask: Image.Image) -> tuple[Image.Image, MaskMeaning]:
    """Return a mask as L, 255 where it says to paint, and what says so.

    "lightness": its white part. "opaque": the opaque part, strokes of any colour on a clear layer. "erased": the clear
    part, a hole that was erased in a photograph.

    A mask without clear pixels (alpha below 128) is read by its lightness. With clear pixels, the visible ones decide:
    black and white ones are read by their lightness, and clear pixels are not painted. Visible pixels that are all
    light or all dark are strokes. Others are a photograph if they cover more than half of the mask, else strokes.
    """
    mask = _convert_to_8_bit(_upright(mask))
    lightness = mask.convert("RGB").convert("L")
    if not mask.has_transparency_data:
        return _strip_metadata(lightness), "lightness"
    pixels = np.asarray(mask.convert("RGBA"))  # (H, W, 4)
    colors, alpha, light = pixels[..., :3].astype(np.int16), pixels[..., 3], np.asarray(lightness)
    is_visible = alpha >= 128
    if is_visible.all():
        return _strip_metadata(lightness), "lightness"
    visible_light = light[is_visible]
    if not visible_light.size or visible_light.min() >= 128 or visible_light.max() < 128:
        return Image.fromarray(alpha), "opaque"
    visible_colors = colors[is_visible]  # (N, 3)
    is_gray = visible_colors.max(-1) - visible_colors.min(-1) <= BLACK_AND_WHITE_TOLERANCE
    is_extreme = np.abs(visible_light.astype(np.int16) - 127.5) >= 127.5 - BLACK_AND_WHITE_TOLERANCE
    if (is_gray & is_extreme).mean() >= BLACK_AND_WHITE_SHARE:
        return Image.fromarray(np.where(is_visible, light, np.uint8(0))), "lightness"
    if is_visible.mean() > 0.5:
        return Image.fromarray(255 - alpha), "erased"
    return Image.fromarray(alpha), "opaque"


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


def _upright(picture: Image.Image) -> Image.Image:
    """Return the picture as its EXIF orientation says, as it is where its EXIF cannot be read."""
    try:
        return ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, OverflowError, struct.error):
        return picture


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
