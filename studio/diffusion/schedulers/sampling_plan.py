"""The arithmetic of a run without state: its plan, and the update of one step.

DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) is written in lambda = log(alpha / sigma), half the log-SNR, of the
process in `noise_process`. A solver table fitted to a network replaces its times and coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingPlan:
    """The times and coefficients of a run of N network calls with a history of K predictions, in float64 on the CPU.

    x_{i+1} = a_i x_i + sum_j b_ij x0_{i-j} + c_i noise, where x0_{i-j} is the prediction of j calls before. A table
    adds `smooth_3x3` of the same sum with the coefficients in `coarse`.
    """

    timesteps: Tensor  # (N,)   of the network calls: real train steps in [0, T - 1], decreasing
    alphas: Tensor  #    (N+1,) alpha at each of them and, last, at the end of the run
    sigmas: Tensor  #    (N+1,) sigma likewise
    a: Tensor  #         (N,)
    b: Tensor  #         (N, K)
    c: Tensor  #         (N,)   0 but for a restart: the method is deterministic
    guidance: Tensor  #  (N,)   the scale s of a call becomes 1 + factor (s - 1); 1 without a table
    coarse: tuple[Tensor, Tensor] | None = None  # a table's (N,) and (N, K)

    def __len__(self) -> int:
        return len(self.timesteps)


def multistep_update(x_t: Tensor, history: Sequence[Tensor], a: float, b: Sequence[float]) -> Tensor:
    """Return one step of a linear multistep method: a x_t + sum_j b_j x0_j.

    Args:
        x_t: of any shape.
        history: up to K predictions of x0, each of x_t's shape, newest first. Missing ones count as zero.
        a, b: coefficients, b of length K.
    """
    x_next = a * x_t
    for x_0, weight in zip(history, b, strict=False):  # early in a run the history is shorter than b
        x_next = x_next + weight * x_0
    return x_next


def smooth_3x3(picture: Tensor) -> Tensor:
    """Return binomial means of (..., H, W) over 3 x 3 px, with the edge repeated."""
    for dim in (-2, -1):
        first, last = picture.narrow(dim, 0, 1), picture.narrow(dim, -1, 1)
        wide, length = torch.cat([first, picture, last], dim), picture.shape[dim]
        picture = (wide.narrow(dim, 0, length) + 2 * picture + wide.narrow(dim, 2, length)) / 4
    return picture


def dpm_solver_pp(
    alphas: np.ndarray, sigmas: np.ndarray, solver_order: int, lower_order_final: bool, begin_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients a (N,) and b (N, K) of multistep DPM-Solver++ (arXiv 2211.01095) over N+1 noise levels.

    The order rises to K over the first K calls from begin_index, while the history fills. It falls to 1 for the
    step to sigma = 0 and, with lower_order_final, over the last K - 1 steps of a run under 15.
    """
    num_steps = len(alphas) - 1
    with np.errstate(divide="ignore"):
        lambdas = np.log(alphas) - np.log(sigmas)  # (N+1,), +inf where sigma = 0
    a, b = sigmas[1:] / sigmas[:-1], np.zeros((num_steps, solver_order))
    m = np.eye(3)  # m[j]: the x0 prediction of j calls before, as coefficients over the history
    for i in range(num_steps):
        order = max(1, min(solver_order, i + 1 - begin_index))
        if lower_order_final and num_steps < 15:
            order = min(order, num_steps - i)
        if sigmas[i + 1] == 0:
            order = 1
        h = lambdas[i + 1] - lambdas[i]
        phi_1 = -math.expm1(-h)
        x0 = phi_1 * m[0]  # first order: DDIM
        if order >= 2:
            r0 = (lambdas[i] - lambdas[i - 1]) / h
            D1_0 = (m[0] - m[1]) / r0
        if order == 2:  # algorithm 2: DPM-Solver++(2M)
            x0 = x0 + 0.5 * phi_1 * D1_0
        if order == 3:
            # As in diffusers: D1 is h x0' by divided differences, but D2 is only half of h^2 x0''.
            # So the accuracy stays of second order, with a smaller error.
            r1 = (lambdas[i - 1] - lambdas[i - 2]) / h
            D1_1 = (m[1] - m[2]) / r1
            D1 = D1_0 + r0 / (r0 + r1) * (D1_0 - D1_1)
            D2 = (D1_0 - D1_1) / (r0 + r1)
            phi_2 = 1 - phi_1 / h
            x0 = x0 + phi_2 * D1 + (0.5 - phi_2 / h) * D2
        b[i] = alphas[i + 1] * x0[:solver_order]
    return a, b
