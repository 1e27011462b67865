"""A run taken apart: what each step saw and said, how the scheduler weighed it, and the arithmetic written out.

Reads a trace, anything with the shape of `studio.engine.trace.Trace`; knows nothing of engines, files or pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from studio.diffusion.samplers import SAMPLERS, make_sampler
from studio.diffusion.scheduler import STUDIO_CONFIG, SamplingPlan, StudioScheduler, multistep_update

BEFORE = ("", "′", "″", "‴", "⁗", *(f"⁽{digit}⁾" for digit in "⁵⁶⁷⁸⁹"))  # marks of predictions that many calls old
FITTED = 3  # predictions, newest first, that a stock sampler's step is read as a sum of


class Step(Protocol):
    """One network call of a trace; arrays (3, H, W) float32."""

    step: int
    timestep: float
    alpha: float
    sigma: float
    guidance_scale: float
    x_t: np.ndarray
    x0: np.ndarray
    guidance_difference: np.ndarray | None
    next_x_t: np.ndarray | None

    @property
    def eps(self) -> np.ndarray: ...


class Stage(Protocol):
    """The steps of a part of the run in which the picture had one size."""

    step: np.ndarray
    timestep: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    condition: np.ndarray | None
    task: int | None
    noise_level: float

    def __iter__(self) -> Any: ...


class TraceLike(Protocol):
    stages: Sequence[Stage]
    num_steps: int


@dataclass(frozen=True)
class Weights:
    """How the next sample came about: x_next = a x_t + b[0] x0 + b[1] (x0 of the step before) + ... + rest.

    how: "exact" where the sampler's own coefficients are known, "measured" where they were found from the arrays by
    least squares, "unknown" where the next sample was not kept.
    rest: root mean square of what the sum leaves over: rounding, or the noise that was added.
    """

    a: float
    b: tuple[float, ...]
    how: str
    rest: float


@dataclass(frozen=True)
class Account:
    """One step in full. Arrays (3, H, W) float32."""

    step: int
    timestep: float
    alpha: float
    sigma: float
    guidance_scale: float
    x_t: np.ndarray
    x0: np.ndarray
    eps: np.ndarray
    difference: np.ndarray | None  # conditional minus unconditional prediction
    x_next: np.ndarray | None
    weights: Weights

    @property
    def identity_error(self) -> float:
        """The largest |x_t - (alpha x0 + sigma eps)|."""
        return float(np.abs(self.x_t - (self.alpha * self.x0 + self.sigma * self.eps)).max())

    @property
    def splitting(self) -> str:
        return f"x_t = {self.alpha:.4f} · x̂0 + {self.sigma:.4f} · ε̂"

    @property
    def arithmetic(self) -> str:
        """The step with its numbers, as one would write it on a board."""
        return written(self.weights)


def written(weights: Weights) -> str:
    """The sum that makes the next sample, as one would write it on a board."""
    if weights.how == "unknown":
        return "x_next was not kept"
    terms = [(weights.a, "x_t"), *((b, f"x̂0{mark}") for b, mark in zip(weights.b, BEFORE, strict=False))]
    terms = [(number, name) for number, name in terms if abs(number) >= 5e-5] or [(0.0, "x_t")]
    first, *others = (f"{abs(number):.4f} · {name}" for number, name in terms)
    signs = ["−" if number < 0 else "+" for number, _ in terms]
    text = ("−" if terms[0][0] < 0 else "") + first
    text += "".join(f" {sign} {term}" for sign, term in zip(signs[1:], others, strict=True))
    return f"x_next = {text}" + (f" + {weights.rest:.4f} · noise" if weights.rest > 1e-3 else "")


def accounts(stage: Stage, sampler: str = "studio", config: Mapping[str, Any] | None = None) -> list[Account]:
    """Every kept step of a stage, for the sampler of that name of a model whose scheduler has this config.

    A second stage of a painted picture is always sampled by "studio". The last step's next sample is the picture: the
    last prediction, but for a fitted solver, which mixes the last ones, and for DDIM (see `_ddim_level`). Raises
    ValueError for an unknown sampler.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}; it must be one of {', '.join(SAMPLERS)}")
    steps = list(stage)
    plan = own_plan(stage, sampler, config)
    made = []
    for index, step in enumerate(steps):
        history = _history(steps, index)
        last = index == len(steps) - 1
        x_next = step.x0 if step.next_x_t is None and last else step.next_x_t
        if plan is not None:
            number = step.step - int(stage.step[0])
            a, b = float(plan.a[number]), tuple(plan.b[number].tolist())
            needed = max((j + 1 for j, weight in enumerate(b) if weight), default=0)
            b, rest = b[: max(needed, 1)], 0.0
            if needed <= len(history):
                again = recomputed(step.x_t, history, a, b)
                if last and step.next_x_t is None:
                    x_next = again
                elif x_next is not None:
                    rest = _rms(x_next - again)
            weights = Weights(a, b, "exact", rest)
        elif x_next is None:
            weights = Weights(0.0, (), "unknown", 0.0)
        elif sampler == "ddim":
            # DDIM without noise (Song et al. 2021, arXiv 2010.02502, equation 12), its eps written out in x_t and x0
            alpha, sigma = _ddim_level(steps, index, config)
            a = sigma / step.sigma
            b = (alpha - a * step.alpha,)
            again = recomputed(step.x_t, history, a, b)
            x_next = again if step.next_x_t is None else x_next
            weights = Weights(a, b, "exact", _rms(x_next - again))
        elif last and step.next_x_t is None:
            weights = Weights(0.0, (1.0,), "exact", 0.0)
        else:
            weights = measured(step.x_t, history, x_next)
        made.append(
            Account(
                step.step,
                step.timestep,
                step.alpha,
                step.sigma,
                step.guidance_scale,
                step.x_t,
                step.x0,
                step.eps,
                step.guidance_difference,
                x_next,
                weights,
            )
        )
    return made


def own_plan(stage: Stage, sampler: str, config: Mapping[str, Any] | None = None) -> SamplingPlan | None:
    """The plan that our scheduler followed in this stage, or None if another did or too little was kept to know."""
    if sampler != "studio":
        return None
    scheduler = make_sampler("studio", config or STUDIO_CONFIG)
    assert isinstance(scheduler, StudioScheduler)
    times, numbers = np.asarray(stage.timestep, dtype=np.float64), np.asarray(stage.step) - int(stage.step[0])
    try:
        # first and last steps are always kept, so that the number of the last says how many there were
        count = int(numbers[-1]) + 1
        fitted = [scheduler.plan(table=table) for table in scheduler.tables.tables if len(table) == count]
        plans = [
            plan
            for plan in (scheduler.plan(count), *_leaps(scheduler, times, count), *fitted)
            if np.allclose(plan.timesteps.numpy()[numbers], times, atol=1e-3)
        ]
        if plans:  # tables of two guidance scales may share their times: what was sampled tells them apart
            first = next(iter(stage))
            return min(plans, key=lambda plan: _left_over(first, plan)) if len(plans) > 1 else plans[0]
        return scheduler.plan(timesteps=times) if (np.diff(numbers) == 1).all() else None
    except ValueError:
        return None


def _leaps(scheduler: StudioScheduler, times: np.ndarray, count: int) -> list[SamplingPlan]:
    """The plan of a run of so many calls whose first is a leap to where the second is, if that is one."""
    share = float(times[1]) / (len(scheduler) - 1) if len(times) > 1 else 0.0
    return [scheduler.plan(count, leap=share)] if 0 < share < 1 else []


def _left_over(first: Step, plan: SamplingPlan) -> float:
    """What a plan's first step does not explain of the sample that followed it."""
    if first.next_x_t is None:
        return 0.0
    return _rms(first.next_x_t - recomputed(first.x_t, [first.x0], float(plan.a[0]), plan.b[0, :1].tolist()))


def recomputed(x_t: np.ndarray, history: Sequence[np.ndarray], a: float, b: Sequence[float]) -> np.ndarray:
    """The next sample by the scheduler's own update, from the x0 predictions (3, H, W), newest first."""
    kept = [torch.from_numpy(np.array(x0, dtype=np.float32)) for x0 in history[: len(b)]]
    kept += [torch.zeros_like(kept[0])] * (len(b) - len(kept))
    x = torch.from_numpy(np.array(x_t, dtype=np.float32))[None]
    return multistep_update(x, torch.stack(kept)[None], torch.tensor([a]), torch.tensor([list(b)]))[0].numpy()


def measured(x_t: np.ndarray, history: Sequence[np.ndarray], x_next: np.ndarray) -> Weights:
    """The weights with which a stock sampler's step is a sum of what it was given, by least squares.

    Deterministic samplers are linear in x_t and the last predictions, so that the fit is their own coefficients; what
    DDPM leaves over is the noise that it adds.
    """
    columns = [np.asarray(part, dtype=np.float64).ravel() for part in (x_t, *history[:FITTED])]
    matrix = np.stack(columns, -1)
    target = np.asarray(x_next, dtype=np.float64).ravel()
    # Late in a run the predictions hardly differ: without a bound on what counts as zero the weights would run wild.
    found, *_ = np.linalg.lstsq(matrix, target, rcond=1e-6)
    return Weights(float(found[0]), tuple(map(float, found[1:])), "measured", _rms(target - matrix @ found))


def _history(steps: Sequence[Step], index: int) -> list[np.ndarray]:
    """x0 predictions up to this step, newest first, as far as they follow one another."""
    history = [steps[index].x0]
    for before, after in zip(steps[index - 1 :: -1] if index else (), steps[index:0:-1], strict=True):
        if before.step + 1 != after.step:
            break
        history.append(before.x0)
    return history


def _ddim_level(steps: Sequence[Step], index: int, config: Mapping[str, Any] | None) -> tuple[float, float]:
    """alpha and sigma to which diffusers' DDIM goes from a step: those of T // N train steps on. Where N does not
    divide T, that is not quite where the next call looks, and the last step leaves a trace of noise."""
    taken = steps[-1].step - steps[0].step
    if not taken:
        return 1.0, 0.0
    schedule = make_sampler("studio", config or STUDIO_CONFIG).schedule
    count = round(len(schedule) * taken / (steps[0].timestep - steps[-1].timestep))
    time = steps[index].timestep - len(schedule) // count
    if time < 0:
        return 1.0, 0.0
    alpha, sigma = schedule.alpha_sigma(torch.tensor(time, dtype=torch.float64))
    return float(alpha), float(sigma)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


# ---- several runs on one rail ----


@dataclass(frozen=True)
class Approach:
    """How a run comes near a picture: by step, the root mean square of x0 - picture, in units of [-1, 1]."""

    timesteps: np.ndarray  # (N,)
    calls: np.ndarray  #     (N,) network calls made, this one counted
    distance: np.ndarray  #  (N,)


def approach(stage: Stage, picture: np.ndarray | None = None) -> Approach:
    """The distance of every prediction to a converged picture (3, H, W), None: to where this run itself ends.

    Raises ValueError if the picture is of another size than the run's.
    """
    steps: Iterable[Step] = list(stage)
    goal = steps[-1].x0 if picture is None else picture
    if goal.shape != steps[-1].x0.shape:
        raise ValueError(f"the picture is {goal.shape}, the run's are {steps[-1].x0.shape}; they must be of one size")
    first = steps[0].step
    return Approach(
        np.array([step.timestep for step in steps]),
        np.array([step.step - first + 1 for step in steps]),
        np.array([_rms(step.x0 - goal) for step in steps]),
    )
