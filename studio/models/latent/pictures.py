"""Pictures as tensors and back, as the stock pipelines convert them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio.imaging.modes import flatten_alpha


def fit_picture(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture as RGB of (width, height) px, transparency on white."""
    picture = flatten_alpha(picture)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def to_tensor(picture: Image.Image) -> Tensor:
    """Return an RGB picture as (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.asarray(picture, np.float32) / 255.0).permute(2, 0, 1) * 2.0 - 1.0


def to_picture(tensor: Tensor) -> Image.Image:
    """Return (3, H, W) in about [-1, 1] as an RGB picture."""
    values = (tensor * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()  # (H, W, 3)
    return Image.fromarray((values * 255).round().astype(np.uint8))
