"""Linear previews: latents shown as RGB without the VAE's decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fit_preview(latents: Sequence[Tensor], pictures: Sequence[Tensor]) -> Tensor:
    """Return the matrix (C + 1, 3) that maps latents to RGB with the least squared error; its last row is a constant.

    latents: (C, h, w) each, as the VAE encodes the pictures. pictures: (3, h, w) each in [-1, 1], reduced to the size
    of the latents.
    """
    x = torch.cat([each.flatten(1) for each in latents], 1).T.double().cpu()  # (N, C)
    y = torch.cat([each.flatten(1) for each in pictures], 1).T.double().cpu()  # (N, 3)
    return torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1), y).solution.float()


def to_rgb(latents: Tensor, matrix: Tensor) -> Tensor:
    """Return latents (C, h, w) as RGB (3, h, w) in about [-1, 1]. matrix: of `fit_preview`, on the same device."""
    return torch.einsum("chw,cr->rhw", latents, matrix[:-1]) + matrix[-1][:, None, None]
