"""Pictures of any mode as plain RGB or RGBA, and masks as plain L: upright, eight bits, nothing else attached.

Knows Pillow's modes; knows nothing of files, requests or networks. Raises what Pillow raises for a torn picture:
OSError, ValueError or SyntaxError.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps


def normalize_image(picture: Image.Image) -> Image.Image:
    """A copy, turned as its camera says: RGBA where it can be transparent, else RGB. An animation's present frame."""
    picture = _eight_bits(ImageOps.exif_transpose(picture))
    copy = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return _bare(copy)


def normalize_mask(mask: Image.Image) -> Image.Image:
    """A copy as L: of a mask that is transparent somewhere how opaque it is, else how light."""
    mask = _eight_bits(ImageOps.exif_transpose(mask))
    if mask.has_transparency_data:
        alpha = mask.convert("RGBA").getchannel("A")
        if alpha.getextrema()[0] < 255:
            return _bare(alpha)
        mask = mask.convert("RGBA").convert("RGB")
    return _bare(mask.convert("L"))


def flatten_alpha(picture: Image.Image, background: str = "white") -> Image.Image:
    """RGB of RGB or RGBA: what is seen where it lies on a ground."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", picture.size, background), picture).convert("RGB")


def bleed_colors(picture: Image.Image) -> Image.Image:
    """RGB of RGB or RGBA: pixels that nobody sees take the colours of those nearby, so that no resizing mixes in
    colours that were never seen. White where there is nothing at all."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    clear = picture.getchannel("A").point(lambda value: 255 * (value == 0))
    if clear.getbbox() is None:
        return picture.convert("RGB")
    levels = [picture]
    while max(levels[-1].size) > 1:  # each half the size of the one before; Pillow weighs colours by alpha
        width, height = levels[-1].size
        half = levels[-1].resize((-(-width // 2), -(-height // 2)), Image.Resampling.BOX)
        half.putalpha(half.getchannel("A").point(lambda value: 255 * (value > 0)))  # nor does a colour thin out
        levels.append(half)
    seen = flatten_alpha(levels[-1]) if levels[-1].getchannel("A").getbbox() is None else levels[-1].convert("RGB")
    for level in reversed(levels[:-1]):
        seen = seen.resize(level.size, Image.Resampling.BILINEAR)
        empty = level.getchannel("A").point(lambda value: 255 * (value == 0))
        seen = Image.composite(seen, level.convert("RGB"), empty)
    return seen


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The same in a mode of eight bits a channel that Pillow converts from."""
    if picture.mode in ("La", "RGBa"):  # colours multiplied by alpha
        return picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
    if picture.mode.startswith("I"):
        values = np.asarray(picture.convert("I"), dtype=np.float64)
        deep = picture.mode != "I" or values.max(initial=0) > 255
        values = (values / 257 if deep else values).round().clip(0, 255)
        return Image.fromarray(values.astype(np.uint8))
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64), nan=0.0)
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    return picture


def _bare(picture: Image.Image) -> Image.Image:
    # no file and no EXIF behind it, and no info: two pictures are equal if their pixels are
    return Image.frombytes(picture.mode, picture.size, picture.tobytes())
