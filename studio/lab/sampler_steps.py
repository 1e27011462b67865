"""The steps of samplers whose coefficients follow from two noise levels alone.

A level is (alpha, sigma) with alpha^2 + sigma^2 = 1. Samplers that count in s = sigma / alpha, as Euler does, keep
x / alpha; here their steps are written for x.
"""

from __future__ import annotations

import math

Level = tuple[float, float]

_LCM_DATA_DEVIATION, _LCM_TIME_SCALE = 0.5, 10.0  # as in every published latent consistency model


def first_order_step(level: Level, after: Level) -> tuple[float, float]:
    """Return (a, b) of x_next = a x_t + b x0 where x0 and eps stay as predicted.

    DDIM (Song et al. 2021, arXiv 2010.02502, equation 12) and Euler (Karras et al. 2022, arXiv 2206.00364) agree in it.
    """
    a = after[1] / level[1]
    return a, after[0] - a * level[0]


def posterior_step(level: Level, after: Level) -> tuple[float, float]:
    """Return (a, b) of the mean of q(x_next | x_t, x0), DDPM's (Ho et al. 2020, arXiv 2006.11239, equation 7)."""
    r = level[0] / after[0]
    return r * after[1] ** 2 / level[1] ** 2, after[0] * (1 - r**2) / level[1] ** 2


def ancestral_step(level: Level, after: Level) -> tuple[float, float]:
    """Return (a, b) of Euler ancestral: it goes below the next level, down = s_next^2 / s, and adds noise again."""
    s, s_next = level[1] / level[0], after[1] / after[0]
    share = (s_next / s) ** 2  # down / s
    return after[0] * share / level[0], after[0] * (1 - share)


def consistency_step(level: Level, after: Level, timestep: float) -> tuple[float, float]:
    """Return (a, b) of a latent consistency model: its answer (Luo et al. 2023, arXiv 2310.04378), with new noise."""
    time = timestep * _LCM_TIME_SCALE
    variance = time**2 + _LCM_DATA_DEVIATION**2
    skip, out = _LCM_DATA_DEVIATION**2 / variance, time / math.sqrt(variance)
    return after[0] * skip, after[0] * out
