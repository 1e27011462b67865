"""The fitting: on Gaussians, where the answer is known, and on a small pipeline with random weights."""

from __future__ import annotations

import sys

import pytest
import torch

from studio.diffusion.noise_process import velocity
from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.sampling_plan import multistep_update, smooth_3x3
from studio.diffusion.schedulers.solver_tables import SolverTable, SolverTables, fingerprint
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.training.export import save
from studio.training.solver import fit, least_squares, main, merged, polish
from studio.training.trajectories import Painting, Solver, distance, formula, sample_at, solve, split_prompts, teach
from tests.diffusion.conftest import random_pipeline

SCHEDULER = StudioScheduler.from_config(STUDIO_CONFIG)


class Gaussians:
    """x0 ~ N(MEAN, STD^2), one STD a channel, with the exact prediction: E[x0 | x_t] in closed form.

    The probability flow keeps a picture's standard score, so that x0 = MEAN + STD z for the z of its noise.
    """

    MEAN, STD = 0.3, torch.tensor([0.05, 0.3, 1.5]).view(3, 1, 1)

    def __init__(self, count: int) -> None:
        self.noise = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        self.answer = self.at(torch.tensor(0.0), last=True)

    def at(self, t: torch.Tensor, last: bool = False) -> torch.Tensor:
        """Where the flow is at time t."""
        (begin, alpha), (above, sigma) = SCHEDULER.schedule.alpha_sigma(torch.stack([torch.tensor(999.0), t]))
        z = (self.noise - begin * self.MEAN) / (begin**2 * self.STD**2 + above**2).sqrt()
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


@pytest.fixture(scope="module")
def path(problem):
    return teach(problem, SCHEDULER, 96)


def test_the_long_run_follows_the_flow(problem, path):
    assert distance(path.end, problem.answer).max() < 0.005
    for t in (990.0, 700.3, 451.0, 12.5):
        there = sample_at(path, SCHEDULER, torch.tensor(t), range(48))
        assert distance(there, problem.at(torch.tensor(t))).max() < 0.005


def test_the_formula_as_a_solver_is_dpm_solver_pp(problem):
    solver, plan = formula(SCHEDULER, problem.noise, num_inference_steps=6), SCHEDULER.plan(6)
    x, history = problem.noise, []
    for i, t in enumerate(plan.timesteps.float()):
        alpha, sigma = plan.alphas[i].float(), plan.sigmas[i].float()
        x0 = alpha * x - sigma * problem.predict(x, t, range(48))
        history = [x0, *history[:1]]
        x = multistep_update(x, history, float(plan.a[i]), plan.b[i].tolist())
    torch.testing.assert_close(solve(problem, SCHEDULER, solver, range(48)), x, rtol=0, atol=1e-5)
    again = SCHEDULER.plan(table=solver.table(3.0))
    torch.testing.assert_close(again.a, plan.a, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(again.b[:, :2], plan.b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("evaluations", [3, 5])
def test_a_fitted_solver_comes_nearer_the_answer_than_dpm_solver_pp(problem, path, evaluations):
    found = fit(problem, SCHEDULER, path, evaluations, held=16, iterations=20)
    assert found.polished <= found.begun < 0.5 * found.plain
    ends = solve(problem, SCHEDULER, found.solver, range(32, 48))
    assert distance(ends, path.end[32:]).mean().item() == pytest.approx(found.polished, rel=1e-4)
    assert distance(ends, problem.answer[32:]).mean() < 0.3 * found.plain


def test_a_table_goes_on_from_where_it_was(problem, path):
    once = fit(problem, SCHEDULER, path, 3, held=16, iterations=8)
    before = Solver.of(once.solver.table(3.0), problem.noise)
    assert before.table(3.0) == once.solver.table(3.0)
    again = fit(problem, SCHEDULER, path, 3, held=16, iterations=40, known=before)
    assert again.begun == pytest.approx(once.polished, rel=1e-4)
    assert again.polished < again.begun < again.plain


def test_a_table_of_other_weights_is_gone_on_from_only_where_it_helps(problem, path):
    wrong = formula(SCHEDULER, problem.noise, timesteps=[999.0, 998.0, 997.0])
    fresh, begun = (fit(problem, SCHEDULER, path, 3, held=16, iterations=8, known=known) for known in (None, wrong))
    assert begun.begun == fresh.begun and begun.polished == fresh.polished


def test_polishing_by_itself_helps(problem, path):
    """Of the least squares as they are, or from the formula: never worse than where it begins."""
    few = [999.0, 600.0, 300.0]
    begun, steps = least_squares(problem, SCHEDULER, path, few, range(32))
    assert [tuple(factors.shape) for factors in begun.factors] == [(2, 2), (2, 3), (2, 4)]
    assert [len(step) for step in steps] == [4, 6, 8]
    kept, least = polish(problem, SCHEDULER, path, begun, steps, range(32), range(32, 48), iterations=20)
    before = distance(solve(problem, SCHEDULER, begun, range(32, 48)), path.end[32:]).mean().item()
    assert least < 0.9 * before and (kept.times.diff() < 0).all()
    same, least = polish(problem, SCHEDULER, path, begun, steps, range(32), range(32, 48), iterations=2, rate=10.0)
    assert same is begun and least == pytest.approx(before)


class Banded(Gaussians):
    """What is smooth with an STD a channel, what differs from it with a tenth of that: more gains than two calls have
    coefficients. share makes predictions bolder."""

    COARSE = torch.tensor([0.3, 0.6, 1.5]).view(3, 1, 1)

    def predict(self, x_t, t, rows, share=1.0):
        alpha, sigma = SCHEDULER.schedule.alpha_sigma(t)
        coarse = smooth_3x3(x_t)
        gains = (alpha * std**2 / (alpha**2 * std**2 + sigma**2) for std in (self.COARSE, 0.1 * self.COARSE))
        x0 = sum(gain * part for gain, part in zip(gains, (coarse, x_t - coarse), strict=True)) * share
        return velocity(x0, (x_t - alpha * x0) / sigma, alpha, sigma)


def test_what_is_coarse_has_coefficients_of_its_own(monkeypatch):
    problem = Banded(24)
    path = teach(problem, SCHEDULER, 48)
    with_both = fit(problem, SCHEDULER, path, 2, held=8, iterations=16)
    for module in ("solver", "trajectories"):
        monkeypatch.setattr(f"studio.training.{module}.smooth_3x3", torch.zeros_like)
    without = fit(problem, SCHEDULER, path, 2, held=8, iterations=16)
    assert with_both.polished < 0.8 * without.polished


def test_each_call_finds_a_guidance_of_its_own():
    problem = Banded(24)
    path = teach(problem, SCHEDULER, 48)
    begun, steps = least_squares(problem, SCHEDULER, path, [999.0, 500.0], range(16))
    kept, least = polish(problem, SCHEDULER, path, begun, steps, range(16), range(16, 24), iterations=16)
    assert (begun.guidance == 1).all() and (kept.guidance != 1).all() and (kept.guidance > 0).all()
    assert least < distance(solve(problem, SCHEDULER, begun, range(16, 24)), path.end[16:]).mean()


def test_the_pipeline_paints_what_the_fit_has_solved():
    pipe, prompts, seeds = random_pipeline(), ["a red apple", "a blue cat"], [4, 7]
    plain = formula(SCHEDULER, torch.zeros(()), num_inference_steps=3)
    generator = torch.Generator().manual_seed(0)
    factors = [step + 0.05 * torch.randn(step.shape, generator=generator) for step in plain.factors]
    solver = Solver(plain.times - 3.5, torch.tensor([0.7, 1.1, 0.9]), factors)
    problem = Painting(pipe, prompts, seeds, 3.0)
    with torch.no_grad():
        ends = solve(problem, SCHEDULER, solver, range(2))
    tables = SolverTables(fingerprint(pipe.unet), (solver.table(3.0),)).to_config()
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
    fitted, unseen = (set(split_prompts(vocabulary, 200, seed=0, unseen=which)) for which in (False, True))
    assert fitted and unseen and not fitted & unseen
    assert "an owl, flat style, on a blue background" in fitted | unseen


def test_tables_of_the_same_weights_stay():
    def table(count: int, scale: float, a: float) -> SolverTable:
        times = tuple(float(t) for t in range(900, 900 - count, -1))
        nothing = (0.0,) * count
        return SolverTable(scale, times, (a,) * count, (nothing,) * count, nothing, (nothing,) * count, (1.0,) * count)

    old = SolverTables("abc", (table(4, 3.0, 0.1), table(5, 3.0, 0.1)))
    new = SolverTables("abc", (table(5, 3.0, 0.2), table(5, 1.0, 0.2)))
    assert merged(new, old).tables == (table(4, 3.0, 0.1), table(5, 1.0, 0.2), table(5, 3.0, 0.2))
    other = SolverTables("def", new.tables)
    assert merged(other, old).tables == (table(5, 1.0, 0.2), table(5, 3.0, 0.2))


def test_the_program_writes_tables_that_the_pipeline_then_uses(tmp_path, monkeypatch, capsys):
    pipe = random_pipeline()
    save(pipe, tmp_path / "model")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red apple\na blue cat\n")
    given = ["--model", tmp_path / "model", "--out", tmp_path / "model", "--prompts", prompts, "--pictures", 6]
    given += ["--held", 2, "--iterations", 2, "--evaluations", 3, "--guidance", 1, 3, "--teacher", 8]
    monkeypatch.setattr(sys, "argv", ["solver", *map(str, given)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert "2 tables for" in lines[-1] and len([line for line in lines if line.startswith("| 3 |")]) == 2
    loaded = StudioTextToImagePipeline.from_pretrained(tmp_path / "model")
    assert [table.guidance_scale for table in loaded.scheduler.tables.tables] == [1, 3]
    (row,) = loaded.prepare(["a red apple"], num_inference_steps=3, guidance_scale=2.9, seeds=[1])
    assert row.stage.stepper.times == list(loaded.scheduler.tables.tables[1].timesteps)
    plain = StudioTextToImagePipeline(**{**loaded.components, "scheduler": SCHEDULER})
    assert row.stage.stepper.times != plain.prepare(["a red apple"], num_inference_steps=3)[0].stage.stepper.times
