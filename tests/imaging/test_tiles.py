from __future__ import annotations

from itertools import pairwise

import pytest

from studio.imaging.tiles import count_tiles, place_tiles


@pytest.mark.parametrize("size", [16, 32, 64])
def test_tiles_cover_and_overlap_and_begin_at_whole_blocks(size):
    for length in (*range(size, 6 * size), 4096, 4097):
        starts = place_tiles(length, size, size // 4)
        assert starts[0] == 0 and starts[-1] == length - size
        assert all(0 < after - before <= size * 3 // 4 for before, after in pairwise(starts))
        assert all(start % (size // 8) == 0 for start in starts[:-1])


def test_tiles_overlap_by_a_quarter():
    assert count_tiles(256, 256, 64) == 25 and count_tiles(64, 64, 64) == 1
