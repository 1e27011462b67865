"""Arrays as plain JSON, and pictures as data URIs, for scripts that draw them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

INT16_MAX = 32767


def pack_array(values: Any) -> dict[str, Any]:
    """Return real numbers as {"shape", "scale", "data"}: little-endian int16 in base64, in units of scale.

    The error is at most half of scale, which is the largest magnitude over 32767. Raises ValueError for values that
    are not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("only finite numbers can be packed")
    scale = float(np.abs(array).max(initial=0.0)) / INT16_MAX or 1.0
    integers = np.rint(array / scale).astype("<i2")
    return {"shape": list(array.shape), "scale": scale, "data": base64.b64encode(integers.tobytes()).decode()}


def pack_exact(values: Any) -> dict[str, Any]:
    """Return the same in float32 and without a scale, for numbers that are shown to many digits."""
    array = np.asarray(values, dtype="<f4")
    if not np.isfinite(array).all():
        raise ValueError("only finite numbers can be packed")
    return {"shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def unpack_array(pack: dict[str, Any]) -> np.ndarray:
    """Return the packed array, float64."""
    numbers = np.frombuffer(base64.b64decode(pack["data"]), dtype="<i2" if "scale" in pack else "<f4")
    return numbers.reshape(pack["shape"]) * np.float64(pack.get("scale", 1))


def to_bytes(values: Any) -> np.ndarray:
    """Convert [-1, 1] to 0 ... 255, uint8 of the same shape. Values outside are clipped."""
    return np.rint((np.clip(np.asarray(values, dtype=np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def to_image(values: Any) -> Image.Image:
    """Convert (3, H, W) in [-1, 1] to an RGB picture."""
    return Image.fromarray(np.ascontiguousarray(to_bytes(values).transpose(1, 2, 0)))


def data_uri(image: Image.Image) -> str:
    """Return a picture as a PNG inside a URI."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture_sheet(pictures: Any) -> str:
    """Return pictures (N, 3, H, W) in [-1, 1] side by side as one PNG inside a URI: frame n starts at x = n W."""
    frames = to_bytes(pictures)  # (N, 3, H, W)
    count, channels, height, width = frames.shape
    sheet = frames.transpose(2, 0, 3, 1).reshape(height, count * width, channels)
    return data_uri(Image.fromarray(np.ascontiguousarray(sheet)))


def gray_sheet(maps: Any) -> str:
    """Return maps (N, H, W) in [0, 1] side by side as one gray PNG inside a URI."""
    frames = np.rint(np.clip(np.asarray(maps, dtype=np.float32), 0, 1) * 255).astype(np.uint8)
    count, height, width = frames.shape
    return data_uri(Image.fromarray(np.ascontiguousarray(frames.transpose(1, 0, 2).reshape(height, count * width))))
