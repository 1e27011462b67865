"""Overlapping tiles of a picture or of latents, and their blending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.diffusion.tiling import blend_weight, tile_corners


@dataclass(frozen=True)
class Tiles:
    """The tiles of an array of height x width; neighbours overlap by a quarter or more.

    size: side of a tile; None: one tile covers all. A side of the array below `size` is one tile wide.
    """

    height: int
    width: int
    size: int | None = None

    @property
    def corners(self) -> list[tuple[int, int]]:
        """(top, left) of each tile."""
        return [(0, 0)] if self.size is None else tile_corners(self.height, self.width, self.size)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of a tile; all tiles have it."""
        size = self.size or max(self.height, self.width)
        return min(self.height, size), min(self.width, size)

    def cut(self, array: Tensor, corner: tuple[int, int], scale: int = 1) -> Tensor:
        """Return the tile (C, h, w) of an array (C, H, W) that is `scale` times as large."""
        (top, left), (height, width) = corner, self.shape
        return array[:, top * scale : (top + height) * scale, left * scale : (left + width) * scale]

    def blend(self, tiles: Sequence[Tensor], scale: int = 1) -> Tensor:
        """Return the array (C, H, W) whose tiles (C, h, w) these are, in the order of `corners`.

        Where tiles overlap, it is their mean, with weights that fall off linearly at the edges of a tile. A single tile
        is returned as it is. scale: how many times as large as the tiles' own units the array is.
        """
        if len(tiles) == 1:
            return tiles[0]
        height, width = self.height * scale, self.width * scale
        weights = _weights(tiles[0].shape[1], height, tiles[0])[:, None] * _weights(tiles[0].shape[2], width, tiles[0])
        total = tiles[0].new_zeros(len(tiles[0]), height, width)
        sums = tiles[0].new_zeros(height, width)
        for tile, (top, left) in zip(tiles, self.corners, strict=True):
            rows = slice(top * scale, top * scale + tile.shape[1])
            columns = slice(left * scale, left * scale + tile.shape[2])
            total[:, rows, columns] += tile * weights
            sums[rows, columns] += weights
        return total / sums


def _weights(length: int, whole: int, like: Tensor) -> Tensor:
    """Return the weights (length,) along one side of a tile, ones where the tile spans the whole side."""
    if length == whole or length < 4:
        return torch.ones(length, dtype=like.dtype, device=like.device)
    return blend_weight(length, length // 4, dtype=like.dtype, device=like.device)
