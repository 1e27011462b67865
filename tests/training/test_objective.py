from __future__ import annotations

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from studio.diffusion.conditioning import Task
from studio.diffusion.noise_process import velocity
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.training.data.batches import Batch
from studio.training.objective import TextFeatures, draw_times, guidance_loss, velocity_loss


@pytest.fixture
def schedule():
    return StudioScheduler.from_config(STUDIO_CONFIG).schedule


def make_batch(count: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1,
        torch.zeros(count, 7, 8, 8),
        torch.full((count,), int(Task.TEXT_TO_IMAGE)),
        torch.zeros(count),
        ["a cat"] * count,
    )


def text_features(value: float, count: int) -> TextFeatures:
    return TextFeatures(torch.full((count, 4, 1), value), torch.ones(count, 4))


class FakeModel:
    """Predicts 2 for a caption and -1 without; with a guidance scale what both give by classifier-free guidance."""

    def __init__(self) -> None:
        self.guidance: torch.Tensor | None = None

    def __call__(self, x_t, time, batch, text, guidance=None):
        prediction = torch.where(text.embeddings[:, 0, 0] == 1, 2.0, -1.0)
        if guidance is not None:
            self.guidance = guidance
            prediction = -1 + guidance * (prediction + 1)
        return prediction[:, None, None, None].expand_as(x_t)


def test_one_pass_learns_the_guided_prediction_of_two_calls(schedule):
    model, generator = FakeModel(), torch.Generator().manual_seed(0)
    losses, _ = guidance_loss(
        model,
        FakeModel(),
        make_batch(64),
        text_features(1.0, 64),
        text_features(0.0, 1),
        schedule=schedule,
        generator=generator,
    )
    assert model.guidance is not None
    assert model.guidance.min() >= 1 and 4 < model.guidance.max() <= 5
    assert losses.abs().max() < 1e-9


def test_the_loss_is_the_mean_square_error_of_the_velocity(schedule):
    batch = make_batch(16)

    def predict_exactly(x_t, time, batch, text, guidance):
        """Return the exact velocity, plus 0.5."""
        alpha, sigma = (part[:, None, None, None] for part in schedule.alpha_sigma(time))
        return velocity(batch.picture, (x_t - alpha * batch.picture) / sigma, alpha, sigma) + 0.5

    generator = torch.Generator().manual_seed(0)
    losses, times = velocity_loss(predict_exactly, batch, text_features(1.0, 16), schedule, generator)
    torch.testing.assert_close(losses, torch.full((16,), 0.25), atol=1e-3, rtol=0)
    assert ((times >= 0) & (times <= 999)).all()


def test_times_cover_the_whole_schedule():
    times = draw_times(20_000, torch.Generator().manual_seed(0), 999)
    assert times.min() >= 0 and times.max() <= 999
    assert (torch.histc(times, 4, 0, 999) / len(times) > 0.1).all()


def test_a_young_average_follows_closely():
    """With the trainer's settings the decay of update n is (1 + n) / (10 + n), at most `decay`."""
    weight = nn.Parameter(torch.zeros(1))
    average = EMAModel([weight], decay=0.6, update_after_step=-1, foreach=True)
    expected = 0.0
    for n in range(1, 30):
        weight.data.fill_(n)
        average.step([weight])
        decay = min(0.6, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        assert average.shadow_params[0].item() == pytest.approx(expected, rel=1e-5)
