"""Arrays as plain JSON, and pictures as data URIs: what the browser draws from.

Knows nothing of what the arrays mean.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

LARGEST = 32767  # of int16


def packed(values: Any) -> dict[str, Any]:
    """An array of real numbers as {"shape", "scale", "data"}: little-endian int16 in base64, to be multiplied by scale.

    The error is at most half of scale, which is the largest magnitude over 32767. Raises ValueError for what is not
    finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("only finite numbers can be packed")
    scale = float(np.abs(array).max(initial=0.0)) / LARGEST or 1.0
    whole = np.rint(array / scale).astype("<i2")
    return {"shape": list(array.shape), "scale": scale, "data": base64.b64encode(whole.tobytes()).decode()}


def pack_exact(values: Any) -> dict[str, Any]:
    """The same in float32, without a scale: for tables of numbers that are shown to many digits."""
    array = np.asarray(values, dtype="<f4")
    if not np.isfinite(array).all():
        raise ValueError("only finite numbers can be packed")
    return {"shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def unpack(pack: dict[str, Any]) -> np.ndarray:
    """The array again, float64."""
    whole = np.frombuffer(base64.b64decode(pack["data"]), dtype="<i2" if "scale" in pack else "<f4")
    return whole.reshape(pack["shape"]) * np.float64(pack.get("scale", 1))


def to_bytes(values: Any) -> np.ndarray:
    """[-1, 1], clipped -> 0 to 255, uint8 of the same shape."""
    return np.rint((np.clip(np.asarray(values, dtype=np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def picture(values: Any) -> Image.Image:
    """(3, H, W) in [-1, 1], clipped -> RGB."""
    return Image.fromarray(np.ascontiguousarray(to_bytes(values).transpose(1, 2, 0)))


def data_uri(image: Image.Image) -> str:
    """A picture as a PNG inside a URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def sheet(pictures: Any) -> str:
    """Pictures (N, 3, H, W) in [-1, 1] side by side, as one PNG inside a URL: frame n begins at x = n W."""
    frames = to_bytes(pictures)  # (N, 3, H, W)
    count, channels, height, width = frames.shape
    wide = frames.transpose(2, 0, 3, 1).reshape(height, count * width, channels)
    return data_uri(Image.fromarray(np.ascontiguousarray(wide)))


def gray_sheet(maps: Any) -> str:
    """Maps (N, H, W) in [0, 1] side by side, as one gray PNG inside a URL."""
    frames = np.rint(np.clip(np.asarray(maps, dtype=np.float32), 0, 1) * 255).astype(np.uint8)
    count, height, width = frames.shape
    return data_uri(Image.fromarray(np.ascontiguousarray(frames.transpose(1, 0, 2).reshape(height, count * width))))
