"""Pictures and holes that the imaging tests share."""

from __future__ import annotations

import numpy as np
from PIL import Image


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(values)


def dot(width: int, height: int, x: int, y: int) -> np.ndarray:
    """A hole of one pixel."""
    hole = np.zeros((height, width), dtype=bool)
    hole[y, x] = True
    return hole
