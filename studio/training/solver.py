"""Fits a solver to a model: the times and coefficients with which few network calls come nearest to what many would.

    python -m studio.training.solver --model assets/model --out assets/model

A Generalized Solver (arXiv 2510.17699) for each number of evaluations and each guidance scale, with coefficients of
its own for what is coarse and a share of the guidance for each call (see tables.py). A long run of DPM-Solver++ says
where each noise leads. Then, for each table: times from a family of spacings, coefficients step by step by least
squares on the solver's own history, and all of them polished by gradient descent through the whole run.
What is nearest on pictures that the fit did not see is kept, and written with the scheduler's config, table by table;
one of the same weights that is not fitted again stays, and one that is goes on from where it was, or from where it was
for the weights of --init. Prompts are of the model's vocabulary.json, or of --prompts.
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
from studio.training.trajectories import (
    ROWS,
    TEACHER_STEPS,
    Painting,
    Problem,
    Solver,
    Trajectory,
    denoised,
    distance,
    formula,
    mixed,
    sample_at,
    solve,
    spaced,
    split_prompts,
    teach,
)

EVALUATIONS = (2, 3, 4, 5, 6, 8, 10)
GUIDANCE = (3.0, 2.0, 1.0, 5.0)  # from the default outward: each begins with the times of the nearest before it
SPACINGS = (0.9, 1.2, 1.5)  # times fall as (1 - i / N) to this power; DPM-Solver++'s trailing spacing is 1
BATCH = 8  # pictures in one step of the polishing
RATE = 0.01  # of the polishing
FURTHER = 0.3  # of that rate, where it goes on from what was fitted before
GUIDING = 10.0  # how much faster than samples the logarithm of guidance is polished
RIDGE = 1e-5  # of the mean square of what is mixed, which keeps the coefficients near DPM-Solver++'s
SEED = 1_000_000  # of the noise that is fitted on; what is measured elsewhere has smaller ones


def least_squares(
    problem: Problem, scheduler: StudioScheduler, path: Trajectory, times: Sequence[float], rows: Sequence[int]
) -> tuple[Solver, list[Tensor]]:
    """Factors that lead from each step's own history nearest to the path at the next time, the last to its end.

    The second result is what turns a step of unit length into factors: it changes the next sample by 1, root mean
    square, in whatever direction it goes.
    """
    plain = formula(scheduler, problem.noise, timesteps=times)
    x, history, found, steps = problem.noise[rows], [], [], []
    for i, (t, prior) in enumerate(zip(plain.times, plain.factors, strict=True)):
        history.insert(0, denoised(problem, scheduler, x, t, rows))
        goal = path.end[rows] if i + 1 == len(times) else sample_at(path, scheduler, plain.times[i + 1], rows)
        kept = [x, *history]
        parts = torch.stack([*kept, *map(smooth_3x3, kept)]).flatten(1).double().cpu()  # (2 (i + 2), P)
        missing = goal.flatten().double().cpu() - prior.flatten().double().cpu() @ parts
        gram = parts @ parts.T / parts.shape[1]
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        better = prior + torch.linalg.solve(gram, parts @ missing / parts.shape[1]).to(prior).view_as(prior)
        values, vectors = torch.linalg.eigh(gram)
        steps.append((vectors * values.rsqrt() @ vectors.T).to(prior))
        found.append(better)
        x = mixed(better, kept)
    return Solver(plain.times, plain.guidance, found), steps


def polish(
    problem: Problem,
    scheduler: StudioScheduler,
    path: Trajectory,
    solver: Solver,
    steps: Sequence[Tensor],
    rows: Sequence[int],
    held: Sequence[int],
    iterations: int,
    rate: float = RATE,
    seed: int = 0,
) -> tuple[Solver, float]:
    """Adam on all numbers of a solver, for the mean distance of the run's end; the best on `held` is kept.

    rate: of the samples (root mean square a step) and of the times (share of the train steps).
    """
    last, rng = len(scheduler.schedule) - 1, random.Random(seed)
    moved, log_share = (torch.zeros_like(solver.times, requires_grad=True) for _ in range(2))
    turned = [torch.zeros_like(factors.flatten(), requires_grad=True) for factors in solver.factors]

    def now() -> Solver:
        factors = [
            old + (step @ turn).view_as(old) for old, step, turn in zip(solver.factors, steps, turned, strict=True)
        ]
        times = (solver.times + last * moved).clamp(0, last)
        return Solver(times, solver.guidance * (GUIDING * log_share).exp(), factors)

    def error(candidate: Solver) -> float:
        return distance(solve(problem, scheduler, candidate, held), path.end[held]).mean().item()

    best, least = solver, error(solver)
    optimizer = torch.optim.Adam([moved, log_share, *turned], lr=rate, betas=(0.8, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, rate / 10)
    waiting: list[int] = []
    for iteration in range(1, iterations + 1):
        if len(waiting) < BATCH:
            waiting = rng.sample(list(rows), len(rows)) + waiting
        batch, waiting = waiting[-BATCH:], waiting[:-BATCH]
        ends = solve(problem, scheduler, now(), batch, all_at_once=True)
        optimizer.zero_grad()
        distance(ends, path.end[batch]).mean().backward()
        optimizer.step()
        schedule.step()
        if iteration % 8 == 0 or iteration == iterations:
            with torch.no_grad():
                candidate = now()
            if (candidate.times.diff() < 0).all() and (found := error(candidate)) < least:
                best, least = candidate, found
    return best, least


@dataclass(frozen=True)
class Fit:
    """A solver, and the mean distance to the converged picture on pictures held back from the fit."""

    solver: Solver
    plain: float  # DPM-Solver++
    begun: float  # times from a spacing, factors by least squares; or what was fitted before
    polished: float


def fit(
    problem: Problem,
    scheduler: StudioScheduler,
    path: Trajectory,
    evaluations: int,
    held: int,
    iterations: int,
    times: Sequence[float] | None = None,
    known: Solver | None = None,
) -> Fit:
    """The best solver of so many evaluations found. The problem's last `held` runs choose, the others are fitted on.

    times: to begin from; None: the best of SPACINGS. known: fitted before, perhaps to other weights; where it is nearer
    than what least squares begin with, it is polished further, slowly.
    """
    everything = range(len(problem.noise))
    rows, kept = everything[:-held], everything[-held:]

    def error(solver: Solver) -> float:
        return distance(solve(problem, scheduler, solver, kept), path.end[kept]).mean().item()

    if times is None:
        few = rows[: 2 * ROWS]
        spacings = [spaced(scheduler, evaluations, power) for power in SPACINGS]
        times = min(spacings, key=lambda tried: error(least_squares(problem, scheduler, path, tried, few)[0]))
    begun, steps = least_squares(problem, scheduler, path, times, rows)
    rate = RATE
    if known is not None and error(known) < error(begun):
        begun, rate = known, FURTHER * RATE
        _, steps = least_squares(problem, scheduler, path, known.times.tolist(), rows)
    plain = formula(scheduler, problem.noise, num_inference_steps=evaluations)
    polished, least = polish(problem, scheduler, path, begun, steps, rows, kept, iterations, rate)
    found = Fit(polished, error(plain), error(begun), least)
    return found if least <= found.plain else Fit(plain, found.plain, found.begun, found.plain)


def fit_pipeline(
    pipe: StudioTextToImagePipeline,
    prompts: Sequence[str],
    evaluations: Sequence[int] = EVALUATIONS,
    guidance: Sequence[float] = GUIDANCE,
    held: int = 16,
    iterations: int = 24,
    known: Sequence[SolverTable] = (),
    teacher_steps: int | None = None,
) -> Iterator[SolverTable]:
    """A pipeline's tables as they are found, fitted on one run of each prompt; the last `held` choose. Prints how it
    goes. known: tables to begin from. teacher_steps: of the long run."""
    scheduler = make_sampler("studio", {**pipe.scheduler.config, "solver_tables": None})
    assert isinstance(scheduler, StudioScheduler)
    pipe.unet.requires_grad_(False)
    tables = list(known)
    print("| evaluations | guidance | DPM-Solver++ | to begin with | polished | ratio | s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for scale in guidance:
        problem = Painting(pipe, prompts, range(SEED, SEED + len(prompts)), scale)
        path = teach(problem, scheduler, teacher_steps)
        for count in evaluations:
            began = time.monotonic()
            near = min(
                (table for table in tables if len(table) == count),
                key=lambda table: abs(math.log(table.guidance_scale / scale)),
                default=None,
            )
            before = Solver.of(near, problem.noise) if near and near.guidance_scale == scale else None
            found = fit(problem, scheduler, path, count, held, iterations, near and near.timesteps, before)
            tables.append(found.solver.table(scale))
            numbers = " | ".join(f"{value:.4f}" for value in (found.plain, found.begun, found.polished))
            ratio, seconds = found.polished / found.plain, time.monotonic() - began
            print(f"| {count} | {scale:g} | {numbers} | {ratio:.2f} | {seconds:.0f} |", flush=True)
            yield tables[-1]


def merged(new: SolverTables, old: SolverTables) -> SolverTables:
    """The new ones, and of the old ones of the same weights those that the new ones do not replace."""
    replaced = {(len(table), table.guidance_scale) for table in new.tables}
    kept = old.tables if old.model == new.model else ()
    tables = [*new.tables, *(table for table in kept if (len(table), table.guidance_scale) not in replaced)]
    return SolverTables(new.model, tuple(sorted(tables, key=lambda table: (len(table), table.guidance_scale))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="assets/model", help="pipeline folder")
    parser.add_argument("--out", type=Path, required=True, help="model folder whose scheduler's config is written")
    parser.add_argument("--init", type=Path, help="model folder whose tables to begin from, such as the one before")
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    parser.add_argument("--guidance", type=float, nargs="+", default=GUIDANCE)
    parser.add_argument("--pictures", type=int, default=64, help="to fit on, those that choose counted")
    parser.add_argument("--held", type=int, default=16, help="of them, to choose by")
    parser.add_argument("--iterations", type=int, default=24, help="of the polishing")
    parser.add_argument("--teacher", type=int, default=TEACHER_STEPS, help="steps of the long run")
    parser.add_argument("--prompts", type=Path, help="a prompt a line, in place of the vocabulary's")
    args = parser.parse_args()
    print(f"python -m studio.training.solver {shlex.join(sys.argv[1:])}\n", flush=True)

    began = time.monotonic()
    pipe = StudioTextToImagePipeline.from_pretrained(args.model)
    pipe = pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    if args.prompts is not None:
        lines = args.prompts.read_text("utf-8").splitlines()
        prompts = [lines[i % len(lines)] for i in range(args.pictures)]
    elif pipe.vocabulary is not None:
        prompts = split_prompts(pipe.vocabulary, args.pictures, SEED, unseen=False)
    else:
        parser.error(f"{args.model} has no vocabulary.json: give --prompts")
    folder = args.out / "scheduler"
    there = (folder / StudioScheduler.config_name).is_file()
    config = (StudioScheduler.from_pretrained(folder) if there else pipe.scheduler).config
    tables = SolverTables.from_config(config.get("solver_tables"))
    model = fingerprint(pipe.unet)
    known = tables.tables if tables.model == model else ()
    if args.init is not None:
        known += StudioScheduler.from_pretrained(args.init, subfolder="scheduler").tables.tables
    sizes = args.evaluations, args.guidance, args.held, args.iterations
    for table in fit_pipeline(pipe, prompts, *sizes, known, args.teacher):
        tables = merged(SolverTables(model, (table,)), tables)
        StudioScheduler.from_config(config, solver_tables=tables.to_config()).save_pretrained(folder)
    print(f"\n{len(tables.tables)} tables for {tables.model} in {folder}, {(time.monotonic() - began) / 60:.1f} min")


if __name__ == "__main__":
    main()
