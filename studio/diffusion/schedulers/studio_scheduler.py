"""StudioScheduler: multistep DPM-Solver++ behind the interface of diffusers, and the plans that the studio runs by.

The stateless part is `plan`, with the arithmetic in `sampling_plan`: pictures at different steps can share one network
call. `StudioScheduler.step` is the same update for stock diffusers pipelines.
"""

from __future__ import annotations

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
from studio.diffusion.schedulers.sampling_plan import SamplingPlan, dpm_solver_pp, multistep_update, smooth_3x3
from studio.diffusion.schedulers.solver_tables import SolverTable, SolverTables

# The scheduler of assets/model: `StudioScheduler.from_config(STUDIO_CONFIG)`. StudioScheduler has no "clip_sample" and
# "set_alpha_to_one", but a saved config keeps them, so that DDIM made from it does not clip.
STUDIO_CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,  # the cosine schedule uses neither beta_start nor beta_end
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "trained_betas": None,
    "prediction_type": "v_prediction",
    "solver_order": 2,
    "timestep_spacing": "trailing",  # begins at the last train step, at pure noise
    "steps_offset": 0,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "rescale_betas_zero_snr": False,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "solver_tables": None,
}


@dataclass
class StudioSchedulerOutput(BaseOutput):
    """Result of `StudioScheduler.step`: two tensors of the sample's shape."""

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class StudioScheduler(SchedulerMixin, ConfigMixin):
    """Multistep DPM-Solver++ of order 1, 2 or 3 as a table of coefficients, with diffusers' interface.

    Arguments have the names, defaults and meaning of diffusers' `DPMSolverMultistepScheduler`.

    Raises:
        ValueError: a value is not among those listed beside it.
    """

    config: Any  # a FrozenDict, with the arguments as attributes

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
    ) -> None:
        for name, value, allowed in (
            ("beta_schedule", beta_schedule, ("linear", "scaled_linear", "squaredcos_cap_v2")),
            ("prediction_type", prediction_type, PREDICTION_TYPES),
            ("solver_order", solver_order, (1, 2, 3)),
            ("timestep_spacing", timestep_spacing, ("linspace", "leading", "trailing")),
            ("final_sigmas_type", final_sigmas_type, ("zero", "sigma_min")),
        ):
            if value not in allowed:
                raise invalid_choice(name, value, allowed)
        # float32 as in all diffusers schedulers, so that samplers of one config share the schedule exactly
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
            # Not 0: a finite log-SNR, 2**-24 as in diffusers, but below the one before.
            self.alphas_cumprod[-1] = min(2**-24, self.alphas_cumprod[-2].item() / 2)
        self.schedule = NoiseSchedule(self.alphas_cumprod)
        self.tables = SolverTables.from_config(solver_tables)
        # `from_config` of another class replaces the values listed here by its own defaults: list none
        self.register_to_config(_use_default_values=[])

        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(len(self.schedule) - 1, -1, -1, dtype=torch.float32)
        self._begin_index: int | None = None
        self._reset()

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict, dict, dict]:
        """Read all values of another scheduler's config, its defaults too."""
        return super().extract_init_dict(
            {key: value for key, value in config_dict.items() if key != "_use_default_values"}, **kwargs
        )

    # ---- the stateless part ----

    def plan(
        self,
        num_inference_steps: int | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        begin_index: int = 0,
        table: SolverTable | None = None,
        restart_time: float | None = None,
    ) -> SamplingPlan:
        """Return the plan of a run; exactly one of num_inference_steps, timesteps and table is given.

        Args:
            num_inference_steps: network calls, spaced by `config.timestep_spacing`.
            timesteps: real times in [0, T - 1] of the network calls, strictly decreasing.
            table: of a fitted solver, in place of DPM-Solver++. The caller checks that it fits the network.
            begin_index: the run begins at this step (image to image). It has no history there, so the order rises
                from this step.
            restart_time: with num_inference_steps. The first call predicts the posterior mean. New noise takes it to
                this share of the time, and the other calls continue from there (Chung et al. 2022, arXiv 2112.05146,
                section 3, begin with an estimate from elsewhere).

        Raises:
            ValueError: not exactly one of the first three is given; timesteps do not decrease strictly inside
                [0, T - 1]; the steps are more than the train steps can be spaced into; begin_index is given with a
                table; restart_time is outside (0, 1) or given for a run of one step.
        """
        if (num_inference_steps is None) + (timesteps is None) + (table is None) != 2:
            raise ValueError("give either num_inference_steps or timesteps or table")
        last = len(self.schedule) - 1
        if table is not None:
            if begin_index:
                raise ValueError(f"begin_index is {begin_index}; it must be 0 with a table")
            timesteps = table.timesteps
        if restart_time is not None:
            if num_inference_steps is None or num_inference_steps < 2 or begin_index or not 0 < restart_time < 1:
                raise ValueError(
                    f"restart_time is {restart_time}; it must lie between 0 and 1, for a run of 2 or more steps"
                )
            timesteps = [last, *np.linspace(restart_time * last, 0, num_inference_steps)[:-1]]
        spaced = timesteps if num_inference_steps is None or timesteps is not None else self._space(num_inference_steps)
        times = torch.as_tensor(spaced, dtype=torch.float64, device="cpu")
        if not len(times) or not ((0 <= times) & (times <= last)).all() or not (times.diff() < 0).all():
            name = f"num_inference_steps is {num_inference_steps}" if timesteps is None else "timesteps"
            raise ValueError(f"{name}: timesteps must decrease strictly and lie between 0 and {last}")

        alphas, sigmas = self.schedule.alpha_sigma(torch.cat([times, times.new_zeros(1)]))
        if self.config.final_sigmas_type == "zero":
            alphas[-1], sigmas[-1] = 1, 0
        if table is not None:
            return SamplingPlan(
                times,
                alphas,
                sigmas,
                a=torch.tensor(table.a, dtype=torch.float64),
                b=torch.tensor(table.b, dtype=torch.float64),
                c=torch.zeros_like(times),
                guidance=torch.tensor(table.guidance, dtype=torch.float64),
                coarse=(
                    torch.tensor(table.coarse_a, dtype=torch.float64),
                    torch.tensor(table.coarse_b, dtype=torch.float64),
                ),
            )
        order, lower_order_final = self.config.solver_order, self.config.lower_order_final
        first = begin_index + (restart_time is not None)  # step at which the history begins
        a, b = dpm_solver_pp(alphas.numpy(), sigmas.numpy(), order, lower_order_final, first)
        c = np.zeros_like(a)
        if restart_time is not None:
            a[0], b[0], c[0] = 0, float(alphas[1]) * np.eye(order)[0], float(sigmas[1])
        return SamplingPlan(
            times,
            alphas,
            sigmas,
            a=torch.from_numpy(a),
            b=torch.from_numpy(b),
            c=torch.from_numpy(c),
            guidance=torch.ones_like(times),
        )

    def _space(self, num_inference_steps: int) -> np.ndarray:
        """Return the timesteps (N,) of config.timestep_spacing, as DPMSolverMultistepScheduler computes them."""
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
        """Steps taken of `timesteps`; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The index in `timesteps` where the run begins; None unless `set_begin_index` was called."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Set the index in `timesteps` where the run begins (image to image begins late)."""
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
        """Begin a run; see `plan` for the arguments.

        The scheduler does not know the network, so a table is used only where the caller gives it: `tables.find`
        returns the one that fits. The caller applies its guidance factors.
        """
        self._plan = self.plan(num_inference_steps, timesteps, table=table)
        self.num_inference_steps = len(self._plan)
        self.timesteps = self._plan.timesteps.to(torch.float32).to(device)
        self._begin_index = None
        self._reset()

    def index_for_timestep(self, timestep: float | Tensor) -> int:
        """Return the index of timestep in `timesteps`. Raises ValueError if it is not there."""
        indices = (self.timesteps == torch.as_tensor(timestep).to(self.timesteps)).nonzero()
        if not len(indices):
            raise ValueError(f"timestep {float(timestep)} is not one of this run's timesteps")
        return int(indices[0])

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """Return the sample itself: a variance-preserving process needs no scaling."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> StudioSchedulerOutput | tuple[Tensor, Tensor]:
        """Return sample (B, ...) one step later, from the network's output for it, computed in float32 or better.

        Args:
            timestep: where a run begins, unless `set_begin_index` was called; after that steps are counted.
            generator: not used, as no step draws noise.

        Returns:
            Tensors in model_output's dtype.

        Raises:
            ValueError: before `set_timesteps`, and after the last step.
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
        self._history = [x0, *self._history][: plan.b.shape[1]]
        x_next = multistep_update(x_t, self._history, float(plan.a[i]), plan.b[i].tolist())
        if plan.coarse is not None:
            a, b = plan.coarse
            x_next = x_next + smooth_3x3(multistep_update(x_t, self._history, float(a[i]), b[i].tolist()))
        self._step_index += 1
        x_next, x0 = x_next.to(model_output.dtype), x0.to(model_output.dtype)
        return StudioSchedulerOutput(x_next, x0) if return_dict else (x_next, x0)

    def _alpha_sigma_like(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule.alpha_sigma(timesteps.to(like.device))
        shape = (-1, *(1,) * (like.ndim - 1))
        return alpha.to(like.dtype).view(shape), sigma.to(like.dtype).view(shape)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t = alpha_t x0 + sigma_t eps for x0, eps (B, ...) at real timesteps (B,) or (1,)."""
        alpha, sigma = self._alpha_sigma_like(timesteps, original_samples)
        return alpha * original_samples + sigma * noise

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return v = alpha_t eps - sigma_t x0 for x0 = sample, eps = noise (B, ...), real timesteps (B,) or (1,)."""
        return velocity(sample, noise, *self._alpha_sigma_like(timesteps, sample))
