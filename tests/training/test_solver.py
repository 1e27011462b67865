"""Fitting solvers: on Gaussians, whose solution is known, and on a small pipeline with random weights."""

from __future__ import annotations

import sys

import pytest
import torch

from studio.diffusion.noise_process import velocity
from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.sampling_plan import multistep_update, smooth_3x3
from studio.diffusion.schedulers.solver_tables import SolverTable, SolverTables, fingerprint
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.training.export import save_model
from studio.training.solver import FittingTask, fit_least_squares, fit_solver, main, merge_tables, refine
from studio.training.trajectories import (
    Solver,
    TextToImageProblem,
    dpm_solver,
    fitting_prompts,
    rms_distance,
    sample_at,
    solve,
    solve_reference,
)
from tests.diffusion.conftest import random_pipeline

SCHEDULER = StudioScheduler.from_config(STUDIO_CONFIG)


class Gaussians:
    """x0 ~ N(MEAN, STD^2), one STD a channel, with the exact prediction: E[x0 | x_t] in closed form.

    The probability flow keeps a sample's standard score: x0 = MEAN + STD z for the z of its noise.
    """

    MEAN, STD = 0.3, torch.tensor([0.05, 0.3, 1.5]).view(3, 1, 1)

    def __init__(self, count: int) -> None:
        self.noise = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        self.solution = self.at(torch.tensor(0.0), last=True)

    def at(self, t: torch.Tensor, last: bool = False) -> torch.Tensor:
        """Return the samples at time t."""
        (first_alpha, alpha), (first_sigma, sigma) = SCHEDULER.schedule.alpha_sigma(
            torch.stack([torch.tensor(999.0), t])
        )
        z = (self.noise - first_alpha * self.MEAN) / (first_alpha**2 * self.STD**2 + first_sigma**2).sqrt()
        if last:
            alpha, sigma = 1.0, 0.0
        return alpha * self.MEAN + (alpha**2 * self.STD**2 + sigma**2) ** 0.5 * z

    def predict(self, x_t, t, rows, share=1.0):
        alpha, sigma = SCHEDULER.schedule.alpha_sigma(t)
        gain = alpha * self.STD**2 / (alpha**2 * self.STD**2 + sigma**2)
        x0 = self.MEAN + gain * (x_t - alpha * self.MEAN)
        return velocity(x0, (x_t - alpha * x0) / sigma, alpha, sigma)


@pytest.fixture(scope="module")
def problem() -> Gaussians:
    return Gaussians(48)


def make_task(problem, validation: int, steps: int) -> FittingTask:
    rows = range(len(problem.noise))
    reference = solve_reference(problem, SCHEDULER, steps)
    return FittingTask(problem, SCHEDULER, reference, rows[:-validation], rows[-validation:])


@pytest.fixture(scope="module")
def task(problem) -> FittingTask:
    return make_task(problem, 16, 96)


def test_the_reference_follows_the_flow(problem, task):
    assert rms_distance(task.reference.end, problem.solution).max() < 0.005
    for t in (990.0, 700.3, 451.0, 12.5):
        samples = sample_at(task.reference, SCHEDULER, torch.tensor(t), range(48))
        assert rms_distance(samples, problem.at(torch.tensor(t))).max() < 0.005


def test_dpm_solver_as_a_solver_is_the_schedulers(problem):
    solver, plan = dpm_solver(SCHEDULER, problem.noise, num_inference_steps=6), SCHEDULER.plan(6)
    x, history = problem.noise, []
    for i, t in enumerate(plan.timesteps.float()):
        alpha, sigma = plan.alphas[i].float(), plan.sigmas[i].float()
        x0 = alpha * x - sigma * problem.predict(x, t, range(48))
        history = [x0, *history[:1]]
        x = multistep_update(x, history, float(plan.a[i]), plan.b[i].tolist())
    torch.testing.assert_close(solve(problem, SCHEDULER, solver, range(48)), x, rtol=0, atol=1e-5)
    from_table = SCHEDULER.plan(table=solver.to_table(3.0))
    torch.testing.assert_close(from_table.a, plan.a, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(from_table.b[:, :2], plan.b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("evaluations", [3, 5])
def test_a_fitted_solver_is_nearer_the_solution_than_dpm_solver(problem, task, evaluations):
    fit = fit_solver(task, evaluations, iterations=20)
    assert fit.refined <= fit.initial < 0.5 * fit.baseline
    ends = solve(problem, SCHEDULER, fit.solver, range(32, 48))
    assert rms_distance(ends, task.reference.end[32:]).mean().item() == pytest.approx(fit.refined, rel=1e-4)
    assert rms_distance(ends, problem.solution[32:]).mean() < 0.3 * fit.baseline


def test_a_table_is_refined_further(problem, task):
    first = fit_solver(task, 3, iterations=8)
    known = Solver.from_table(first.solver.to_table(3.0), problem.noise)
    assert known.to_table(3.0) == first.solver.to_table(3.0)
    second = fit_solver(task, 3, iterations=40, known=known)
    assert second.initial == pytest.approx(first.refined, rel=1e-4)
    assert second.refined < second.initial < second.baseline


def test_a_table_that_does_not_help_is_ignored(problem, task):
    wrong = dpm_solver(SCHEDULER, problem.noise, timesteps=[999.0, 998.0, 997.0])
    without, with_wrong = (fit_solver(task, 3, iterations=8, known=known) for known in (None, wrong))
    assert with_wrong.initial == without.initial and with_wrong.refined == without.refined


def test_refining_is_never_worse_than_its_start(task):
    initial, step_matrices = fit_least_squares(task, [999.0, 600.0, 300.0])
    assert [tuple(step.shape) for step in initial.coefficients] == [(2, 2), (2, 3), (2, 4)]
    assert [len(matrix) for matrix in step_matrices] == [4, 6, 8]
    refined, error = refine(task, initial, step_matrices, iterations=20)
    assert error < 0.9 * task.error(initial) and (refined.times.diff() < 0).all()
    same, error = refine(task, initial, step_matrices, iterations=2, learning_rate=10.0)
    assert same is initial and error == pytest.approx(task.error(initial))


class Banded(Gaussians):
    """Smoothed values with one STD a channel, the remainder with a tenth of it: more gains than two calls have
    coefficients. `share` scales the prediction."""

    COARSE = torch.tensor([0.3, 0.6, 1.5]).view(3, 1, 1)

    def predict(self, x_t, t, rows, share=1.0):
        alpha, sigma = SCHEDULER.schedule.alpha_sigma(t)
        coarse = smooth_3x3(x_t)
        gains = (alpha * std**2 / (alpha**2 * std**2 + sigma**2) for std in (self.COARSE, 0.1 * self.COARSE))
        x0 = sum(gain * part for gain, part in zip(gains, (coarse, x_t - coarse), strict=True)) * share
        return velocity(x0, (x_t - alpha * x0) / sigma, alpha, sigma)


def test_coefficients_of_the_smoothed_terms_help(monkeypatch):
    task = make_task(Banded(24), 8, 48)
    with_both = fit_solver(task, 2, iterations=16)
    for module in ("solver", "trajectories"):
        monkeypatch.setattr(f"studio.training.{module}.smooth_3x3", torch.zeros_like)
    without = fit_solver(task, 2, iterations=16)
    assert with_both.refined < 0.8 * without.refined


def test_each_call_has_its_own_guidance():
    task = make_task(Banded(24), 8, 48)
    initial, step_matrices = fit_least_squares(task, [999.0, 500.0])
    refined, error = refine(task, initial, step_matrices, iterations=16)
    assert (initial.guidance == 1).all() and (refined.guidance != 1).all() and (refined.guidance > 0).all()
    assert error < task.error(initial)


def test_the_pipeline_solves_as_the_fit_does():
    pipe, prompts, seeds = random_pipeline(), ["a red apple", "a blue cat"], [4, 7]
    initial = dpm_solver(SCHEDULER, torch.zeros(()), num_inference_steps=3)
    generator = torch.Generator().manual_seed(0)
    coefficients = [step + 0.05 * torch.randn(step.shape, generator=generator) for step in initial.coefficients]
    solver = Solver(initial.times - 3.5, torch.tensor([0.7, 1.1, 0.9]), coefficients)
    problem = TextToImageProblem(pipe, prompts, seeds, 3.0)
    with torch.no_grad():
        ends = solve(problem, SCHEDULER, solver, range(2))
    tables = SolverTables(fingerprint(pipe.unet), (solver.to_table(3.0),)).to_config()
    pipe.scheduler = StudioScheduler.from_config(STUDIO_CONFIG, solver_tables=tables)
    rows = pipe.prepare(prompts, seeds=seeds, num_inference_steps=3, guidance_scale=3.0, size=16)
    while not rows[0].finished:
        pipe.denoise_step(rows)
    torch.testing.assert_close(torch.stack([row.sample for row in rows]), ends, rtol=0, atol=1e-4)


def test_fitting_and_measuring_use_different_prompts():
    vocabulary = {
        "concepts": [{"name": name} for name in ("apple", "cat", "owl", "boat", "house", "kite", "sun")],
        "styles": ["flat", "glossy"],
        "backgrounds": ["white", "blue"],
    }
    fitted, unseen = (set(fitting_prompts(vocabulary, 200, seed=0, held_out=which)) for which in (False, True))
    assert fitted and unseen and not fitted & unseen
    assert "an owl, flat style, on a blue background" in fitted | unseen


def test_tables_of_the_same_weights_stay():
    def table(count: int, scale: float, a: float) -> SolverTable:
        times = tuple(float(t) for t in range(900, 900 - count, -1))
        zeros = (0.0,) * count
        return SolverTable(scale, times, (a,) * count, (zeros,) * count, zeros, (zeros,) * count, (1.0,) * count)

    old = SolverTables("abc", (table(4, 3.0, 0.1), table(5, 3.0, 0.1)))
    new = SolverTables("abc", (table(5, 3.0, 0.2), table(5, 1.0, 0.2)))
    assert merge_tables(new, old).tables == (table(4, 3.0, 0.1), table(5, 1.0, 0.2), table(5, 3.0, 0.2))
    other = SolverTables("def", new.tables)
    assert merge_tables(other, old).tables == (table(5, 1.0, 0.2), table(5, 3.0, 0.2))


def test_the_program_writes_tables_that_the_pipeline_then_uses(tmp_path, monkeypatch, capsys):
    pipe = random_pipeline()
    save_model(pipe, tmp_path / "model")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red apple\na blue cat\n")
    options = ["--model", tmp_path / "model", "--out", tmp_path / "model", "--prompts", prompts, "--pictures", 6]
    options += ["--held", 2, "--iterations", 2, "--evaluations", 3, "--guidance", 1, 3, "--teacher", 8]
    monkeypatch.setattr(sys, "argv", ["solver", *map(str, options)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert "2 tables for" in lines[-1] and len([line for line in lines if line.startswith("| 3 |")]) == 2
    loaded = StudioTextToImagePipeline.from_pretrained(tmp_path / "model")
    assert [table.guidance_scale for table in loaded.scheduler.tables.tables] == [1, 3]
    (row,) = loaded.prepare(["a red apple"], num_inference_steps=3, guidance_scale=2.9, seeds=[1])
    assert row.stage.stepper.times == list(loaded.scheduler.tables.tables[1].timesteps)
    plain = StudioTextToImagePipeline(**{**loaded.components, "scheduler": SCHEDULER})
    assert row.stage.stepper.times != plain.prepare(["a red apple"], num_inference_steps=3)[0].stage.stepper.times
