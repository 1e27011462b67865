"""What tests of the pipelines share."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image


def generators(*seeds: int) -> list[torch.Generator]:
    """Return a generator for each seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def paint_rows(rows, pipe) -> list[np.ndarray]:
    """Take all steps of the rows, and return their pictures."""
    while not all(row.finished for row in rows):
        pipe.denoise_step([row for row in rows if not row.finished])
    return [np.asarray(pipe.decode(row)) for row in rows]


def noise_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return a picture of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
