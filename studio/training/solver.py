"""Fits a solver to a model: the times and coefficients with which few network calls come nearest to what many would.

    python -m studio.training.solver --model assets/model --out assets/model

A Generalized Solver (arXiv 2510.17699) for each number of evaluations and each guidance scale. A long run of
DPM-Solver++ says where each noise leads. Then, for each table: times from a family of spacings, coefficients step by
step by least squares on the solver's own history, and all of them polished by gradient descent through the whole run.
What is nearest on pictures that the fit did not see is kept, and written with the scheduler's config, table by table;
one of the same weights that is not fitted again stays. Prompts are of the model's vocabulary.json, or of --prompts.
"""

from __future__ import annotations

import argparse
import math
import random
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from studio.diffusion.guidance import away_from, guided
from studio.diffusion.pipeline import StudioTextToImagePipeline
from studio.diffusion.process import to_original_and_noise
from studio.diffusion.samplers import make_sampler
from studio.diffusion.scheduler import StudioScheduler
from studio.diffusion.tables import SolverTable, SolverTables, fingerprint
from studio.nouns import with_article, without_style
from studio.training.scenes import default_prompt

EVALUATIONS = (2, 3, 4, 5, 6, 8, 10)
GUIDANCE = (3.0, 2.0, 1.0, 5.0)  # from the default outward: each begins with the times of the nearest before it
SPACINGS = (0.9, 1.2, 1.5)  # times fall as (1 - i / N) to this power; DPM-Solver++'s trailing spacing is 1
TEACHER_STEPS = 48  # of third order: about 0.01 from 160 of them (root mean square, of values in [-1, 1])
TEACHER_SPACING = 1.3  # nearer to those 160 than 1, by a fifth
ROWS = 16  # pictures in one call
BATCH = 8  # pictures in one step of the polishing
RIDGE = 1e-5  # of the mean square of what is mixed, which keeps the coefficients near DPM-Solver++'s
SEED = 1_000_000  # of the noise that is fitted on; what is measured elsewhere has smaller ones


class Problem(Protocol):
    """Runs to fit on: where they start, and the prediction (as the scheduler's config has it) along the way."""

    noise: Tensor  # (B, ...)

    def predict(self, x_t: Tensor, t: Tensor, rows: Sequence[int]) -> Tensor:
        """For samples (len(rows), ...) of those runs at one time (); differentiable in both."""
        ...


class Painting:
    """Text-to-image runs of a pipeline at one guidance scale, the words for the style emphasized by so much or not: a
    table that was fitted without is as near with."""

    def __init__(
        self,
        pipe: StudioTextToImagePipeline,
        prompts: Sequence[str],
        seeds: Iterable[int],
        guidance_scale: float,
        style: float = 0.0,
    ) -> None:
        size, self.unet, self.scale, self.style = pipe.sample_size, pipe.unet, guidance_scale, style
        text, mask = pipe.encode([*prompts, *map(without_style, prompts), ""])
        self.text, self.mask = text.to(pipe.unet.dtype), mask
        drawn = [torch.randn((3, size, size), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.noise = torch.stack(drawn).to(pipe.device)

    def predict(self, x_t: Tensor, t: Tensor, rows: Sequence[int]) -> Tensor:
        words = list(rows)
        if self.scale != 1:
            words += [-1] * len(rows)
            words += [len(self.noise) + row for row in rows] if self.style and self.scale > 1 else []
        x = torch.cat([x_t] * (len(words) // len(rows)))
        given = x.new_zeros(len(x), self.unet.config.in_channels - 3, *x.shape[2:])  # nothing known, nothing small
        sample = torch.cat([x, given], 1).to(self.unet.dtype)
        prediction = self.unet(sample, t.expand(len(x)), self.text[words], self.mask[words]).sample.float()
        if self.scale == 1:
            return prediction
        conditional, *others = prediction.split(len(rows))
        return guided(away_from(conditional, *others, style=self.style), conditional, self.scale)


@dataclass(frozen=True)
class Trajectory:
    """Where a problem's runs lead: samples and x0 predictions at the times of a long run, and its end."""

    times: Tensor  # (M,) decreasing
    samples: Tensor  # (M, B, ...)
    predictions: Tensor  # (M, B, ...)
    end: Tensor  # (B, ...)


@dataclass(frozen=True)
class Solver:
    """times (N,), and of each step the factors (i + 2,) of x_i, x0_i, x0_{i-1} ... x0_0."""

    times: Tensor
    factors: list[Tensor]

    def table(self, guidance_scale: float) -> SolverTable:
        """With seven digits, which is as much as float32 has."""
        count = len(self.times)

        def rounded(values: Tensor) -> list[float]:
            return [float(f"{value:.7g}") for value in values.tolist()]

        numbers = [rounded(step) for step in self.factors]
        b = tuple((*step[1:], *[0.0] * (count - len(step) + 1)) for step in numbers)
        return SolverTable(guidance_scale, tuple(rounded(self.times)), tuple(step[0] for step in numbers), b)


def distance(x: Tensor, y: Tensor) -> Tensor:
    """(B,) root mean square difference."""
    return (x - y).flatten(1).square().mean(1).sqrt()


def split_prompts(vocabulary: dict[str, list], count: int, seed: int, unseen: bool, grounds: bool = True) -> list[str]:
    """Prompts of the vocabulary. One in five concepts is `unseen`: no table is fitted on it.

    grounds: whether they say the ground. Where they do not, a small error can turn the whole picture's colour: such
    pictures are no measure of a solver, and the few that turn would outweigh all others in least squares.
    """
    rng, found = random.Random(seed), []
    while len(found) < count:
        concept = rng.randrange(len(vocabulary["concepts"]))
        if (concept % 5 == 0) == unseen:
            name = with_article(vocabulary["concepts"][concept]["name"])
            style, ground = rng.choice(vocabulary["styles"]), rng.choice(vocabulary["grounds"])
            found.append(default_prompt(name, style, ground if grounds else None))
    return found


# ---- runs ----


def denoised(problem: Problem, scheduler: StudioScheduler, x_t: Tensor, t: Tensor, rows: Sequence[int]) -> Tensor:
    """x0 as predicted for samples (len(rows), ...) at time t ()."""
    alpha, sigma = scheduler.schedule.alpha_sigma(t)
    prediction = problem.predict(x_t, t, rows)
    return to_original_and_noise(prediction, x_t, alpha, sigma, scheduler.config.prediction_type)[0]


@torch.no_grad()
def denoised_all(problem: Problem, scheduler: StudioScheduler, x_t: Tensor, t: Tensor, rows: Sequence[int]) -> Tensor:
    """The same, some at a time and without gradients."""
    parts = [slice(begin, begin + ROWS) for begin in range(0, len(rows), ROWS)]
    return torch.cat([denoised(problem, scheduler, x_t[part], t, rows[part]) for part in parts])


def spaced(scheduler: StudioScheduler, count: int, power: float) -> list[float]:
    """Times that fall from the last train step as (1 - i / count) to a power."""
    return [(len(scheduler.schedule) - 1) * (1 - i / count) ** power for i in range(count)]


def mixed(factors: Tensor, parts: Sequence[Tensor]) -> Tensor:
    return sum(factor * part for factor, part in zip(factors, parts, strict=True))


@torch.no_grad()
def teach(problem: Problem, scheduler: StudioScheduler, num_steps: int | None = None) -> Trajectory:
    """A long run of third order from the problem's noise."""
    scheduler = StudioScheduler.from_config(scheduler.config, solver_order=3)
    times = spaced(scheduler, num_steps or TEACHER_STEPS, TEACHER_SPACING)
    plan, rows = scheduler.plan(timesteps=times), range(len(problem.noise))
    x, samples, predictions = problem.noise, [], []
    for i, t in enumerate(plan.timesteps.to(x)):
        samples.append(x)
        predictions.append(denoised_all(problem, scheduler, x, t, rows))
        history = predictions[::-1][: plan.b.shape[1]]
        x = mixed(torch.cat([plan.a[i : i + 1], plan.b[i, : len(history)]]).to(x), [x, *history])
    return Trajectory(plan.timesteps.to(x), torch.stack(samples), torch.stack(predictions), x)


def sample_at(path: Trajectory, scheduler: StudioScheduler, t: Tensor, rows: Sequence[int]) -> Tensor:
    """The path's samples at any time: a step of second order from the path's last time before it."""
    k = max(int((path.times >= t).sum()) - 1, 0)
    x0 = path.predictions[k, rows]
    if k + 1 < len(path.times):
        share = (path.times[k] - t) / (path.times[k] - path.times[k + 1])
        x0 = torch.lerp(x0, path.predictions[k + 1, rows], share / 2)
    (alpha_k, alpha), (sigma_k, sigma) = scheduler.schedule.alpha_sigma(torch.stack([path.times[k], t]))
    ratio = sigma / sigma_k
    return ratio * path.samples[k, rows] + (alpha - ratio * alpha_k) * x0


def solve(problem: Problem, scheduler: StudioScheduler, solver: Solver, rows: Sequence[int], all_at_once: bool = False):
    """The pictures (len(rows), ...) that a solver makes; with gradients if all at once."""
    predict = denoised if all_at_once else denoised_all
    x, history = problem.noise[rows], []
    for t, factors in zip(solver.times, solver.factors, strict=True):
        history.insert(0, predict(problem, scheduler, x, t, rows))
        x = mixed(factors, [x, *history])
    return x


# ---- the fit ----


def formula(scheduler: StudioScheduler, like: Tensor, **given: Any) -> Solver:
    """DPM-Solver++ as the scheduler has it: `num_inference_steps` or `timesteps`."""
    plan = scheduler.plan(**given)
    depth = plan.b.shape[1]
    factors = [torch.zeros(i + 2, dtype=torch.float64) for i in range(len(plan))]
    for i, step in enumerate(factors):
        step[0] = plan.a[i]
        step[1 : 1 + depth] = plan.b[i, : min(depth, i + 1)]
    return Solver(plan.timesteps.to(like), [step.to(like) for step in factors])


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
        history.insert(0, denoised_all(problem, scheduler, x, t, rows))
        goal = path.end[rows] if i + 1 == len(times) else sample_at(path, scheduler, plain.times[i + 1], rows)
        parts = torch.stack([x, *history]).flatten(1).double().cpu()  # (i + 2, P)
        missing = goal.flatten().double().cpu() - prior.double().cpu() @ parts
        gram = parts @ parts.T / parts.shape[1]
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        better = prior + torch.linalg.solve(gram, parts @ missing / parts.shape[1]).to(prior)
        values, vectors = torch.linalg.eigh(gram)
        steps.append((vectors * values.rsqrt() @ vectors.T).to(prior))
        found.append(better)
        x = mixed(better, [x, *history])
    return Solver(plain.times, found), steps


def polish(
    problem: Problem,
    scheduler: StudioScheduler,
    path: Trajectory,
    solver: Solver,
    steps: Sequence[Tensor],
    rows: Sequence[int],
    held: Sequence[int],
    iterations: int,
    rate: float = 0.01,
    seed: int = 0,
) -> tuple[Solver, float]:
    """Adam on the times and factors of the whole run, for the mean distance of its end; the best on `held` is kept.

    rate: of the samples (root mean square a step) and of the times (share of the train steps).
    """
    last, rng = len(scheduler.schedule) - 1, random.Random(seed)
    moved = torch.zeros_like(solver.times, requires_grad=True)
    turned = [torch.zeros_like(factors, requires_grad=True) for factors in solver.factors]

    def now() -> Solver:
        factors = [old + step @ turn for old, step, turn in zip(solver.factors, steps, turned, strict=True)]
        return Solver((solver.times + last * moved).clamp(0, last), factors)

    def error(candidate: Solver) -> float:
        return distance(solve(problem, scheduler, candidate, held), path.end[held]).mean().item()

    best, least = solver, error(solver)
    optimizer = torch.optim.Adam([moved, *turned], lr=rate, betas=(0.8, 0.95))
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
    squares: float  # times from a spacing, factors by least squares
    polished: float


def fit(
    problem: Problem,
    scheduler: StudioScheduler,
    path: Trajectory,
    evaluations: int,
    held: int,
    iterations: int,
    times: Sequence[float] | None = None,
) -> Fit:
    """The best solver of so many evaluations found. The problem's last `held` runs choose, the others are fitted on.

    times: to begin from; None: the best of SPACINGS.
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
    plain = formula(scheduler, problem.noise, num_inference_steps=evaluations)
    polished, least = polish(problem, scheduler, path, begun, steps, rows, kept, iterations)
    found = Fit(polished, error(plain), error(begun), least)
    return found if least <= found.plain else Fit(plain, found.plain, found.squares, found.plain)


def fit_pipeline(
    pipe: StudioTextToImagePipeline,
    prompts: Sequence[str],
    evaluations: Sequence[int] = EVALUATIONS,
    guidance: Sequence[float] = GUIDANCE,
    held: int = 16,
    iterations: int = 24,
) -> Iterator[SolverTable]:
    """A pipeline's tables as they are found, fitted on one run of each prompt; the last `held` choose. Prints how it
    goes."""
    scheduler = make_sampler("studio", {**pipe.scheduler.config, "solver_tables": None})
    assert isinstance(scheduler, StudioScheduler)
    pipe.unet.requires_grad_(False)
    tables: list[SolverTable] = []
    print("| evaluations | guidance | DPM-Solver++ | least squares | polished | ratio | s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for scale in guidance:
        problem = Painting(pipe, prompts, range(SEED, SEED + len(prompts)), scale)
        path = teach(problem, scheduler)
        for count in evaluations:
            began = time.monotonic()
            near = min(
                (table for table in tables if len(table) == count),
                key=lambda table: abs(math.log(table.guidance_scale / scale)),
                default=None,
            )
            found = fit(problem, scheduler, path, count, held, iterations, near and near.timesteps)
            tables.append(found.solver.table(scale))
            numbers = " | ".join(f"{value:.4f}" for value in (found.plain, found.squares, found.polished))
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
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    parser.add_argument("--guidance", type=float, nargs="+", default=GUIDANCE)
    parser.add_argument("--pictures", type=int, default=64, help="to fit on, those that choose counted")
    parser.add_argument("--held", type=int, default=16, help="of them, to choose by")
    parser.add_argument("--iterations", type=int, default=24, help="of the polishing")
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
    for table in fit_pipeline(pipe, prompts, args.evaluations, args.guidance, args.held, args.iterations):
        tables = merged(SolverTables(fingerprint(pipe.unet), (table,)), tables)
        StudioScheduler.from_config(config, solver_tables=tables.to_config()).save_pretrained(folder)
    print(f"\n{len(tables.tables)} tables for {tables.model} in {folder}, {(time.monotonic() - began) / 60:.1f} min")


if __name__ == "__main__":
    main()
