from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from studio.imaging.areas import expand_box, fit_to_side, select_area
from studio.imaging.masks import count_changes_outside, grow_hole
from tests.imaging.pictures import dot, noise


def test_box_expands_to_a_square_inside_the_picture():
    assert expand_box((40, 40, 60, 50), (200, 200), 32) == (30, 25, 70, 65)
    assert expand_box((0, 0, 1, 1), (200, 200), 32) == (0, 0, 32, 32)
    assert expand_box((199, 199, 200, 200), (200, 200), 32) == (168, 168, 200, 200)
    assert expand_box((0, 0, 200, 30), (200, 60), 32) == (0, 0, 200, 60)


@pytest.mark.parametrize(
    ("size", "fitted", "padded"),
    [
        ((64, 64), (32, 32), (32, 32)),
        ((4096, 3072), (43, 32), (43, 32)),
        ((1, 1), (32, 32), (32, 32)),
        ((1, 4000), (1, 512), (32, 512)),
        ((4000, 1), (512, 1), (512, 32)),
        ((20, 30), (32, 48), (32, 48)),
    ],
)
def test_pictures_are_fitted_to_the_network(size, fitted, padded):
    assert fit_to_side(size, 32) == (fitted, padded)


@pytest.mark.parametrize("size", [(64, 64), (131, 77), (20, 20), (1, 60), (300, 9)])
@pytest.mark.parametrize("factor", [1, 2])
def test_no_colour_leaks_out_of_the_hole(size, factor):
    """The known pixels at the network's scale do not depend on what lies under the hole."""
    width, height = size
    hole = np.random.default_rng(1).random((height, width)) < 0.02
    hole[height // 3 : height // 2 + 1, width // 3 : width // 2 + 1] = True
    values = np.asarray(noise(*size))
    changed = Image.fromarray(np.where(hole[..., None], 255 - values, values).astype(np.uint8))
    known, small = select_area(noise(*size), hole, 0, 32, whole=True).scale_known(factor)
    known_changed, small_changed = select_area(changed, hole, 0, 32, whole=True).scale_known(factor)
    assert np.array_equal(known, known_changed) and np.array_equal(small, small_changed)
    assert small.any() and not known[small].any()


def test_hole_of_one_pixel_survives_when_the_picture_shrinks():
    hole = dot(4096, 3072, 2000, 1000)
    known, small = select_area(Image.new("RGB", (4096, 3072), "red"), hole, 0, 32, whole=True).scale_known()
    assert small.sum() == 1 and (known[~small] == (255, 0, 0)).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("whole", [True, False])
def test_pasting_back_changes_nothing_outside_the_hole_and_its_feather(mode, whole):
    picture, painted = noise(150, 90, mode), Image.new("RGB", (64, 64), "lime")
    hole = np.zeros((90, 150), dtype=bool)
    hole[20:40, 100:149] = True
    after = select_area(picture, hole, 0, 32, whole).paste_back(painted)
    assert after.mode == mode and after.size == picture.size
    assert count_changes_outside(picture, after, hole) == (0, 150 * 90 - 20 * 49)
    assert (np.asarray(after)[hole][:, :3] == (0, 255, 0)).all()
    assert mode == "RGB" or (np.asarray(after)[hole][:, 3] == 255).all()
    feathered = select_area(picture, hole, 6, 32, whole).paste_back(painted)
    assert count_changes_outside(picture, feathered, hole).changed > 0
    assert count_changes_outside(picture, feathered, grow_hole(hole, 6)).changed == 0


def test_an_empty_hole_and_one_of_another_size_are_refused():
    with pytest.raises(ValueError, match="the mask is empty"):
        select_area(noise(9, 9), np.zeros((9, 9), dtype=bool), 0, 32)
    with pytest.raises(ValueError, match="must be of one size"):
        select_area(noise(9, 9), np.zeros((9, 8), dtype=bool), 0, 32)
