"""Denoising: the run begins at the noise of the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from studio.diffusion.pipelines import (
    StudioDenoisePipeline,
)
from studio.diffusion.pipelines.base import image_to_tensor
from studio.diffusion.pipelines.denoise import undo_clipping
from tests.diffusion.helpers import generators, noise_picture, paint_rows


def test_denoising_begins_at_the_pictures_noise(pipe):
    denoise = StudioDenoisePipeline(**pipe.components)
    picture = noise_picture(40, 24)
    for sigma in (5.0, 25.0, 50.0):
        (row,) = denoise.prepare([picture], [sigma], num_inference_steps=3, seeds=[0])
        alpha, noise = row.stage.stepper.levels[0]
        assert noise / alpha == pytest.approx(sigma / 127.5, rel=1e-3)
        given = image_to_tensor(picture)
        inside = given.abs() < 1
        torch.testing.assert_close(row.sample[:, :24, :40][inside], (alpha * given).float()[inside])
        assert row.num_steps == 3
        (result,) = paint_rows([row], denoise)
        assert result.shape == (24, 40, 3)


@pytest.mark.parametrize("sigma", [None, 0.6])
def test_a_clean_picture_takes_one_step(pipe, sigma):
    """Its noise is less than the schedule's least: one step, not eight at one time."""
    clean = Image.new("RGB", (20, 20), "teal")
    denoise = StudioDenoisePipeline(**pipe.components)
    (row,) = denoise.prepare([clean], [sigma], num_inference_steps=8, seeds=[0])
    assert row.num_steps == 1
    assert denoise(clean, sigma, num_inference_steps=8).images[0].size == (20, 20)


def test_undo_clipping_restores_the_mean():
    true = torch.full((3, 64, 64), 0.999)
    seen = (true + 0.2 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    assert seen.mean() < 0.93
    for sign in (1, -1):
        assert (undo_clipping(sign * seen, 0.2).mean() - sign * true.mean()).abs() < 0.01
    assert torch.equal(undo_clipping(torch.tensor([0.5, -0.9]), 0.2), torch.tensor([0.5, -0.9]))


def test_the_posterior_mean_is_the_x0_of_one_call(pipe):
    denoise = StudioDenoisePipeline(**pipe.components)
    (row,) = denoise.prepare([noise_picture(32, 32)], [25.0], seeds=[0])
    denoise.denoise_step([row])
    assert row.finished
    torch.testing.assert_close(row.sample, row.pred_original_sample, atol=1e-5, rtol=0)


def test_denoising_any_size_keeps_alpha_and_estimates(pipe):
    denoise = StudioDenoisePipeline(**pipe.components)
    values = np.random.default_rng(0).integers(0, 256, (9, 130, 4), dtype=np.uint8)
    result = denoise(Image.fromarray(values), generator=generators(0)).images[0]
    assert result.size == (130, 9) and np.array_equal(np.asarray(result)[..., 3], values[..., 3])
    with pytest.raises(ValueError, match="sigma is 0; it must be above 0"):
        denoise(noise_picture(8, 8), 0)
