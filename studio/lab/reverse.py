"""A run step by step: what the network got and predicted, how the sampler weighed it, and the arithmetic in numbers.

Traces are anything with the attributes of `studio.engine.trace.Trace`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from studio.diffusion.noise_process import NoiseSchedule, to_original_and_noise
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
from studio.lab.plans import MAX_RESIDUAL, FollowedPlan, find_plan
from studio.lab.sampler_steps import Level, ancestral_step, consistency_step, first_order_step, posterior_step
from studio.lab.schedules import make_schedule
from studio.lab.trace_protocol import Stage, Step

FITTED_PREDICTIONS = 3  # newest first, that a measured step of another sampler is a sum of
# How x0 and eps follow from a prediction, by its type.
CONVERSIONS = {
    "epsilon": "the network predicts ε̂; x̂0 = (x_t − {sigma:.4f} · ε̂) / {alpha:.4f}",
    "v_prediction": "the network predicts v; x̂0 = {alpha:.4f} · x_t − {sigma:.4f} · v",
    "sample": "the network predicts x̂0; ε̂ = (x_t − {alpha:.4f} · x̂0) / {sigma:.4f}",
}


@dataclass(frozen=True)
class StepExplanation:
    """One step in full. Arrays (C, H, W) float32."""

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
    prediction_type: str = "v_prediction"

    @property
    def conversion(self) -> str:
        """What the network predicts, and what follows from it with the numbers of this step."""
        return CONVERSIONS[self.prediction_type].format(alpha=self.alpha, sigma=self.sigma)

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
    stage: Stage, sampler: str = "studio", config: Mapping[str, Any] | None = None, *, is_last: bool = True
) -> list[StepExplanation]:
    """Return every kept step of a stage.

    sampler: the name of the stage's sampler. The coefficients of one that is not known here are measured.
    config: of the model's scheduler; None: of the bundled model.
    is_last: whether the picture is finished at the end of the stage.

    The next sample of the last step is the picture. It is the last prediction, except for fitted solvers, which mix
    the last predictions, and for DDIM, which may leave a little noise. Raises ValueError for an unknown prediction
    type.
    """
    config = config or STUDIO_CONFIG
    prediction_type = config.get("prediction_type", STUDIO_CONFIG["prediction_type"])
    if prediction_type not in CONVERSIONS:
        raise ValueError(f"prediction_type is {prediction_type!r}; it must be one of {', '.join(CONVERSIONS)}")
    run = _Run(list(stage), sampler, config, find_plan(stage, sampler, config), is_last)
    explanations = []
    for index, step in enumerate(run.steps):
        coefficients, x_next = _step_coefficients(run, index)
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
                prediction_type,
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


@dataclass(frozen=True)
class _Run:
    """The steps of a stage, and what is known of how they were made."""

    steps: Sequence[Step]
    sampler: str
    config: Mapping[str, Any]
    plan: FollowedPlan | None
    is_last: bool


def _step_coefficients(run: _Run, index: int) -> tuple[StepCoefficients, np.ndarray | None]:
    """Return the coefficients of a step and the next sample (C, H, W), as far as they are known."""
    step, history = run.steps[index], _history(run.steps, index)
    coefficients = _known_coefficients(run, index)
    if coefficients is None:
        return _measure_step(run, index, history), step.next_x_t
    if len(coefficients.b) > len(history):
        return coefficients, step.next_x_t
    x_next = recompute_step(step.x_t, history, coefficients.a, coefficients.b, coefficients.coarse)
    if step.next_x_t is not None:
        residual = root_mean_square(step.next_x_t - x_next)
        if residual > MAX_RESIDUAL and not coefficients.adds_noise:  # the model's sampler is set up otherwise
            return _measure_step(run, index, history), step.next_x_t
        return replace(coefficients, residual=residual), step.next_x_t
    if run.is_last and index == len(run.steps) - 1:
        return replace(coefficients, residual=0.0), x_next
    return coefficients, None


def _known_coefficients(run: _Run, index: int) -> StepCoefficients | None:
    """Return the sampler's own coefficients of a step; None if they are not known."""
    step = run.steps[index]
    level = step.alpha, step.sigma
    if run.plan is not None:
        number = step.step - run.steps[0].step
        a, b, coarse = plan_coefficients(run.plan.plan, number)
        return StepCoefficients(a, b, run.plan.source, adds_noise=bool(run.plan.plan.c[number]), coarse=coarse)
    if run.sampler == "ddim":
        a, b = first_order_step(level, _ddim_level(run.steps, index, run.config))
        return StepCoefficients(a, (b,), "exact")
    after = _next_level(run, index)
    if after is None:
        return None
    if run.sampler == "euler":
        a, b = first_order_step(level, after)
    elif run.sampler == "euler_a":
        a, b = ancestral_step(level, after)
    elif run.sampler == "ddpm":
        a, b = posterior_step(level, after)
    elif run.sampler == "lcm":
        a, b = consistency_step(level, after, step.timestep)
    elif index == len(run.steps) - 1 and run.sampler not in ("studio", "pndm"):
        return StepCoefficients(0.0, (1.0,), "exact")
    else:
        return None
    return StepCoefficients(a, (b,), "exact", adds_noise=run.sampler != "euler" and after[1] > 0)


def _measure_step(run: _Run, index: int, history: Sequence[np.ndarray]) -> StepCoefficients:
    """Return coefficients by least squares; `UNKNOWN` if too few steps were kept."""
    step = run.steps[index]
    number = step.step - run.steps[0].step
    is_table = run.sampler == "studio"  # a solver table that the config lacks: it uses all predictions
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


def _next_level(run: _Run, index: int) -> Level | None:
    """Return alpha and sigma of the next step, 1 and 0 after the last; None if the next step was not kept."""
    if index == len(run.steps) - 1:
        return (1.0, 0.0) if run.is_last else None
    after = run.steps[index + 1]
    return (after.alpha, after.sigma) if after.step == run.steps[index].step + 1 else None


def _ddim_level(steps: Sequence[Step], index: int, config: Mapping[str, Any]) -> Level:
    """Return alpha and sigma to which diffusers' DDIM goes from a step.

    It goes T // N train steps on. Where N does not divide T, this is not exactly the time of the next call, and the
    last step leaves a little noise. It also does where the config does not set alpha to one at the end.
    """
    steps_between = steps[-1].step - steps[0].step
    schedule = make_schedule("model", config).schedule
    end = (1.0, 0.0) if config.get("set_alpha_to_one", True) else _level_at(schedule, 0.0)
    if not steps_between:
        return end
    count = round(len(schedule) * steps_between / (steps[0].timestep - steps[-1].timestep))
    time = steps[index].timestep - len(schedule) // count
    return _level_at(schedule, time) if time >= 0 else end


def _level_at(schedule: NoiseSchedule, time: float) -> Level:
    alpha, sigma = schedule.alpha_sigma(torch.tensor(time, dtype=torch.float64))
    return float(alpha), float(sigma)


# ---- distances ----


@dataclass(frozen=True)
class ConvergenceCurve:
    """How close a run gets to a picture, by step, as root mean square of x0 - picture, in units of its values.

    The last value is at time 0, without a further call: that of the picture in which the run ends.
    """

    timesteps: np.ndarray  # (N + 1,)
    calls: np.ndarray  #     (N + 1,) network calls so far
    distance: np.ndarray  #  (N + 1,)


def distance_to_reference(stage: Stage, end: np.ndarray, reference: np.ndarray) -> ConvergenceCurve:
    """Return the distances of every prediction, and of the run's end (C, H, W), to a converged picture (C, H, W).

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
