"""The forward process is what its closed forms say, and the schedules are those of diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG
from studio.lab import pack
from studio.lab.forward import BINS, EDGES, add_noise, forward, noise_like, prepare
from studio.lab.schedules import LABELS, SCHEDULES, SOURCES, curves, decibels, make_schedule


def gradient(width: int = 40, height: int = 30) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 6, y * 8, (x + y) * 3], -1).astype(np.uint8))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_diffusers(name):
    ours = curves(name)
    config = {k: v for k, v in STUDIO_CONFIG.items() if k in ("beta_start", "beta_end", "beta_schedule")}
    theirs = DDPMScheduler(**config | SCHEDULES[name])
    np.testing.assert_allclose(ours.alpha_bar, theirs.alphas_cumprod.double(), rtol=1e-6)
    np.testing.assert_allclose(ours.beta, theirs.betas.double(), rtol=1e-6)
    np.testing.assert_allclose(np.cumprod(1 - ours.beta), ours.alpha_bar, rtol=1e-4)
    np.testing.assert_allclose(ours.alpha**2 + ours.sigma**2, 1, rtol=1e-12)
    np.testing.assert_allclose(ours.log_snr, np.log(ours.alpha**2 / ours.sigma**2), rtol=1e-9, atol=1e-9)
    assert len(ours) == 1000 and (np.diff(ours.log_snr) < 0).all()
    assert name in LABELS and name in SOURCES


def test_the_models_own_schedule_is_its_configs():
    own = {**STUDIO_CONFIG, "beta_schedule": "linear", "beta_end": 0.04, "trained_betas": [0.01, 0.02, 0.03]}
    np.testing.assert_allclose(curves("model", own).beta, [0.01, 0.02, 0.03], rtol=1e-6)
    assert curves("linear", own).beta[-1] == pytest.approx(0.02)  # the name says which: nothing of the model's stays
    assert torch.equal(make_schedule("model").alphas_cumprod, make_schedule("cosine").alphas_cumprod)
    with pytest.raises(ValueError, match="schedule is 'sigmoid'; it must be one of model, linear"):
        curves("sigmoid")


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_million_samples_have_the_closed_forms_mean_variance_and_snr(name):
    """Within half a percent: alpha-bar as the squared slope of x_t on x0, the variance, the signal-to-noise ratio.

    The noise comes in pairs eps, -eps, so that its chance likeness to x0 cancels.
    """
    table = curves(name)
    x0, eps = (np.random.default_rng(seed).standard_normal(500_000) for seed in (1, 2))
    x0, eps = np.tile(0.5 + 1.5 * x0, 2), np.concatenate([eps, -eps])
    for t in (0, 400, 800):
        alpha, sigma = table.alpha[t], table.sigma[t]
        x_t = add_noise(x0, eps, alpha, sigma)
        slope = np.cov(x_t, x0)[0, 1] / x0.var()
        assert slope**2 == pytest.approx(table.alpha_bar[t], rel=5e-3)
        assert x_t.mean() == pytest.approx(alpha * 0.5, abs=5e-3)
        assert x_t.var() == pytest.approx(alpha**2 * 1.5**2 + sigma**2, rel=5e-3)
        rest = x_t - alpha * x0
        snr = np.var(alpha * x0) / rest.var() / 1.5**2
        assert snr == pytest.approx(np.exp(table.log_snr[t]), rel=5e-3)
        assert decibels(table.log_snr[t]) == pytest.approx(10 * np.log10(alpha**2 / sigma**2))


def test_standardized_pictures_keep_variance_one_all_the_way():
    """For these alone "variance preserving" is true to the letter."""
    whole = prepare(gradient(), 64, standardize=True)
    assert whole.standardized.mean == pytest.approx(0, abs=1e-6)
    assert whole.standardized.variance == pytest.approx(1, abs=1e-5)
    table, eps = curves("cosine"), noise_like(whole.x0, 3)
    for t in (0, 300, 600, 999):
        step = forward(whole.x0, eps, table, t)
        assert step.expected.variance == pytest.approx(1, abs=1e-5)
        assert step.measured.variance == pytest.approx(1, abs=0.05)  # 12,288 values


def test_preparation_reports_its_moments():
    picture = gradient()
    made = prepare(picture, 32)
    assert made.x0.shape == (3, 32, 32) and made.x0.dtype == np.float32
    assert -1 <= made.x0.min() and made.x0.max() <= 1
    assert made.scaled.mean == pytest.approx(2 * made.pixels.mean - 1, abs=1e-6)
    assert made.scaled.variance == pytest.approx(4 * made.pixels.variance, rel=1e-5)
    flat = prepare(Image.new("RGB", (5, 9), "white"), 16, standardize=True)
    assert flat.standardized.variance == 0 and not flat.x0.any()
    clear = prepare(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), 16)
    assert (clear.x0 == 1).all()  # nothing but paper shows through
    for mode in ("L", "P", "1", "CMYK", "I;16", "LA"):
        assert prepare(Image.new(mode, (20, 10)), 16).x0.shape == (3, 16, 16)
    with pytest.raises(ValueError, match="size is 65; it must be one of 16, 32, 64, 128"):
        prepare(picture, 65)


def test_signal_and_noise_add_up():
    x0 = prepare(gradient(), 64).x0
    eps, table = noise_like(x0, 0), curves("linear")
    step = forward(x0, eps, table, 400)
    np.testing.assert_allclose(step.signal + step.noise, step.x_t, atol=1e-6)
    assert (step.histogram * np.diff(EDGES)).sum() == pytest.approx(1, abs=1e-3)
    assert (step.normal * np.diff(EDGES)).sum() == pytest.approx(1, abs=1e-4)
    assert step.formula == f"x_t = {step.alpha:.4f} · x0 + {step.sigma:.4f} · ε"
    last = forward(x0, eps, table, 999)
    assert len(last.histogram) == BINS and np.abs(last.histogram - last.normal).max() < 0.06  # all but noise
    assert np.array_equal(noise_like(x0, 0), eps) and not np.array_equal(noise_like(x0, 1), eps)
    for t in (-1, 1000, 3.5, True):
        with pytest.raises(ValueError, match=f"t is {t}; it must be a whole number from 0 to 999"):
            forward(x0, eps, table, t)


def test_packed_arrays_come_back():
    values = np.random.default_rng(0).standard_normal((3, 5, 7))
    pack_ = pack.pack_array(values)
    np.testing.assert_allclose(pack.unpack_array(pack_), values, atol=0.5 * pack_["scale"] * 1.001)
    assert not pack.unpack_array(pack.pack_array(np.zeros(3))).any() and pack.unpack_array(
        pack.pack_array([])
    ).shape == (0,)
    with pytest.raises(ValueError, match="finite"):
        pack.pack_array([np.nan])
    assert pack.picture_sheet(np.zeros((4, 3, 8, 6))).startswith("data:image/png;base64,")
    assert np.array_equal(pack.to_bytes([-2, -1, 0.0, 1]), [0, 0, 128, 255])
