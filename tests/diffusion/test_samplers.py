"""Every sampler on offer solves a problem whose answer is known: x0 ~ N(MEAN, STD^2), with the exact network.

The marginals are N(alpha MEAN, alpha^2 STD^2 + sigma^2), and the probability flow keeps a picture's standard
score, so that x0 = MEAN + STD z for the z of the noise it starts from.
"""

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from studio.diffusion.noise_process import velocity
from studio.diffusion.schedulers.samplers import SAMPLERS, make_sampler, timestep_arguments
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler

MEAN, STD = 0.3, 0.5
CONFIG = StudioScheduler.from_config(STUDIO_CONFIG).config
DETERMINISTIC = [name for name in SAMPLERS if name != "ddpm"]


class ExactNetwork:
    """Predicts v = E[v | x_t] and counts its calls."""

    def __init__(self):
        self.schedule, self.calls = StudioScheduler.from_config(CONFIG).schedule, 0

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        alpha, sigma = self.schedule.alpha_sigma(t)
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * MEAN)
        return velocity(x0, (x_t - alpha * x0) / sigma, alpha, sigma)


def sample(name: str, num_inference_steps: int, count: int = 1000):
    """(samples, the analytic answer, network calls); count pictures of one pixel."""
    scheduler, network = make_sampler(name, CONFIG), ExactNetwork()
    scheduler.set_timesteps(**timestep_arguments(scheduler, num_inference_steps))
    generator = torch.Generator().manual_seed(0)
    randomness = {"generator": generator} if name == "ddpm" else {}
    x = torch.randn(count, 1, generator=generator) * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        x_t = scheduler.scale_model_input(x, t)
        if i == 0:
            alpha, sigma = network.schedule.alpha_sigma(t)
            z = (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()
        x = scheduler.step(network(x_t, t), t, x, **randomness).prev_sample
    return x, MEAN + STD * z, network.calls


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_reaches_the_analytic_answer(name):
    x, answer, _ = sample(name, 250)
    bound = 5e-3 if name in ("ddim", "euler") else 2e-4  # two are of first order
    assert (x - answer).square().mean().sqrt() < bound


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_is_near_the_answer_at_fifty_steps(name):
    x, answer, _ = sample(name, 50)
    assert (x - answer).square().mean().sqrt() < 0.02


def test_ddpm_samples_the_distribution():
    x, _, _ = sample("ddpm", 500, count=20_000)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert x.std().item() == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_counts_its_network_calls(name):
    assert sample(name, 12, count=1)[2] == (2 * 12 - 1 if name == "heun" else 12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_runs_at_one_step_and_at_every_train_step(name):
    for num_inference_steps in (1, 1000):
        assert sample(name, num_inference_steps, count=1)[0].isfinite().all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("source", [StudioScheduler, DPMSolverMultistepScheduler, DDIMScheduler])
def test_every_value_comes_from_the_model_whatever_scheduler_holds_it(name, source):
    """The source's config calls all its values defaults: `from_config` alone would drop every one of them."""
    config = source.from_config(CONFIG).config
    config = {**config, "_use_default_values": [key for key in config if not key.startswith("_")]}
    made = make_sampler(name, config).config
    for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type"):
        assert made[key] == STUDIO_CONFIG[key]
    assert made["timestep_spacing"] == ("leading" if name == "heun" else "trailing")
    assert made["clip_sample"] is False and not made["_use_default_values"]


def test_the_made_scheduler_is_of_the_named_class_and_can_be_made_again_from_its_own_config():
    for name, sampler in SAMPLERS.items():
        scheduler = make_sampler(name, CONFIG)
        assert type(scheduler) is sampler.scheduler_class
        again = type(scheduler).from_config(scheduler.config)
        assert again.config.items() >= {k: v for k, v in scheduler.config.items() if k[0] != "_"}.items()


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="sampler is 'plms'; it must be one of studio, ddim, ddpm"):
        make_sampler("plms", CONFIG)
