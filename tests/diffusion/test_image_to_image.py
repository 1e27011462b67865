"""Image to image: every sampler begins from a picture under noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from studio.diffusion.sampling.steppers import DiffusersStepper, StudioStepper
from studio.diffusion.schedulers.samplers import SAMPLERS, make_sampler
from tests.diffusion.helpers import generators, noise_picture, paint_rows


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_run_begins_at_the_noise_level_of_its_time(pipe, name):
    """x_t = alpha x0 + sigma eps where the network first looks, whatever the sampler's own scaling."""
    picture, noise = torch.rand(3, 8, 8) * 2 - 1, torch.randn(3, 8, 8)
    scheduler = make_sampler(name, pipe.scheduler.config)
    begin = 4
    if name == "studio":
        steps = StudioStepper(scheduler, 10, begin=begin)
    else:
        steps = DiffusersStepper.spaced(scheduler, 10, "cpu", begin=begin)
    alpha, sigma = steps.levels[0]
    assert 0.2 < alpha < 0.95
    seen = steps.network_input(steps.initial_state, steps.add_noise(picture, noise), 0)
    torch.testing.assert_close(seen, (alpha * picture + sigma * noise).float(), atol=2e-4, rtol=0)
    assert len(steps.times) == (11 if name == "heun" else 6)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_little_strength_changes_little(pipe, name, monkeypatch):
    """With a network that knows the picture, every sampler ends with it from any strength."""
    truth = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4) * 2 - 1, size=(16, 16))[0]
    picture = Image.fromarray(((truth + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    schedule = pipe.scheduler.schedule

    class Said:
        def __init__(self, sample):
            self.sample = sample

    def forward(sample, time, *rest):
        alpha, sigma = (part.view(-1, 1, 1, 1).float() for part in schedule.alpha_sigma(time.double()))
        x_t = sample[:, :3]
        eps = (x_t - alpha * truth) / sigma
        return Said(alpha * eps - sigma * truth)

    monkeypatch.setattr(pipe.unet, "forward", forward)
    for strength in (0.1, 0.5, 1.0):
        rows = pipe.prepare(
            [""], num_inference_steps=10, seeds=[0], sampler=name, size=16, images=[picture], strength=strength
        )
        assert rows[0].num_steps == (2 * 10 * strength - 1 if name == "heun" else 10 * strength)
        (result,) = paint_rows(rows, pipe)
        assert np.abs(result.astype(int) - np.asarray(picture)).max() <= 6


def test_variations_have_the_size_of_the_picture(pipe):
    for size in ((16, 16), (50, 40), (3, 200), (301, 200)):
        options = {"num_inference_steps": 2, "image": noise_picture(*size), "generator": generators(0)}
        assert pipe("a cat", **options).images[0].size == size
    assert pipe("a cat", size=64, **options).images[0].size == (96, 64)
    with pytest.raises(ValueError, match="strength is 0; it must be above 0"):
        pipe("a cat", strength=0, **options)


def test_more_strength_changes_more(pipe):
    picture = noise_picture(32, 32).resize((8, 8)).resize((32, 32))
    away = []
    for strength in (0.1, 0.4, 1.0):
        options = {"num_inference_steps": 10, "generator": generators(1), "size": 16}
        result = pipe("", image=picture, strength=strength, **options).images[0].resize((32, 32))
        away.append(np.square(np.asarray(result, dtype=float) - np.asarray(picture)).mean())
    assert away[0] < away[1] < away[2]
