"""Tiles: a picture larger than the network's input is predicted in overlapping squares and blended."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from studio.imaging.tiles import place_tiles

STRIP_PIXELS = 2**18  # pixels of a strip, see `split_rows`


def tile_corners(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """Return (top, left) of every tile of `size` px; tiles overlap by a quarter or more."""
    lefts = place_tiles(width, size, size // 4)
    corners = []
    for top in place_tiles(height, size, size // 4):
        for left in lefts:
            corners.append((top, left))
    return corners


def blend_weight(size: int, overlap: int, **tensor_options) -> torch.Tensor:
    """Return (size,) positive weights that fall off linearly within `overlap` of either end."""
    ramp = torch.arange(size, **tensor_options)
    return torch.minimum(ramp + 1, size - ramp).clamp(max=overlap) / overlap


class TileBlender:
    """Blends tiles into one picture, by weighted means where they overlap. A single tile is returned unchanged.

    Args:
        height, width: of the picture, px.
        size: side of a tile, px; a picture that is smaller in one direction is one tile wide there.
        corners: (top, left) of each tile.
        is_grid: whether the tiles cover the picture as `tile_corners` places them. Otherwise uncovered pixels are 0.
    """

    def __init__(
        self, height: int, width: int, size: int, corners: Sequence[tuple[int, int]], is_grid: bool = True
    ) -> None:
        self.height, self.width, self.size, self.corners, self.is_grid = height, width, size, corners, is_grid
        self.is_single = is_grid and len(corners) == 1
        self.total: torch.Tensor | None = None  # (C, H, W), the weighted sum so far
        self.added = 0  # tiles

    def add(self, tile: torch.Tensor, top: int, left: int) -> None:
        """Add a tile (C, min(H, size), min(W, size)) at its place."""
        self.added += 1
        if self.is_single:
            self.total = tile
            return
        if self.total is None:
            self.total = tile.new_zeros(tile.shape[0], self.height, self.width)
        height, width = tile.shape[1:]
        weights = self._weights(height, tile)[:, None]
        self.total[:, top : top + height, left : left + width] += tile * weights * self._weights(width, tile)

    def result(self) -> torch.Tensor:
        """Return the picture (C, H, W) after all tiles are added. Call it once: the sum is divided in place.

        Raises ValueError before the first tile.
        """
        total = self.total
        if total is None:
            raise ValueError("no tile was added")
        if not self.is_grid:
            weights = self._weights(self.size, total)
            sums = torch.zeros_like(total[0])
            for top, left in self.corners:
                sums[top : top + self.size, left : left + self.size] += weights[:, None] * weights
            total /= torch.where(sums > 0, sums, 1)
        elif not self.is_single:
            for length, dim in ((self.height, 1), (self.width, 2)):
                # in a grid, the weight of a pixel is its row's times its column's
                size = min(length, self.size)
                sums = total.new_zeros(length)
                for start in place_tiles(length, self.size, self.size // 4):
                    sums[start : start + size] += self._weights(size, total)
                total /= sums[:, None] if dim == 1 else sums
        return total

    def _weights(self, length: int, like: torch.Tensor) -> torch.Tensor:
        if length < self.size:  # the tile spans the whole side: nothing to blend with
            return like.new_ones(length)
        return blend_weight(length, self.size // 4, dtype=like.dtype, device=like.device)


def pad_to_tile(picture: torch.Tensor, size: int) -> torch.Tensor:
    """Return (3, H, W), padded at the right and at the bottom with its edge so that no side is below `size` px."""
    height, width = picture.shape[1:]
    pad = (0, max(0, size - width), 0, max(0, size - height))
    return torch.nn.functional.pad(picture[None], pad, mode="replicate")[0]


def split_rows(height: int, width: int) -> list[slice]:
    """Return the rows of a picture as strips of about STRIP_PIXELS, so that temporary tensors stay small."""
    rows = max(STRIP_PIXELS // max(width, 1), 1)
    strips = []
    for top in range(0, height, rows):
        strips.append(slice(top, min(top + rows, height)))
    return strips
