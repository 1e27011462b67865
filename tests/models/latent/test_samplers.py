"""Samplers of latent models take the steps of diffusers' schedulers, exactly, and tell the truth about noise levels."""

from __future__ import annotations

from inspect import signature
from typing import Any

import diffusers
import numpy as np
import pytest
import scipy.stats
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler

from studio.diffusion.noise_process import to_original_and_noise
from studio.diffusion.sampling.steppers import StudioStepper
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.models.latent.samplers import SAMPLERS, beta_quantiles, make_scheduler, make_stepper
from studio.models.samplers import LATENT_SPACINGS
from tests.models import tiny

# What stock users change in a config.
CHANGES: dict[str, dict[str, Any]] = {
    "ddim": {"clip_sample": False},
    "ddpm": {"clip_sample": False},
    "pndm": {"skip_prk_steps": True},
    "dpm++2m_sde": {"algorithm_type": "sde-dpmsolver++"},
}
SPACINGS: dict[str, dict[str, Any]] = {
    "": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
} | {spacing: {"timestep_spacing": spacing} for spacing in ("leading", "trailing", "linspace")}
PAIRS = [(key, spacing) for key in LATENT_SPACINGS for spacing in LATENT_SPACINGS[key]]
SHAPE = (4, 4, 6)
STEPS = 5


@pytest.fixture(autouse=True)
def quiet():
    diffusers.utils.logging.set_verbosity_error()  # schedulers say which values of a config they do not take
    yield
    diffusers.utils.logging.set_verbosity_warning()


def own(prediction_type: str = "epsilon", **options: Any) -> Any:
    """The scheduler of a model, as it is loaded from a saved config that has all values."""
    made = EulerDiscreteScheduler(**tiny.BETAS, steps_offset=1, prediction_type=prediction_type, **options)
    return EulerDiscreteScheduler.from_config({k: v for k, v in made.config.items() if not k.startswith("_")})


def network(x: torch.Tensor, time: float) -> torch.Tensor:
    """Some prediction for x."""
    return torch.sin(3 * x + time / 300) + 0.1 * x


def noise(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def run_scheduler(scheduler: Any, timesteps: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """Run a scheduler as the stock pipelines do."""
    generator = torch.Generator().manual_seed(1)
    source = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    for t in timesteps:
        x_t = scheduler.scale_model_input(sample, t)
        sample = scheduler.step(network(x_t, float(t)), t, sample, **source).prev_sample
    return sample


def run_stepper(stepper: Any, sample: torch.Tensor) -> torch.Tensor:
    """Run a stepper from its beginning, with predictions of the same network."""
    generator, state = torch.Generator().manual_seed(1), stepper.initial_state
    for step, time in enumerate(stepper.times):
        x_t = stepper.network_input(state, sample, step)
        prediction = network(x_t, time)
        if isinstance(stepper, StudioStepper):
            x_0, _ = to_original_and_noise(prediction, x_t, *stepper.levels[step], stepper.prediction_type)
            sample, state = stepper.step(state, x_0, sample, step, None)
        else:
            sample, state = stepper.step(state, prediction, sample, step, generator)
    return sample


def stock_scheduler(key: str, spacing: str, model: Any) -> Any:
    stock_class = SAMPLERS[key].scheduler_class
    return stock_class.from_config(model.config, **CHANGES.get(key, {}), **SPACINGS[spacing])


def test_every_sampler_of_the_names_has_a_class():
    assert SAMPLERS.keys() == LATENT_SPACINGS.keys()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("key, spacing", PAIRS)
def test_steps_are_those_of_the_stock_scheduler(key, spacing, prediction_type):
    model = own(prediction_type)
    scheduler = stock_scheduler(key, spacing, model)
    scheduler.set_timesteps(STEPS)
    stepper = make_stepper(key, spacing, model, STEPS)
    assert stepper.times == scheduler.timesteps.tolist()
    assert stepper.initial_scale == float(scheduler.init_noise_sigma)
    sample = noise() * stepper.initial_scale
    expected, result = run_scheduler(scheduler, scheduler.timesteps, sample), run_stepper(stepper, sample)
    tolerance = 1e-5 if key == "studio" else 0  # its plan is in float64
    assert (result - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("key, spacing", PAIRS)
def test_levels_are_those_of_the_samples(key, spacing):
    """A sample made of a picture and noise by the scheduler, as its network sees it, is alpha x0 + sigma eps."""
    model = own()
    stepper = make_stepper(key, spacing, model, STEPS, **({} if key == "lcm" else {"strength": 0.6}))
    picture, eps = noise(2), noise(3)
    x_t = stepper.network_input(stepper.initial_state, stepper.add_noise(picture, eps), 0)
    alpha, sigma = stepper.levels[0]
    assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-6)
    assert torch.allclose(x_t, alpha * picture + sigma * eps, atol=1e-5)
    assert all(later[1] <= earlier[1] for earlier, later in zip(stepper.levels, stepper.levels[1:], strict=False))


def test_a_later_call_keeps_the_levels_of_its_sigmas():
    """Karras spacing rounds its times; the levels are not rounded."""
    stepper = make_stepper("dpm++2m", "karras", own(), STEPS)
    scheduler = DPMSolverMultistepScheduler.from_config(own().config, use_karras_sigmas=True)
    scheduler.set_timesteps(STEPS)
    ratios = [sigma / alpha for alpha, sigma in stepper.levels]
    assert ratios == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-6)


def test_spacing_replaces_that_of_the_config():
    model = own(use_karras_sigmas=True)
    assert make_scheduler("euler", "", model).config.use_karras_sigmas
    assert not make_scheduler("euler", "trailing", model).config.use_karras_sigmas
    assert make_scheduler("ddim", "", own(timestep_spacing="trailing")).config.timestep_spacing == "trailing"


@pytest.mark.parametrize("key", ["ddim", "euler", "dpm++2m", "studio"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_two_parts_of_a_schedule_are_the_whole(key, share):
    """A model that hands over and one that takes over share all calls; one of them may have none."""
    whole = make_stepper(key, "", own(), STEPS).times
    first = make_stepper(key, "", own(), STEPS, end=share).times
    second = make_stepper(key, "", own(), STEPS, start=share).times
    assert first + second == whole


@pytest.mark.parametrize("key", [key for key in LATENT_SPACINGS if key != "lcm"])
@pytest.mark.parametrize("strength", [0.01, 0.5])
def test_strength_takes_the_last_steps(key, strength):
    whole = make_stepper(key, "", own(), 8)
    part = make_stepper(key, "", own(), 8, strength=strength)
    assert part.times == whole.times[-len(part.times) :]
    order = getattr(make_scheduler(key, "", own()), "order", 1)
    assert abs(len(part.times) - max(int(8 * strength), 1) * order) <= 1  # PNDM and Heun have one more or less


def test_lcm_spaces_its_steps_within_the_strength():
    stepper = make_stepper("lcm", "", own(), 4, strength=0.5)
    scheduler = LCMScheduler.from_config(own().config)
    scheduler.set_timesteps(4, strength=0.5)
    assert stepper.times == scheduler.timesteps.tolist()


@pytest.mark.parametrize("strength", [0.01, 0.1, 1.0])
def test_lcm_takes_no_more_steps_than_it_was_trained_for(strength):
    assert len(make_stepper("lcm", "", own(), 60, strength=strength).times) == max(int(50 * strength), 1)


def test_what_a_model_does_not_set_is_the_default_of_the_samplers_class():
    """As in diffusers, where a saved config lacks a value; only "studio" takes the default of the model's scheduler."""
    model = DDIMScheduler.from_config(tiny.BETAS)
    for key in set(SAMPLERS) - {"studio"}:
        expected = SAMPLERS[key].scheduler_class.from_config(model.config).config
        assert make_scheduler(key, "", model).config.timestep_spacing == expected.timestep_spacing, key
    assert make_scheduler("dpm++2m", "", model).config.timestep_spacing == "linspace"
    assert make_scheduler("studio", "", model).config.timestep_spacing == "leading"


def test_a_step_leaves_the_state_as_it_was():
    for key in LATENT_SPACINGS:
        stepper = make_stepper(key, "", own(), STEPS)
        if isinstance(stepper, StudioStepper):
            continue
        sample, state = noise() * stepper.initial_scale, stepper.initial_state
        results = []
        for _ in range(2):
            generator = torch.Generator().manual_seed(4)
            x_t = stepper.network_input(state, sample, 0)
            results.append(stepper.step(state, network(x_t, 999), sample, 0, generator)[0])
        assert torch.equal(*results), key


def test_zero_terminal_snr_begins_at_noise_alone():
    for key in ("ddim", "euler", "dpm++2m", "studio"):
        stepper = make_stepper(key, "trailing", own("v_prediction", rescale_betas_zero_snr=True), STEPS)
        assert stepper.levels[0][0] < 1e-3, key


def test_beta_quantiles_are_scipys():
    shares = np.linspace(0, 1, 41)
    assert np.abs(beta_quantiles(shares) - scipy.stats.beta.ppf(shares, 0.6, 0.6)).max() < 1e-10


def test_studio_scheduler_keeps_what_the_models_scheduler_says_by_default():
    scheduler = make_scheduler("studio", "", tiny.ddim(prediction_type="v_prediction"))
    assert isinstance(scheduler, StudioScheduler)
    assert scheduler.config.timestep_spacing == "leading" and scheduler.config.prediction_type == "v_prediction"
