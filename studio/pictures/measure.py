"""What can be told of a picture by looking at its pixels: how noisy it is, and whether it is of the drawn kind.

Knows NumPy and Pillow; knows nothing of networks.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

MAD = 0.6745  # median of |x| for a standard normal x
CLEAR_OF_ENDS = 2.0  # standard deviations from black and white within which noise is not cut off


def noise_sigma(picture: Image.Image) -> float:
    """The standard deviation of a picture's noise in levels of 255, were it Gaussian and the same everywhere.

    Donoho's median of the finest diagonal wavelet coefficients (Haar's here), which edges hardly move. Where noise is
    cut off at black and white it looks smaller than it is: such places are left out, unless they are nearly all.
    """
    values = np.asarray(picture.convert("RGB"), dtype=np.float32)
    height, width = (length // 2 * 2 for length in values.shape[:2])
    if not height or not width:
        return 0.0
    a, b, c, d = (values[y:height:2, x:width:2] for y in (0, 1) for x in (0, 1))
    detail, level = np.abs(a - b - c + d) / 2, (a + b + c + d) / 4
    level = _smoothed(level)
    sigma = float(np.median(detail)) / MAD
    for _ in range(3):
        clear = (level > CLEAR_OF_ENDS * sigma) & (level < 255 - CLEAR_OF_ENDS * sigma)
        if clear.sum() < max(64, clear.size // 100):
            break
        sigma = float(np.median(detail[clear])) / MAD
    return sigma


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Means over 3 x 3."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
