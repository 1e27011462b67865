"""The forward view: a picture, its noise, and all schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from studio.lab.forward import Moments, PreparedPicture, forward, noise_like, prepare
from studio.lab.latents import preview_rgb
from studio.lab.pack import pack_array, pack_exact, to_image
from studio.lab.schedules import LABELS, SCHEDULES, SOURCES, curves

Config = Mapping[str, Any] | None


def forward_view(
    picture: Image.Image, size: int = 64, seed: int = 0, standardize: bool = False, config: Config = None
) -> dict[str, Any]:
    """Return a picture, its noise and all schedules. The browser computes x_t at any t from them.

    config: of the model's scheduler; None: of the bundled model. Raises ValueError for an unknown size.
    """
    prepared = prepare(picture, size, standardize)
    clean = prepared.standardized if standardize else prepared.scaled
    return _entry(prepared.x0, seed, _preparation(prepared), clean, None, config)


def latent_forward_view(latents: np.ndarray, preview: np.ndarray, seed: int, config: Config) -> dict[str, Any]:
    """Return the same in a latent space. latents: (C, S, S) of the picture. preview: (C + 1, 3), see `preview_rgb`."""
    clean = Moments.of(latents)
    preparation = {"latents": clean}
    for channel, values in enumerate(latents):
        preparation[f"channel {channel + 1}"] = Moments.of(values)
    return _entry(latents, seed, preparation, clean, preview, config)


def _entry(
    x0: np.ndarray,
    seed: int,
    preparation: dict[str, Moments],
    clean: Moments,
    preview: np.ndarray | None,
    config: Config,
) -> dict[str, Any]:
    tables = {name: curves(name, config) for name in SCHEDULES}
    return {
        "size": x0.shape[1],
        "channels": len(x0),
        "preview": None if preview is None else preview.tolist(),
        "x0": pack_array(x0),
        "eps": pack_array(noise_like(x0, seed)),
        "preparation": [{"name": name, **_moments(moments)} for name, moments in preparation.items()],
        "clean": _moments(clean),
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
    config: Config = None,
) -> tuple[Image.Image, dict[str, Any]]:
    """Return the noisy picture at one t, and its numbers. Raises ValueError. config: as in `forward_view`."""
    prepared = prepare(picture, size, standardize)
    x_t, numbers = _numbers(prepared.x0, t, schedule, seed, config)
    return to_image(x_t), numbers | {"preparation": _by_name(_preparation(prepared))}


def latent_forward_numbers(
    latents: np.ndarray, preview: np.ndarray, t: int, schedule: str, seed: int, config: Config
) -> tuple[Image.Image, dict[str, Any]]:
    """Return the noisy latents at one t as a picture by the linear map, and their numbers. Raises ValueError."""
    x_t, numbers = _numbers(latents, t, schedule, seed, config)
    return to_image(preview_rgb(x_t, preview)), numbers | {"preparation": _by_name({"latents": Moments.of(latents)})}


def _numbers(x0: np.ndarray, t: int, schedule: str, seed: int, config: Config) -> tuple[np.ndarray, dict[str, Any]]:
    table = curves(schedule, config)
    noised = forward(x0, noise_like(x0, seed), table, t)
    return noised.x_t, {
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
        "measured": _moments(noised.measured),
        "expected": _moments(noised.expected),
        "histogram": {"density": noised.histogram.tolist(), "normal": noised.normal.tolist(), "from": -4, "to": 4},
    }


def _preparation(prepared: PreparedPicture) -> dict[str, Moments]:
    return {"pixels": prepared.pixels, "scaled": prepared.scaled, "standardized": prepared.standardized}


def _by_name(preparation: dict[str, Moments]) -> dict[str, dict[str, float]]:
    return {name: _moments(moments) for name, moments in preparation.items()}


def _moments(moments: Moments) -> dict[str, float]:
    return {"mean": moments.mean, "variance": moments.variance}
