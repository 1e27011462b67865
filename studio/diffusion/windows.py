"""Windows: a picture larger than the network's own size, seen as overlapping squares whose predictions are blended."""

from __future__ import annotations

import torch


def window_starts(length: int, size: int, overlap: int) -> list[int]:
    """Where windows of `size` begin so that they cover `length` >= size and overlap by `overlap` or more, evenly."""
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def windows(height: int, width: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """(top, left) of every window."""
    return [(top, left) for top in window_starts(height, size, overlap) for left in window_starts(width, size, overlap)]


def window_count(height: int, width: int, size: int) -> int:
    """How many windows `cut` makes of a picture."""
    if height <= size and width <= size:
        return 1
    return len(windows(height, width, size, size // 4))


def cut(whole: torch.Tensor, size: int) -> list[torch.Tensor]:
    """(C, H, W) as windows (C, size, size); a picture of at most that size is its own only window."""
    height, width = whole.shape[-2:]
    if height <= size and width <= size:
        return [whole]
    return [whole[:, top : top + size, left : left + size] for top, left in windows(height, width, size, size // 4)]


def blend_weight(size: int, overlap: int, **tensor_options) -> torch.Tensor:
    """(size, size) positive weights that fall off linearly within `overlap` of an edge."""
    ramp = torch.arange(size, **tensor_options)
    ramp = torch.minimum(ramp + 1, size - ramp).clamp(max=overlap) / overlap
    return ramp[:, None] * ramp[None, :]


def blend(tiles: list[torch.Tensor], height: int, width: int, size: int) -> torch.Tensor:
    """What `cut` made, put together again (C, height, width): weighted means where windows overlap."""
    if len(tiles) == 1:
        return tiles[0]
    weight = blend_weight(size, size // 4, dtype=tiles[0].dtype, device=tiles[0].device)
    total = tiles[0].new_zeros(tiles[0].shape[0], height, width)
    weights = tiles[0].new_zeros(height, width)
    for tile, (top, left) in zip(tiles, windows(height, width, size, size // 4), strict=True):
        total[:, top : top + size, left : left + size] += tile * weight
        weights[top : top + size, left : left + size] += weight
    return total / weights
