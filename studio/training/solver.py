"""Fit few-step solvers to a model: times and coefficients that come closest to a run of many network calls.

    python -m studio.training.solver --model assets/model --out assets/model

Fits a Generalized Solver (arXiv 2510.17699) for each number of evaluations and guidance scale, with coefficients for
the smoothed terms and a share of the guidance for each call (see `SolverTable`). The reference is a long run of
DPM-Solver++ from the same noise. Each fit chooses times from a family of spacings, solves for the coefficients by least
squares, then refines all numbers by gradient descent through the whole run. The best on validation pictures is written
into the scheduler's config, table by table. Tables of the same weights that are not fitted again stay. Those that are
continue from their present values, or from those of --init. Prompts come from the model's vocabulary.json or --prompts.
"""

from __future__ import annotations

import argparse
import math
import random
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.samplers import make_sampler
from studio.diffusion.schedulers.sampling_plan import smooth_3x3
from studio.diffusion.schedulers.solver_tables import SolverTable, SolverTables, fingerprint
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.training.loading import load_scheduler, make_scheduler
from studio.training.trajectories import (
    BATCH_SIZE,
    REFERENCE_STEPS,
    Problem,
    Solver,
    TextToImageProblem,
    Trajectory,
    combine,
    dpm_solver,
    fitting_prompts,
    power_spacing,
    predict_x0,
    rms_distance,
    sample_at,
    solve,
    solve_reference,
)

EVALUATIONS = (2, 3, 4, 5, 6, 8, 10)
GUIDANCE = (3.0, 2.0, 1.0, 5.0)  # each begins with the times of the nearest scale before it
SPACINGS = (0.9, 1.2, 1.5)  # powers to try; 1 is DPM-Solver++'s trailing spacing
REFINING_BATCH = 8  # pictures in one update
LEARNING_RATE = 0.01
CONTINUED_RATE = 0.3 * LEARNING_RATE  # where the fit continues from an earlier table
GUIDANCE_RATE = 10.0  # factor: the logarithm of guidance learns that much faster than samples
RIDGE = 1e-5  # of the mean square of the terms: keeps the coefficients near DPM-Solver++'s
CHECK_EVERY = 8  # updates
SEED = 1_000_000  # of the noise; benchmarks and evaluations use smaller seeds


@dataclass(frozen=True)
class FitOptions:
    """How a solver is fitted."""

    validation: int = 16  # pictures to choose by: the last ones
    iterations: int = 24  # updates of the refinement


@dataclass(frozen=True)
class Fit:
    """A solver, and mean distances to the reference on the validation pictures."""

    solver: Solver
    baseline: float  # of DPM-Solver++
    initial: float  # of least squares, or of the earlier table
    refined: float


@dataclass(frozen=True)
class FittingTask:
    """What a solver is fitted to: trajectories, split into training rows and validation rows."""

    problem: Problem
    scheduler: StudioScheduler
    reference: Trajectory
    rows: Sequence[int]
    validation_rows: Sequence[int]

    def error(self, solver: Solver) -> float:
        """Return the mean distance to the reference on the validation rows."""
        ends = solve(self.problem, self.scheduler, solver, self.validation_rows)
        return rms_distance(ends, self.reference.end[self.validation_rows]).mean().item()


def fit_least_squares(
    task: FittingTask, times: Sequence[float], rows: Sequence[int] | None = None
) -> tuple[Solver, list[Tensor]]:
    """Solve for the coefficients of each step, from the solver's own history towards the reference at the next time.

    Returns:
        The solver, and a matrix for each step that turns a step of unit length into a change of the coefficients. The
        change moves the next sample by 1 (root mean square), whatever its direction.
    """
    problem, scheduler, rows = task.problem, task.scheduler, task.rows if rows is None else rows
    initial = dpm_solver(scheduler, problem.noise, timesteps=times)
    x, history, fitted, step_matrices = problem.noise[rows], [], [], []
    for i, (t, prior) in enumerate(zip(initial.times, initial.coefficients, strict=True)):
        history.insert(0, predict_x0(problem, scheduler, x, t, rows))
        is_last = i + 1 == len(times)
        goal = task.reference.end[rows] if is_last else sample_at(task.reference, scheduler, initial.times[i + 1], rows)
        terms = [x, *history]
        parts = torch.stack([*terms, *map(smooth_3x3, terms)]).flatten(1).double().cpu()  # (2 (i + 2), P)
        residual = goal.flatten().double().cpu() - prior.flatten().double().cpu() @ parts
        gram = parts @ parts.T / parts.shape[1]
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        coefficients = prior + torch.linalg.solve(gram, parts @ residual / parts.shape[1]).to(prior).view_as(prior)
        values, vectors = torch.linalg.eigh(gram)
        step_matrices.append((vectors * values.rsqrt() @ vectors.T).to(prior))
        fitted.append(coefficients)
        x = combine(coefficients, terms)
    return Solver(initial.times, initial.guidance, fitted), step_matrices


def refine(
    task: FittingTask,
    solver: Solver,
    step_matrices: Sequence[Tensor],
    iterations: int,
    *,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
) -> tuple[Solver, float]:
    """Minimize the mean distance at the run's end by Adam on all numbers of a solver.

    learning_rate: of the samples (root mean square a step) and of the times (share of the train steps).

    Returns:
        The solver with the least error on the validation rows, never worse than the given one, and that error.
    """
    last, rng = len(task.scheduler.schedule) - 1, random.Random(seed)
    time_shifts, log_shares = (torch.zeros_like(solver.times, requires_grad=True) for _ in range(2))
    changes = [torch.zeros_like(step.flatten(), requires_grad=True) for step in solver.coefficients]

    def current() -> Solver:
        coefficients = [
            step + (matrix @ change).view_as(step)
            for step, matrix, change in zip(solver.coefficients, step_matrices, changes, strict=True)
        ]
        times = (solver.times + last * time_shifts).clamp(0, last)
        return Solver(times, solver.guidance * (GUIDANCE_RATE * log_shares).exp(), coefficients)

    best, least_error = solver, task.error(solver)
    optimizer = torch.optim.Adam([time_shifts, log_shares, *changes], lr=learning_rate, betas=(0.8, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, learning_rate / 10)
    queue: list[int] = []
    for iteration in range(1, iterations + 1):
        if len(queue) < REFINING_BATCH:
            queue = rng.sample(list(task.rows), len(task.rows)) + queue
        batch, queue = queue[-REFINING_BATCH:], queue[:-REFINING_BATCH]
        ends = solve(task.problem, task.scheduler, current(), batch, with_gradients=True)
        optimizer.zero_grad()
        rms_distance(ends, task.reference.end[batch]).mean().backward()
        optimizer.step()
        schedule.step()
        if iteration % CHECK_EVERY == 0 or iteration == iterations:
            with torch.no_grad():
                candidate = current()
            if (candidate.times.diff() < 0).all() and (error := task.error(candidate)) < least_error:
                best, least_error = candidate, error
    return best, least_error


def fit_solver(
    task: FittingTask,
    evaluations: int,
    iterations: int,
    *,
    times: Sequence[float] | None = None,
    known: Solver | None = None,
) -> Fit:
    """Return the best solver of so many evaluations; DPM-Solver++ itself where nothing is better.

    Args:
        times: to begin with; by default the best of SPACINGS.
        known: an earlier solver, perhaps for other weights. Where it is better than least squares, it is refined
            further at CONTINUED_RATE.
    """
    if times is None:
        few = task.rows[: 2 * BATCH_SIZE]
        spacings = [power_spacing(task.scheduler, evaluations, power) for power in SPACINGS]
        times = min(spacings, key=lambda spacing: task.error(fit_least_squares(task, spacing, few)[0]))
    initial, step_matrices = fit_least_squares(task, times)
    learning_rate = LEARNING_RATE
    if known is not None and task.error(known) < task.error(initial):
        initial, learning_rate = known, CONTINUED_RATE
        _, step_matrices = fit_least_squares(task, known.times.tolist())
    baseline = dpm_solver(task.scheduler, task.problem.noise, num_inference_steps=evaluations)
    baseline_error = task.error(baseline)
    refined, error = refine(task, initial, step_matrices, iterations, learning_rate=learning_rate)
    if error > baseline_error:
        return Fit(baseline, baseline_error, task.error(initial), baseline_error)
    return Fit(refined, baseline_error, task.error(initial), error)


def fit_pipeline(
    pipe: StudioTextToImagePipeline,
    prompts: Sequence[str],
    evaluations: Sequence[int] = EVALUATIONS,
    guidance: Sequence[float] = GUIDANCE,
    *,
    options: FitOptions = FitOptions(),  # noqa: B008  frozen
    known: Sequence[SolverTable] = (),
    reference_steps: int | None = None,
) -> Iterator[SolverTable]:
    """Yield a pipeline's tables as they are fitted, on one picture of each prompt; print a line for each.

    Args:
        known: earlier tables to begin with.
        reference_steps: of the long run; default: REFERENCE_STEPS.
    """
    scheduler = make_sampler("studio", {**pipe.scheduler.config, "solver_tables": None})
    assert isinstance(scheduler, StudioScheduler)
    pipe.unet.requires_grad_(False)
    tables = list(known)
    rows = range(len(prompts))
    print("| evaluations | guidance | DPM-Solver++ | initial | refined | ratio | s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for scale in guidance:
        problem = TextToImageProblem(pipe, prompts, range(SEED, SEED + len(prompts)), scale)
        reference = solve_reference(problem, scheduler, reference_steps)
        split = rows[: -options.validation], rows[-options.validation :]
        task = FittingTask(problem, scheduler, reference, *split)
        for count in evaluations:
            start = time.monotonic()
            nearest = min(
                (table for table in tables if len(table) == count),
                key=lambda table: abs(math.log(table.guidance_scale / scale)),
                default=None,
            )
            earlier = None
            if nearest is not None and nearest.guidance_scale == scale:
                earlier = Solver.from_table(nearest, problem.noise)
            times = None if nearest is None else nearest.timesteps
            fit = fit_solver(task, count, options.iterations, times=times, known=earlier)
            tables.append(fit.solver.to_table(scale))
            numbers = " | ".join(f"{value:.4f}" for value in (fit.baseline, fit.initial, fit.refined))
            ratio, seconds = fit.refined / fit.baseline, time.monotonic() - start
            print(f"| {count} | {scale:g} | {numbers} | {ratio:.2f} | {seconds:.0f} |", flush=True)
            yield tables[-1]


def merge_tables(new: SolverTables, old: SolverTables) -> SolverTables:
    """Return the new tables with the old ones of the same weights that they do not replace."""
    replaced = {(len(table), table.guidance_scale) for table in new.tables}
    kept = old.tables if old.model == new.model else ()
    tables = [*new.tables, *(table for table in kept if (len(table), table.guidance_scale) not in replaced)]
    return SolverTables(new.model, tuple(sorted(tables, key=lambda table: (len(table), table.guidance_scale))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="assets/model", help="pipeline folder")
    parser.add_argument("--out", type=Path, required=True, help="model folder whose scheduler config is written")
    parser.add_argument("--init", type=Path, help="model folder whose tables to begin with, such as the earlier one")
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    parser.add_argument("--guidance", type=float, nargs="+", default=GUIDANCE)
    parser.add_argument("--pictures", type=int, default=64, help="to fit to, those for validation included")
    parser.add_argument("--validation", "--held", type=int, default=FitOptions.validation, help="of the pictures")
    parser.add_argument("--iterations", type=int, default=FitOptions.iterations, help="of the refinement")
    parser.add_argument(
        "--reference-steps", "--teacher", type=int, default=REFERENCE_STEPS, help="steps of the long run"
    )
    parser.add_argument("--prompts", type=Path, help="file with a prompt a line, instead of the vocabulary's")
    args = parser.parse_args()
    print(f"python -m studio.training.solver {shlex.join(sys.argv[1:])}\n", flush=True)

    start = time.monotonic()
    pipe = StudioTextToImagePipeline.from_pretrained(args.model)
    pipe = pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    if args.prompts is not None:
        lines = args.prompts.read_text("utf-8").splitlines()
        prompts = [lines[i % len(lines)] for i in range(args.pictures)]
    elif pipe.vocabulary is not None:
        prompts = fitting_prompts(pipe.vocabulary, args.pictures, SEED, held_out=False)
    else:
        parser.error(f"{args.model} has no vocabulary.json: give --prompts")
    folder = args.out / "scheduler"
    has_config = (folder / StudioScheduler.config_name).is_file()
    config = (load_scheduler(args.out) if has_config else pipe.scheduler).config
    tables = SolverTables.from_config(config.get("solver_tables"))
    model = fingerprint(pipe.unet)
    known = tables.tables if tables.model == model else ()
    if args.init is not None:
        known += load_scheduler(args.init).tables.tables
    fitted = fit_pipeline(
        pipe,
        prompts,
        args.evaluations,
        args.guidance,
        options=FitOptions(args.validation, args.iterations),
        known=known,
        reference_steps=args.reference_steps,
    )
    for table in fitted:
        tables = merge_tables(SolverTables(model, (table,)), tables)
        make_scheduler(config, solver_tables=tables.to_config()).save_pretrained(folder)
    print(f"\n{len(tables.tables)} tables for {tables.model} in {folder}, {(time.monotonic() - start) / 60:.1f} min")


if __name__ == "__main__":
    main()
