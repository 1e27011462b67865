"""The samplers of latent models: schedulers made from a model's own scheduler config, and the steppers of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from studio.diffusion.sampling.steppers import DiffusersStepper, Stepper, StudioStepper
from studio.diffusion.schedulers.samplers import AnyScheduler
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler

# Latents are not bounded by 1, so nothing may be clipped.
UNCLIPPED = {"clip_sample": False, "thresholding": False}
SOLVER = UNCLIPPED | {"solver_order": 2, "lower_order_final": True}
SIGMA_OPTIONS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
)
BETA = 0.6  # both parameters of the beta distribution of arXiv 2407.12173


@dataclass(frozen=True)
class LatentSampler:
    """A scheduler's class, and the values that it changes in a model's config."""

    scheduler_class: AnyScheduler
    overrides: Mapping[str, Any] = field(default_factory=dict)


SAMPLERS = {
    "studio": LatentSampler(StudioScheduler),
    "ddim": LatentSampler(DDIMScheduler, UNCLIPPED),
    "ddpm": LatentSampler(DDPMScheduler, UNCLIPPED | {"variance_type": "fixed_small"}),
    "pndm": LatentSampler(PNDMScheduler, {"skip_prk_steps": True}),
    "dpm++2m": LatentSampler(
        DPMSolverMultistepScheduler, SOLVER | {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"}
    ),
    "dpm++2m_sde": LatentSampler(
        DPMSolverMultistepScheduler, SOLVER | {"algorithm_type": "sde-dpmsolver++", "solver_type": "midpoint"}
    ),
    "unipc": LatentSampler(UniPCMultistepScheduler, SOLVER | {"solver_type": "bh2"}),
    "euler": LatentSampler(EulerDiscreteScheduler),
    "euler_a": LatentSampler(EulerAncestralDiscreteScheduler),
    "heun": LatentSampler(HeunDiscreteScheduler, UNCLIPPED),
    "lcm": LatentSampler(LCMScheduler, UNCLIPPED),
}


def make_scheduler(key: str, spacing: str, own: AnyScheduler) -> AnyScheduler:
    """Return the scheduler of a sampler for a model, before `set_timesteps`.

    key: of SAMPLERS. own: the model's own scheduler, whose config counts; what it does not set is the default of the
    sampler's class, as in `from_config`, or, for "studio", of the own scheduler's.
    spacing: "" for that of the config, or a key of `studio.models.samplers.SPACING_LABELS` that the class has.
    """
    sampler = SAMPLERS[key]
    accepted = signature(sampler.scheduler_class.__init__).parameters
    unset = () if key == "studio" else own.config.get("_use_default_values", ())
    config = {name: value for name, value in own.config.items() if name in accepted and name not in unset}
    config |= {name: value for name, value in sampler.overrides.items() if name in accepted}
    if spacing:
        config |= {name: False for name in SIGMA_OPTIONS if name in accepted}
        if spacing in ("leading", "trailing", "linspace"):
            config["timestep_spacing"] = spacing
        else:
            config["use_karras_sigmas" if spacing == "karras" else "use_exponential_sigmas"] = True
    scheduler = sampler.scheduler_class.from_config(config)
    if spacing == "beta":  # diffusers needs SciPy for it, which takes seconds to import
        scheduler._convert_to_exponential = _beta_sigmas
    return scheduler


def _beta_sigmas(in_sigmas: Any, num_inference_steps: int) -> np.ndarray:
    """Return decreasing sigmas (N,) between the ends of in_sigmas, at quantiles of the beta distribution."""
    low, high = float(in_sigmas[-1]), float(in_sigmas[0])
    return low + beta_quantiles(1 - np.linspace(0, 1, num_inference_steps)) * (high - low)


def beta_quantiles(shares: np.ndarray) -> np.ndarray:
    """Return the quantiles (N,) of the beta distribution with both parameters BETA. shares: (N,) in [0, 1].

    With t = u^(1 / BETA), the integral of (t (1 - t))^(BETA - 1) up to x is that of the smooth function
    (1 - u^(1 / BETA))^(BETA - 1) / BETA up to x^BETA. It is inverted by Newton's method for shares up to a half; the
    others are symmetric.
    """
    nodes, weights = np.polynomial.legendre.leggauss(48)
    nodes, weights = (nodes + 1) / 2, weights / 2  # of [0, 1]

    def integral(end: np.ndarray) -> np.ndarray:
        u = end[:, None] * nodes  # (N, 48)
        return end * ((1 - u ** (1 / BETA)) ** (BETA - 1) @ weights)

    half = np.array([0.5**BETA])
    target = np.minimum(shares, 1 - shares) * 2 * integral(half)
    end = target
    for _ in range(12):
        end = end - (integral(end) - target) * (1 - end ** (1 / BETA)) ** (1 - BETA)
    quantiles = end ** (1 / BETA)
    return np.where(shares > 0.5, 1 - quantiles, quantiles)


def make_stepper(
    key: str,
    spacing: str,
    own: AnyScheduler,
    num_inference_steps: int,
    *,
    strength: float = 1.0,
    start: float = 0.0,
    end: float = 1.0,
) -> Stepper:
    """Return the stepper of a run, or of a part of it, as the stock pipelines choose the part.

    key, spacing, own: see `make_scheduler`.
    strength: above 0, at most 1: image to image takes that share of the steps, at least one.
    start, end: shares of the noise schedule, 0 at pure noise: a model takes over at `start`, or hands over at `end`.
        A stepper may have no steps then.

    Raises:
        ValueError: the scheduler cannot take so many steps.
    """
    scheduler = make_scheduler(key, spacing, own)
    if key == "lcm":  # its steps are some of those that it was trained for, within the strength
        trained = scheduler.config.original_inference_steps
        share = max(strength, 1.5 / trained)  # at least one of them
        scheduler.set_timesteps(min(num_inference_steps, int(trained * share)), device="cpu", strength=share)
    else:
        scheduler.set_timesteps(num_inference_steps, device="cpu")
    times: list[float] = scheduler.timesteps.tolist()
    train_steps = scheduler.config.num_train_timesteps
    first, last = 0, len(times)
    if start > 0:
        cutoff = round(train_steps - start * train_steps)
        remaining = sum(time < cutoff for time in times)
        if scheduler.order == 2 and remaining % 2 == 0:  # not between the two calls of a step
            remaining += 1
        first = max(last - remaining, 0)
    elif strength < 1 and key != "lcm":
        taken = max(int(num_inference_steps * strength), 1)
        first = (num_inference_steps - taken) * scheduler.order
    if end < 1:
        cutoff = round(train_steps - end * train_steps)
        last = first + sum(time >= cutoff for time in times[first:])
    if isinstance(scheduler, StudioScheduler):
        return StudioStepper(scheduler, num_inference_steps, begin=first, end=last)
    return DiffusersStepper(scheduler, begin=first, end=last)
