"""One network call for many rows: windows of one size together, predictions blended, guidance, the step.

Knows rows and the network; knows nothing of prompts, of tasks, or of how rows are made and what becomes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from studio.diffusion.guidance import apply_guidance, guidance_baseline
from studio.diffusion.sampling.state import MAX_TILES_PER_CALL, PromptEmbedding, SampleState, advance
from studio.diffusion.tiling import TileBlender
from studio.diffusion.unet import StudioUNet


class Tile(NamedTuple):
    """One row of a network call: a window of a picture under way, and the words that it is shown with."""

    row: SampleState
    words: PromptEmbedding
    input: torch.Tensor  # (3, H, W) of the whole picture
    top: int
    left: int
    shape: tuple[int, int]
    blend: TileBlender  # where its prediction goes


@torch.no_grad()
def denoise_call(unet: StudioUNet, rows: Sequence[SampleState]) -> None:
    """Show the network each row's next windows, at most MAX_CALL of each row; a row that it has seen all of takes
    its step. So no call is long, however large the picture."""
    if any(row.finished for row in rows):
        raise ValueError("a row is finished: decode it")
    tiles: dict[tuple[int, int], list[Tile]] = {}  # by size
    looks = []
    for row in rows:
        seen, places = row.look()
        looks.append(seen._replace(rows=seen.rows + len(places)))
        whole, shape = row.network_input, row.call_shape
        for words, blend, top, left in places:
            tiles.setdefault(shape, []).append(Tile(row, words, whole, top, left, shape, blend))
    predictions: list[tuple[Tile, torch.Tensor]] = []
    for group in tiles.values():
        for begin in range(0, len(group), MAX_TILES_PER_CALL):  # bounds the memory
            part = group[begin : begin + MAX_TILES_PER_CALL]
            predictions += zip(part, predict(unet, part), strict=True)
    for tile, prediction in predictions:  # only when all are there: this cannot be taken back
        tile.blend.add(prediction, tile.top, tile.left)
    whole_rows, wholes, differences = [], [], []
    for row, seen in zip(rows, looks, strict=True):
        if not row.saw_all(seen):
            row.seen = seen
            continue
        row.seen = None
        whole_rows.append(row)
        with_words, *others = (blend.whole() for blend in seen.said)
        if not others:
            wholes.append(with_words)
            differences.append(None)
        else:
            away = guidance_baseline(with_words, *others, style=row.stage.guidance.style)
            wholes.append(apply_guidance(away, with_words, row.guidance_scale))
            differences.append(with_words - away)
    advance(whole_rows, wholes, differences)


def predict(unet: StudioUNet, tiles: list[Tile]) -> torch.Tensor:
    """Predictions (N, 3, h, w) in float32 for N tiles of one size."""
    # not unet.dtype and the execution device: they go through all modules, a fifth of a small call's time
    dtype, device = unet.stem.weight.dtype, tiles[0].input.device
    rows = [tile.row for tile in tiles]
    inputs = []
    for row, _, whole, top, left, (height, width), _ in tiles:
        x_t = whole[:, top : top + height, left : left + width]
        inputs.append(torch.cat([x_t, row.stage.given.window(top, left, height, width, x_t)]))  # (10, h, w)
    texts = [tile.words.text for tile in tiles]
    text = pad_sequence(texts, batch_first=True)  # (N, L, D): no longer than need be, or words cost what pixels do
    counts = torch.tensor([len(words) for words in texts], device=device)
    return unet(
        torch.stack(inputs).to(dtype),
        torch.tensor([row.time for row in rows], device=device),
        text.to(dtype),
        torch.arange(text.shape[1], device=device) < counts[:, None],
        torch.tensor([int(row.stage.task) for row in rows], device=device),
        torch.tensor([row.stage.noise_level for row in rows], device=device),
        guidance_input(rows, device),
    ).sample.float()


def guidance_input(rows: Sequence[SampleState], device: torch.device) -> torch.Tensor | None:
    """(N,) the scales that the network itself is to guide by, 1 for rows that it does not; None where it is none."""
    scales = [row.guidance_scale if row.stage.guidance.one_pass else 1.0 for row in rows]
    return None if set(scales) == {1.0} else torch.tensor(scales, device=device)
