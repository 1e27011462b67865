"""The diffusion process: how a picture becomes noise at any real time, and what a prediction implies.

The process is variance preserving: x_t = alpha_t x0 + sigma_t eps with alpha_t^2 + sigma_t^2 = 1. The training loss and
sampling both use these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def invalid_choice(name: str, value: Any, allowed: Sequence[Any]) -> ValueError:
    """Return the error that names a value and the choices."""
    return ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(str, allowed))}")


def velocity(x0: Tensor, eps: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """Return v = alpha eps - sigma x0 (Salimans & Ho 2022, arXiv 2202.00512, appendix D); alpha, sigma broadcast."""
    return alpha * eps - sigma * x0


def to_original_and_noise(
    prediction: Tensor, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float, prediction_type: str
) -> tuple[Tensor, Tensor]:
    """Return (x0, eps) that a network's prediction for x_t implies.

    prediction, x_t: (B, ...); alpha, sigma: numbers or tensors that broadcast, such as (B, 1, 1, 1).
    Raises ValueError for an unknown prediction type.
    """
    if prediction_type == "v_prediction":
        return alpha * x_t - sigma * prediction, sigma * x_t + alpha * prediction
    if prediction_type == "epsilon":
        return (x_t - sigma * prediction) / alpha, prediction
    if prediction_type == "sample":
        return prediction, (x_t - alpha * prediction) / sigma
    raise invalid_choice("prediction_type", prediction_type, PREDICTION_TYPES)


def from_original(
    x_0: Tensor, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float, prediction_type: str
) -> Tensor:
    """Return the prediction that implies this x0 for x_t: the inverse of `to_original_and_noise`. sigma is not 0."""
    if prediction_type == "sample":
        return x_0
    eps = (x_t - alpha * x_0) / sigma
    if prediction_type == "v_prediction":
        return velocity(x_0, eps, alpha, sigma)
    if prediction_type == "epsilon":
        return eps
    raise invalid_choice("prediction_type", prediction_type, PREDICTION_TYPES)


class NoiseSchedule:
    """alpha and sigma at any real time t in [0, T - 1]; lambda is interpolated linearly between train steps.

    Times out of range are clamped. Results have t's shape and device, and its dtype if float32 or float64, else
    float32.

    Args:
        alphas_cumprod: (T,), strictly decreasing, inside (0, 1).

    Raises:
        ValueError: alphas_cumprod is anything else.
    """

    def __init__(self, alphas_cumprod: Tensor):
        alpha_squared = alphas_cumprod.detach().to("cpu", torch.float64)
        if not ((alpha_squared > 0) & (alpha_squared < 1)).all() or not (alpha_squared.diff() < 0).all():
            raise ValueError("alphas_cumprod must decrease strictly inside (0, 1)")
        self._lambdas = 0.5 * (alpha_squared.log() - torch.log1p(-alpha_squared))  # (T,), decreasing

    def __len__(self) -> int:
        return len(self._lambdas)

    def _cast(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the table of lambdas and `like`, both in the dtype and on the device of the result."""
        like = like if like.dtype in (torch.float32, torch.float64) else like.float()
        return self._lambdas.to(like.dtype).to(like.device), like  # dtype first: not every device has float64

    def half_log_snr(self, t: Tensor) -> Tensor:
        """Return lambda(t) = log(alpha / sigma), decreasing in t."""
        table, t = self._cast(t)
        t = t.clamp(0, len(table) - 1)
        low = t.floor().clamp(max=len(table) - 2).long()
        return torch.lerp(table[low], table[low + 1], t - low)

    def log_snr(self, t: Tensor) -> Tensor:
        """Return log(alpha^2 / sigma^2), twice `half_log_snr`."""
        return 2 * self.half_log_snr(t)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha, sigma) at time t, each of t's shape."""
        lam = self.half_log_snr(t)
        return torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()

    def time_of(self, half_log_snr: Tensor) -> Tensor:
        """Return the real time t of a lambda: the inverse of `half_log_snr`."""
        table, lam = self._cast(half_log_snr)
        lam = lam.clamp(table[-1], table[0])
        low = (torch.searchsorted(-table, -lam, right=True) - 1).clamp(0, len(table) - 2)
        return low + (lam - table[low]) / (table[low + 1] - table[low])
