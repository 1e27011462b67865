"""Steppers: how the sample of one picture advances after each network call.

A stepper has no state of its own. `step` is a pure function: the state goes in, and the new sample and the new state
come out. So a step that fails changes nothing, and one stepper may serve many pictures.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from diffusers import LMSDiscreteScheduler, PNDMScheduler

from studio.diffusion.noise_process import NoiseSchedule
from studio.diffusion.schedulers.samplers import AnyScheduler, timestep_arguments
from studio.diffusion.schedulers.sampling_plan import SamplingPlan, multistep_update, smooth_3x3
from studio.diffusion.schedulers.solver_tables import SolverTable
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.diffusion.tiling import split_rows


class StudioStepper:
    """Steps of `StudioScheduler`. The state is the history of x0 predictions, newest first.

    Args:
        scheduler: the scheduler, which is not changed.
        num_inference_steps, timesteps, table, restart_time: see `StudioScheduler.plan`.
        begin: steps of the plan that are left out; the run begins at the noise level of the next one.
        end: step of the plan at which the run ends; None: the last.

    Raises:
        ValueError: see `StudioScheduler.plan`.
    """

    def __init__(
        self,
        scheduler: StudioScheduler,
        num_inference_steps: int | None = None,
        *,
        begin: int = 0,
        end: int | None = None,
        timesteps: Sequence[float] | None = None,
        table: SolverTable | None = None,
        restart_time: float | None = None,
    ) -> None:
        plan = scheduler.plan(num_inference_steps, timesteps, begin, table, restart_time)
        self.plan: SamplingPlan = plan
        self.restart_time = restart_time
        self.prediction_type: str = scheduler.config.prediction_type
        self.times: list[float] = plan.timesteps.tolist()[begin:end]  # of each network call, in train steps
        self.levels = list(zip(plan.alphas.tolist(), plan.sigmas.tolist(), strict=True))[begin:]  # (alpha, sigma)
        self.guidance_shares: list[float] = plan.guidance.tolist()[begin:]
        self.initial_scale = 1.0
        self.initial_state: tuple[torch.Tensor, ...] = ()
        self._a: list[float] = plan.a.tolist()[begin:]
        self._b: list[list[float]] = plan.b.tolist()[begin:]
        self._c: list[float] = plan.c.tolist()[begin:]
        self._coarse: list[tuple[float, list[float]]] | None = None
        if plan.coarse is not None:
            self._coarse = list(zip(plan.coarse[0].tolist(), plan.coarse[1].tolist(), strict=True))[begin:]

    def add_noise(self, picture: torch.Tensor, noise: torch.Tensor, step: int = 0, state: Any = None) -> torch.Tensor:
        """Return x_t (C, H, W) of a picture at the noise level of a step."""
        alpha, sigma = self.levels[step]
        return alpha * picture + sigma * noise

    def network_input(self, state: Any, sample: torch.Tensor, step: int) -> torch.Tensor:
        """Return the x_t that the network is called with."""
        return sample

    def step(
        self,
        state: tuple[torch.Tensor, ...],
        x_0: torch.Tensor,
        sample: torch.Tensor,
        step: int,
        restart_noise: torch.Tensor | None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the sample after a step, and the history with x_0 in it. Pictures are (3, H, W).

        restart_noise: standard normal, of a run with a restart time; its first step adds it.
        """
        b = self._b[step]
        history = (x_0, *state)[: len(b)]
        after = torch.empty_like(sample)
        for strip in split_rows(*sample.shape[1:]):
            predictions = [each[:, strip] for each in history]
            after[:, strip] = multistep_update(sample[:, strip], predictions, self._a[step], b)
        if self._coarse is not None:
            after = after + smooth_3x3(multistep_update(sample, history, *self._coarse[step]))
        if restart_noise is not None and self._c[step]:
            after.add_(restart_noise, alpha=self._c[step])
        return after, history


class DiffusersStepper:
    """Steps of a scheduler of diffusers. The state is a scheduler, which keeps its run's history inside.

    Args:
        scheduler: one on which `set_timesteps` was called, with timesteps on the CPU. It belongs to the stepper.
        begin, end: the run makes the network calls of its timesteps from `begin` up to `end`; None: to the last.
    """

    restart_time = None

    def __init__(self, scheduler: AnyScheduler, *, begin: int = 0, end: int | None = None) -> None:
        if hasattr(scheduler, "set_begin_index"):  # some timesteps repeat (Heun): do not search for them
            scheduler.set_begin_index(begin)
        self.initial_state: Any = scheduler
        self.prediction_type: str = scheduler.config.prediction_type
        self._timesteps = scheduler.timesteps[begin:end]
        self.times: list[float] = self._timesteps.tolist()
        self.levels = _levels(scheduler)[begin:end]  # (alpha, sigma) of each network call
        self.guidance_shares = [1.0] * len(self.times)
        self.initial_scale = float(scheduler.init_noise_sigma)
        self._draws_noise = "generator" in signature(scheduler.step).parameters

    @classmethod
    def spaced(
        cls, scheduler: AnyScheduler, num_inference_steps: int, device: torch.device | str, *, begin: int = 0
    ) -> DiffusersStepper:
        """Return the stepper of a run spaced as `timestep_arguments` says.

        Args:
            scheduler: its class and config count; it is not changed.
            num_inference_steps: 1 or more.
            device: of the timesteps.
            begin: inference steps that are left out, as in diffusers' image to image.

        Raises:
            ValueError: the scheduler needs its first steps and cannot begin later.
        """
        config = {key: value for key, value in scheduler.config.items() if key != "solver_tables"}  # of ours alone
        state: Any = type(scheduler).from_config(config)
        if begin and isinstance(state, LMSDiscreteScheduler | PNDMScheduler):
            raise ValueError(
                f"{type(scheduler).__name__} needs the steps before: it cannot begin from a picture; take another one"
            )
        state.set_timesteps(**timestep_arguments(state, num_inference_steps), device=device)
        return cls(state, begin=begin * state.order)

    def add_noise(self, picture: torch.Tensor, noise: torch.Tensor, step: int = 0, state: Any = None) -> torch.Tensor:
        """Return the sample (C, H, W), in the scheduler's own scaling, of a picture at the noise level of a step.

        state: the stepper's state at that step; None: the initial one.
        """
        state = self.initial_state if state is None else state
        return state.add_noise(picture[None], noise[None], self._timesteps[step : step + 1])[0]

    def network_input(self, state: Any, sample: torch.Tensor, step: int) -> torch.Tensor:
        """Return the x_t that the network is called with."""
        return state.scale_model_input(sample, self._timesteps[step])

    def step(
        self, state: Any, prediction: torch.Tensor, sample: torch.Tensor, step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Any]:
        """Return the sample after a step, and the scheduler after it. Pictures are (3, H, W).

        The generator advances where the scheduler draws noise.
        """
        state = copy.copy(state)
        for name, value in vars(state).items():
            if isinstance(value, list):  # schedulers write to their lists of predictions in place, never to tensors
                setattr(state, name, list(value))
        noise_source = {"generator": generator} if self._draws_noise else {}
        result = state.step(prediction[None], self._timesteps[step], sample[None], **noise_source)
        return result.prev_sample[0], state


def _levels(scheduler: AnyScheduler) -> list[tuple[float, float]]:
    """Return (alpha, sigma) of each timestep: from the scheduler's own sigmas, sigma / alpha, where it has them."""
    if hasattr(scheduler, "sigmas"):
        ratios = scheduler.sigmas[: len(scheduler.timesteps)].double()
        alphas = (ratios**2 + 1).rsqrt()
        return list(zip(alphas.tolist(), (ratios * alphas).tolist(), strict=True))
    alphas_cumprod = scheduler.alphas_cumprod
    alphas_cumprod = torch.where(alphas_cumprod > 0, alphas_cumprod, 2**-24)  # a finite log-SNR at pure noise
    alphas, sigmas = NoiseSchedule(alphas_cumprod).alpha_sigma(scheduler.timesteps.cpu().double())
    return list(zip(alphas.tolist(), sigmas.tolist(), strict=True))


Stepper = StudioStepper | DiffusersStepper
