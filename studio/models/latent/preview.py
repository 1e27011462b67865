"""Linear previews: latents shown as RGB without the VAE's decoder."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from studio.models.latent.pictures import to_tensor

EXAMPLES = Path(__file__).resolve().parents[3] / "assets" / "examples"


def read_examples() -> Tensor:
    """Return the shipped pictures that previews are fitted to, (N, 3, H, W) in [-1, 1]."""
    return torch.stack([to_tensor(Image.open(path)) for path in sorted(EXAMPLES.glob("*.png"))])


def fit_preview(latents: Tensor, pictures: Tensor) -> Tensor:
    """Return the matrix (C + 1, 3) that maps latents to RGB with the least squared error; its last row is a constant.

    latents: (N, C, h, w), as the VAE encodes the pictures. pictures: (N, 3, H, W) in [-1, 1]; they are averaged to the
    size of the latents.
    """
    small = avg_pool2d(pictures, pictures.shape[-1] // latents.shape[-1])  # (N, 3, h, w)
    x = latents.movedim(1, -1).flatten(0, -2).cpu().double()  # (N h w, C)
    y = small.movedim(1, -1).flatten(0, -2).cpu().double()  # (N h w, 3)
    return torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1), y).solution.float()


def to_rgb(latents: Tensor, matrix: Tensor) -> Tensor:
    """Return latents (C, h, w) as RGB (3, h, w) in about [-1, 1]. matrix: of `fit_preview`."""
    matrix = matrix.to(latents.device)[:, :, None, None]  # (C + 1, 3, 1, 1)
    # Not a matrix product: in a thread that has not computed before, it would start a pool of OpenMP threads, and the
    # engine's calls would take half as long again for as long as that thread lives.
    return (latents[:, None] * matrix[:-1]).sum(0) + matrix[-1]
