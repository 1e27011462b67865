"""Points in the plane: the exact field against the analytic flow, and a network that learns it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.lab.plane import (
    EXTENT,
    SHAPES,
    ExactField,
    cloud_from_letters,
    cloud_from_strokes,
    density,
    energy_distance,
    make_cloud,
)
from studio.lab.point_model import GuidanceTarget, PointModel, flow_arrows, forward_paths, near_share, reverse_paths


def studio(**overrides) -> StudioScheduler:
    return StudioScheduler.from_config({**STUDIO_CONFIG, **overrides})


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_standardized_and_of_two_classes(name):
    made = make_cloud(name, 1000)
    assert made.points.shape == (1000, 2) and np.abs(made.points).max() < EXTENT
    assert made.points.std() == pytest.approx(1, abs=0.02) and np.abs(made.points.mean(0)).max() < 0.02
    assert set(made.labels) == {0, 1}
    assert np.array_equal(make_cloud(name, 1000).points, made.points)


def test_letters_have_classes_and_bad_ones_are_refused():
    made = cloud_from_letters("Hi", 500)
    first, second = (made.points[made.labels == label, 0] for label in (0, 1))
    assert first.max() < second.min() and made.points.std() == pytest.approx(1, abs=0.02)
    for text in ("", "   ", "four"):
        with pytest.raises(ValueError, match="it must be 1 to 3 letters"):
            cloud_from_letters(text)
    with pytest.raises(ValueError, match="shape is 'cube'; it must be one of two moons, spiral, rings"):
        make_cloud("cube")


def test_drawings():
    line = cloud_from_strokes([{"points": [[-1, 0], [1, 0]]}, {"points": [[0, 1], [0, 1.5]], "label": 1}], 900)
    flat = line.points[line.labels == 0]
    assert len(flat) == pytest.approx(900 * 2.05 / 2.6, abs=60)  # as much ink as length
    assert np.abs(flat[:, 1]).max() < 0.3 and flat[:, 0].std() == pytest.approx(2 / math.sqrt(12), rel=0.1)
    dot = cloud_from_strokes([{"points": [[1, 1]]}], 200)  # one point is a blot, where it was put
    assert dot.points.mean(0) == pytest.approx([1, 1], abs=0.03) and 0.02 < dot.points.std(0).max() < 0.1
    for nothing in ([], [{"points": []}]):
        with pytest.raises(ValueError, match="The drawing is empty: draw at least one point"):
            cloud_from_strokes(nothing)
    for bad in ([{"points": [[99, 0]]}], [{"points": [[math.nan, 0]]}]):
        with pytest.raises(ValueError, match="must lie between"):
            cloud_from_strokes(bad)
    for bad in ("x", [{"points": "x"}], [{}], [{"points": [[1, 2, 3]]}], [{"points": [[0, 0]], "label": 5}], [7]):
        with pytest.raises(ValueError, match="a drawing is a list of"):
            cloud_from_strokes(bad)
    with pytest.raises(ValueError, match="it may have 20000"):
        cloud_from_strokes([{"points": [[0, 0]] * 20_001}])


# ---- the exact field ----


def test_the_exact_field_of_one_gaussian_has_the_textbook_form():
    schedule = studio().schedule
    mean, width = torch.tensor([[0.3, -0.2]]), 0.5
    x, t = noise(20), torch.tensor([400.0])
    alpha, sigma = schedule.alpha_sigma(t)
    x0 = mean + alpha * width**2 / (alpha**2 * width**2 + sigma**2) * (x - alpha * mean)
    field = ExactField(mean, width, schedule)
    torch.testing.assert_close(field.posterior_mean(x, t), x0)
    torch.testing.assert_close(field(x, t), alpha * (x - alpha * x0) / sigma - sigma * x0)


def test_the_exact_field_is_the_score_of_the_mixture():
    """E[x0 | x_t] = (x_t + sigma^2 grad log p_t(x_t)) / alpha: Tweedie's formula, by automatic differentiation."""
    schedule, means = studio().schedule, torch.tensor([[1.0, 0.0], [-0.5, 0.8], [0.0, -1.0]]).double()
    x, t = noise(10).double().requires_grad_(), torch.tensor([300.0]).double()
    alpha, sigma = schedule.alpha_sigma(t)
    spread = (alpha * 0.2) ** 2 + sigma**2
    log_p = (-((x[:, None] - alpha * means) ** 2).sum(-1) / (2 * spread)).logsumexp(-1)
    (score,) = torch.autograd.grad(log_p.sum(), x)
    expected = (x + sigma**2 * score) / alpha
    torch.testing.assert_close(ExactField(means, 0.2, schedule).posterior_mean(x, t), expected.detach())


@pytest.mark.parametrize(("solver_order", "slope"), [(1, 1), (2, 2), (3, 2)])
def test_trajectories_match_the_analytic_flow_at_the_methods_order(solver_order, slope):
    """Two Gaussians side by side. Along x the flow keeps the share of the mass to the left of a point, so that the
    exact end of a path is found from its start by the distribution functions alone. With three predictions the method,
    kept equal to diffusers', has half of the second derivative that the third order needs, and so stays of the second.
    """
    scheduler, m, h = studio(solver_order=solver_order), 0.8, 0.4
    field = ExactField(torch.tensor([[-m, 0.0], [m, 0.0]]).double(), h, scheduler.schedule)

    def share_left(x, alpha, sigma):
        spread = math.sqrt((alpha * h) ** 2 + sigma**2)
        return sum(0.5 * math.erfc(-(x - alpha * mean) / (spread * math.sqrt(2))) for mean in (-m, m)) / 2

    def error(num_steps: int) -> float:
        lambdas = torch.linspace(-2, 2, num_steps + 1, dtype=torch.float64)
        plan = scheduler.plan(timesteps=scheduler.schedule.time_of(lambdas))
        start = torch.tensor([[-1.1, 0.3], [0.2, 0.0], [0.9, -1.0]]).double()
        xs, _ = reverse_paths(field, plan, start)
        alphas, sigmas = plan.alphas.tolist(), plan.sigmas.tolist()
        worst = 0.0
        for begin, end in zip(start[:, 0].tolist(), xs[num_steps][:, 0].tolist(), strict=True):
            mass, low, high = share_left(begin, alphas[0], sigmas[0]), -5.0, 5.0
            for _ in range(80):
                middle = (low + high) / 2
                low, high = (
                    (middle, high) if share_left(middle, alphas[num_steps], sigmas[num_steps]) < mass else (low, middle)
                )
            worst = max(worst, abs(end - low))
        return worst

    assert math.log2(error(80) / error(160)) == pytest.approx(slope, abs=0.15)


def test_the_exact_field_paints_the_cloud_and_guidance_one_class_of_it():
    made, scheduler = make_cloud("two moons", 500), studio()
    field, plan = ExactField(made.points, made.width, scheduler.schedule, made.labels), scheduler.plan(20)
    xs, x0s = reverse_paths(field, plan, noise(300))
    assert xs.shape == (21, 300, 2) and x0s.shape == (20, 300, 2)
    torch.testing.assert_close(xs[-1], x0s[-1])  # the last prediction is the point
    assert near_share(xs[-1].numpy(), made) > 0.97
    one = type(made)("", made.points[made.labels == 1], made.labels[made.labels == 1])
    painted, _ = reverse_paths(field, plan, noise(300), GuidanceTarget(label=1))
    assert near_share(painted[-1].numpy(), one) > 0.95
    for aim in ({"label": 2}, {"negative_label": "x"}, {"scale": -1.0}, {"scale": math.nan}):
        with pytest.raises(ValueError, match="must be"):
            GuidanceTarget(**aim)
    grid, flow = flow_arrows(field, plan, side=5)
    assert grid.shape == (25, 2) and flow.shape == (20, 25, 2) and flow.isfinite().all()


def test_a_random_walk_into_noise_has_the_closed_forms_moments_at_every_step():
    plan, x0 = studio().plan(10), torch.full((20_000, 2), 0.7)
    walk = forward_paths(plan, x0, torch.Generator().manual_seed(0))
    assert walk.shape == (11, 20_000, 2) and torch.equal(walk[0], x0)
    for x, alpha, sigma in zip(walk, plan.alphas.tolist()[::-1], plan.sigmas.tolist()[::-1], strict=True):
        assert x.mean().item() == pytest.approx(alpha * 0.7, abs=0.02)
        assert x.std().item() == pytest.approx(sigma, abs=0.02)


def test_density_is_that_of_the_cloud_and_at_last_of_noise():
    made, plan = make_cloud("rings", 768), studio().plan(8)
    frames = density(made, plan.alphas.numpy(), plan.sigmas.numpy(), side=32)
    assert frames.shape == (9, 32, 32) and frames.min() >= 0 and frames.max() == 1
    axis = np.linspace(-EXTENT, EXTENT, 32)
    normal = np.exp(-(axis[:, None] ** 2 + axis**2) / 2)
    assert np.abs(frames[0] - normal / normal.max()).max() < 0.03
    assert frames[-1][16, 16] < 0.05  # the hole in the rings


# ---- the network ----


def test_energy_distance_tells_same_from_other():
    a, b = np.random.default_rng(0).standard_normal((2, 800, 2))
    assert abs(energy_distance(a, b)) < 0.01 < 0.1 < energy_distance(a, b + 1)


@pytest.fixture(scope="module")
def trained() -> PointModel:
    toy = PointModel(make_cloud("two moons"))
    assert len(list(toy.train(steps=150))) == 150
    list(toy.train(steps=450))  # training continues
    return toy


def test_a_network_learns_the_shape_within_seconds(trained):
    """600 steps are about two seconds of one core."""
    assert trained.steps == 600 and np.mean(trained.losses[-50:]) < 0.8 * np.mean(trained.losses[:10])
    xs, _ = reverse_paths(trained.velocity, trained.scheduler.plan(20), noise(400))
    assert near_share(xs[-1].numpy(), trained.cloud, 0.2) > 0.9
    assert near_share(noise(400).numpy(), trained.cloud, 0.2) < 0.5
    assert energy_distance(xs[-1].numpy(), trained.cloud.points) < 0.02


def test_its_field_approaches_the_exact_one(trained):
    """Where the points are, at middle noise."""
    exact = ExactField(trained.cloud.points, trained.cloud.width, trained.schedule, trained.cloud.labels)
    untrained = PointModel(trained.cloud, seed=1)
    for time, label in ((300.0, None), (600.0, None), (600.0, 0)):
        t = torch.tensor([time])
        alpha, sigma = trained.schedule.alpha_sigma(t)
        points = trained.cloud.points[trained.cloud.labels == label] if label is not None else trained.cloud.points
        x_t = alpha * torch.from_numpy(points[:400]) + sigma * noise(400)
        truth = exact(x_t, t, label)
        error, before = (
            (toy.velocity(x_t, t, label) - truth).square().mean() / truth.square().mean()
            for toy in (trained, untrained)
        )
        assert error < 0.1 * before


def test_training_can_be_left_and_repeated():
    one, other = PointModel(make_cloud("spiral"), seed=3), PointModel(make_cloud("spiral"), seed=3)
    list(one.train(steps=6))
    list(other.train(steps=2))
    for _ in other.train(steps=100):
        if other.steps == 6:
            break  # a caller may go any time
    assert one.losses == other.losses
    before = torch.get_num_threads()
    list(one.train(seconds=0.0))
    assert one.steps == 6 and torch.get_num_threads() == before
