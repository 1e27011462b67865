"""One network call for many pictures: tiles of one size together, predictions blended, guidance, the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch.nn.utils.rnn import pad_sequence

from studio.diffusion.guidance import apply_guidance, guidance_baseline
from studio.diffusion.noise_process import from_original, to_original_and_noise
from studio.diffusion.sampling.state import (
    MAX_TILES_PER_CALL,
    PartialStep,
    SampleState,
    StepRecord,
    StepResult,
    Tile,
)
from studio.diffusion.sampling.steppers import StudioStepper
from studio.diffusion.tiling import TileBlender, split_rows
from studio.diffusion.unet import StudioUNet


@torch.no_grad()
def denoise_call(networks: Mapping[str, StudioUNet], rows: Sequence[SampleState]) -> None:
    """Call the networks with each picture's next tiles, at most MAX_TILES_PER_CALL of each.

    A picture advances after its last tile. So no call is long, however large the picture. If the call raises, no
    picture has advanced; one that takes several calls a step may have to begin its step again.

    networks: by the names of their components, as stages have them.

    Raises:
        ValueError: a picture is finished.
    """
    generator_states = []
    for row in rows:
        if row.finished:
            raise ValueError("a row is finished: decode it")
        generator_states.append(row.generator.get_state())
    try:
        outcomes = _compute(networks, rows)
    except BaseException:
        for row, state in zip(rows, generator_states, strict=True):
            row.generator.set_state(state)
        raise
    for row, outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, StepResult):
            row.commit(outcome)
        else:
            row.partial_step = outcome


def _compute(networks: Mapping[str, StudioUNet], rows: Sequence[SampleState]) -> list[StepResult | PartialStep]:
    """Return each picture's completed step, or its step in progress. Of the pictures, only generators change."""
    steps: list[PartialStep] = []
    tiles_by_key: dict[tuple[str, int, int], list[Tile]] = {}
    for row in rows:
        step, tiles = row.next_tiles()
        steps.append(replace(step, tiles_done=step.tiles_done + len(tiles)))
        tiles_by_key.setdefault(row.call_key, []).extend(tiles)
    predictions: list[tuple[Tile, torch.Tensor]] = []
    for (component, *size), tiles in tiles_by_key.items():
        for begin in range(0, len(tiles), MAX_TILES_PER_CALL):  # bounds the memory
            batch = tiles[begin : begin + MAX_TILES_PER_CALL]
            predictions.extend(zip(batch, predict(networks[component], batch, size), strict=True))
    for tile, prediction in predictions:  # only now: adding to a blender cannot be undone
        tile.blender.add(prediction, tile.top, tile.left)
    outcomes: list[StepResult | PartialStep] = []
    for row, step in zip(rows, steps, strict=True):
        is_complete = step.tiles_done == len(row.stage.corners) * len(step.blenders)
        outcomes.append(_take_step(row, step) if is_complete else step)
    return outcomes


def predict(unet: StudioUNet, tiles: Sequence[Tile], size: Sequence[int]) -> torch.Tensor:
    """Return the network's predictions (N, 3, h, w), in float32, for N tiles of one size (h, w)."""
    height, width = size
    inputs, texts, lengths, times, tasks, noise_levels, scales = [], [], [], [], [], [], []
    for stage, step, text, top, left, _ in tiles:
        x_t = step.x_t[:, top : top + height, left : left + width]
        inputs.append(torch.cat([x_t, stage.sparse_condition.crop(top, left, height, width, x_t)]))  # (10, h, w)
        texts.append(text)
        lengths.append(len(text))
        times.append(step.time)
        tasks.append(int(stage.task))
        noise_levels.append(stage.noise_level)
        scales.append(step.guidance_scale if stage.guidance.one_pass else 1.0)
    # `unet.dtype` and the execution device search all modules, which is slow next to a small call. Only hooks make the
    # dtype of the computation differ from that of the weights (layerwise casting).
    dtype = unet.dtype if hasattr(unet.stem, "_diffusers_hook") else unet.stem.weight.dtype
    device = inputs[0].device
    text = pad_sequence(texts, batch_first=True)  # (N, L, D), L no longer than the longest
    mask = torch.arange(text.shape[1], device=device) < torch.tensor(lengths, device=device)[:, None]
    return unet(
        torch.stack(inputs).to(dtype),
        torch.tensor(times, device=device),
        text.to(dtype),
        mask,
        torch.tensor(tasks, device=device),
        torch.tensor(noise_levels, device=device),
        None if set(scales) == {1.0} else torch.tensor(scales, device=device),
    ).sample.float()


def _take_step(row: SampleState, step: PartialStep) -> StepResult:
    """Return the step of a picture all of whose tiles are predicted. The generator advances where noise is drawn."""
    stage, stepper, x_t = row.stage, row.stage.stepper, step.x_t
    prediction, *others = map(TileBlender.result, step.blenders)
    difference = None
    if others:
        baseline = guidance_baseline(prediction, *others, style=stage.guidance.style)
        difference = prediction - baseline
        prediction = apply_guidance(baseline, prediction, step.guidance_scale)
    alpha, sigma = stepper.levels[stage.step]
    x_0 = torch.empty_like(x_t)
    for strip in split_rows(*x_t.shape[1:]):
        x_0[:, strip], _ = to_original_and_noise(
            prediction[:, strip], x_t[:, strip], alpha, sigma, stepper.prediction_type
        )
    for constrain in stage.constraints:
        x_0 = constrain(x_0)
    if isinstance(stepper, StudioStepper):
        sample, state = stepper.step(stage.stepper_state, x_0, stage.sample, stage.step, stage.restart_noise)
    else:
        if stage.constraints:  # the scheduler takes a prediction: the one that implies the constrained x0
            prediction = from_original(x_0, x_t, alpha, sigma, stepper.prediction_type)
        sample, state = stepper.step(stage.stepper_state, prediction, stage.sample, stage.step, row.generator)
    next_stage = None
    if stage.step + 1 == len(stepper.times):
        state = None  # the history is not needed any more
        if row.next_stages:
            next_stage = row.next_stages[0].start(sample, row.generator)
    record = StepRecord(x_t, x_0, difference, step.time, alpha, sigma, step.guidance_scale)
    return StepResult(record, sample, state, next_stage)
