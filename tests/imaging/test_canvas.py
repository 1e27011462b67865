"""Masks, crops and extensions: in whole pixels, and nothing leaks across the border of a hole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from studio.imaging import canvas


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    bands = len(mode)
    values = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(values)


def dot(width: int, height: int, x: int, y: int) -> np.ndarray:
    hole = np.zeros((height, width), dtype=bool)
    hole[y, x] = True
    return hole


@pytest.mark.parametrize("pixels", [1, 2, 3, 7, 20])
def test_a_hole_grows_by_so_many_pixels_and_is_round(pixels):
    grown = canvas.grow_hole(dot(61, 61, 30, 30), pixels)
    y, x = np.nonzero(grown)
    assert (np.ptp(x), np.ptp(y)) == (2 * pixels, 2 * pixels)
    assert np.array_equal(grown, grown[::-1]) and np.array_equal(grown, grown.T)
    distance = np.hypot(*(np.indices(grown.shape) - 30))
    assert grown[distance <= 0.9 * pixels].all() and not grown[distance > 1.1 * pixels + 0.6].any()


def test_shrinking_undoes_growing_and_spares_the_pictures_border():
    hole = np.zeros((40, 50), dtype=bool)
    hole[10:30, 15:35] = True
    assert np.array_equal(canvas.grow_hole(canvas.grow_hole(hole, 5), -5) & hole, hole)
    assert not canvas.grow_hole(hole, -10).any() and canvas.grow_hole(hole, -9).sum() >= 1
    all_of_it = np.ones((7, 9), dtype=bool)
    assert canvas.grow_hole(all_of_it, -3).all()
    nothing = np.zeros((7, 9), dtype=bool)
    assert not canvas.grow_hole(nothing, 3).any()


def test_a_feather_lies_outside_the_hole_and_falls_off():
    hole = np.zeros((60, 60), dtype=bool)
    hole[20:40, 20:40] = True
    assert set(np.unique(canvas.opacity(hole))) == {0, 255} and np.array_equal(canvas.opacity(hole) > 0, hole)
    for feather in (1, 4, 9):
        seen = canvas.opacity(hole, feather)
        assert (seen[hole] == 255).all() and not seen[~canvas.grow_hole(hole, feather)].any()
        across = seen[30, 39 : 40 + feather + 1].astype(int)
        assert (np.diff(across) <= 0).all() and across[-1] == 0
        assert feather == 1 or 0 < across[1 + feather // 2] < 255


def test_inverted_then_grown():
    mask = Image.new("L", (9, 9), 255)
    mask.putpixel((4, 4), 127)
    assert canvas.mask_to_hole(mask, invert=True).sum() == 1
    assert canvas.mask_to_hole(mask, invert=True, grow=1).sum() == 5
    assert canvas.mask_to_hole(mask).sum() == 80


def test_the_context_is_a_square_inside_the_picture():
    assert canvas.context_box((40, 40, 60, 50), (200, 200), 32) == (30, 25, 70, 65)
    assert canvas.context_box((0, 0, 1, 1), (200, 200), 32) == (0, 0, 32, 32)
    assert canvas.context_box((199, 199, 200, 200), (200, 200), 32) == (168, 168, 200, 200)
    assert canvas.context_box((0, 0, 200, 30), (200, 60), 32) == (0, 0, 200, 60)


@pytest.mark.parametrize(
    ("size", "work", "padded"),
    [
        ((64, 64), (32, 32), (32, 32)),
        ((4096, 3072), (43, 32), (43, 32)),
        ((1, 1), (32, 32), (32, 32)),
        ((1, 4000), (1, 512), (32, 512)),
        ((4000, 1), (512, 1), (512, 32)),
        ((20, 30), (32, 48), (32, 48)),
    ],
)
def test_pictures_are_fitted_to_the_network(size, work, padded):
    assert canvas.fit(size, 32) == (work, padded)


@pytest.mark.parametrize("size", [(64, 64), (131, 77), (20, 20), (1, 60), (300, 9)])
@pytest.mark.parametrize("factor", [1, 2])
def test_no_colour_leaks_across_the_border_of_a_hole(size, factor):
    """Whatever lies under the hole, what is known at the network's scale is the same."""
    width, height = size
    hole = np.random.default_rng(1).random((height, width)) < 0.02
    hole[height // 3 : height // 2 + 1, width // 3 : width // 2 + 1] = True
    first, second = noise(*size), noise(*size)
    second = Image.fromarray(np.where(hole[..., None], 255 - np.asarray(second), np.asarray(first)).astype(np.uint8))
    knowns = [canvas.area_around_hole(each, hole, 0, 32, whole=True).known(factor) for each in (first, second)]
    (picture, small), (other, same) = knowns
    assert np.array_equal(picture, other) and np.array_equal(small, same)
    assert small.any() and not picture[small].any()


def test_a_hole_of_one_pixel_is_still_a_hole_when_the_picture_shrinks():
    area = canvas.area_around_hole(
        Image.new("RGB", (4096, 3072), "red"), dot(4096, 3072, 2000, 1000), 0, 32, whole=True
    )
    picture, hole = area.known()
    assert hole.sum() == 1 and (picture[~hole] == (255, 0, 0)).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_put_back_leaves_the_rest_alone(mode, whole):
    picture = noise(150, 90, mode)
    hole = np.zeros((90, 150), dtype=bool)
    hole[20:40, 100:149] = True
    area = canvas.area_around_hole(picture, hole, 0, 32, whole)
    after = area.put_back(Image.new("RGB", (64, 64), "lime"))
    assert after.mode == mode and after.size == picture.size
    assert canvas.count_changes_outside(picture, after, hole) == (0, 150 * 90 - 20 * 49)
    assert (np.asarray(after)[hole][:, :3] == (0, 255, 0)).all()
    assert mode == "RGB" or (np.asarray(after)[hole][:, 3] == 255).all()
    feathered = canvas.area_around_hole(picture, hole, 6, 32, whole).put_back(Image.new("RGB", (64, 64), "lime"))
    assert canvas.count_changes_outside(picture, feathered, hole).changed > 0
    assert canvas.count_changes_outside(picture, feathered, canvas.grow_hole(hole, 6)).changed == 0


def test_an_empty_hole_and_one_of_another_size_are_refused():
    with pytest.raises(ValueError, match="the mask is empty"):
        canvas.area_around_hole(noise(9, 9), np.zeros((9, 9), dtype=bool), 0, 32)
    with pytest.raises(ValueError, match="must be of one size"):
        canvas.area_around_hole(noise(9, 9), np.zeros((9, 8), dtype=bool), 0, 32)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_canvas_is_extended_by_pixels_or_percent(mode):
    picture = noise(40, 20, mode)
    larger, mask = canvas.extend(picture, left=3, top="50%", right="25%")
    assert larger.size == mask.size == (53, 30) and larger.mode == mode and mask.mode == "L"
    assert np.array_equal(np.asarray(larger)[10:, 3:43], np.asarray(picture))
    hole = np.asarray(mask) == 255
    assert not hole[10:, 3:43].any() and hole.sum() == 53 * 30 - 40 * 20
    with pytest.raises(ValueError, match="extended by 0 or more"):
        canvas.extend(picture, left=-1)
    for wrong in ("x", "1.5", "nan%", None, 1e400):
        with pytest.raises(ValueError, match="whole pixels or a percentage"):
            canvas.extend(picture, left=wrong)


def test_zooming_out_and_panning():
    picture = noise(40, 20)
    larger, mask = canvas.zoom_out(picture, 2)
    assert larger.size == (80, 40)
    assert np.array_equal(np.asarray(larger.crop((20, 10, 60, 30))), np.asarray(picture))
    assert np.asarray(mask).sum() == 255 * (80 * 40 - 40 * 20)
    for right, down in ((10, 0), (-10, 5), ("25%", "-50%")):
        moved, mask = canvas.pan(picture, right, down)
        across, below = canvas.pixels(right, 40), canvas.pixels(down, 20)
        assert moved.size == mask.size == picture.size
        known = np.asarray(mask) == 0
        assert known.sum() == (40 - abs(across)) * (20 - abs(below))
        shifted = np.roll(np.asarray(picture), (-below, -across), axis=(0, 1))
        assert np.array_equal(np.asarray(moved)[known], shifted[known])
    with pytest.raises(ValueError, match="Nothing of the picture would be left"):
        canvas.pan(picture, 40)
    with pytest.raises(ValueError, match="from 1 to 16 times"):
        canvas.zoom_out(picture, 0.5)


def test_windows_cover_and_overlap():
    for size in (16, 32, 64):
        for length in (*range(size, 6 * size), 4096, 4097):
            starts = canvas.tile_starts(length, size, size // 4)
            assert starts[0] == 0 and starts[-1] == length - size
            assert all(0 < b - a <= size * 3 // 4 for a, b in zip(starts, starts[1:], strict=False))
            assert all(start % (size // 8) == 0 for start in starts[:-1])
    assert canvas.tile_count(256, 256, 64) == 25 and canvas.tile_count(64, 64, 64) == 1
    assert canvas.estimate_seconds(25, 2, 0.02, guided=True) == 2.0
