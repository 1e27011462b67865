"""The reverse view: the steps of a run, and the network inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from studio.lab.attention import replay_step, stretch_contrast
from studio.lab.pack import data_uri, gray_sheet, picture_sheet, to_image
from studio.lab.reverse import StepExplanation, explain_steps

MAX_INSPECTED = 12  # steps of a stage


def reverse_view(trace: Any, sampler: str = "studio", config: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the stages of a run, each with its pictures as sheets, one frame per step, and its numbers.

    sampler, config: as in `studio.lab.reverse.explain_steps`. Raises ValueError for an unknown sampler.
    """
    stages = []
    for number, stage in enumerate(trace.stages):
        steps = explain_steps(stage, sampler if number == 0 else "studio", config)
        height, width = steps[0].x_t.shape[1:]
        blank = np.zeros_like(steps[0].x_t)
        frames = {
            "x_t": [step.x_t for step in steps],
            "eps": [step.eps / 2 for step in steps],  # half as strong, so that few values are clipped
            "x0": [step.x0 for step in steps],
            "x_next": [blank if step.x_next is None else step.x_next for step in steps],
        }
        if any(step.difference is not None for step in steps):
            differences = [blank if step.difference is None else step.difference for step in steps]
            frames["difference"] = [_full_strength(difference) for difference in differences]
        stages.append(
            {
                "width": width,
                "height": height,
                "task": stage.task or 0,
                "noise_level": stage.noise_level,
                "condition": _condition_pictures(stage.condition),
                "steps": [step_numbers(step) for step in steps],
                "sheets": {name: picture_sheet(np.stack(pictures)) for name, pictures in frames.items()},
            }
        )
    return stages


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


def _full_strength(values: np.ndarray) -> np.ndarray:
    """Scale to [-1, 1], so that 0 stays gray."""
    return values / max(float(np.abs(values).max()), 1e-6)


def _condition_pictures(condition: np.ndarray | None) -> dict[str, str]:
    """Return the network's other inputs as pictures: (7, H, W) holds a known picture, its mask, a small picture."""
    pictures = {}
    if condition is not None and condition[3].any():
        pictures["known picture"] = data_uri(to_image(condition[:3]))
        pictures["mask of the known part"] = gray_sheet(condition[3:4])
    if condition is not None and condition[4:].any():
        pictures["low-resolution picture"] = data_uri(to_image(condition[4:]))
    return pictures


def inspection_view(
    pipe: Any, prompt: str, trace: Any, number: int = 0, *, max_steps: int = MAX_INSPECTED, denoised: bool = False
) -> dict[str, Any]:
    """Return attention to each word and channels of each block, at some steps of a stage.

    number: of the stage. denoised: as in `studio.lab.attention.replay_step`.
    """
    stage = trace.stages[number]
    from_words = not trace.stages[0].task and not denoised  # text to image is task 0
    steps = list(stage)
    indices = sorted({round(i) for i in np.linspace(0, len(steps) - 1, min(max_steps, len(steps)))})
    looks, inspection = [], None
    for index in indices:
        inspection = replay_step(pipe, prompt, stage, steps[index], from_words=from_words, denoised=denoised)
        looks.append(
            {
                "index": index,
                "maps": gray_sheet(stretch_contrast(inspection.mean_map)),
                "shares": _shares(inspection.mean_map),
                "levels": [gray_sheet(block.shown) for block in inspection.blocks],
            }
        )
    assert inspection is not None  # a stage has at least one step
    height, width = steps[0].x_t.shape[1:]
    return {
        "width": width,
        "height": height,
        "tile": inspection.tile_size,
        "tiles": inspection.tiles,
        "words": [word.text for word in inspection.words],
        "sizes": list(inspection.maps),
        "levels": [
            {"name": block.name, "shape": [block.channels, block.height, block.width], "shown": len(block.shown)}
            for block in inspection.blocks
        ],
        "looks": looks,
    }


def _shares(maps: np.ndarray) -> list[float]:
    """Return each word's share of all attention in (words, H, W)."""
    return [float(value) for value in maps.sum((1, 2)) / maps.sum()]
