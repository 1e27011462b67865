"""The forward process on one picture: its preparation, and x_t = alpha_t x0 + sigma_t eps at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from studio.imaging.modes import flatten_alpha, normalize_image
from studio.lab.schedules import Curves

SIZES = (16, 32, 64, 128)
BINS = 61
EDGES = np.linspace(-4, 4, BINS + 1)  # of the histogram, in units of the noise


@dataclass(frozen=True)
class Moments:
    """Mean and variance of an array."""

    mean: float
    variance: float

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Measure an array."""
        return cls(float(values.mean(dtype=np.float64)), float(values.var(dtype=np.float64)))


@dataclass(frozen=True)
class PreparedPicture:
    """A picture as input of the network, and how the preparation changed its numbers."""

    x0: np.ndarray  # (3, S, S) float32; in [-1, 1], unless standardized: then mean 0 and variance 1
    pixels: Moments  # of the values 0 to 1 as a file holds them
    scaled: Moments  # of 2 p - 1
    standardized: Moments  # of (x - mean) / deviation; the variance is 0 for a picture of one colour
    is_standardized: bool


def prepare(picture: Image.Image, size: int = 64, standardize: bool = False) -> PreparedPicture:
    """Return the middle square of a picture at `size` px, on white where it is transparent.

    standardize: subtract the mean and divide by the deviation, over all channels together. The studio's network is
        trained without this, since [-1, 1] is close enough to variance 1.
    Raises ValueError for a size that is not one of SIZES.
    """
    if size not in SIZES:
        raise ValueError(f"size is {size}; it must be one of {', '.join(map(str, SIZES))}")
    pixels = np.asarray(middle_square(picture, size), dtype=np.float32).transpose(2, 0, 1) / 255
    scaled = 2 * pixels - 1
    deviation = float(scaled.std(dtype=np.float64))
    standard = (scaled - scaled.mean(dtype=np.float64)) / (deviation if deviation > 1e-6 else 1.0)
    x0 = standard if standardize else scaled
    return PreparedPicture(
        np.ascontiguousarray(x0, dtype=np.float32),
        pixels=Moments.of(pixels),
        scaled=Moments.of(scaled),
        standardized=Moments.of(standard),
        is_standardized=standardize,
    )


def middle_square(picture: Image.Image, size: int) -> Image.Image:
    """Return the middle square of a picture at `size` px, RGB, on white where it is transparent."""
    picture = normalize_image(picture)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    return flatten_alpha(picture).resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def noise_like(x0: np.ndarray, seed: int) -> np.ndarray:
    """Return eps ~ N(0, 1) in the shape of x0, float32, from its own seed."""
    return np.random.default_rng(seed).standard_normal(x0.shape, dtype=np.float32)


def add_noise(x0: np.ndarray, eps: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """Return x_t = alpha_t x0 + sigma_t eps (Ho et al. 2020, arXiv 2006.11239, equation 4)."""
    return alpha * x0 + sigma * eps


@dataclass(frozen=True)
class NoisedPicture:
    """The picture at time t, as numbers and as arrays (C, S, S)."""

    t: float
    alpha: float
    sigma: float
    signal: np.ndarray  # alpha x0
    noise: np.ndarray  #  sigma eps
    x_t: np.ndarray
    measured: Moments  # of x_t
    expected: Moments  # mean over all noise: alpha mean(x0), alpha^2 var(x0) + sigma^2
    snr_db: float  #          10 log10(alpha^2 / sigma^2), of the schedule
    picture_snr_db: float  #  10 log10(mean (alpha x0)^2 / mean (sigma eps)^2), of this picture; -inf if it is all 0
    histogram: np.ndarray  # (BINS,) density of x_t's values over EDGES
    normal: np.ndarray  #    (BINS,) density of N(0, 1), averaged over each bin

    @property
    def formula(self) -> str:
        """The equation with the numbers of this t."""
        return f"x_t = {self.alpha:.4f} · x0 + {self.sigma:.4f} · ε"


def forward(x0: np.ndarray, eps: np.ndarray, curves: Curves, t: int) -> NoisedPicture:
    """Return the picture at train step t of a schedule. Raises ValueError if the schedule has no such step."""
    if isinstance(t, bool) or not isinstance(t, int | np.integer) or not 0 <= t < len(curves):
        raise ValueError(f"t is {t}; it must be a whole number from 0 to {len(curves) - 1}")
    alpha, sigma = float(curves.alpha[t]), float(curves.sigma[t])
    x_t, clean = add_noise(x0, eps, alpha, sigma), Moments.of(x0)
    power, noise_power = np.mean(np.square(alpha * x0, dtype=np.float64)), np.mean(np.square(sigma * eps))
    counts, _ = np.histogram(x_t, EDGES)
    return NoisedPicture(
        t=t,
        alpha=alpha,
        sigma=sigma,
        signal=alpha * x0,
        noise=sigma * eps,
        x_t=x_t,
        measured=Moments.of(x_t),
        expected=Moments(alpha * clean.mean, alpha**2 * clean.variance + sigma**2),
        snr_db=float(10 / math.log(10) * curves.log_snr[t]),
        picture_snr_db=10 * math.log10(power / noise_power) if power > 0 else -math.inf,
        histogram=counts / (x_t.size * np.diff(EDGES)),
        normal=normal_density(),
    )


def normal_density(edges: np.ndarray = EDGES) -> np.ndarray:
    """Return the mean density of N(0, 1) in each bin."""
    below = np.array([0.5 * (1 + math.erf(edge / math.sqrt(2))) for edge in edges])
    return np.diff(below) / np.diff(edges)
