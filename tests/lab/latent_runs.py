"""Runs of diffusers' schedulers in a latent space, over a network that is one function, as traces."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.diffusion.noise_process import to_original_and_noise
from studio.engine.recorder import ByteBudget, TraceRecorder
from studio.engine.trace import Trace, TraceModel

SD_CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "clip_sample": False,
    "set_alpha_to_one": False,
}
PREVIEW = np.random.default_rng(5).uniform(-0.3, 0.3, (5, 3)).astype(np.float32)


def latent_model(config: dict[str, Any], id: str = "tiny") -> TraceModel:
    return TraceModel(id=id, space="latent", preview=PREVIEW, scheduler_config=config)


def smooth_network(x_t: Tensor, timestep: float) -> Tensor:
    """Return a prediction of any type: a bounded function of its input that changes with time."""
    return torch.tanh(x_t.roll(1, -1) * 0.7 + x_t.roll(1, -3) * 0.4 + timestep / 1000)


def latent_trace(
    scheduler_class: Any,
    *,
    steps: int = 6,
    side: int = 8,
    network: Callable[[Tensor, float], Tensor] = smooth_network,
    **changes: Any,
) -> Trace:
    """Return the trace of a run by a scheduler of diffusers. changes: of SD_CONFIG."""
    config = SD_CONFIG | changes
    scheduler = scheduler_class.from_config(config)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, side, side, generator=generator) * scheduler.init_noise_sigma
    row = SimpleNamespace(step=0, num_steps=len(scheduler.timesteps), record=None, seed=0, stage_info=None)
    recorder = TraceRecorder(row, ByteBudget(), latent_model(config))
    for index, timestep in enumerate(scheduler.timesteps):
        alpha, sigma = _level(scheduler, index)
        x_t = sample / (1 if _counts_in_alpha(scheduler) else (1 + (sigma / alpha) ** 2) ** 0.5)
        prediction = network(scheduler.scale_model_input(sample, timestep), float(timestep))
        x0, _ = to_original_and_noise(prediction, x_t, alpha, sigma, config["prediction_type"])
        sample = scheduler.step(prediction, timestep, sample, **_noise(scheduler, generator)).prev_sample
        row.record = SimpleNamespace(
            x_t=x_t[0],
            pred_original_sample=x0[0],
            guidance_difference=prediction[0] * 0.1,
            timestep=float(timestep),
            alpha=alpha,
            sigma=sigma,
            guidance_scale=5.0,
        )
        row.step = index + 1
        recorder.record()
    trace = recorder.trace()
    assert trace is not None
    return trace


def _counts_in_alpha(scheduler: Any) -> bool:
    """Whether the scheduler's samples are variance preserving, as those of DDIM; Euler's are x / alpha."""
    return scheduler.init_noise_sigma == 1


def _level(scheduler: Any, index: int) -> tuple[float, float]:
    """Return alpha and sigma before a step, from the scheduler's own sigmas where it has them."""
    if hasattr(scheduler, "sigmas"):
        ratio = float(scheduler.sigmas[index])
    else:
        alpha_squared = float(scheduler.alphas_cumprod[int(scheduler.timesteps[index])])
        ratio = ((1 - alpha_squared) / alpha_squared) ** 0.5
    return (1 + ratio**2) ** -0.5, ratio * (1 + ratio**2) ** -0.5


def _noise(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    return {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
