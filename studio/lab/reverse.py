"""A run taken apart: what each step saw and said, how the scheduler weighed it, and the arithmetic written out.

Reads a trace, anything with the shape of `studio.engine.trace.Trace`; knows nothing of engines, files or pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from studio.diffusion.noise_process import to_original_and_noise
from studio.diffusion.schedulers.samplers import SAMPLERS, make_sampler
from studio.diffusion.schedulers.sampling_plan import SamplingPlan, multistep_update, smooth_3x3
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler

BEFORE = ("", "′", "″", "‴", "⁗", *(f"⁽{digit}⁾" for digit in "⁵⁶⁷⁸⁹"))  # marks of predictions that many calls old
FITTED = 3  # predictions, newest first, that a stock sampler's step is read as a sum of
EXPLAINED = 2e-3  # root mean square that a plan may leave over of the first sample it makes; another plan leaves more


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

    coarse: a solver table's coefficients of the same terms, a first, for the sum that is added smoothed.
    how: "exact" where the sampler's own coefficients are known, "fitted" where they are those of a solver table,
    "measured" where they were found from the arrays by least squares, "unknown" where too little was kept.
    rest: root mean square of what the sum leaves over; None where that cannot be told.
    drawn: whether that is noise which the sampler drew anew.
    """

    a: float
    b: tuple[float, ...]
    how: str
    rest: float | None = None
    drawn: bool = False
    coarse: tuple[float, ...] = ()


UNKNOWN = Weights(0.0, (), "unknown")


@dataclass(frozen=True)
class StepExplanation:
    """One step in full. Arrays (3, H, W) float32."""

    step: int
    timestep: float
    alpha: float
    sigma: float
    guidance_scale: float
    x_t: np.ndarray
    x0: np.ndarray
    eps: np.ndarray
    difference: np.ndarray | None  # of x0: with the words minus what guidance leads away from
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
        return format_step(self.weights)


def format_step(weights: Weights) -> str:
    """The sum that makes the next sample, as one would write it on a board."""
    if weights.how == "unknown":
        return "what makes x_next was not kept"
    text = _summed((weights.a, *weights.b))
    if any(weights.coarse):
        text += f" + smoothed({_summed(weights.coarse)})"
    if weights.drawn:
        text += " + noise" if weights.rest is None else f" + {weights.rest:.4f} · noise"
    return f"x_next = {text}"


def _summed(numbers: Sequence[float]) -> str:
    """Times x_t and the predictions, newest first."""
    terms = list(zip(numbers, ("x_t", *(f"x̂0{mark}" for mark in BEFORE)), strict=False))
    terms = [(number, name) for number, name in terms if abs(number) >= 5e-5] or [(0.0, "x_t")]
    first, *others = (f"{abs(number):.4f} · {name}" for number, name in terms)
    signs = ["−" if number < 0 else "+" for number, _ in terms]
    text = ("−" if terms[0][0] < 0 else "") + first
    return text + "".join(f" {sign} {term}" for sign, term in zip(signs[1:], others, strict=True))


def explain_steps(
    stage: Stage, sampler: str = "studio", config: Mapping[str, Any] | None = None
) -> list[StepExplanation]:
    """Every kept step of a stage, for the sampler of that name of a model whose scheduler has this config.

    A second stage of a painted picture is always sampled by "studio". The last step's next sample is the picture: the
    last prediction, but for a fitted solver, which mixes the last ones, and for DDIM (see `_ddim_level`). Raises
    ValueError for an unknown sampler.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}; it must be one of {', '.join(SAMPLERS)}")
    config = config or STUDIO_CONFIG
    kind = config.get("prediction_type", STUDIO_CONFIG["prediction_type"])
    steps = list(stage)
    plan = own_plan(stage, sampler, config)
    made = []
    for index, step in enumerate(steps):
        weights, x_next = _weighed(steps, index, sampler, config, plan)
        made.append(
            StepExplanation(
                step.step,
                step.timestep,
                step.alpha,
                step.sigma,
                step.guidance_scale,
                step.x_t,
                step.x0,
                step.eps,
                _of_the_picture(step.guidance_difference, step, kind),
                x_next,
                weights,
            )
        )
    return made


def _of_the_picture(difference: np.ndarray | None, step: Step, kind: str) -> np.ndarray | None:
    """A difference of two predictions of that kind, as the difference that it makes to x0."""
    if difference is None:
        return None
    said = torch.from_numpy(np.array(difference, dtype=np.float32))
    return to_original_and_noise(said, torch.zeros_like(said), step.alpha, step.sigma, kind)[0].numpy()


def _weighed(
    steps: Sequence[Step], index: int, sampler: str, config: Mapping[str, Any], plan: Plan | None
) -> tuple[Weights, np.ndarray | None]:
    """The weights of a step, and the sample (3, H, W) that it made, as far as either is known."""
    step, last, number = steps[index], index == len(steps) - 1, steps[index].step - steps[0].step
    history, x_next, drawn, how, coarse = _history(steps, index), step.next_x_t, False, "exact", ()
    to = _level_to(steps, index, sampler, config)
    if plan is not None:
        a, b, coarse = _coefficients(plan.own, number)
        drawn, how = bool(plan.own.c[number]), plan.how
    elif to is not None and sampler == "ddim":
        # DDIM without noise (Song et al. 2021, arXiv 2010.02502, equation 12), its eps written out in x_t and x0
        a = to[1] / step.sigma
        b = (to[0] - a * step.alpha,)
    elif to is not None and sampler == "ddpm":
        # the mean of q(x_s | x_t, x0) (Ho et al. 2020, arXiv 2006.11239, equation 7), s being the level it goes to
        r, drawn = step.alpha / to[0], to[1] > 0
        a = r * to[1] ** 2 / step.sigma**2
        b = (to[0] * (1 - r**2) / step.sigma**2,)
    elif last and sampler != "studio":
        a, b = 0.0, (1.0,)
    else:
        columns = len(history) if sampler == "studio" else FITTED
        if x_next is None or len(history) < min(columns, number + 1):
            return UNKNOWN, x_next
        return measured(step.x_t, history[:columns], x_next, coarse=sampler == "studio"), x_next  # a table that is gone
    if len(b) > len(history):
        return Weights(a, b, how, None, drawn, coarse), x_next
    again = recompute_step(step.x_t, history, a, b, coarse)
    if last and x_next is None:
        return Weights(a, b, how, 0.0, drawn, coarse), again
    return Weights(a, b, how, None if x_next is None else _rms(x_next - again), drawn, coarse), x_next


def _coefficients(plan: SamplingPlan, number: int) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """A step's a, its b as far back as they reach, and for a table those of what is added smoothed, a first."""
    b = plan.b[number].tolist()
    coarse = [] if plan.coarse is None else plan.coarse[1][number].tolist()
    reach = max((j + 1 for weights in (b, coarse) for j, weight in enumerate(weights) if weight), default=1)
    first = () if plan.coarse is None else (float(plan.coarse[0][number]),)
    return float(plan.a[number]), tuple(b[:reach]), (*first, *coarse[:reach])


@dataclass(frozen=True)
class Plan:
    """What our scheduler followed in a stage.  how: "exact", or "fitted" where it is a solver table."""

    own: SamplingPlan
    how: str


def own_plan(stage: Stage, sampler: str, config: Mapping[str, Any]) -> Plan | None:
    """The plan that our scheduler followed in this stage, or None if another did, too little was kept to know, or it
    is of a solver table that this config does not have."""
    if sampler != "studio":
        return None
    scheduler = make_sampler("studio", config)
    assert isinstance(scheduler, StudioScheduler)
    times, numbers = np.asarray(stage.timestep, dtype=np.float64), np.asarray(stage.step) - int(stage.step[0])
    # first and last steps are always kept, so that the number of the last says how many there were
    count = int(numbers[-1]) + 1
    try:
        plans = [Plan(scheduler.plan(count), "exact"), *_leaps(scheduler, times, count)]
        plans += [Plan(scheduler.plan(table=t), "fitted") for t in scheduler.tables.tables if len(t) == count]
        if (np.diff(numbers) == 1).all():  # begun from a picture, on the way
            plans.append(Plan(scheduler.plan(timesteps=times), "exact"))
    except ValueError:
        return None
    first = next(iter(stage))
    # tables of two guidance scales may share their times: what was sampled tells them apart
    left = {i: _left_over(first, plan.own) for i, plan in enumerate(plans) if _is_at(plan.own, numbers, times)}
    best = min(left, key=left.__getitem__, default=None)
    return None if best is None or left[best] > EXPLAINED else plans[best]


def _is_at(plan: SamplingPlan, numbers: np.ndarray, times: np.ndarray) -> bool:
    """Whether these calls of a plan are made at these times."""
    return np.allclose(plan.timesteps.numpy()[numbers], times, atol=1e-3)


def _leaps(scheduler: StudioScheduler, times: np.ndarray, count: int) -> list[Plan]:
    """The plan of a run of so many calls whose first is a leap to where the second is, if that is one."""
    share = float(times[1]) / (len(scheduler) - 1) if len(times) > 1 else 0.0
    return [Plan(scheduler.plan(count, restart_time=share), "exact")] if 0 < share < 1 else []


def _left_over(first: Step, plan: SamplingPlan) -> float:
    """What a plan's first step does not explain of the sample that followed it. Of a leap, which draws noise, that is
    as much as may be if it is as strong as it should be, lest it be taken for a run that draws none."""
    if first.next_x_t is None:
        return 0.0
    left = _rms(first.next_x_t - recompute_step(first.x_t, [first.x0], *_coefficients(plan, 0)))
    noise = float(plan.c[0])
    return left if not noise else EXPLAINED if abs(left / noise - 1) < 0.2 else math.inf


def recompute_step(
    x_t: np.ndarray, history: Sequence[np.ndarray], a: float, b: Sequence[float], coarse: Sequence[float] = ()
) -> np.ndarray:
    """The next sample by the scheduler's own update, from the x0 predictions (3, H, W), newest first."""
    kept = [torch.from_numpy(np.array(x0, dtype=np.float32)) for x0 in history[: len(b)]]
    x = torch.from_numpy(np.array(x_t, dtype=np.float32))
    x_next = multistep_update(x, kept, a, b)
    if coarse:
        x_next += smooth_3x3(multistep_update(x, kept, coarse[0], coarse[1:]))
    return x_next.numpy()


def measured(x_t: np.ndarray, history: Sequence[np.ndarray], x_next: np.ndarray, coarse: bool = False) -> Weights:
    """The weights with which a deterministic sampler's step is a sum of what it was given, by least squares.

    Such samplers are linear in x_t and the last predictions, so that the fit is their own coefficients.
    coarse: and a sum of the same, smoothed.
    """
    parts = [np.asarray(part, dtype=np.float64) for part in (x_t, *history)]
    count = len(parts)
    parts += [smooth_3x3(torch.from_numpy(part)).numpy() for part in parts] if coarse else []
    matrix = np.stack([part.ravel() for part in parts], -1)
    target = np.asarray(x_next, dtype=np.float64).ravel()
    # Late in a run the predictions hardly differ: without a bound on what counts as zero the weights would run wild.
    found, *_ = np.linalg.lstsq(matrix, target, rcond=1e-6)
    a, *others = map(float, found)
    rest = _rms(target - matrix @ found)
    return Weights(a, tuple(others[: count - 1]), "measured", rest, coarse=tuple(others[count - 1 :]))


def _history(steps: Sequence[Step], index: int) -> list[np.ndarray]:
    """x0 predictions up to this step, newest first, as far as they follow one another."""
    history = [steps[index].x0]
    for before, after in zip(steps[index - 1 :: -1] if index else (), steps[index:0:-1], strict=True):
        if before.step + 1 != after.step:
            break
        history.append(before.x0)
    return history


def _level_to(steps: Sequence[Step], index: int, sampler: str, config: Mapping[str, Any]) -> tuple[float, float] | None:
    """alpha and sigma to which diffusers' DDIM or DDPM goes from a step; None where too little was kept to know."""
    if sampler == "ddim":
        return _ddim_level(steps, index, config)
    if index == len(steps) - 1:
        return 1.0, 0.0
    after = steps[index + 1]
    return (after.alpha, after.sigma) if after.step == steps[index].step + 1 else None


def _ddim_level(steps: Sequence[Step], index: int, config: Mapping[str, Any]) -> tuple[float, float]:
    """Where DDIM goes: T // N train steps on. Where N does not divide T, that is not quite where the next call looks,
    and the last step leaves a trace of noise."""
    taken = steps[-1].step - steps[0].step
    if not taken:
        return 1.0, 0.0
    schedule = make_sampler("studio", config).schedule
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
    """How a run comes near a picture: by step, the root mean square of x0 - picture, in units of [-1, 1]; and last, at
    time 0 and without a further call, that of the picture in which it ends."""

    timesteps: np.ndarray  # (N + 1,)
    calls: np.ndarray  #     (N + 1,) network calls made, this one counted
    distance: np.ndarray  #  (N + 1,)


def distance_to_final(stage: Stage, end: np.ndarray, goal: np.ndarray) -> Approach:
    """The distances to a converged picture (3, H, W), of every prediction and of where the run ends (3, H, W).

    Raises ValueError if the goal is of another size than the run's pictures.
    """
    steps: Sequence[Step] = list(stage)
    if goal.shape != end.shape:
        raise ValueError(f"the picture is {goal.shape}, the run's are {end.shape}; they must be of one size")
    calls = [step.step - steps[0].step + 1 for step in steps]
    return Approach(
        np.array([*(step.timestep for step in steps), 0.0]),
        np.array([*calls, calls[-1]]),
        np.array([_rms(picture - goal) for picture in (*(step.x0 for step in steps), end)]),
    )
