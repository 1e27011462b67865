"""Measurements on a picture's pixels: how noisy it is, and whether it is a drawing or a photograph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

MIN_SIDE = 48  # px; smaller pictures count as drawings
MIN_EQUAL_NEIGHBORS = 0.2  # share of a drawing's pixels that equal their neighbours
MIN_FLATNESS = 0.28  # of a drawing at 64 px: the share of flat pixels minus twice that of softly shaded ones
MAX_FLAT_STEP = 3  # levels of 255 between neighbours on a flat surface
SHADED_STEPS = (8, 40)  # levels of 255 between neighbours on a softly shaded surface, exclusive
NORMAL_MAD = 0.6745  # median of |x| for a standard normal x
CLIPPING_MARGIN = 2.0  # standard deviations from black and white within which noise is cut off


def estimate_noise_sigma(picture: Image.Image) -> float:
    """Estimate the standard deviation of a picture's noise, in levels of 255, as if it were Gaussian and uniform.

    The estimator is the median of the finest diagonal Haar coefficients (Donoho and Johnstone, "Ideal spatial
    adaptation by wavelet shrinkage", 1994), which edges hardly move. Near black and white noise is cut off and looks
    smaller than it is: such pixels are left out, unless too few others remain.
    """
    values = np.asarray(picture.convert("RGB"), dtype=np.float32)
    height, width = (length // 2 * 2 for length in values.shape[:2])
    if not height or not width:
        return 0.0
    a, b = values[0:height:2, 0:width:2], values[0:height:2, 1:width:2]
    c, d = values[1:height:2, 0:width:2], values[1:height:2, 1:width:2]
    detail, level = np.abs(a - b - c + d) / 2, (a + b + c + d) / 4
    level = _blur_3x3(level)
    sigma = float(np.median(detail)) / NORMAL_MAD
    for _ in range(3):  # the margin depends on sigma, so it is refined a few times
        margin = CLIPPING_MARGIN * sigma
        is_unclipped = (level > margin) & (level < 255 - margin)
        if is_unclipped.sum() < max(64, is_unclipped.size // 100):
            break
        sigma = float(np.median(detail[is_unclipped])) / NORMAL_MAD
    return sigma


def is_drawing(picture: Image.Image) -> bool:
    """Return whether a picture has the flat colours and sharp edges of a drawing, rather than a photograph's grain.

    The bundled network was trained on drawings. A picture whose shorter side is below MIN_SIDE counts as a drawing.
    """
    if min(picture.size) < MIN_SIDE:
        return True
    picture = picture.convert("RGB")
    if (_neighbor_steps(picture) == 0).mean() < MIN_EQUAL_NEIGHBORS:
        return False
    scale = min(64 / max(picture.size), 1)
    width, height = (max(round(length * scale), 2) for length in picture.size)
    steps = _neighbor_steps(picture.resize((width, height), Image.Resampling.BOX))
    flat = (steps <= MAX_FLAT_STEP).mean()
    shaded = ((steps > SHADED_STEPS[0]) & (steps < SHADED_STEPS[1])).mean()
    return bool(flat - 2 * shaded >= MIN_FLATNESS)


def _neighbor_steps(picture: Image.Image) -> npt.NDArray[np.int16]:
    """Return each pixel's larger step (H - 1, W - 1) to the right or down neighbour, in levels of 255."""
    values = np.asarray(picture, dtype=np.int16)
    down = np.abs(np.diff(values, axis=0)).max(2)
    across = np.abs(np.diff(values, axis=1)).max(2)
    return np.maximum(across[:-1], down[:, :-1])


def _blur_3x3(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the means over 3 x 3 pixels of (H, W, C)."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
