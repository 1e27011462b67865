"""Sampling trajectories, by few network calls and by many, that a solver is fitted to and measured on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from studio.diffusion.conditioning import CONDITION_CHANNELS
from studio.diffusion.guidance import apply_guidance, guidance_baseline
from studio.diffusion.noise_process import to_original_and_noise
from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.sampling_plan import smooth_3x3
from studio.diffusion.schedulers.solver_tables import SolverTable
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.prompts.nouns import with_article, without_style
from studio.training.data.captions import default_prompt
from studio.training.loading import make_scheduler

REFERENCE_STEPS = 48  # of third order
REFERENCE_SPACING = 1.3  # power of the reference's times, see `power_spacing`
BATCH_SIZE = 16  # pictures in one network call


class Problem(Protocol):
    """Trajectories to fit to: their noise, and the network's prediction along the way."""

    noise: Tensor  # (B, ...)

    def predict(self, x_t: Tensor, t: Tensor, rows: Sequence[int], share: Tensor | float = 1.0) -> Tensor:
        """Return the prediction, of the type in the scheduler's config, differentiable in x_t, t and share.

        Args:
            x_t: samples (len(rows), ...) of these trajectories.
            t: one time, ().
            share: of the guidance.
        """
        ...


class TextToImageProblem:
    """Text-to-image trajectories of a pipeline at one guidance scale.

    Args:
        style_emphasis: additional guidance towards the style words, see `guidance_baseline`.
    """

    def __init__(
        self,
        pipe: StudioTextToImagePipeline,
        prompts: Sequence[str],
        seeds: Iterable[int],
        guidance_scale: float,
        style_emphasis: float = 0.0,
    ) -> None:
        size, self.unet, self.scale, self.style_emphasis = pipe.sample_size, pipe.unet, guidance_scale, style_emphasis
        text, mask = pipe.encode([*prompts, *map(without_style, prompts), ""])
        self.text, self.mask = text.to(pipe.unet.dtype), mask
        noise = [torch.randn((3, size, size), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.noise = torch.stack(noise).to(pipe.device)

    def predict(self, x_t: Tensor, t: Tensor, rows: Sequence[int], share: Tensor | float = 1.0) -> Tensor:
        """Return the guided velocity (len(rows), 3, S, S)."""
        text_rows = list(rows)
        if self.scale != 1:
            text_rows += [-1] * len(rows)
            if self.style_emphasis and self.scale > 1:
                text_rows += [len(self.noise) + row for row in rows]
        x = torch.cat([x_t] * (len(text_rows) // len(rows)))
        condition = x.new_zeros(len(x), CONDITION_CHANNELS, *x.shape[2:])
        sample = torch.cat([x, condition], 1).to(self.unet.dtype)
        prediction = self.unet(sample, t.expand(len(x)), self.text[text_rows], self.mask[text_rows]).sample.float()
        if self.scale == 1:
            return prediction
        conditional, *others = prediction.split(len(rows))
        baseline = guidance_baseline(conditional, *others, style=self.style_emphasis)
        return apply_guidance(baseline, conditional, 1 + (self.scale - 1) * torch.as_tensor(share))


@dataclass(frozen=True)
class Trajectory:
    """A reference solution: samples and x0 predictions at each time, and the final pictures."""

    times: Tensor  # (M,) decreasing
    samples: Tensor  # (M, B, ...)
    predictions: Tensor  # (M, B, ...)
    end: Tensor  # (B, ...)


@dataclass(frozen=True)
class Solver:
    """Times and coefficients of N steps (arXiv 2510.17699).

    Row 0 of a step's coefficients applies to x_i, x0_i, x0_{i-1} ... x0_0, row 1 to the same, smoothed.
    """

    times: Tensor  # (N,) decreasing
    guidance: Tensor  # (N,) share of the guidance in each call
    coefficients: list[Tensor]  # step i: (2, i + 2)

    @classmethod
    def from_table(cls, table: SolverTable, like: Tensor) -> Solver:
        """Return a table's solver with the device and dtype of `like`."""
        coefficients = []
        for i in range(len(table)):
            fine = [table.a[i], *table.b[i][: i + 1]]
            coarse = [table.coarse_a[i], *table.coarse_b[i][: i + 1]]
            coefficients.append(torch.tensor([fine, coarse]).to(like))
        return cls(torch.tensor(table.timesteps).to(like), torch.tensor(table.guidance).to(like), coefficients)

    def to_table(self, guidance_scale: float) -> SolverTable:
        """Return the table with seven digits, the precision of float32."""
        count = len(self.times)

        def rounded(values: Tensor) -> list[float]:
            return [float(f"{value:.7g}") for value in values.tolist()]

        def columns(row: int) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
            steps = [rounded(step[row]) for step in self.coefficients]
            b = tuple((*step[1:], *[0.0] * (count - len(step) + 1)) for step in steps)
            return tuple(step[0] for step in steps), b

        times, guidance = tuple(rounded(self.times)), tuple(rounded(self.guidance))
        return SolverTable(guidance_scale, times, *columns(0), *columns(1), guidance)


def rms_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the root mean square difference of each row, (B,)."""
    return (x - y).flatten(1).square().mean(1).sqrt()


def fitting_prompts(
    vocabulary: dict[str, list], count: int, seed: int, *, held_out: bool, backgrounds: bool = True
) -> list[str]:
    """Return random prompts of the vocabulary.

    Args:
        held_out: use the fifth of the concepts that no table is fitted to, or only the others.
        backgrounds: name a background. Without one, a small error can change the colour of the whole picture: such
            pictures say little of a solver, and would outweigh all others in least squares.
    """
    rng = random.Random(seed)
    prompts: list[str] = []
    while len(prompts) < count:
        concept = rng.randrange(len(vocabulary["concepts"]))
        if (concept % 5 == 0) == held_out:
            subject = with_article(vocabulary["concepts"][concept]["name"])
            style, background = rng.choice(vocabulary["styles"]), rng.choice(vocabulary["backgrounds"])
            prompts.append(default_prompt(subject, style, background if backgrounds else None))
    return prompts


def predict_x0(
    problem: Problem,
    scheduler: StudioScheduler,
    x_t: Tensor,
    t: Tensor,
    rows: Sequence[int],
    *,
    share: Tensor | float = 1.0,
    with_gradients: bool = False,
) -> Tensor:
    """Return x0 predicted for samples (len(rows), ...) at one time, with this share of the guidance.

    With gradients it is one network call; without, batches of BATCH_SIZE.
    """
    if with_gradients:
        alpha, sigma = scheduler.schedule.alpha_sigma(t)
        prediction = problem.predict(x_t, t, rows, share)
        return to_original_and_noise(prediction, x_t, alpha, sigma, scheduler.config["prediction_type"])[0]
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            parts.append(predict_x0(problem, scheduler, x_t[part], t, rows[part], share=share, with_gradients=True))
    return torch.cat(parts)


def power_spacing(scheduler: StudioScheduler, count: int, power: float) -> list[float]:
    """Return times that fall from the last train step as (1 - i / count) to a power."""
    return [(len(scheduler.schedule) - 1) * (1 - i / count) ** power for i in range(count)]


def combine(coefficients: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of K parts weighted by row 0 of (2, K), plus their smoothed sum weighted by row 1."""
    fine, coarse = (_weighted_sum(row, parts) for row in coefficients)
    return fine + smooth_3x3(coarse)


def _weighted_sum(weights: Tensor, parts: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(parts[0])
    for weight, part in zip(weights, parts, strict=True):
        total = total + weight * part
    return total


@torch.no_grad()
def solve_reference(problem: Problem, scheduler: StudioScheduler, num_steps: int | None = None) -> Trajectory:
    """Solve all trajectories in many steps of DPM-Solver++ of third order."""
    scheduler = make_scheduler(scheduler.config, solver_order=3)
    times = power_spacing(scheduler, num_steps or REFERENCE_STEPS, REFERENCE_SPACING)
    solver, rows = dpm_solver(scheduler, problem.noise, timesteps=times), range(len(problem.noise))
    x, samples, predictions = problem.noise, [], []
    for t, coefficients in zip(solver.times, solver.coefficients, strict=True):
        samples.append(x)
        predictions.append(predict_x0(problem, scheduler, x, t, rows))
        terms = [x, *predictions[:-4:-1]]  # x_i, x0_i and at most two older predictions
        x = _weighted_sum(coefficients[0, : len(terms)], terms)
    return Trajectory(solver.times, torch.stack(samples), torch.stack(predictions), x)


def sample_at(path: Trajectory, scheduler: StudioScheduler, t: Tensor, rows: Sequence[int]) -> Tensor:
    """Return the reference samples at any time, by one step of second order from the last stored time before it."""
    k = max(int((path.times >= t).sum()) - 1, 0)
    x0 = path.predictions[k, rows]
    if k + 1 < len(path.times):
        share = (path.times[k] - t) / (path.times[k] - path.times[k + 1])
        x0 = torch.lerp(x0, path.predictions[k + 1, rows], share / 2)
    (alpha_k, alpha), (sigma_k, sigma) = scheduler.schedule.alpha_sigma(torch.stack([path.times[k], t]))
    ratio = sigma / sigma_k
    return ratio * path.samples[k, rows] + (alpha - ratio * alpha_k) * x0


def solve(
    problem: Problem, scheduler: StudioScheduler, solver: Solver, rows: Sequence[int], *, with_gradients: bool = False
) -> Tensor:
    """Return the final pictures (len(rows), ...) by a solver."""
    x, history = problem.noise[rows], []
    for t, share, coefficients in zip(solver.times, solver.guidance, solver.coefficients, strict=True):
        x0 = predict_x0(problem, scheduler, x, t, rows, share=share, with_gradients=with_gradients)
        history.insert(0, x0)
        x = combine(coefficients, [x, *history])
    return x


def dpm_solver(scheduler: StudioScheduler, like: Tensor, **plan_options: Any) -> Solver:
    """Return DPM-Solver++ as the scheduler plans it for `num_inference_steps` or `timesteps`."""
    plan = scheduler.plan(**plan_options)
    depth = plan.b.shape[1]
    coefficients = [torch.zeros(2, i + 2, dtype=torch.float64) for i in range(len(plan))]
    for i, step in enumerate(coefficients):
        step[0, 0] = plan.a[i]
        step[0, 1 : 1 + depth] = plan.b[i, : min(depth, i + 1)]
    times = plan.timesteps.to(like)
    return Solver(times, torch.ones_like(times), [step.to(like) for step in coefficients])
