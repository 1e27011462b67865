"""The network inside: attention to each word and channels of each block, at steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from studio.lab.attention import StepInspection, replay_step, stretch_contrast
from studio.lab.pack import gray_sheet

MAX_INSPECTED = 12  # steps of a stage
STUDIO_INPUTS = "x_t 3, known picture 3, mask 1, low resolution 3"


def inspection_view(
    pipe: Any, prompt: str, trace: Any, number: int = 0, *, max_steps: int = MAX_INSPECTED, denoised: bool = False
) -> dict[str, Any]:
    """Return attention to each word and channels of each block, at some steps of a stage of the bundled model.

    number: of the stage. denoised: as in `studio.lab.attention.replay_step`.
    """
    stage = trace.stages[number]
    from_words = not trace.stages[0].task and not denoised  # text to image is task 0
    steps = list(stage)
    indices = sorted({round(i) for i in np.linspace(0, len(steps) - 1, min(max_steps, len(steps)))})
    inspections: list[tuple[int, StepInspection]] = []
    for index in indices:
        inspection = replay_step(pipe, prompt, stage, steps[index], from_words=from_words, denoised=denoised)
        inspections.append((index, inspection))
    if stage.component == "upscaler":
        return inspection_entry(inspections, "enlarged picture 3", 3)
    return inspection_entry(inspections, STUDIO_INPUTS, 10)


def latent_inspection_view(inspection: StepInspection, index: int, input_channels: int) -> dict[str, Any]:
    """Return the same of one step of a latent model. index: of the step in its stage."""
    channels = len(inspection.prediction)
    others = input_channels - channels
    inputs = f"x_t {channels}" + (f", others {others}" if others else "")
    return inspection_entry([(index, inspection)], inputs, input_channels)


def inspection_entry(
    inspections: Sequence[tuple[int, StepInspection]], inputs: str, input_channels: int
) -> dict[str, Any]:
    """Return inspected steps, each with its index in its stage, as the scripts draw them.

    inputs: what the channels of the network's input are.
    """
    _, inspection = inspections[-1]
    _, height, width = inspection.mean_map.shape
    return {
        "width": width,
        "height": height,
        "tile": inspection.tile_size,
        "tiles": inspection.tiles,
        "inputs": inputs,
        "input_channels": input_channels,
        "output_channels": len(inspection.prediction),
        "words": [word.text for word in inspection.words],
        "sizes": list(inspection.maps),
        "levels": [
            {"name": block.name, "shape": [block.channels, block.height, block.width], "shown": len(block.shown)}
            for block in inspection.blocks
        ],
        "looks": [
            {
                "index": index,
                "maps": gray_sheet(stretch_contrast(each.mean_map) if each.words else np.zeros((1, 1, 1))),
                "shares": _shares(each.mean_map),
                "levels": [gray_sheet(block.shown) for block in each.blocks],
            }
            for index, each in inspections
        ],
    }


def _shares(maps: np.ndarray) -> list[float]:
    """Return each word's share of all attention in (words, H, W)."""
    return [float(value) for value in maps.sum((1, 2)) / max(maps.sum(), 1e-8)]
