"""Resize pictures by matrices: one for the rows and one for the columns, with the filters that programs shrink with."""

from __future__ import annotations

from collections.abc import Callable

import torch


def triangle(x: torch.Tensor) -> torch.Tensor:
    """Return the bilinear kernel."""
    return (1 - x.abs()).clamp(min=0)


def bicubic(x: torch.Tensor) -> torch.Tensor:
    """Return the cubic kernel with a = -0.5 (Keys 1981), as Pillow has it."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def lanczos(x: torch.Tensor) -> torch.Tensor:
    """Return Lanczos' kernel with three lobes."""
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


KERNELS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bilinear": triangle,
    "bicubic": bicubic,
    "Lanczos": lanczos,
}
FILTERS = ("box", *KERNELS)


def shrink_weights(name: str, length: int, size: int) -> torch.Tensor:
    """Return (size, length): the weights that shrink `length` px to `size`, as Pillow does. name: one of FILTERS."""
    weights = crop_weights(name, length, size, scale=length / size, start=0.0)
    return weights / weights.sum(1, keepdim=True)


def crop_weights(name: str, length: int, size: int, *, scale: float, start: float) -> torch.Tensor:
    """Return (size, length): the weights of `size` px, each as wide as `scale` px of a side of `length`.

    name: one of FILTERS; start: px where the first begins, any real number. What is outside of the side counts as 0.
    """
    if name == "box":
        edges = start + scale * torch.arange(size + 1)
        pixels = torch.arange(length)
        inside = torch.minimum(pixels + 1, edges[1:, None]) - torch.maximum(pixels, edges[:-1, None])
        return inside.clamp(min=0) / scale
    centers = start + scale * (torch.arange(size) + 0.5)
    return KERNELS[name]((torch.arange(length) + 0.5 - centers[:, None]) / scale) / scale


def blur_weights(length: int, sigma: float) -> torch.Tensor:
    """Return (length, length): a Gaussian blur. sigma: px, above 0."""
    x = torch.arange(length, dtype=torch.float32)
    weights = torch.exp(-((x - x[:, None]) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


def resample(picture: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return (..., h, w): (..., H, W) resized by weights (h, H) and (w, W)."""
    return rows @ picture @ columns.transpose(-1, -2)


def to_levels(picture: torch.Tensor) -> torch.Tensor:
    """Round values in [-1, 1] to the 256 levels of a picture file."""
    return (picture.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
