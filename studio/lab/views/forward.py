"""The forward view: a picture, its noise, and all schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from studio.lab.forward import Moments, PreparedPicture, forward, noise_like, prepare
from studio.lab.pack import pack_array, pack_exact, to_image
from studio.lab.schedules import LABELS, SCHEDULES, SOURCES, curves


def forward_view(
    picture: Image.Image,
    size: int = 64,
    seed: int = 0,
    standardize: bool = False,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a picture, its noise and all schedules. The browser computes x_t at any t from them.

    config: of the model's scheduler; None: of the bundled model. Raises ValueError for an unknown size.
    """
    prepared = prepare(picture, size, standardize)
    tables = {name: curves(name, config) for name in SCHEDULES}
    return {
        "size": size,
        "seed": seed,
        "standardized": standardize,
        "x0": pack_array(prepared.x0),
        "eps": pack_array(noise_like(prepared.x0, seed)),
        "moments": _preparation(prepared),
        "last": len(tables["model"]) - 1,
        "schedules": {
            name: {
                "label": LABELS[name],
                "source": SOURCES[name],
                "log_snr": pack_exact(table.log_snr),
                "beta": pack_exact(table.beta),
            }
            for name, table in tables.items()
        },
    }


def forward_numbers(
    picture: Image.Image,
    t: int,
    schedule: str = "model",
    *,
    size: int = 64,
    seed: int = 0,
    standardize: bool = False,
    config: Mapping[str, Any] | None = None,
) -> tuple[Image.Image, dict[str, Any]]:
    """Return the noisy picture at one t, and its numbers. Raises ValueError. config: as in `forward_view`."""
    prepared, table = prepare(picture, size, standardize), curves(schedule, config)
    noised = forward(prepared.x0, noise_like(prepared.x0, seed), table, t)
    numbers = {
        "t": int(noised.t),
        "schedule": schedule,
        "seed": seed,
        "alpha": noised.alpha,
        "sigma": noised.sigma,
        "alpha_bar": noised.alpha**2,
        "beta": float(table.beta[t]),
        "log_snr": float(table.log_snr[t]),
        "snr_db": noised.snr_db,
        "picture_snr_db": noised.picture_snr_db if np.isfinite(noised.picture_snr_db) else None,
        "formula": noised.formula,
        "preparation": _preparation(prepared),
        "measured": _moments(noised.measured),
        "expected": _moments(noised.expected),
        "histogram": {"density": noised.histogram.tolist(), "normal": noised.normal.tolist(), "from": -4, "to": 4},
    }
    return to_image(noised.x_t), numbers


def _preparation(prepared: PreparedPicture) -> dict[str, dict[str, float]]:
    return {
        "pixels": _moments(prepared.pixels),
        "scaled": _moments(prepared.scaled),
        "standardized": _moments(prepared.standardized),
    }


def _moments(moments: Moments) -> dict[str, float]:
    return {"mean": moments.mean, "variance": moments.variance}
