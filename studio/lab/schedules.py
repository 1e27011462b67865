"""Noise schedules to compare. `StudioScheduler` computes them all, as every diffusers scheduler does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler

# Changes to a model's config, by name. "model" is the schedule that the model was trained with.
SCHEDULES: dict[str, dict[str, Any]] = {
    "model": {},
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},  # Ho et al. 2020
    "scaled-linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},  # Stable Diffusion
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},  # Nichol & Dhariwal 2021
}
LABELS = {"model": "This model's own", "linear": "Linear", "scaled-linear": "Scaled linear", "cosine": "Cosine"}
SOURCES = {
    "model": "the schedule in the model's own scheduler_config.json",
    "linear": "Ho, Jain & Abbeel 2020, arXiv 2006.11239, section 4",
    "scaled-linear": "Rombach et al. 2022, arXiv 2112.10752; the schedule of Stable Diffusion",
    "cosine": "Nichol & Dhariwal 2021, arXiv 2102.09672, equation 17",
}


@dataclass(frozen=True)
class Curves:
    """A schedule at every train step t = 0 ... T - 1, float64 (T,) each."""

    name: str
    beta: np.ndarray  #       variance of the noise that step t adds
    alpha_bar: np.ndarray  #  alpha^2: the share of the picture's variance that remains
    alpha: np.ndarray
    sigma: np.ndarray  #      alpha^2 + sigma^2 = 1
    log_snr: np.ndarray  #    log(alpha^2 / sigma^2)

    def __len__(self) -> int:
        return len(self.beta)


def make_schedule(name: str, model: Mapping[str, Any] | None = None) -> StudioScheduler:
    """Return the scheduler of a name in SCHEDULES.

    model: the config of the model's own scheduler; None: of the bundled model.
    Raises ValueError for an unknown name.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule is {name!r}; it must be one of {', '.join(SCHEDULES)}")
    config = {key: value for key, value in (model or STUDIO_CONFIG).items() if not key.startswith("_")}
    change = SCHEDULES[name]
    if change:  # a table of betas, or their rescaling, belongs to the model's own schedule
        config |= {"trained_betas": None, "rescale_betas_zero_snr": False}
    scheduler = StudioScheduler.from_config(config | change)
    assert isinstance(scheduler, StudioScheduler)
    return scheduler


def curves(name: str, model: Mapping[str, Any] | None = None) -> Curves:
    """Return the curves of a schedule. Parameters and errors as for `make_schedule`."""
    scheduler = make_schedule(name, model)
    # At the train steps themselves NoiseSchedule agrees exactly with alphas_cumprod.
    times = torch.arange(len(scheduler.alphas_cumprod), dtype=torch.float64)
    alpha, sigma = scheduler.schedule.alpha_sigma(times)
    return Curves(
        name,
        beta=scheduler.betas.double().numpy(),
        alpha_bar=(alpha**2).numpy(),
        alpha=alpha.numpy(),
        sigma=sigma.numpy(),
        log_snr=scheduler.schedule.log_snr(times).numpy(),
    )


def decibels(log_snr: Any) -> np.ndarray:
    """Convert the natural logarithm of a power ratio to dB."""
    return np.asarray(log_snr) * (10 / np.log(10))
