"""A run step by step: what the network got and predicted, how the sampler weighed it, and the arithmetic in numbers.

Traces are anything with the attributes of `studio.engine.trace.Trace`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from studio.diffusion.noise_process import to_original_and_noise
from studio.diffusion.schedulers.samplers import SAMPLERS
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG
from studio.lab.coefficients import (
    UNKNOWN,
    StepCoefficients,
    format_step,
    measure_coefficients,
    plan_coefficients,
    recompute_step,
    root_mean_square,
)
from studio.lab.plans import FollowedPlan, find_plan
from studio.lab.schedules import make_schedule
from studio.lab.trace_protocol import Stage, Step

FITTED_PREDICTIONS = 3  # newest first, that a measured step of another sampler is a sum of


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
    difference: np.ndarray | None  # of x0: with the words minus the prediction that guidance moves away from
    x_next: np.ndarray | None
    coefficients: StepCoefficients

    @property
    def identity_error(self) -> float:
        """The largest |x_t - (alpha x0 + sigma eps)|."""
        return float(np.abs(self.x_t - (self.alpha * self.x0 + self.sigma * self.eps)).max())

    @property
    def splitting(self) -> str:
        """The equation of x_t with the numbers of this step."""
        return f"x_t = {self.alpha:.4f} · x̂0 + {self.sigma:.4f} · ε̂"

    @property
    def arithmetic(self) -> str:
        """The equation of the next sample with the numbers of this step."""
        return format_step(self.coefficients)


def explain_steps(
    stage: Stage, sampler: str = "studio", config: Mapping[str, Any] | None = None
) -> list[StepExplanation]:
    """Return every kept step of a stage.

    sampler: the name of the stage's sampler. A second stage is always sampled by "studio".
    config: of the model's scheduler; None: of the bundled model.

    The next sample of the last step is the picture. It is the last prediction, except for fitted solvers, which mix
    the last predictions, and for DDIM, which leaves a little noise. Raises ValueError for an unknown sampler.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}; it must be one of {', '.join(SAMPLERS)}")
    config = config or STUDIO_CONFIG
    prediction_type = config.get("prediction_type", STUDIO_CONFIG["prediction_type"])
    steps, plan = list(stage), find_plan(stage, sampler, config)
    explanations = []
    for index, step in enumerate(steps):
        coefficients, x_next = _step_coefficients(steps, index, sampler, config, plan)
        explanations.append(
            StepExplanation(
                step.step,
                step.timestep,
                step.alpha,
                step.sigma,
                step.guidance_scale,
                step.x_t,
                step.x0,
                step.eps,
                _difference_of_x0(step, prediction_type),
                x_next,
                coefficients,
            )
        )
    return explanations


def _difference_of_x0(step: Step, prediction_type: str) -> np.ndarray | None:
    """Convert the difference of two predictions to the difference of their x0."""
    if step.guidance_difference is None:
        return None
    difference = torch.from_numpy(np.array(step.guidance_difference, dtype=np.float32))
    no_sample = torch.zeros_like(difference)  # the conversion is linear, and the sample is the same in both
    return to_original_and_noise(difference, no_sample, step.alpha, step.sigma, prediction_type)[0].numpy()


# ---- coefficients ----


def _step_coefficients(
    steps: Sequence[Step], index: int, sampler: str, config: Mapping[str, Any], plan: FollowedPlan | None
) -> tuple[StepCoefficients, np.ndarray | None]:
    """Return the coefficients of a step and the next sample (3, H, W), as far as they are known."""
    step, history = steps[index], _history(steps, index)
    coefficients = _known_coefficients(steps, index, sampler, config, plan)
    if coefficients is None:
        return _measure_step(step, history, step.step - steps[0].step, sampler), step.next_x_t
    if len(coefficients.b) > len(history):
        return coefficients, step.next_x_t
    x_next = recompute_step(step.x_t, history, coefficients.a, coefficients.b, coefficients.coarse)
    if step.next_x_t is not None:
        return replace(coefficients, residual=root_mean_square(step.next_x_t - x_next)), step.next_x_t
    if index == len(steps) - 1:
        return replace(coefficients, residual=0.0), x_next
    return coefficients, None


def _known_coefficients(
    steps: Sequence[Step], index: int, sampler: str, config: Mapping[str, Any], plan: FollowedPlan | None
) -> StepCoefficients | None:
    """Return the sampler's own coefficients of a step; None if they are not known."""
    step = steps[index]
    if plan is not None:
        number = step.step - steps[0].step
        a, b, coarse = plan_coefficients(plan.plan, number)
        return StepCoefficients(a, b, plan.source, adds_noise=bool(plan.plan.c[number]), coarse=coarse)
    if sampler == "ddim":
        # DDIM without noise (Song et al. 2021, arXiv 2010.02502, equation 12), with its eps in terms of x_t and x0
        alpha_s, sigma_s = _ddim_level(steps, index, config)
        a = sigma_s / step.sigma
        return StepCoefficients(a, (alpha_s - a * step.alpha,), "exact")
    if sampler == "ddpm" and (level := _next_level(steps, index)) is not None:
        # The mean of q(x_s | x_t, x0) at the next level s (Ho et al. 2020, arXiv 2006.11239, equation 7)
        alpha_s, sigma_s = level
        r = step.alpha / alpha_s
        a, b = r * sigma_s**2 / step.sigma**2, alpha_s * (1 - r**2) / step.sigma**2
        return StepCoefficients(a, (b,), "exact", adds_noise=sigma_s > 0)
    if index == len(steps) - 1 and sampler != "studio":
        return StepCoefficients(0.0, (1.0,), "exact")
    return None


def _measure_step(step: Step, history: Sequence[np.ndarray], number: int, sampler: str) -> StepCoefficients:
    """Return coefficients by least squares; `UNKNOWN` if too few steps were kept. number: of the step in its stage."""
    is_table = sampler == "studio"  # a solver table that the config lacks: it uses all predictions
    columns = len(history) if is_table else FITTED_PREDICTIONS
    if step.next_x_t is None or len(history) < min(columns, number + 1):
        return UNKNOWN
    return measure_coefficients(step.x_t, history[:columns], step.next_x_t, coarse=is_table)


def _history(steps: Sequence[Step], index: int) -> list[np.ndarray]:
    """Return x0 predictions up to a step, newest first, as far back as no step is missing."""
    history = [steps[index].x0]
    while index > 0 and steps[index - 1].step + 1 == steps[index].step:
        index -= 1
        history.append(steps[index].x0)
    return history


def _next_level(steps: Sequence[Step], index: int) -> tuple[float, float] | None:
    """Return alpha and sigma of the next step, 1 and 0 after the last; None if the next step was not kept."""
    if index == len(steps) - 1:
        return 1.0, 0.0
    after = steps[index + 1]
    return (after.alpha, after.sigma) if after.step == steps[index].step + 1 else None


def _ddim_level(steps: Sequence[Step], index: int, config: Mapping[str, Any]) -> tuple[float, float]:
    """Return alpha and sigma to which diffusers' DDIM goes from a step.

    It goes T // N train steps on. Where N does not divide T, this is not exactly the time of the next call, and the
    last step leaves a little noise.
    """
    steps_between = steps[-1].step - steps[0].step
    if not steps_between:
        return 1.0, 0.0
    schedule = make_schedule("model", config).schedule
    count = round(len(schedule) * steps_between / (steps[0].timestep - steps[-1].timestep))
    time = steps[index].timestep - len(schedule) // count
    if time < 0:
        return 1.0, 0.0
    alpha, sigma = schedule.alpha_sigma(torch.tensor(time, dtype=torch.float64))
    return float(alpha), float(sigma)


# ---- distances ----


@dataclass(frozen=True)
class ConvergenceCurve:
    """How close a run gets to a picture, by step, as root mean square of x0 - picture in units of [-1, 1].

    The last value is at time 0, without a further call: that of the picture in which the run ends.
    """

    timesteps: np.ndarray  # (N + 1,)
    calls: np.ndarray  #     (N + 1,) network calls so far
    distance: np.ndarray  #  (N + 1,)


def distance_to_reference(stage: Stage, end: np.ndarray, reference: np.ndarray) -> ConvergenceCurve:
    """Return the distances of every prediction, and of the run's end (3, H, W), to a converged picture (3, H, W).

    Raises ValueError if the reference has another size than the run's pictures.
    """
    steps: Sequence[Step] = list(stage)
    if reference.shape != end.shape:
        raise ValueError(f"the picture is {reference.shape}, the run's are {end.shape}; they must be of one size")
    calls = [step.step - steps[0].step + 1 for step in steps]
    return ConvergenceCurve(
        np.array([*(step.timestep for step in steps), 0.0]),
        np.array([*calls, calls[-1]]),
        np.array([root_mean_square(picture - reference) for picture in (*(step.x0 for step in steps), end)]),
    )
