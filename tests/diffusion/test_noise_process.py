"""The process against diffusers and against closed forms, by way of the scheduler that keeps it."""

import math

import pytest
import torch
from diffusers import DDPMScheduler

from studio.diffusion.noise_process import NoiseSchedule, to_original_and_noise, velocity
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from tests.diffusion.test_studio_scheduler import COSINE, SCALED_LINEAR, noise_like, run, studio


@pytest.mark.parametrize("betas", [COSINE, SCALED_LINEAR, {}], ids=["cosine", "scaled_linear", "linear"])
def test_alpha_and_sigma_at_the_train_steps_are_those_of_diffusers(betas):
    schedule, stock = StudioScheduler(**betas).schedule, DDPMScheduler(**betas)
    alpha, sigma = schedule.alpha_sigma(torch.arange(1000, dtype=torch.float64))
    torch.testing.assert_close(alpha, stock.alphas_cumprod.double().sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(sigma, (1 - stock.alphas_cumprod.double()).sqrt(), rtol=1e-12, atol=0)


def test_the_schedule_begins_as_a_picture_and_ends_as_pure_noise():
    alpha, sigma = studio().schedule.alpha_sigma(torch.tensor([0.0, 999.0]))
    assert alpha[0] > 0.9999 and sigma[0] < 0.01
    assert alpha[1] < 1e-4 and sigma[1] > 1 - 1e-7
    assert float(studio().plan(20).alphas[0]) < 1e-4  # where a run starts, too


def test_any_beta_schedule_can_be_rescaled_to_zero_terminal_snr():
    """The log-SNR still falls strictly, also where the last alphas before the rescaling are close to zero."""
    for betas in (SCALED_LINEAR, {}, {"beta_end": 0.05}, {"beta_schedule": "squaredcos_cap_v2"}):
        scheduler = StudioScheduler(**betas, rescale_betas_zero_snr=True)
        alphas_cumprod = scheduler.alphas_cumprod
        assert (alphas_cumprod.diff() < 0).all() and 0 < alphas_cumprod[-1] <= 2**-24, betas
        scheduler.set_timesteps(10)
        assert len(scheduler.timesteps) == 10


def test_zero_terminal_snr_makes_any_schedule_end_as_noise():
    scheduler = StudioScheduler(**SCALED_LINEAR, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert scheduler.schedule.alpha_sigma(torch.tensor(999))[0] < 1e-3
    assert run(scheduler, 10).isfinite().all()


def test_half_log_snr_is_linear_between_train_steps():
    schedule = studio().schedule
    low, middle, high = schedule.half_log_snr(torch.tensor([400.0, 400.25, 401.0], dtype=torch.float64))
    assert middle == pytest.approx(0.75 * low + 0.25 * high)
    assert schedule.log_snr(torch.tensor(400.25)) == pytest.approx(2 * middle.item())


def test_variance_is_preserved_and_snr_falls_at_every_real_time():
    t = torch.linspace(0, 999, 4001, dtype=torch.float64)
    alpha, sigma = studio().schedule.alpha_sigma(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()


def test_time_of_is_the_inverse_of_half_log_snr():
    schedule = studio().schedule
    t = torch.linspace(0, 999, 1777, dtype=torch.float64)
    torch.testing.assert_close(schedule.time_of(schedule.half_log_snr(t)), t, rtol=0, atol=1e-9)
    assert schedule.time_of(torch.tensor([100.0, -100.0])).tolist() == [0, 999]


def test_times_of_any_shape_and_dtype():
    schedule = studio().schedule
    integers = torch.tensor([[0, 500], [731, 999]])
    cosine = math.cos((732 / 1000 + 0.008) / 1.008 * math.pi / 2)  # arXiv 2102.09672, eq. (17), at step 731
    for t in (integers, integers.float(), integers.double(), integers.half()):
        alpha, sigma = schedule.alpha_sigma(t)
        assert alpha.shape == sigma.shape == (2, 2)
        assert alpha.dtype == (torch.float64 if t.dtype == torch.float64 else torch.float32)
        assert alpha[1, 0].item() == pytest.approx(cosine, rel=2e-3)


def test_invalid_alphas_cumprod_are_refused():
    for table in ([0.9, 0.9, 0.1], [1.0, 0.5], [0.5, 0.0], [0.2, 0.4]):
        with pytest.raises(ValueError, match="must decrease strictly"):
            NoiseSchedule(torch.tensor(table))


# ---- noise, velocity, predictions ----


def test_add_noise_has_the_closed_form_mean_and_variance():
    scheduler, count = studio(), 40_000
    x0 = torch.tensor([0.8, -0.4]).view(1, 1, 1, 2).expand(count, 1, 1, 2)
    for t in (20, 350.5, 700, 999):
        times = torch.full((count,), t)
        x_t = scheduler.add_noise(x0, noise_like(count, 1, 1, 2, seed=int(t)), times)
        alpha, sigma = scheduler.schedule.alpha_sigma(torch.tensor(float(t)))
        error = 5 * sigma / math.sqrt(count)  # five standard errors
        assert ((x_t.mean(0) - alpha * x0[0]).abs() < error).all()
        assert ((x_t.var(0) - sigma**2).abs() < 5 * sigma**2 * math.sqrt(2 / count)).all()


def test_add_noise_and_get_velocity_are_those_of_diffusers():
    ours, stock = studio(), DDPMScheduler(**COSINE, prediction_type="v_prediction")
    x0, eps, t = noise_like(4, 3, 8, 8), noise_like(4, 3, 8, 8, seed=1), torch.tensor([0, 250, 731, 999])
    torch.testing.assert_close(ours.add_noise(x0, eps, t), stock.add_noise(x0, eps, t))
    torch.testing.assert_close(ours.get_velocity(x0, eps, t), stock.get_velocity(x0, eps, t))
    assert ours.add_noise(x0.half(), eps.half(), t).dtype == torch.float16


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_a_perfect_prediction_gives_back_the_picture_and_the_noise(prediction_type):
    x0, eps = noise_like(5, 3, 4, 4, dtype=torch.float64), noise_like(5, 3, 4, 4, seed=1, dtype=torch.float64)
    alpha, sigma = studio().schedule.alpha_sigma(torch.linspace(3, 990, 5, dtype=torch.float64))
    alpha, sigma = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    truth = {"v_prediction": velocity(x0, eps, alpha, sigma), "epsilon": eps, "sample": x0}[prediction_type]
    got = to_original_and_noise(truth, alpha * x0 + sigma * eps, alpha, sigma, prediction_type)
    torch.testing.assert_close(got, (x0, eps))


def test_an_unknown_prediction_type_is_refused():
    with pytest.raises(ValueError, match="prediction_type is 'flow'; it must be one of epsilon, sample"):
        to_original_and_noise(torch.zeros(1), torch.zeros(1), 0.5, 0.5, "flow")
