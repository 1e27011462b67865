"""Noise schedules side by side: how fast a picture drowns in noise.

All come from `StudioScheduler`, which reckons them as every diffusers scheduler does; nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler

# Each is a change to a model's config. "model" changes nothing: it is the schedule the model was trained with.
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
    alpha_bar: np.ndarray  #  alpha^2: what is left of the picture's variance
    alpha: np.ndarray
    sigma: np.ndarray  #      alpha^2 + sigma^2 = 1
    log_snr: np.ndarray  #    log(alpha^2 / sigma^2)

    def __len__(self) -> int:
        return len(self.beta)


def scheduler(name: str, model: Mapping[str, Any] | None = None) -> StudioScheduler:
    """The scheduler of that name in SCHEDULES, for a model whose scheduler has this config (None: the bundled one).

    Raises ValueError for an unknown name.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule is {name!r}; it must be one of {', '.join(SCHEDULES)}")
    config = {key: value for key, value in (model or STUDIO_CONFIG).items() if not key.startswith("_")}
    change = SCHEDULES[name]
    if change:  # a table of betas, or their rescaling, belongs to the model's own schedule
        config |= {"trained_betas": None, "rescale_betas_zero_snr": False}
    return StudioScheduler.from_config(config | change)


def curves(name: str, model: Mapping[str, Any] | None = None) -> Curves:
    """All that the plots show of a schedule."""
    made = scheduler(name, model)
    alpha_bar = made.alphas_cumprod.double()
    # alpha and sigma at the train steps themselves, where NoiseSchedule agrees with alphas_cumprod exactly
    alpha, sigma = made.schedule.alpha_sigma(alpha_bar.new_tensor(range(len(alpha_bar))))
    log_snr = made.schedule.log_snr(alpha_bar.new_tensor(range(len(alpha_bar))))
    return Curves(name, *(value.numpy() for value in (made.betas.double(), alpha**2, alpha, sigma, log_snr)))


def decibels(log_snr: Any) -> np.ndarray:
    """log(power ratio) -> dB."""
    return np.asarray(log_snr) * (10 / np.log(10))
