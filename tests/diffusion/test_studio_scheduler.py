"""The scheduler against diffusers' own samplers and against closed forms."""

import dataclasses
import math

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from studio.diffusion.noise_process import to_original_and_noise
from studio.diffusion.schedulers.sampling_plan import SamplingPlan, multistep_update, smooth_3x3
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SCALED_LINEAR = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def studio(**overrides) -> StudioScheduler:
    return StudioScheduler.from_config({**STUDIO_CONFIG, **overrides})


def noise_like(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(x_t: torch.Tensor, t: torch.Tensor | float) -> torch.Tensor:
    """Not linear in the field, and mixing its channels: what a linear method is easily wrong on."""
    return torch.tanh(1.3 * x_t + 0.4 * x_t.roll(1, dims=1) + torch.sin(torch.as_tensor(t) / 100))


def run(scheduler, num_inference_steps: int, shape=(2, 3, 8, 8)) -> torch.Tensor:
    scheduler.set_timesteps(num_inference_steps)
    x = noise_like(*shape)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample
    return x


def relative(x: torch.Tensor, reference: torch.Tensor) -> float:
    return ((x - reference).norm() / reference.norm()).item()


# ---- equality with diffusers ----

FAMILIES = [
    pytest.param({**COSINE, "prediction_type": "v_prediction"}, id="cosine-v"),
    pytest.param({**COSINE, "prediction_type": "sample"}, id="cosine-sample"),
    pytest.param({**SCALED_LINEAR, "prediction_type": "epsilon"}, id="scaled_linear-epsilon"),
]


@pytest.mark.parametrize("num_inference_steps", [1, 5, 8, 20, 50, 125])
@pytest.mark.parametrize("family", FAMILIES)
def test_first_order_is_ddim(family, num_inference_steps):
    family = {**family, "timestep_spacing": "trailing"}
    ddim = DDIMScheduler(**family, clip_sample=False, set_alpha_to_one=True)
    ours = StudioScheduler(**family, solver_order=1)
    assert relative(run(ours, num_inference_steps), run(ddim, num_inference_steps)) < 1e-4


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
@pytest.mark.parametrize("num_inference_steps", [2, 5, 14, 15, 20])
@pytest.mark.parametrize("solver_order", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_order_is_dpm_solver_pp(family, solver_order, num_inference_steps, spacing):
    family = {**family, "solver_order": solver_order, "timestep_spacing": spacing, "lower_order_final": True}
    stock = DPMSolverMultistepScheduler(
        **family, algorithm_type="dpmsolver++", solver_type="midpoint", final_sigmas_type="zero"
    )
    ours = StudioScheduler(**family)
    assert relative(run(ours, num_inference_steps), run(stock, num_inference_steps)) < 1e-4
    assert ours.timesteps.tolist() == stock.timesteps.tolist()


@pytest.mark.parametrize("change", [{"lower_order_final": False}, {"final_sigmas_type": "sigma_min"}])
def test_the_end_of_a_run_is_configured_as_in_diffusers(change):
    family = {**COSINE, "prediction_type": "v_prediction", "timestep_spacing": "trailing", "solver_order": 3}
    ours, stock = StudioScheduler(**family, **change), DPMSolverMultistepScheduler(**family, **change)
    assert relative(run(ours, 10), run(stock, 10)) < 1e-4


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
def test_every_number_of_steps_can_be_planned(spacing):
    scheduler = studio(timestep_spacing=spacing, solver_order=1)
    for num_inference_steps in (*range(1, 101), *range(101, 1000, 9), 999):
        assert len(scheduler.plan(num_inference_steps)) == num_inference_steps


# ---- the method itself ----


@pytest.mark.parametrize("solver_order", [1, 2, 3])
def test_a_network_that_knows_the_picture_is_followed_exactly(solver_order):
    """x0 constant along the run: each step lands on alpha x0 + sigma eps, which fixes a and the sum of b."""
    for num_inference_steps in (1, 2, 3, 7, 20):
        plan = studio(solver_order=solver_order).plan(num_inference_steps)
        torch.testing.assert_close(plan.a * plan.sigmas[:-1], plan.sigmas[1:])
        torch.testing.assert_close(plan.b.sum(1) + plan.a * plan.alphas[:-1], plan.alphas[1:])
        assert plan.alphas[-1] == 1 and plan.sigmas[-1] == 0 and not plan.c.any()


# At order 3 diffusers gives the second derivative half of the weight that Taylor's series does: the error is
# smaller than at order 2, but falls no faster.
@pytest.mark.parametrize(("solver_order", "slope"), [(1, 1), (2, 2), (3, 2)])
def test_order_of_convergence_on_a_gaussian(solver_order, slope):
    """x0 ~ N(0.3, 0.5^2): the flow keeps z, so that x_t = alpha 0.3 + sqrt(alpha^2 0.5^2 + sigma^2) z."""
    scheduler = studio(solver_order=solver_order)
    z = torch.tensor([[1.5]], dtype=torch.float64)

    def error(num_steps: int) -> float:
        lambdas = torch.linspace(-2, 2, num_steps + 1, dtype=torch.float64)
        plan = scheduler.plan(timesteps=scheduler.schedule.time_of(lambdas))
        deviation = (plan.alphas**2 * 0.25 + plan.sigmas**2).sqrt()
        exact = plan.alphas * 0.3 + deviation * z[0]  # (num_steps + 2,)

        def denoised(x, i):
            return 0.3 + plan.alphas[i] * 0.25 / deviation[i] ** 2 * (x - plan.alphas[i] * 0.3)

        first = solver_order - 1  # a multistep method is started with exact values
        history = [denoised(exact[j].view(1, 1), j) for j in reversed(range(first))]
        x = exact[first].view(1, 1)
        for i in range(first, num_steps):
            history = [denoised(x, i), *history][:solver_order]
            x = multistep_update(x, history, float(plan.a[i]), plan.b[i].tolist())
        return abs(x.item() - exact[num_steps].item())

    measured = math.log2(error(160) / error(320))
    assert measured == pytest.approx(slope, abs=0.1)


@pytest.mark.parametrize("solver_order", [1, 2, 3])
def test_pictures_at_different_steps_in_one_call_equal_each_alone(solver_order):
    scheduler = studio(solver_order=solver_order)
    counts, joins = [5, 8, 14, 20], [0, 3, 1, 6]  # steps of each row, and the tick at which it joins
    start = noise_like(len(counts), 3, 8, 8)
    alone = []
    for row, count in enumerate(counts):
        scheduler.set_timesteps(count)
        x = start[row : row + 1]
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t), t, x).prev_sample
        alone.append(x)

    plans, step, xs = [scheduler.plan(count) for count in counts], [0] * len(counts), list(start)
    histories: list[list[torch.Tensor]] = [[] for _ in counts]
    for tick in range(30):
        rows = [r for r, count in enumerate(counts) if joins[r] <= tick and step[r] < count]
        if not rows:
            continue

        def gather(name: str, rows=rows) -> torch.Tensor:
            return torch.stack([getattr(plans[r], name)[step[r]] for r in rows])

        column = (-1, 1, 1, 1)
        x_t = torch.stack([xs[r] for r in rows])
        prediction = network(x_t, gather("timesteps").float().view(column))
        alpha, sigma = gather("alphas").float().view(column), gather("sigmas").float().view(column)
        x0, _ = to_original_and_noise(prediction, x_t, alpha, sigma, "v_prediction")
        for i, r in enumerate(rows):
            histories[r] = [x0[i], *histories[r]][:solver_order]
            a, b = plans[r].a[step[r]], plans[r].b[step[r]]
            xs[r], step[r] = multistep_update(xs[r], histories[r], float(a), b.tolist()), step[r] + 1
    assert step == counts
    torch.testing.assert_close(torch.stack(xs), torch.cat(alone), rtol=1e-5, atol=1e-5)


# ---- the diffusers interface ----


def test_timesteps_may_be_real():
    scheduler = studio()
    scheduler.set_timesteps(timesteps=[999, 750.5, 420.25, 100.125])
    assert scheduler.timesteps.tolist() == [999, 750.5, 420.25, 100.125]
    x = noise_like(1, 3, 8, 8)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample
    assert x.isfinite().all()


def test_a_run_that_begins_late_has_no_history_to_use():
    """Image to image: set_begin_index, the bare timestep and diffusers' own scheduler agree."""
    stock = DPMSolverMultistepScheduler.from_config({**STUDIO_CONFIG, "solver_order": 3})
    results = []
    for scheduler, tell in ((studio(solver_order=3),) * 2, (studio(solver_order=3), None), (stock, stock)):
        scheduler.set_timesteps(20)
        if tell:
            scheduler.set_begin_index(8)
        x = scheduler.add_noise(noise_like(2, 3, 8, 8), noise_like(2, 3, 8, 8, seed=1), scheduler.timesteps[8:9])
        for t in scheduler.timesteps[8:]:
            x = scheduler.step(network(x, t), t, x).prev_sample
        results.append(x)
    assert relative(results[0], results[2]) < 1e-4
    assert torch.equal(results[0], results[1])


def test_a_restart_continues_from_the_mean_under_new_noise_as_a_run_that_begins_late():
    scheduler = StudioScheduler.from_config(STUDIO_CONFIG)
    plan, last = scheduler.plan(8, restart_time=0.7), len(scheduler) - 1
    assert len(plan) == 8 and plan.timesteps[:2].tolist() == [last, pytest.approx(0.7 * last)]
    assert (plan.a[0], plan.c[0]) == (0, plan.sigmas[1]) and plan.b[0].tolist() == [plan.alphas[1], 0]
    late = scheduler.plan(timesteps=plan.timesteps[1:])
    assert torch.equal(plan.a[1:], late.a) and torch.equal(plan.b[1:], late.b) and not plan.c[1:].any()
    for wrong in ({"restart_time": 0.0}, {"restart_time": 1.0}, {"num_inference_steps": 1}, {"begin_index": 1}):
        with pytest.raises(
            ValueError, match="restart_time is .*; it must lie between 0 and 1, for a run of 2 or more steps"
        ):
            scheduler.plan(**{"num_inference_steps": 8, "restart_time": 0.7} | wrong)


def test_half_precision_samples_are_computed_in_float32():
    scheduler = studio()
    scheduler.set_timesteps(10)
    x = noise_like(1, 3, 8, 8).half()
    output = scheduler.step(network(x, 999), scheduler.timesteps[0], x)
    assert output.prev_sample.dtype == output.pred_original_sample.dtype == torch.float16
    scheduler.set_timesteps(10)
    wide = scheduler.step(network(x, 999).float(), scheduler.timesteps[0], x.float(), return_dict=False)
    torch.testing.assert_close(output.prev_sample, wide[0].half())


def test_step_returns_the_picture_it_predicts():
    scheduler = studio()
    scheduler.set_timesteps(4)
    x0, eps = noise_like(1, 3, 8, 8), noise_like(1, 3, 8, 8, seed=1)
    t = scheduler.timesteps[1:2]
    x_t, v = scheduler.add_noise(x0, eps, t), scheduler.get_velocity(x0, eps, t)
    torch.testing.assert_close(scheduler.step(v, t[0], x_t).pred_original_sample, x0)


def test_invalid_arguments_are_refused():
    scheduler, x = studio(), torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match="call set_timesteps before step"):
        scheduler.step(x, 999, x)
    for count in (0, -3, 1001):
        with pytest.raises(ValueError, match=f"num_inference_steps is {count}; it must be between 1 and 1000"):
            scheduler.set_timesteps(count)
    for timesteps in ([], [500, 500], [100, 200], [1000, 3], [5, -1], [math.nan]):
        with pytest.raises(ValueError, match="timesteps must decrease strictly and lie between 0 and 999"):
            scheduler.plan(timesteps=timesteps)
    with pytest.raises(ValueError, match="give either"):
        scheduler.plan()
    scheduler.set_timesteps(1)
    with pytest.raises(ValueError, match="timestep 998.0 is not one of"):
        scheduler.step(x, 998, x)
    scheduler.step(x, 999, x)
    with pytest.raises(ValueError, match="all 1 steps are taken"):
        scheduler.step(x, 999, x)
    for argument in (
        {"solver_order": 4},
        {"beta_schedule": "sigmoid"},
        {"prediction_type": "flow_prediction"},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(argument))} is .* must be one of"):
            StudioScheduler(**argument)


def test_a_plan_is_frozen_and_knows_its_length():
    plan = studio(solver_order=3).plan(6)
    assert isinstance(plan, SamplingPlan) and len(plan) == 6 and plan.b.shape == (6, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.a = plan.c


def test_smoothing_is_a_binomial_convolution():
    picture = torch.randn(2, 3, 7, 10, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (weights[:, None] * weights).expand(3, 1, 3, 3)
    wide = torch.nn.functional.pad(picture, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(smooth_3x3(picture), torch.nn.functional.conv2d(wide, kernel, groups=3))
    assert torch.equal(smooth_3x3(torch.full((3, 1, 1), 0.3)), torch.full((3, 1, 1), 0.3))
    checked = torch.tensor([1.0, -1.0]).repeat(6).expand(12, 12)  # the finest detail that there is
    assert smooth_3x3(checked)[:, 1:-1].abs().max() == 0
