"""Points in two dimensions instead of pictures: shapes to learn, and the exact prediction for them.

A point is a picture of two numbers. Schedule, sampler and prediction type are the studio's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from studio.diffusion.noise_process import NoiseSchedule, velocity

EXTENT = 2.6  # the plane is shown from -EXTENT to EXTENT
MAX_DRAWN = 20_000  # points of a drawing
MAX_LETTERS = 3


@dataclass(frozen=True)
class PointCloud:
    """Points (N, 2) float32 to learn, each of class 0 or 1."""

    name: str
    points: np.ndarray
    labels: np.ndarray  # (N,) int64
    width: float = 0.05  # standard deviation of the blur


def two_moons(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (count, 2) on two half circles, and their classes (count,)."""
    labels = np.arange(count) % 2
    angle = math.pi * generator.random(count)
    x = np.where(labels == 0, np.cos(angle), 1 - np.cos(angle))
    y = np.where(labels == 0, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([x, y], -1), labels


def spiral(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (count, 2) on two spiral arms, and their classes (count,)."""
    labels = np.arange(count) % 2
    turn = 0.25 + 1.35 * np.sqrt(generator.random(count))  # evenly along the arm
    angle = 2 * math.pi * turn + math.pi * labels
    return np.stack([turn * np.cos(angle), turn * np.sin(angle)], -1), labels


def rings(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (count, 2) on two circles, and their classes (count,)."""
    labels = (generator.random(count) < 2 / 3).astype(np.int64)  # the outer ring is twice as long
    angle = 2 * math.pi * generator.random(count)
    return (1.0 + labels)[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1), labels


SHAPES = {"two moons": two_moons, "spiral": spiral, "rings": rings}


def make_cloud(name: str, count: int = 2048, seed: int = 0) -> PointCloud:
    """Return one of SHAPES, centred and scaled to variance 1. Raises ValueError for an unknown name."""
    if name not in SHAPES:
        raise ValueError(f"shape is {name!r}; it must be one of {', '.join(SHAPES)}")
    generator = np.random.default_rng(seed)
    points, labels = SHAPES[name](count, generator)
    return _blurred(name, _standardized(points), labels, generator)


def cloud_from_letters(text: str, count: int = 2048, seed: int = 0) -> PointCloud:
    """Return points on one to three letters. The first letter is of class 0, the others of class 1.

    Raises ValueError for a text that is empty, too long or has no ink.
    """
    text = str(text).strip()
    if not 1 <= len(text) <= MAX_LETTERS:
        raise ValueError(f"letters is {text[:20]!r}; it must be 1 to {MAX_LETTERS} letters")
    font, generator = ImageFont.load_default(96), np.random.default_rng(seed)
    places, labels, right = [], [], 0.0
    for index, letter in enumerate(text):
        ink = Image.new("L", (160, 160))
        ImageDraw.Draw(ink).text((20, 20), letter, font=font, fill=255)
        y, x = np.nonzero(np.asarray(ink) > 127)
        if not len(x):
            raise ValueError(f"letters is {text!r}; {letter!r} has no ink")
        places.append(np.stack([x - x.min() + right, -y], -1))
        labels.append(np.full(len(x), min(index, 1)))
        right += float(np.ptp(x)) + 14
    pixels, classes = np.concatenate(places), np.concatenate(labels)
    chosen = generator.integers(len(pixels), size=count)
    points = pixels[chosen] + generator.uniform(-0.5, 0.5, (count, 2))
    return PointCloud(text, _standardized(points).astype(np.float32), classes[chosen].astype(np.int64))


def cloud_from_strokes(strokes: Sequence[Mapping[str, Any]], count: int = 2048, seed: int = 0) -> PointCloud:
    """Return points spread evenly along strokes, {"points": [[x, y], ...], "label": 0 or 1}.

    A stroke of one point is a dot. Raises ValueError for an empty drawing and for values that are no points of the
    plane.
    """
    generator = np.random.default_rng(seed)
    lines, labels, weights = [], [], []
    try:
        for stroke in strokes:
            line = np.asarray(stroke["points"], dtype=np.float64)
            label = stroke.get("label", 0)
            if line.size and (line.ndim != 2 or line.shape[1] != 2 or label not in (0, 1)):
                raise ValueError
            if len(line):
                lines.append(line)
                labels.append(int(label))
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as problem:
        raise ValueError('a drawing is a list of {"points": [[x, y], ...], "label": 0 or 1}') from problem
    if not lines:
        raise ValueError("The drawing is empty: draw at least one point.")
    if sum(map(len, lines)) > MAX_DRAWN:
        raise ValueError(f"the drawing has {sum(map(len, lines))} points; it may have {MAX_DRAWN}")
    if not all(np.isfinite(line).all() and np.abs(line).max() <= EXTENT for line in lines):
        raise ValueError(f"the points of a drawing must lie between -{EXTENT} and {EXTENT}")
    for line in lines:
        weights.append(np.linalg.norm(np.diff(line, axis=0), axis=1).sum() + 0.05)  # a dot has a size too
    counts = generator.multinomial(count, np.array(weights) / sum(weights))
    points = [_along(line, generator.random(number)) for line, number in zip(lines, counts, strict=True)]
    return _blurred("drawing", np.concatenate(points), np.repeat(labels, counts), generator)


def _along(line: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return the points (N, 2) at these shares (N,) of the length of a polyline (M, 2)."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    return np.stack([np.interp(share * length[-1], length, line[:, axis]) for axis in (0, 1)], -1)


def _standardized(points: np.ndarray) -> np.ndarray:
    """Centre points and scale them to variance 1."""
    centred = points - points.mean(0)
    return centred / centred.std()


def _blurred(name: str, points: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> PointCloud:
    """Return a cloud with Gaussian noise of the standard width added."""
    width = PointCloud.width
    points = points + width * generator.standard_normal(points.shape)
    return PointCloud(name, points.astype(np.float32), labels.astype(np.int64), width)


# ---- the exact prediction ----


class ExactField:
    """v = E[v | x_t] for a mixture of round Gaussians, in closed form: the output of a perfectly trained network.

    means: (N, 2). width: their standard deviation. labels: (N,), classes for conditional predictions, or None.
    """

    def __init__(self, means: Any, width: float, schedule: NoiseSchedule, labels: Any = None) -> None:
        self.means, self.width, self.schedule = torch.as_tensor(means), width, schedule
        self.labels = None if labels is None else torch.as_tensor(labels)

    def posterior_mean(self, x_t: torch.Tensor, t: torch.Tensor, label: int | None = None) -> torch.Tensor:
        """Return E[x0 | x_t] (B, 2) for x_t (B, 2) at t (B,) or (1,).

        It is sum_i w_i (mu_i + alpha h^2 / s^2 (x_t - alpha mu_i)) with s^2 = alpha^2 h^2 + sigma^2 and w the softmax
        of -|x_t - alpha mu_i|^2 / 2 s^2.
        """
        means = self.means if label is None or self.labels is None else self.means[self.labels == label]
        means = means.to(x_t)
        alpha, sigma = (part.to(x_t).view(-1, 1) for part in self.schedule.alpha_sigma(t))
        spread = alpha**2 * self.width**2 + sigma**2  # (B, 1)
        distance = (x_t[:, None] - alpha[:, None] * means).square().sum(-1)  # (B, N)
        mean = (-distance / (2 * spread)).softmax(-1) @ means  # (B, 2)
        return mean + alpha * self.width**2 / spread * (x_t - alpha * mean)

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor, label: int | None = None) -> torch.Tensor:
        """Return the velocity (B, 2)."""
        x0 = self.posterior_mean(x_t, t, label)
        alpha, sigma = (part.to(x_t).view(-1, 1) for part in self.schedule.alpha_sigma(t))
        return velocity(x0, (x_t - alpha * x0) / sigma, alpha, sigma)


def density(
    cloud: PointCloud, alphas: np.ndarray, sigmas: np.ndarray, side: int = 48, max_points: int = 768
) -> np.ndarray:
    """Return p_t on a grid, (len(alphas), side, side), rows from the top. The largest value of each frame is 1."""
    axis = torch.linspace(-EXTENT, EXTENT, side)
    means = torch.from_numpy(cloud.points[:max_points])  # (M, 2)
    frames = []
    for alpha, sigma in zip(alphas, sigmas, strict=True):
        spread = float(max(alpha**2 * cloud.width**2 + sigma**2, (1.5 * EXTENT / side) ** 2))
        # A round Gaussian is a product of two: (side, M) @ (M, side)
        x, y = (torch.exp(-((axis[:, None] - alpha * means[:, i]) ** 2) / (2 * spread)) for i in (0, 1))
        frame = y.flip(0) @ x.T
        frames.append(frame / frame.max().clamp(min=1e-30))
    return torch.stack(frames).numpy()


def energy_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return 2 E|x - y| - E|x - x'| - E|y - y'| (Székely & Rizzo 2013). It is 0 only for equal distributions."""
    a, b = (torch.as_tensor(np.asarray(points, dtype=np.float32)) for points in (one, other))

    def mean_distance(points: torch.Tensor) -> float:
        return float(torch.cdist(points, points).sum()) / (len(points) * (len(points) - 1))

    return 2 * float(torch.cdist(a, b).mean()) - mean_distance(a) - mean_distance(b)
