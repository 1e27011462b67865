"""Windows: a picture larger than the network's own size, seen as overlapping squares whose predictions are blended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from studio.imaging.tiles import count_tiles, place_tiles

__all__ = ["TileBlender", "blend_weight", "row_strips", "tile_corners", "count_tiles", "place_tiles"]

STRIP = 2**18  # px of a picture that are computed with at a time, where each pixel is computed for itself


def tile_corners(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """(top, left) of every window; they overlap by a quarter or more."""
    across = place_tiles(width, size, size // 4)
    return [(top, left) for top in place_tiles(height, size, size // 4) for left in across]


def blend_weight(size: int, overlap: int, **tensor_options) -> torch.Tensor:
    """(size,) positive weights that fall off linearly within `overlap` of either end."""
    ramp = torch.arange(size, **tensor_options)
    return torch.minimum(ramp + 1, size - ramp).clamp(max=overlap) / overlap


class TileBlender:
    """Puts windows together again, one by one: weighted means where they overlap. A single window stays as it is.

    corners: (top, left) of the windows, if they do not stand in the grid of `windows`; where none is, the whole is 0.
    """

    def __init__(self, height: int, width: int, size: int, corners: Sequence[tuple[int, int]] = ()) -> None:
        self.height, self.width, self.size, self.corners = height, width, size, corners
        self.alone = not corners and count_tiles(height, width, size) == 1
        self.total: torch.Tensor | None = None  # (C, H, W)
        self.added = 0  # windows

    def add(self, tile: torch.Tensor, top: int, left: int) -> None:
        """tile: (C, min(H, size), min(W, size))"""
        self.added += 1
        if self.alone:
            self.total = tile
            return
        if self.total is None:
            self.total = tile.new_zeros(tile.shape[0], self.height, self.width)
        down, across = (self._weight(length, tile) for length in tile.shape[1:])
        self.total[:, top : top + len(down), left : left + len(across)] += tile * down[:, None] * across

    def whole(self) -> torch.Tensor:
        """(C, H, W), when all windows are in."""
        if self.corners:
            weight = self._weight(self.size, self.total)
            sums = torch.zeros_like(self.total[0])
            for top, left in self.corners:
                sums[top : top + self.size, left : left + self.size] += weight[:, None] * weight
            self.total /= torch.where(sums > 0, sums, 1)
        elif not self.alone:
            for length, dim in ((self.height, 1), (self.width, 2)):
                # the windows stand in a grid, so that a pixel's weights are a column's times a row's
                part = min(length, self.size)
                sums = self.total.new_zeros(length)
                for start in place_tiles(length, self.size, self.size // 4):
                    sums[start : start + part] += self._weight(part, self.total)
                self.total /= sums[:, None] if dim == 1 else sums
        return self.total

    def _weight(self, length: int, like: torch.Tensor) -> torch.Tensor:
        if length < self.size:  # the picture's whole length: nothing to blend with
            return like.new_ones(length)
        return blend_weight(length, self.size // 4, dtype=like.dtype, device=like.device)


def row_strips(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture, a good many at a time: bounds what is held besides the picture."""
    rows = max(STRIP // max(width, 1), 1)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))
