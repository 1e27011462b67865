from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from studio.imaging.masks import count_changes_outside, feather_hole, grow_hole, mask_to_hole
from tests.imaging.pictures import dot, noise


@pytest.mark.parametrize("pixels", [1, 2, 3, 7, 20])
def test_hole_grows_by_that_many_pixels_and_is_round(pixels):
    grown = grow_hole(dot(61, 61, 30, 30), pixels)
    y, x = np.nonzero(grown)
    assert (np.ptp(x), np.ptp(y)) == (2 * pixels, 2 * pixels)
    assert np.array_equal(grown, grown[::-1]) and np.array_equal(grown, grown.T)
    distance = np.hypot(*(np.indices(grown.shape) - 30))
    assert grown[distance <= 0.9 * pixels].all() and not grown[distance > 1.1 * pixels + 0.6].any()


def test_shrinking_undoes_growing_and_not_at_the_pictures_border():
    hole = np.zeros((40, 50), dtype=bool)
    hole[10:30, 15:35] = True
    assert np.array_equal(grow_hole(grow_hole(hole, 5), -5) & hole, hole)
    assert not grow_hole(hole, -10).any() and grow_hole(hole, -9).sum() >= 1
    full, empty = np.ones((7, 9), dtype=bool), np.zeros((7, 9), dtype=bool)
    assert grow_hole(full, -3).all()
    assert not grow_hole(empty, 3).any()


def test_feather_lies_outside_the_hole_and_falls_off():
    hole = np.zeros((60, 60), dtype=bool)
    hole[20:40, 20:40] = True
    assert set(np.unique(feather_hole(hole))) == {0, 255} and np.array_equal(feather_hole(hole) > 0, hole)
    for feather in (1, 4, 9):
        opacity = feather_hole(hole, feather)
        assert (opacity[hole] == 255).all() and not opacity[~grow_hole(hole, feather)].any()
        across = opacity[30, 39 : 40 + feather + 1].astype(int)
        assert (np.diff(across) <= 0).all() and across[-1] == 0
        assert feather == 1 or 0 < across[1 + feather // 2] < 255


def test_mask_is_inverted_before_it_grows():
    mask = Image.new("L", (9, 9), 255)
    mask.putpixel((4, 4), 127)
    assert mask_to_hole(mask, invert=True).sum() == 1
    assert mask_to_hole(mask, invert=True, grow=1).sum() == 5
    assert mask_to_hole(mask).sum() == 80


def test_changes_are_counted_outside_the_hole_only():
    before = noise(9, 7)
    after = before.copy()
    for position in ((0, 0), (5, 3), (8, 6)):
        red, *rest = before.getpixel(position)
        after.putpixel(position, (255 - red, *rest))
    assert count_changes_outside(before, after, dot(9, 7, 5, 3)) == (2, 9 * 7 - 1)
    with pytest.raises(ValueError, match="the hole is"):
        count_changes_outside(before, after, dot(7, 9, 5, 3))
