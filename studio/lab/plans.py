"""Which plan our scheduler followed in a run, found from the times and the first sample of its trace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from studio.diffusion.schedulers.samplers import make_sampler
from studio.diffusion.schedulers.sampling_plan import SamplingPlan
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.lab.coefficients import plan_coefficients, recompute_step, root_mean_square
from studio.lab.trace_protocol import Stage, Step

MAX_RESIDUAL = 2e-3  # root mean square that the right plan may leave over of the first sample; other plans leave more
NOISE_TOLERANCE = 0.2  # by which the noise of a restart may differ from its expected strength


@dataclass(frozen=True)
class FollowedPlan:
    """A plan and how it is known: "exact", or "fitted" for a solver table."""

    plan: SamplingPlan
    source: str


def find_plan(stage: Stage, sampler: str, config: Mapping[str, Any]) -> FollowedPlan | None:
    """Return the plan that our scheduler followed in a stage.

    None if another scheduler ran, too few steps were kept, or the plan is of a solver table that the config lacks.
    """
    if sampler != "studio":
        return None
    scheduler = make_sampler("studio", config)
    assert isinstance(scheduler, StudioScheduler)
    times, numbers = np.asarray(stage.timestep, dtype=np.float64), np.asarray(stage.step) - int(stage.step[0])
    try:
        candidates = _candidates(scheduler, times, numbers)
    except ValueError:
        return None
    first = next(iter(stage))
    # Tables of two guidance scales may share their times: the first sample tells them apart.
    best, least = None, MAX_RESIDUAL
    for candidate in candidates:
        if np.allclose(candidate.plan.timesteps.numpy()[numbers], times, atol=1e-3):
            residual = _residual_of_first_step(first, candidate.plan)
            if residual < least or (best is None and residual == least):
                best, least = candidate, residual
    return best


def _candidates(scheduler: StudioScheduler, times: np.ndarray, numbers: np.ndarray) -> list[FollowedPlan]:
    """Return plans of as many calls as the run made. Its first and last steps are always kept."""
    count = int(numbers[-1]) + 1
    candidates = [FollowedPlan(scheduler.plan(count), "exact")]
    # Inpainting may restart from its first prediction with new noise, at the time of the second call.
    restart_time = float(times[1]) / (len(scheduler) - 1) if len(times) > 1 else 0.0
    if 0 < restart_time < 1:
        candidates.append(FollowedPlan(scheduler.plan(count, restart_time=restart_time), "exact"))
    for table in scheduler.tables.tables:
        if len(table) == count:
            candidates.append(FollowedPlan(scheduler.plan(table=table), "fitted"))
    if (np.diff(numbers) == 1).all():  # a run that starts from a picture has times of its own
        candidates.append(FollowedPlan(scheduler.plan(timesteps=times.tolist()), "exact"))
    return candidates


def _residual_of_first_step(first: Step, plan: SamplingPlan) -> float:
    """Return the root mean square that a plan's first step does not explain of the next sample.

    A restart draws noise, so its residual is MAX_RESIDUAL if the noise is as strong as expected, else infinite.
    A plan without noise that fits is preferred.
    """
    if first.next_x_t is None:
        return 0.0
    residual = root_mean_square(first.next_x_t - recompute_step(first.x_t, [first.x0], *plan_coefficients(plan, 0)))
    noise = float(plan.c[0])
    if not noise:
        return residual
    return MAX_RESIDUAL if abs(residual / noise - 1) < NOISE_TOLERANCE else math.inf
