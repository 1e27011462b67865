"""The reverse view: the steps of a run as pictures and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from studio.lab.latents import channel_columns, preview_rgb, tile_channels
from studio.lab.pack import data_uri, gray_sheet, picture_sheet, to_image
from studio.lab.reverse import StepExplanation, explain_steps
from studio.lab.trace_protocol import Model

_ABOUT_ZERO = ("eps", "difference")  # arrays whose 0 is gray: no constant term belongs to them


def reverse_view(trace: Any, sampler: str = "studio", config: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the stages of a run, each with its pictures as sheets, one frame per step, and its numbers.

    Latents are shown by the linear map of the trace. sampler: as in `studio.lab.reverse.explain_steps`.
    config: of the model's scheduler, where the trace has none. Raises ValueError for a trace that cannot be shown.
    """
    return [
        _stage_entry(trace, number, explain_stage(trace, number, sampler, config))
        for number in range(len(trace.stages))
    ]


def explain_stage(
    trace: Any, number: int, sampler: str = "studio", config: Mapping[str, Any] | None = None
) -> list[StepExplanation]:
    """Return every kept step of a stage of a trace. Parameters as in `reverse_view`."""
    is_last, is_latent = number == len(trace.stages) - 1, trace.model.preview is not None
    return explain_steps(
        trace.stages[number],
        sampler if number == 0 or is_latent else "studio",  # the bundled model's second stage
        trace.model.scheduler_config or config,
        is_last=is_last or not is_latent,  # the bundled model finishes a picture in every stage
    )


def channel_sheets(steps: list[StepExplanation]) -> dict[str, str]:
    """Return every array of steps as gray maps of its channels, see `tile_channels`; one frame per step."""
    frames = _frames(steps)
    sheets = {}
    for name, arrays in frames.items():
        values = _full_strength(arrays) * 4 if name == "difference" else arrays
        sheets[name] = gray_sheet(tile_channels(values))
    return sheets


def _stage_entry(trace: Any, number: int, steps: list[StepExplanation]) -> dict[str, Any]:
    stage, model = trace.stages[number], trace.model
    channels, height, width = steps[0].x_t.shape
    return {
        "width": width,
        "height": height,
        "channels": channels,
        "columns": channel_columns(channels),
        "latent": model.preview is not None,
        "task": stage.task or 0,
        "noise_level": stage.noise_level,
        "condition": {} if model.preview is not None else _condition_pictures(stage.condition),
        "steps": [step_numbers(step) for step in steps],
        "sheets": {name: picture_sheet(_as_pictures(name, arrays, model)) for name, arrays in _frames(steps).items()},
    }


def _frames(steps: list[StepExplanation]) -> dict[str, np.ndarray]:
    """Return the arrays of steps by name, (N, C, H, W); zeros where a step lacks one."""
    blank = np.zeros_like(steps[0].x_t)
    frames = {
        "x_t": np.stack([step.x_t for step in steps]),
        "eps": np.stack([step.eps for step in steps]),
        "x0": np.stack([step.x0 for step in steps]),
        "x_next": np.stack([blank if step.x_next is None else step.x_next for step in steps]),
    }
    if any(step.difference is not None for step in steps):
        frames["difference"] = np.stack([blank if step.difference is None else step.difference for step in steps])
    return frames


def _as_pictures(name: str, arrays: np.ndarray, model: Model) -> np.ndarray:
    """Return arrays (N, C, H, W) as RGB (N, 3, H, W) in [-1, 1]."""
    if model.preview is not None:
        arrays = preview_rgb(arrays, model.preview, offset=name not in _ABOUT_ZERO)
    if name == "eps":
        return arrays / 2  # half as strong, so that few values are clipped
    return _full_strength(arrays) if name == "difference" else arrays


def _full_strength(arrays: np.ndarray) -> np.ndarray:
    """Scale each of (N, ...) to [-1, 1], so that 0 stays gray."""
    largest = np.abs(arrays).max(axis=tuple(range(1, arrays.ndim)), keepdims=True)
    return arrays / np.maximum(largest, 1e-6)


def step_numbers(step: StepExplanation) -> dict[str, Any]:
    """Return the numbers of a step."""
    difference = step.difference
    return {
        "step": step.step,
        "t": step.timestep,
        "alpha": step.alpha,
        "sigma": step.sigma,
        "guidance": step.guidance_scale,
        "splitting": step.splitting,
        "conversion": step.conversion,
        "arithmetic": step.arithmetic,
        "a": step.coefficients.a,
        "b": list(step.coefficients.b),
        "coarse": list(step.coefficients.coarse),
        "how": step.coefficients.source,
        "rest": step.coefficients.residual,
        "drawn": step.coefficients.adds_noise,
        "next": step.x_next is not None,
        "identity_error": step.identity_error,
        "difference": None if difference is None else float(np.sqrt(np.mean(np.square(difference)))),
    }


def _condition_pictures(condition: np.ndarray | None) -> dict[str, str]:
    """Return the network's other inputs as pictures: (7, H, W) holds a known picture, its mask, a small picture."""
    pictures = {}
    if condition is not None and condition[3].any():
        pictures["known picture"] = data_uri(to_image(condition[:3]))
        pictures["mask of the known part"] = gray_sheet(condition[3:4])
    if condition is not None and condition[4:].any():
        pictures["low-resolution picture"] = data_uri(to_image(condition[4:]))
    return pictures
