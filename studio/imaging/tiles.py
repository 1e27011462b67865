"""Tiles of a fixed size that cover a picture: where they begin, and how many there are."""

from __future__ import annotations

import math

GRID = 8  # px: the side of the block that one position of the network's coarsest level covers


def place_tiles(length: int, size: int, overlap: int) -> list[int]:
    """Return where tiles of `size` px begin so that they cover `length` px and overlap by `overlap` px or more.

    Tiles are spread evenly. All but the last begin at multiples of GRID where the overlap allows it: the network then
    sees the same blocks of pixels in every tile, so that the result depends far less on where the tiles begin.
    """
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    grid = math.gcd(GRID, size - overlap)
    starts = [math.ceil(index * (length - size) / (count - 1) / grid) * grid for index in range(count - 1)]
    return [*starts, length - size]


def count_tiles(height: int, width: int, size: int) -> int:
    """Return how many tiles of `size` px cover a picture, each overlapping the next by a quarter or more."""
    return len(place_tiles(height, size, size // 4)) * len(place_tiles(width, size, size // 4))
