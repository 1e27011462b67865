"""Resizing by matrices is Pillow's resizing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from studio.training.upscaling.resampling import FILTERS, blur_weights, crop_weights, resample, shrink_weights

PILLOW = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [(24, 16), (12, 8), (10, 7)])
def test_shrinking_equals_pillows(name, size):
    values = np.random.default_rng(0).uniform(0, 255, (32, 48)).astype(np.float32)
    expected = np.asarray(Image.fromarray(values).resize(size, PILLOW[name]))
    rows, columns = shrink_weights(name, 32, size[1]), shrink_weights(name, 48, size[0])
    result = resample(torch.from_numpy(values), rows, columns).numpy()
    if name == "box" and size == (10, 7):  # Pillow's box takes whole pixels
        assert np.abs(result.mean() - values.mean()) < 1e-3
    else:
        np.testing.assert_allclose(result, expected, atol=1e-2)


@pytest.mark.parametrize("name", FILTERS)
def test_a_crop_of_whole_pixels_is_a_part_of_the_whole(name):
    whole = crop_weights(name, 40, 20, scale=2.0, start=0.0)
    torch.testing.assert_close(crop_weights(name, 40, 6, scale=2.0, start=8.0), whole[4:10])


def test_outside_of_a_side_counts_as_zero():
    weights = crop_weights("box", 8, 6, scale=2.0, start=-2.0)
    torch.testing.assert_close(weights.sum(1), torch.tensor([0.0, 1, 1, 1, 1, 0]))


def test_a_blur_keeps_plain_areas_and_spreads_a_point():
    weights = blur_weights(31, 2.0)
    torch.testing.assert_close(weights @ torch.ones(31), torch.ones(31))
    x = torch.arange(31.0) - 15
    assert (weights[15] * x**2).sum() == pytest.approx(4.0, rel=1e-3)  # the variance
