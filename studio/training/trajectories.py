"""Runs that a solver is fitted on, and measured on: pictures from one noise by few calls of the network, and by many.

Knows a problem by its noise and what is predicted along the way; knows nothing of how a solver is found (solver.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from studio.diffusion.guidance import apply_guidance, guidance_baseline
from studio.diffusion.noise_process import to_original_and_noise
from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.sampling_plan import smooth_3x3
from studio.diffusion.schedulers.solver_tables import SolverTable
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.prompts.nouns import with_article, without_style
from studio.training.data.scenes import default_prompt

TEACHER_STEPS = 48  # of third order: about 0.01 from 160 of them (root mean square, of values in [-1, 1])
TEACHER_SPACING = 1.3  # nearer to those 160 than 1, by a fifth
ROWS = 16  # pictures in one call


class Problem(Protocol):
    """Runs to fit on: where they start, and the prediction (as the scheduler's config has it) along the way."""

    noise: Tensor  # (B, ...)

    def predict(self, x_t: Tensor, t: Tensor, rows: Sequence[int], share: Tensor | float = 1.0) -> Tensor:
        """For samples (len(rows), ...) of those runs at one time (), guided by this share; differentiable in all."""
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

    def predict(self, x_t: Tensor, t: Tensor, rows: Sequence[int], share: Tensor | float = 1.0) -> Tensor:
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
        return apply_guidance(
            guidance_baseline(conditional, *others, style=self.style), conditional, 1 + (self.scale - 1) * share
        )


@dataclass(frozen=True)
class Trajectory:
    """Where a problem's runs lead: samples and x0 predictions at the times of a long run, and its end."""

    times: Tensor  # (M,) decreasing
    samples: Tensor  # (M, B, ...)
    predictions: Tensor  # (M, B, ...)
    end: Tensor  # (B, ...)


@dataclass(frozen=True)
class Solver:
    """times (N,), guidance's share (N,), and of each step the factors (2, i + 2) of x_i, x0_i, x0_{i-1} ... x0_0 and
    of the same, smoothed."""

    times: Tensor
    guidance: Tensor
    factors: list[Tensor]

    @classmethod
    def of(cls, table: SolverTable, like: Tensor) -> Solver:
        """A table's, where and in what precision another tensor is."""
        fine, coarse = (zip(*part, strict=True) for part in ((table.a, table.b), (table.coarse_a, table.coarse_b)))
        factors = [
            torch.tensor([[a, *b[: i + 1]] for a, b in pair]).to(like)
            for i, pair in enumerate(zip(fine, coarse, strict=True))
        ]
        return cls(*(torch.tensor(column).to(like) for column in (table.timesteps, table.guidance)), factors)

    def table(self, guidance_scale: float) -> SolverTable:
        """With seven digits, which is as much as float32 has."""
        count = len(self.times)

        def rounded(values: Tensor) -> list[float]:
            return [float(f"{value:.7g}") for value in values.tolist()]

        def columns(which: int) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
            numbers = [rounded(step[which]) for step in self.factors]
            b = tuple((*step[1:], *[0.0] * (count - len(step) + 1)) for step in numbers)
            return tuple(step[0] for step in numbers), b

        times, guidance = (tuple(rounded(values)) for values in (self.times, self.guidance))
        return SolverTable(guidance_scale, times, *columns(0), *columns(1), guidance)


def distance(x: Tensor, y: Tensor) -> Tensor:
    """(B,) root mean square difference."""
    return (x - y).flatten(1).square().mean(1).sqrt()


def split_prompts(
    vocabulary: dict[str, list], count: int, seed: int, unseen: bool, backgrounds: bool = True
) -> list[str]:
    """Prompts of the vocabulary. One in five concepts is `unseen`: no table is fitted on it.

    grounds: whether they say the ground. Where they do not, a small error can turn the whole picture's colour: such
    pictures are no measure of a solver, and the few that turn would outweigh all others in least squares.
    """
    rng, found = random.Random(seed), []
    while len(found) < count:
        concept = rng.randrange(len(vocabulary["concepts"]))
        if (concept % 5 == 0) == unseen:
            name = with_article(vocabulary["concepts"][concept]["name"])
            style, background = rng.choice(vocabulary["styles"]), rng.choice(vocabulary["backgrounds"])
            found.append(default_prompt(name, style, background if backgrounds else None))
    return found


def denoised(
    problem: Problem,
    scheduler: StudioScheduler,
    x_t: Tensor,
    t: Tensor,
    rows: Sequence[int],
    share: Tensor | float = 1.0,
    all_at_once: bool = False,
) -> Tensor:
    """x0 as predicted for samples (len(rows), ...) at time t (), with this share of the guidance: some at a time and
    without gradients, or all at once and with them."""
    if not all_at_once:
        parts = [slice(begin, begin + ROWS) for begin in range(0, len(rows), ROWS)]
        with torch.no_grad():
            said = [denoised(problem, scheduler, x_t[part], t, rows[part], share, True) for part in parts]
        return torch.cat(said)
    alpha, sigma = scheduler.schedule.alpha_sigma(t)
    prediction = problem.predict(x_t, t, rows, share)
    return to_original_and_noise(prediction, x_t, alpha, sigma, scheduler.config.prediction_type)[0]


def spaced(scheduler: StudioScheduler, count: int, power: float) -> list[float]:
    """Times that fall from the last train step as (1 - i / count) to a power."""
    return [(len(scheduler.schedule) - 1) * (1 - i / count) ** power for i in range(count)]


def mixed(factors: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Of factors (2, K) and K parts: their sum by the first, and by the second smoothed."""
    fine, coarse = (sum(factor * part for factor, part in zip(row, parts, strict=True)) for row in factors)
    return fine + smooth_3x3(coarse)


@torch.no_grad()
def teach(problem: Problem, scheduler: StudioScheduler, num_steps: int | None = None) -> Trajectory:
    """A long run of third order from the problem's noise."""
    scheduler = StudioScheduler.from_config(scheduler.config, solver_order=3)
    times = spaced(scheduler, num_steps or TEACHER_STEPS, TEACHER_SPACING)
    solver, rows = formula(scheduler, problem.noise, timesteps=times), range(len(problem.noise))
    x, samples, predictions = problem.noise, [], []
    for t, factors in zip(solver.times, solver.factors, strict=True):
        samples.append(x)
        predictions.append(denoised(problem, scheduler, x, t, rows))
        x = sum(factor * part for factor, part in zip(factors[0, :4], [x, *predictions[::-1]], strict=False))
    return Trajectory(solver.times, torch.stack(samples), torch.stack(predictions), x)


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
    x, history = problem.noise[rows], []
    for t, share, factors in zip(solver.times, solver.guidance, solver.factors, strict=True):
        history.insert(0, denoised(problem, scheduler, x, t, rows, share, all_at_once))
        x = mixed(factors, [x, *history])
    return x


def formula(scheduler: StudioScheduler, like: Tensor, **given: Any) -> Solver:
    """DPM-Solver++ as the scheduler has it: `num_inference_steps` or `timesteps`."""
    plan = scheduler.plan(**given)
    depth = plan.b.shape[1]
    factors = [torch.zeros(2, i + 2, dtype=torch.float64) for i in range(len(plan))]
    for i, step in enumerate(factors):
        step[0, 0] = plan.a[i]
        step[0, 1 : 1 + depth] = plan.b[i, : min(depth, i + 1)]
    times = plan.timesteps.to(like)
    return Solver(times, torch.ones_like(times), [step.to(like) for step in factors])
