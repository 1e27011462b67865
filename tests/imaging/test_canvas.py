from __future__ import annotations

import numpy as np
import pytest

from studio.imaging.canvas import extend_canvas, pan, parse_length, zoom_out
from tests.imaging.pictures import noise


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_canvas_is_extended_by_pixels_or_percent(mode):
    picture = noise(40, 20, mode)
    larger, mask = extend_canvas(picture, left=3, top="50%", right="25%")
    assert larger.size == mask.size == (53, 30) and larger.mode == mode and mask.mode == "L"
    assert np.array_equal(np.asarray(larger)[10:, 3:43], np.asarray(picture))
    hole = np.asarray(mask) == 255
    assert not hole[10:, 3:43].any() and hole.sum() == 53 * 30 - 40 * 20
    with pytest.raises(ValueError, match="extended by 0 or more"):
        extend_canvas(picture, left=-1)
    with pytest.raises(ValueError, match="^The larger canvas has"):
        extend_canvas(picture, left=1_000_000)


@pytest.mark.parametrize("length", ["x", "1.5", "nan%", None, 1e400])
def test_what_is_no_length_is_refused(length):
    with pytest.raises(ValueError, match="whole pixels or a percentage"):
        parse_length(length, 40)


def test_zooming_out_keeps_the_picture_in_the_middle():
    picture = noise(40, 20)
    larger, mask = zoom_out(picture, 2)
    assert larger.size == (80, 40)
    assert np.array_equal(np.asarray(larger.crop((20, 10, 60, 30))), np.asarray(picture))
    assert np.asarray(mask).sum() == 255 * (80 * 40 - 40 * 20)
    with pytest.raises(ValueError, match="from 1 to 16; it was 0.5"):
        zoom_out(picture, 0.5)


@pytest.mark.parametrize(("right", "down"), [(10, 0), (-10, 5), ("25%", "-50%")])
def test_panning_keeps_the_size_and_what_stays_in_view(right, down):
    picture = noise(40, 20)
    moved, mask = pan(picture, right, down)
    across, along = parse_length(right, 40), parse_length(down, 20)
    assert moved.size == mask.size == picture.size
    is_known = np.asarray(mask) == 0
    assert is_known.sum() == (40 - abs(across)) * (20 - abs(along))
    shifted = np.roll(np.asarray(picture), (-along, -across), axis=(0, 1))
    assert np.array_equal(np.asarray(moved)[is_known], shifted[is_known])


def test_panning_out_of_the_picture_is_refused():
    with pytest.raises(ValueError, match="Nothing of the picture would be left"):
        pan(noise(40, 20), 40)
