"""Previews: predictions of unfinished pictures as small RGB pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

MAX_PREVIEW_SIDE = 256  # px: larger predictions are thinned out


def preview_picture(values: Any) -> Image.Image:
    """Convert a tensor or array (3, H, W) in [-1, 1] to RGB, at most MAX_PREVIEW_SIDE px a side."""
    if isinstance(values, Image.Image):
        return values
    stride = -(-max(values.shape[1:]) // MAX_PREVIEW_SIDE)
    values = values[:, ::stride, ::stride]
    if hasattr(values, "detach"):  # torch
        values = values.detach().float().cpu()
    levels = np.clip((np.asarray(values, dtype=np.float32) + 1.0) * 127.5, 0.0, 255.0).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))


def preview_pictures(predictions: Sequence[Any]) -> tuple[Image.Image, ...]:
    """Convert the predictions of a job's pictures; finished pictures among them stay as they are."""
    return tuple(preview_picture(values) for values in predictions)
