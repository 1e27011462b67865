"""A row: one picture under way, and everything its next step needs. Rows share nothing, so any may share a call.

Knows the two ways of stepping: our scheduler's pure update, for many rows at once, and a stock scheduler of diffusers,
which keeps its run's state inside and so belongs to one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from diffusers import SchedulerMixin

from studio.diffusion.conditioning import Task
from studio.diffusion.guidance import Guidance
from studio.diffusion.samplers import chosen_steps
from studio.diffusion.scheduler import (
    NoiseSchedule,
    SamplingPlan,
    StudioScheduler,
    multistep_update,
    to_original_and_noise,
)
from studio.diffusion.windows import window_count


class PlannedSteps:
    """Steps by our scheduler: a shared plan, and this row's history of x0 predictions, newest first."""

    def __init__(self, scheduler: StudioScheduler, num_inference_steps: int) -> None:
        self.plan: SamplingPlan = scheduler.plan(num_inference_steps)
        self.prediction_type: str = scheduler.config.prediction_type
        self.times: list[float] = self.plan.timesteps.tolist()
        self.levels = list(zip(self.plan.alphas.tolist(), self.plan.sigmas.tolist(), strict=True))
        self.initial_scale = 1.0
        self.history: list[torch.Tensor] = []

    def network_input(self, sample: torch.Tensor, step: int) -> torch.Tensor:
        return sample


class StockSteps:
    """Steps by a diffusers scheduler of this row's own."""

    def __init__(self, scheduler: SchedulerMixin, num_inference_steps: int, device: torch.device) -> None:
        self.scheduler: Any = type(scheduler).from_config(scheduler.config)
        self.scheduler.set_timesteps(**chosen_steps(self.scheduler, num_inference_steps), device=device)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(0)  # some timesteps repeat (Heun): do not search for them
        self.prediction_type: str = scheduler.config.prediction_type
        self.times: list[float] = self.scheduler.timesteps.tolist()
        alphas, sigmas = NoiseSchedule(scheduler.alphas_cumprod).alpha_sigma(torch.tensor(self.times).double())
        self.levels = list(zip(alphas.tolist(), sigmas.tolist(), strict=True))
        self.initial_scale = float(self.scheduler.init_noise_sigma)

    def network_input(self, sample: torch.Tensor, step: int) -> torch.Tensor:
        return self.scheduler.scale_model_input(sample, self.scheduler.timesteps[step])

    def take(
        self, prediction: torch.Tensor, sample: torch.Tensor, step: int, generator: torch.Generator
    ) -> torch.Tensor:
        """The sample (3, H, W) after this step."""
        draws = {"generator": generator} if "generator" in signature(self.scheduler.step).parameters else {}
        time = self.scheduler.timesteps[step]
        return self.scheduler.step(prediction[None], time, sample[None], **draws).prev_sample[0]


@dataclass(frozen=True)
class StepRecord:
    """What one network call saw and said of a picture. Tensors (3, H, W), float32; never written to again.

    The predicted noise is (x_t - alpha x0) / sigma, so it is not kept.
    """

    x_t: torch.Tensor  # variance preserving, whatever the sampler's own scaling
    pred_original_sample: torch.Tensor
    guidance_difference: torch.Tensor | None  # conditional minus unconditional prediction; None without guidance
    timestep: float  # what the network was called with, in train steps
    alpha: float
    sigma: float
    guidance_scale: float  # 1 where guidance did not act


@dataclass
class Stage:
    """One run of a sampler for one picture. Tensors are float32 on the pipeline's device."""

    task: Task
    sample: torch.Tensor  # (3, H, W), x_t in the sampler's own scaling
    condition: torch.Tensor  # (7, H, W)
    noise_level: float  # of the low-resolution picture, in [0, 1]
    guidance: Guidance
    steps: PlannedSteps | StockSteps
    window: int  # px: a larger picture is seen in windows of this side
    step: int = 0  # network calls made

    @property
    def done(self) -> bool:
        return self.step >= len(self.steps.times)


@dataclass
class Row:
    """One picture under way: a stage, its words, and what follows."""

    stage: Stage
    text: torch.Tensor  # (L, D)
    text_mask: torch.Tensor  # (L,)
    negative: torch.Tensor  # (L, D)
    negative_mask: torch.Tensor  # (L,)
    generator: torch.Generator
    seed: int | None
    finish: Any  # what `decode` needs besides: known pixels to paste back, the size to crop to
    then: Callable[[torch.Tensor], Stage] | None = None  # makes the next stage of this one's picture (3, H, W)
    steps_before: int = 0  # calls of stages that are done
    steps_after: int = 0  # calls of the stage to come
    train_steps: int = 1000
    record: StepRecord | None = None  # of the last step

    @property
    def pred_original_sample(self) -> torch.Tensor | None:
        """(3, H, W), x0 as last predicted."""
        return None if self.record is None else self.record.pred_original_sample

    @property
    def step(self) -> int:
        """Network calls made."""
        return self.steps_before + self.stage.step

    @property
    def num_steps(self) -> int:
        """Network calls in all."""
        return self.steps_before + len(self.stage.steps.times) + self.steps_after

    @property
    def finished(self) -> bool:
        return self.stage.done and self.then is None

    @property
    def sample(self) -> torch.Tensor:
        """(3, H, W), x_t: finished, the picture."""
        return self.stage.sample

    @property
    def time(self) -> float:
        """What the network is called with next, in train steps."""
        return self.stage.steps.times[self.stage.step]

    @property
    def guided(self) -> bool:
        """Whether the next call needs this row's unconditional half."""
        return self.stage.guidance.acts_at(self.time / (self.train_steps - 1))

    @property
    def call_shape(self) -> tuple[int, int]:
        """(height, width) of what the next network call is shown; only rows of one shape share a call."""
        height, width = self.stage.sample.shape[1:]
        return min(height, self.stage.window), min(width, self.stage.window)

    @property
    def call_rows(self) -> int:
        """Rows that this picture takes in the next network call: its windows, twice where guidance acts."""
        height, width = self.stage.sample.shape[1:]
        return window_count(height, width, self.stage.window) * (2 if self.guided else 1)

    @property
    def network_input(self) -> torch.Tensor:
        return self.stage.steps.network_input(self.stage.sample, self.stage.step)


def advance(rows: list[Row], predictions: list[torch.Tensor], differences: list[torch.Tensor | None]) -> None:
    """Take every row one step on, given the prediction (3, H, W) for it, and what guidance made of it: conditional
    minus unconditional, or None. Rows change in place."""
    together: dict[tuple, list[Row]] = {}
    for row, prediction, difference in zip(rows, predictions, differences, strict=True):
        stage, steps = row.stage, row.stage.steps
        alpha, sigma = steps.levels[stage.step]
        x_t = row.network_input
        x_0, _ = to_original_and_noise(prediction, x_t, alpha, sigma, steps.prediction_type)
        scale = 1.0 if difference is None else stage.guidance.scale
        row.record = StepRecord(x_t, x_0, difference, row.time, alpha, sigma, scale)
        if isinstance(steps, StockSteps):
            stage.sample = steps.take(prediction, stage.sample, stage.step, row.generator)
        else:
            together.setdefault((stage.sample.shape, steps.plan.b.shape[1]), []).append(row)
    for (_, order), group in together.items():
        nothing = torch.zeros_like(group[0].stage.sample)
        for row in group:
            row.stage.steps.history = [row.pred_original_sample, *row.stage.steps.history][:order]
        stages = [row.stage for row in group]
        after = multistep_update(
            torch.stack([stage.sample for stage in stages]),
            torch.stack([torch.stack((stage.steps.history + [nothing] * order)[:order]) for stage in stages]),
            torch.stack([stage.steps.plan.a[stage.step] for stage in stages]),
            torch.stack([stage.steps.plan.b[stage.step] for stage in stages]),
        )
        for stage, sample in zip(stages, after, strict=True):
            stage.sample = sample
    for row in rows:
        row.stage.step += 1
        if row.stage.done and row.then is not None:
            row.steps_before, row.steps_after = row.step, 0
            row.stage, row.then = row.then(row.stage.sample), None
