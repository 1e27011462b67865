"""Latents as pictures: by a linear map to RGB, or channel by channel in gray."""

from __future__ import annotations

import math

import numpy as np
import torch

GRAY_LIMIT = 4.0  # latent value that is drawn white; its negative is black, and 0 is gray


def preview_rgb(latents: np.ndarray, matrix: np.ndarray, *, offset: bool = True) -> np.ndarray:
    """Return RGB of latent resolution, (..., 3, H, W) in about [-1, 1], float32.

    latents: (..., C, H, W). matrix: (C + 1, 3); its last row is the constant term.
    offset: whether the constant term is added; differences and noise have none.
    Raises ValueError if the channels differ.
    """
    if latents.shape[-3] != len(matrix) - 1:
        raise ValueError(f"the latents have {latents.shape[-3]} channels; the preview matrix has {len(matrix) - 1}")
    rgb = np.einsum("...chw,cr->...rhw", latents, matrix[:-1], dtype=np.float32)
    return rgb + matrix[-1][:, None, None].astype(np.float32) if offset else rgb


def channel_columns(channels: int) -> int:
    """Return how many channels stand in one line of `tile_channels`."""
    return math.ceil(math.sqrt(channels))


def tile_channels(latents: np.ndarray, limit: float = GRAY_LIMIT) -> np.ndarray:
    """Return all channels of latents (N, C, H, W) as gray maps in one frame each, (N, rows H, columns W) in [0, 1].

    limit: the value that is drawn white.
    """
    count, channels, height, width = latents.shape
    columns = channel_columns(channels)
    rows = math.ceil(channels / columns)
    cells = np.zeros((count, rows * columns, height, width), np.float32)
    cells[:, :channels] = np.clip(latents / limit, -1, 1) / 2 + 0.5
    tiled = cells.reshape(count, rows, columns, height, width).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(tiled).reshape(count, rows * height, columns * width)


def as_tensor(latents: np.ndarray) -> torch.Tensor:
    """Return a copy of latents as a tensor on the CPU, float32."""
    return torch.from_numpy(np.array(latents, dtype=np.float32))
