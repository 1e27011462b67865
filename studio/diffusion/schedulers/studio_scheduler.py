"""The sampler: how noise becomes a picture, step by step.

DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) is written in lambda = log(alpha / sigma), half the log-SNR, of the
process in process.py. A table fitted to a network (tables.py) puts its own times and coefficients in its place.

Knows nothing of networks or text, and does no guidance: a model's output comes in, the next sample goes out. The pure
half (`SamplingPlan`, `multistep_update`) keeps no state, so that pictures at different steps can share one
network call; `StudioScheduler.step` is the same update behind the interface that diffusers pipelines expect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import betas_for_alpha_bar, rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import BaseOutput
from torch import Tensor

from studio.diffusion.noise_process import (
    PREDICTION_TYPES,
    NoiseSchedule,
    invalid_choice,
    to_original_and_noise,
    velocity,
)
from studio.diffusion.schedulers.solver_tables import SolverTable, SolverTables

# What assets/model is trained with: `StudioScheduler.from_config(STUDIO_CONFIG)`. "clip_sample" and
# "set_alpha_to_one" are not ours, but a saved config keeps them, so that DDIM made from it does not clip.
STUDIO_CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,  # the cosine schedule uses neither beta_start nor beta_end
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "trained_betas": None,
    "prediction_type": "v_prediction",
    "solver_order": 2,
    "timestep_spacing": "trailing",  # begins at the last train step, where the picture is pure noise
    "steps_offset": 0,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "rescale_betas_zero_snr": False,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "solver_tables": None,
}


def multistep_update(x_t: Tensor, history: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One step of a linear multistep method, coefficients by row: a x_t + sum_j b_j x0_j.

    x_t: (B, ...); history: (B, K, ...), the x0 predictions, newest first, zeros where there are none yet;
    a: (B,), b: (B, K), taken to x_t's dtype and device.
    """
    ones = (1,) * (x_t.ndim - 1)
    b = b.to(x_t)
    x_next = a.to(x_t).view(-1, *ones) * x_t
    for j in range(b.shape[1]):  # term by term, so that a row's rounding does not depend on its batch
        x_next = x_next + b[:, j].view(-1, *ones) * history[:, j]
    return x_next


def smooth_3x3(picture: Tensor) -> Tensor:
    """What is coarse of (..., H, W): binomial means over 3 x 3 px, the edge repeated."""
    for dim in (-2, -1):
        first, last = picture.narrow(dim, 0, 1), picture.narrow(dim, -1, 1)
        wide, length = torch.cat([first, picture, last], dim), picture.shape[dim]
        picture = (wide.narrow(dim, 0, length) + 2 * picture + wide.narrow(dim, 2, length)) / 4
    return picture


@dataclass(frozen=True)
class SamplingPlan:
    """All that a run of N network calls needs to know, in float64 on the CPU: N steps with K-deep history.

    x_{i+1} = a_i x_i + sum_j b_ij x0_{i-j} + c_i noise, x0_{i-j} being the prediction of j calls before; and, by a
    table, smoothed() of the same sum with the coefficients in `coarse`.
    """

    timesteps: Tensor  # (N,)   real train steps in [0, T - 1], decreasing: what the network is called with
    alphas: Tensor  #    (N+1,) alpha at each of them and, last, where the run ends
    sigmas: Tensor  #    (N+1,) sigma likewise
    a: Tensor  #         (N,)
    b: Tensor  #         (N, K)
    c: Tensor  #         (N,)   0 but for a leap: the method is deterministic
    guidance: Tensor  #  (N,)   what guidance scales less 1 are to be multiplied by: 1 but for a table
    coarse: tuple[Tensor, Tensor] | None = None  # a table's (N,) and (N, K)

    def __len__(self) -> int:
        return len(self.timesteps)


def dpm_solver_pp(
    alphas: np.ndarray, sigmas: np.ndarray, solver_order: int, lower_order_final: bool, begin_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients a (N,) and b (N, K) of multistep DPM-Solver++ (arXiv 2211.01095) over N+1 noise levels.

    The order rises to K over the first K calls from begin_index, for want of history. It falls to 1 for the
    step to sigma = 0 and, with lower_order_final, over the last K - 1 steps of a run under 15.
    """
    num_steps = len(alphas) - 1
    with np.errstate(divide="ignore"):
        lambdas = np.log(alphas) - np.log(sigmas)  # (N+1,), +inf where sigma = 0
    a, b = sigmas[1:] / sigmas[:-1], np.zeros((num_steps, solver_order))
    m = np.eye(3)  # m[j]: the x0 prediction of j calls ago, as a vector of coefficients over the history
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
            # As diffusers has it: D1 is h x0' by divided differences, but D2 is half of h^2 x0'' where the
            # whole belongs. Hence second-order accuracy still, with a smaller error.
            r1 = (lambdas[i - 1] - lambdas[i - 2]) / h
            D1_1 = (m[1] - m[2]) / r1
            D1 = D1_0 + r0 / (r0 + r1) * (D1_0 - D1_1)
            D2 = (D1_0 - D1_1) / (r0 + r1)
            phi_2 = 1 - phi_1 / h
            x0 = x0 + phi_2 * D1 + (0.5 - phi_2 / h) * D2
        b[i] = alphas[i + 1] * x0[:solver_order]
    return a, b


@dataclass
class StudioSchedulerOutput(BaseOutput):
    """What `StudioScheduler.step` returns: two tensors of the sample's shape."""

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class StudioScheduler(SchedulerMixin, ConfigMixin):
    """Multistep DPM-Solver++ of order 1, 2 or 3 as a table of coefficients, with diffusers' interface.

    Arguments are named as in diffusers' `DPMSolverMultistepScheduler`, with its defaults, and mean the same.
    ValueError for a value that is not among those listed beside it.
    """

    _compatibles = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
    order = 1  # network calls per timestep in `timesteps`, as pipelines count them; not the solver's order
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",  #       or "scaled_linear", "squaredcos_cap_v2"
        trained_betas: Sequence[float] | np.ndarray | None = None,  # used instead of the four above
        prediction_type: str = "epsilon",  #    or "sample", "v_prediction"
        solver_order: int = 2,  #               1, 2 or 3
        timestep_spacing: str = "linspace",  #  or "leading", "trailing": arXiv 2305.08891, table 2
        steps_offset: int = 0,  #               added to the timesteps of "leading"
        lower_order_final: bool = True,  #      runs under 15 steps end at lower orders
        final_sigmas_type: str = "zero",  #     a run ends at sigma 0, or at "sigma_min", that of train step 0
        rescale_betas_zero_snr: bool = False,  # to nearly pure noise at the last train step: arXiv 2305.08891
        solver_tables: dict[str, Any] | None = None,  # fitted to a model: `SolverTables.to_config`
    ):
        for name, value, allowed in (
            ("beta_schedule", beta_schedule, ("linear", "scaled_linear", "squaredcos_cap_v2")),
            ("prediction_type", prediction_type, PREDICTION_TYPES),
            ("solver_order", solver_order, (1, 2, 3)),
            ("timestep_spacing", timestep_spacing, ("linspace", "leading", "trailing")),
            ("final_sigmas_type", final_sigmas_type, ("zero", "sigma_min")),
        ):
            if value not in allowed:
                raise invalid_choice(name, value, allowed)
        # float32, as in all diffusers schedulers: samplers that share a config share the schedule exactly
        if trained_betas is not None:
            betas = torch.tensor(trained_betas, dtype=torch.float32)
        elif beta_schedule == "linear":
            betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float32)
        elif beta_schedule == "scaled_linear":
            roots = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float32)
            betas = roots**2
        else:
            betas = betas_for_alpha_bar(num_train_timesteps)
        self.betas = rescale_zero_terminal_snr(betas) if rescale_betas_zero_snr else betas
        self.alphas = 1.0 - self.betas
        self.alphas_cumprod = torch.cumprod(self.alphas, dim=0)  # (T,)
        if rescale_betas_zero_snr:
            self.alphas_cumprod[-1] = 2**-24  # not 0, so that log-SNR is finite; diffusers has the same
        self.schedule = NoiseSchedule(self.alphas_cumprod)
        self.tables = SolverTables.from_config(solver_tables)
        # `from_config` of another class drops the values listed here for its own defaults: drop none
        self.register_to_config(_use_default_values=[])

        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(len(self.schedule) - 1, -1, -1, dtype=torch.float32)
        self._begin_index: int | None = None
        self._reset()

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict, dict, dict]:
        """Read another scheduler's config whole, defaults too: they are part of what it does."""
        return super().extract_init_dict(
            {key: value for key, value in config_dict.items() if key != "_use_default_values"}, **kwargs
        )

    # ---- the pure half ----

    def plan(
        self,
        num_inference_steps: int | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        begin_index: int = 0,
        table: SolverTable | None = None,
        leap: float | None = None,
    ) -> SamplingPlan:
        """The plan of a run of num_inference_steps network calls, or through the given real timesteps, or by a table.

        Without a table it is DPM-Solver++. Whether a table fits the network is for the caller to know. A run that
        joins at begin_index (image to image) has no history there: the order rises from that step.
        leap: for a number of steps. The first call's prediction, the posterior mean, is taken at once to this share of
        the time, under noise drawn anew; the other calls go on from there as a run that joins late (Chung et al. 2022,
        arXiv 2112.05146, section 3, who begin with an estimate of another's).
        Raises ValueError unless exactly one of the first three is given, for timesteps that do not decrease strictly
        inside [0, T - 1], for more steps than the train steps can be spaced into, for a table begun late, and for a
        leap outside (0, 1) or of a run of one step.
        """
        if sum(given is not None for given in (num_inference_steps, timesteps, table)) != 1:
            raise ValueError("give either num_inference_steps or timesteps or table")
        last = len(self.schedule) - 1
        if table is not None:
            if begin_index:
                raise ValueError(f"begin_index is {begin_index}; it must be 0 with a table")
            timesteps = table.timesteps
        if leap is not None:
            if num_inference_steps is None or num_inference_steps < 2 or begin_index or not 0 < leap < 1:
                raise ValueError(f"leap is {leap}; it must lie between 0 and 1, for a run of 2 or more steps")
            timesteps = [last, *np.linspace(leap * last, 0, num_inference_steps)[:-1]]
        times = self._spaced(num_inference_steps) if timesteps is None else timesteps
        times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
        if not len(times) or not ((0 <= times) & (times <= last)).all() or not (times.diff() < 0).all():
            given = f"num_inference_steps is {num_inference_steps}" if timesteps is None else "timesteps"
            raise ValueError(f"{given}: timesteps must decrease strictly and lie between 0 and {last}")

        alphas, sigmas = self.schedule.alpha_sigma(torch.cat([times, times.new_zeros(1)]))
        if self.config.final_sigmas_type == "zero":
            alphas[-1], sigmas[-1] = 1, 0
        if table is not None:
            parts = table.a, table.b, table.guidance, table.coarse_a, table.coarse_b
            a, b, share, *coarse = (torch.tensor(numbers, dtype=torch.float64) for numbers in parts)
            return SamplingPlan(times, alphas, sigmas, a, b, torch.zeros_like(a), share, tuple(coarse))
        order, lower_order_final = self.config.solver_order, self.config.lower_order_final
        a, b = dpm_solver_pp(alphas.numpy(), sigmas.numpy(), order, lower_order_final, begin_index + (leap is not None))
        c = np.zeros_like(a)
        if leap is not None:
            a[0], b[0], c[0] = 0, float(alphas[1]) * np.eye(order)[0], float(sigmas[1])
        return SamplingPlan(times, alphas, sigmas, *map(torch.from_numpy, (a, b, c)), torch.ones_like(times))

    def _spaced(self, num_inference_steps: int) -> np.ndarray:
        """The timesteps (N,) of config.timestep_spacing, as DPMSolverMultistepScheduler reckons them."""
        T, N = len(self.schedule), num_inference_steps
        if not 1 <= N <= T:
            raise ValueError(f"num_inference_steps is {N}; it must be between 1 and {T}")
        if self.config.timestep_spacing == "linspace":
            return np.linspace(0, T - 1, N + 1).round()[:0:-1].copy()
        if self.config.timestep_spacing == "leading":
            return np.arange(N, 0, -1.0) * (T // (N + 1)) + self.config.steps_offset
        return np.arange(T, 0, -T / N).round()[:N] - 1

    # ---- the diffusers interface ----

    def __len__(self) -> int:
        return len(self.schedule)

    @property
    def step_index(self) -> int | None:
        """How many steps into `timesteps` the run is; None before its first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Where in `timesteps` the run begins, if `set_begin_index` has said so."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Say where in `timesteps` the run begins (image to image begins late)."""
        self._begin_index = begin_index

    def _reset(self) -> None:
        self._step_index: int | None = None
        self._history: list[Tensor] = []

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        table: SolverTable | None = None,
    ) -> None:
        """Begin a run of num_inference_steps, or through the given timesteps, or by a table, as `plan` has them.

        A table is never taken unasked: the scheduler does not see the network. `tables.find` names the one to ask for;
        its guidance is for who calls the network.
        """
        self._plan = self.plan(num_inference_steps, timesteps, table=table)
        self.num_inference_steps = len(self._plan)
        self.timesteps = self._plan.timesteps.to(torch.float32).to(device)
        self._begin_index = None
        self._reset()

    def index_for_timestep(self, timestep: float | Tensor) -> int:
        """The position of timestep in `timesteps`; ValueError if it is not there."""
        found = (self.timesteps == torch.as_tensor(timestep).to(self.timesteps)).nonzero()
        if not len(found):
            raise ValueError(f"timestep {float(timestep)} is not one of this run's timesteps")
        return int(found[0])

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """The sample itself: a variance-preserving process needs no scaling."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> StudioSchedulerOutput | tuple[Tensor, Tensor]:
        """Take sample (B, ...) one step on, given the network's output for it, in float32 or better.

        timestep says where a run begins unless `set_begin_index` has; from there steps are counted. generator is not
        used: no step draws noise. Results are in model_output's dtype. Raises ValueError before `set_timesteps` and
        after the last step.
        """
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step")
        if self._step_index is None:
            begin = self.index_for_timestep(timestep) if self._begin_index is None else self._begin_index
            if begin:
                self._plan = self.plan(timesteps=self._plan.timesteps, begin_index=begin)
            self._step_index = begin
        i, plan = self._step_index, self._plan
        if i >= len(plan):
            raise ValueError(f"all {len(plan)} steps are taken: call set_timesteps to begin again")

        dtype = torch.promote_types(sample.dtype, torch.float32)
        x_t = sample.to(dtype)
        x0, _ = to_original_and_noise(
            model_output.to(dtype), x_t, plan.alphas[i], plan.sigmas[i], self.config.prediction_type
        )
        depth = plan.b.shape[1]
        self._history = [x0, *self._history][:depth]
        missing = [torch.zeros_like(x0)] * (depth - len(self._history))
        history, rows = torch.stack([*self._history, *missing], dim=1), len(x_t)

        def mixed(a: Tensor, b: Tensor) -> Tensor:
            return multistep_update(x_t, history, a[i].expand(rows), b[i].expand(rows, -1))

        x_next = mixed(plan.a, plan.b)
        if plan.coarse is not None:
            x_next = x_next + smooth_3x3(mixed(*plan.coarse))
        self._step_index += 1
        x_next, x0 = x_next.to(model_output.dtype), x0.to(model_output.dtype)
        return StudioSchedulerOutput(x_next, x0) if return_dict else (x_next, x0)

    def _alpha_sigma_like(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule.alpha_sigma(timesteps.to(like.device))
        shape = (-1, *(1,) * (like.ndim - 1))
        return alpha.to(like.dtype).view(shape), sigma.to(like.dtype).view(shape)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = alpha_t x0 + sigma_t eps for x0, eps (B, ...) at real timesteps (B,) or (1,)."""
        alpha, sigma = self._alpha_sigma_like(timesteps, original_samples)
        return alpha * original_samples + sigma * noise

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = alpha_t eps - sigma_t x0 for x0 = sample, eps = noise (B, ...), real timesteps (B,) or (1,)."""
        return velocity(sample, noise, *self._alpha_sigma_like(timesteps, sample))
