"""The coefficients of a sampler's step: x_next = a x_t + b[0] x0 + b[1] (x0 of the step before) + ... + residual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from studio.diffusion.schedulers.sampling_plan import SamplingPlan, multistep_update, smooth_3x3

_PRIMES = ("", "′", "″", "‴", "⁗")  # marks of a prediction by its age in calls
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALLEST_SHOWN = 5e-5  # terms below would read 0.0000


@dataclass(frozen=True)
class StepCoefficients:
    """The coefficients of one step.

    source: "exact": the sampler's own coefficients. "fitted": those of a solver table. "measured": found from the
        arrays by least squares. "unknown": too few steps were kept.
    residual: root mean square of what the sum leaves over; None if it is not known.
    adds_noise: whether the residual is noise that the sampler added.
    coarse: coefficients of a solver table for the same terms, a first; their sum is smoothed and added.
    """

    a: float
    b: tuple[float, ...]
    source: str
    residual: float | None = None
    adds_noise: bool = False
    coarse: tuple[float, ...] = ()


UNKNOWN = StepCoefficients(0.0, (), "unknown")


def format_step(coefficients: StepCoefficients) -> str:
    """Return the equation of the next sample with its numbers."""
    if coefficients.source == "unknown":
        return "what makes x_next was not kept"
    text = _format_sum((coefficients.a, *coefficients.b))
    if any(coefficients.coarse):
        text += f" + smoothed({_format_sum(coefficients.coarse)})"
    if coefficients.adds_noise:
        text += " + noise" if coefficients.residual is None else f" + {coefficients.residual:.4f} · noise"
    return f"x_next = {text}"


def _format_sum(coefficients: Sequence[float]) -> str:
    """Format coefficients of x_t and of the predictions, newest first."""
    text = ""
    for index, number in enumerate(coefficients):
        if abs(number) < _SMALLEST_SHOWN:
            continue
        name = f"x̂0{_mark(index - 1)}" if index else "x_t"
        sign = "−" if number < 0 else "+"
        text += f" {sign} " if text else sign.replace("+", "")
        text += f"{abs(number):.4f} · {name}"
    return text or f"{0:.4f} · x_t"


def _mark(age: int) -> str:
    """Return the mark of a prediction that is so many calls old: primes, then superscript numbers."""
    return _PRIMES[age] if age < len(_PRIMES) else f"⁽{str(age).translate(_SUPERSCRIPTS)}⁾"


def plan_coefficients(plan: SamplingPlan, number: int) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """Return a, b and coarse of a plan's step; trailing zeros are left out."""
    b = plan.b[number].tolist()
    if plan.coarse is None:
        return float(plan.a[number]), tuple(b[: _count_used(b)]), ()
    coarse_a, coarse_b = float(plan.coarse[0][number]), plan.coarse[1][number].tolist()
    used = max(_count_used(b), _count_used(coarse_b))
    return float(plan.a[number]), tuple(b[:used]), (coarse_a, *coarse_b[:used])


def _count_used(coefficients: Sequence[float]) -> int:
    """Return how many coefficients there are up to the last that is not 0, and at least 1."""
    return max((index + 1 for index, number in enumerate(coefficients) if number), default=1)


def recompute_step(
    x_t: np.ndarray, history: Sequence[np.ndarray], a: float, b: Sequence[float], coarse: Sequence[float] = ()
) -> np.ndarray:
    """Return the next sample (C, H, W) by the scheduler's own update.

    history: x0 predictions (C, H, W), newest first; missing ones count as zeros.
    """
    predictions = [torch.from_numpy(np.array(x0, dtype=np.float32)) for x0 in history[: len(b)]]
    x = torch.from_numpy(np.array(x_t, dtype=np.float32))
    x_next = multistep_update(x, predictions, a, b)
    if coarse:
        x_next += smooth_3x3(multistep_update(x, predictions, coarse[0], coarse[1:]))
    return x_next.numpy()


def measure_coefficients(
    x_t: np.ndarray, history: Sequence[np.ndarray], x_next: np.ndarray, coarse: bool = False
) -> StepCoefficients:
    """Return the coefficients of a deterministic sampler's step by least squares.

    Such samplers are linear in x_t and the last predictions, so the fit finds their own coefficients.
    history: x0 predictions (C, H, W), newest first. coarse: whether a smoothed sum of the same terms is added.
    """
    terms = [np.asarray(term, dtype=np.float64) for term in (x_t, *history)]
    count = len(terms)
    if coarse:
        terms += [smooth_3x3(torch.from_numpy(term)).numpy() for term in terms]
    matrix = np.stack([term.ravel() for term in terms], -1)
    target = np.asarray(x_next, dtype=np.float64).ravel()
    # Late in a run the predictions are almost equal: rcond keeps the coefficients from growing without bound.
    solution, *_ = np.linalg.lstsq(matrix, target, rcond=1e-6)
    residual = root_mean_square(target - matrix @ solution)
    a, *others = map(float, solution)
    return StepCoefficients(a, tuple(others[: count - 1]), "measured", residual, coarse=tuple(others[count - 1 :]))


def root_mean_square(values: np.ndarray) -> float:
    """Return the root mean square of an array, computed in float64."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
