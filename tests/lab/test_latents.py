"""Runs in a latent space: their arithmetic is that of diffusers' schedulers, and latents are shown as pictures."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.lab.latents import channel_columns, preview_rgb, tile_channels
from studio.lab.reverse import explain_steps
from tests.lab.latent_runs import PREVIEW, SD_CONFIG, latent_trace


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    ("scheduler", "sampler", "changes"),
    [
        (DDIMScheduler, "ddim", {}),
        (DDIMScheduler, "ddim", {"timestep_spacing": "trailing", "set_alpha_to_one": True}),
        (EulerDiscreteScheduler, "euler", {}),
        (EulerDiscreteScheduler, "euler", {"use_karras_sigmas": True}),
        (StudioScheduler, "studio", {}),
    ],
)
def test_the_arithmetic_of_latents_gives_the_next_sample(scheduler, sampler, changes, prediction_type):
    trace = latent_trace(scheduler, steps=5, prediction_type=prediction_type, **changes)
    explained = explain_steps(trace.stages[0], sampler, trace.model.scheduler_config)
    assert [step.coefficients.source for step in explained] == ["exact"] * 5
    for step in explained:
        assert step.coefficients.residual < 1e-4 and step.identity_error < 1e-4
    if sampler == "euler" or changes:
        np.testing.assert_allclose(explained[-1].x_next, explained[-1].x0)
    elif sampler == "ddim":  # it ends at train step 0, at which there is a trace of noise
        variance = SD_CONFIG["beta_start"]
        end = (1 - variance) ** 0.5 * explained[-1].x0 + variance**0.5 * explained[-1].eps
        np.testing.assert_allclose(explained[-1].x_next, end, atol=1e-5)


@pytest.mark.parametrize("scheduler", [DDPMScheduler, EulerAncestralDiscreteScheduler, LCMScheduler])
def test_what_is_left_over_is_the_noise_that_the_sampler_adds(scheduler):
    sampler = {DDPMScheduler: "ddpm", EulerAncestralDiscreteScheduler: "euler_a", LCMScheduler: "lcm"}[scheduler]
    trace = latent_trace(scheduler, side=32, steps=4)
    explained = explain_steps(trace.stages[0], sampler, trace.model.scheduler_config)
    for step, after in zip(explained, explained[1:], strict=False):
        (b,) = step.coefficients.b
        # What is not x0's share of the picture keeps the variance: sigma_next^2 = (a sigma)^2 + noise^2.
        assert step.coefficients.a * step.alpha + b == pytest.approx(after.alpha, rel=2e-3)
        noise = (after.sigma**2 - (step.coefficients.a * step.sigma) ** 2) ** 0.5
        assert step.coefficients.adds_noise and step.coefficients.residual == pytest.approx(noise, rel=0.05)
    assert explained[-1].arithmetic.startswith("x_next = 1.0000 · x̂0") or sampler == "lcm"


@pytest.mark.parametrize(
    ("scheduler", "sampler"), [(DPMSolverMultistepScheduler, "dpm++2m"), (UniPCMultistepScheduler, "unipc")]
)
def test_the_weights_of_other_samplers_are_measured(scheduler, sampler):
    trace = latent_trace(scheduler)
    explained = explain_steps(trace.stages[0], sampler, trace.model.scheduler_config)
    for step in explained[:-1]:
        assert step.coefficients.source == "measured" and step.coefficients.residual < 1e-4
    np.testing.assert_array_equal(explained[-1].x_next, explained[-1].x0)


def test_a_sampler_that_the_lab_does_not_know_is_measured():
    (stage,) = latent_trace(PNDMScheduler, skip_prk_steps=True).stages
    for sampler in ("pndm", "a later one"):
        sources = [step.coefficients.source for step in explain_steps(stage, sampler, SD_CONFIG)]
        assert set(sources[:-1]) == {"measured"}
    assert explain_steps(stage, "pndm", SD_CONFIG)[-1].x_next is None


def test_a_sampler_that_is_set_up_otherwise_is_measured():
    """The formula of one sampler is not shown for the steps of another."""
    (stage,) = latent_trace(DPMSolverMultistepScheduler).stages
    assert explain_steps(stage, "ddim", SD_CONFIG)[2].coefficients.source == "measured"


def test_a_stage_that_another_one_continues_has_no_end():
    (stage,) = latent_trace(EulerDiscreteScheduler).stages
    assert explain_steps(stage, "euler", SD_CONFIG, is_last=False)[-1].x_next is None


@pytest.mark.parametrize(
    ("prediction_type", "text"), [("epsilon", "predicts ε̂"), ("v_prediction", "predicts v"), ("sample", "predicts x̂0")]
)
def test_the_prediction_is_put_into_words(prediction_type, text):
    trace = latent_trace(DDIMScheduler, steps=2, prediction_type=prediction_type)
    step = explain_steps(trace.stages[0], "ddim", trace.model.scheduler_config)[0]
    assert text in step.conversion and f"{step.sigma:.4f}" in step.conversion


def test_an_unknown_prediction_type_is_refused():
    (stage,) = latent_trace(DDIMScheduler, steps=2).stages
    with pytest.raises(ValueError, match="prediction_type is 'flow'; it must be one of epsilon"):
        explain_steps(stage, "ddim", SD_CONFIG | {"prediction_type": "flow"})


# ---- pictures of latents ----


def test_the_preview_is_a_linear_map():
    latents = np.random.default_rng(0).standard_normal((2, 4, 5, 6), dtype=np.float32)
    rgb = preview_rgb(latents, PREVIEW)
    assert rgb.shape == (2, 3, 5, 6) and rgb.dtype == np.float32
    np.testing.assert_allclose(rgb[1, :, 2, 3], latents[1, :, 2, 3] @ PREVIEW[:4] + PREVIEW[4], rtol=1e-5)
    np.testing.assert_allclose(
        preview_rgb(latents[0], PREVIEW, offset=False)[:, 0, 0], latents[0, :, 0, 0] @ PREVIEW[:4]
    )
    with pytest.raises(ValueError, match="have 3 channels; the preview matrix has 4"):
        preview_rgb(latents[:, :3], PREVIEW)


@pytest.mark.parametrize("channels", [1, 4, 5, 16])
def test_channels_stand_side_by_side(channels):
    latents = np.random.default_rng(0).standard_normal((3, channels, 5, 6), dtype=np.float32)
    tiled, columns = tile_channels(latents), channel_columns(channels)
    assert tiled.shape[2] == columns * 6 and 0 <= tiled.min() <= tiled.max() <= 1
    for channel in range(channels):
        top, left = channel // columns * 5, channel % columns * 6
        cell = tiled[:, top : top + 5, left : left + 6]
        np.testing.assert_allclose(cell, np.clip(latents[:, channel] / 4, -1, 1) / 2 + 0.5, atol=1e-6)
