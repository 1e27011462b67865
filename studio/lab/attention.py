"""What the network does in a call: its attention to each word, and the channels of each block.

Hooks record the modules' outputs and change nothing. A record belongs to one network object, so a network that others
use at the same time is recorded through a second object over the same weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.diffusion.composition import parse_layout
from studio.diffusion.conditioning import CONDITION_CHANNELS, Task
from studio.diffusion.tiling import TileBlender, tile_corners
from studio.diffusion.unet import StudioUNet
from studio.diffusion.unet_blocks import TransformerBlock, attention_weights
from studio.lab.trace_protocol import Stage, Step


@dataclass
class ActivationRecord:
    """What was recorded so far, in the order of the network."""

    attention: list[tuple[str, Tensor]] = field(default_factory=list)  # (block, (B, heads, h, w, L))
    features: list[tuple[str, Tensor]] = field(default_factory=list)  #  (block, (B, C, h, w))


@contextmanager
def record_activations(unet: StudioUNet) -> Iterator[ActivationRecord]:
    """Record every block and every cross-attention of a network inside a `with` statement."""
    record, handles = ActivationRecord(), []

    def record_features(name: str) -> Any:
        return lambda module, inputs, output: record.features.append((name, output.detach().float()))

    for name, block in named_blocks(unet):
        handles.append(block.register_forward_hook(record_features(name)))
        if block.attention is not None:
            handles += _record_attention(block.attention, name, record)
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def named_blocks(unet: StudioUNet) -> list[tuple[str, Any]]:
    """Return the network's blocks by name, in the order in which they run."""
    levels: Any = unet.down, unet.up  # each a list of lists of blocks
    down_levels, up_levels = levels
    blocks = [(f"down {level}", block) for level, of_level in enumerate(down_levels) for block in of_level]
    blocks += [("mid", block) for block in unet.mid]
    for level in reversed(range(len(up_levels))):
        blocks += [(f"up {level}", block) for block in up_levels[level]]
    return blocks


def _record_attention(block: TransformerBlock, name: str, record: ActivationRecord) -> list[Any]:
    """Record the attention probabilities of a block, computed again from its query and key."""
    latest: dict[str, Tensor] = {}

    def on_query(module: Any, inputs: Any, output: Tensor) -> None:
        latest["query"] = output

    def on_key_value(module: Any, inputs: Any, output: Tensor) -> None:
        latest["key"] = output.chunk(2, dim=-1)[0]

    def on_block(module: Any, inputs: tuple, output: Tensor) -> None:
        mask = inputs[2] if len(inputs) > 2 else None
        query, key = block.split_heads(latest["query"].detach()), block.split_heads(latest["key"].detach())
        weights = attention_weights(query, key, mask).float()  # (B, heads, N, L)
        record.attention.append((name, weights.unflatten(2, tuple(output.shape[2:]))))

    return [
        block.to_q.register_forward_hook(on_query),
        block.to_kv.register_forward_hook(on_key_value),
        block.register_forward_hook(on_block),
    ]


def share_weights(unet: Any) -> Any:
    """Return a second network of a class of diffusers over the same weights in memory, with hooks of its own.

    Raises ValueError if the weights are not in memory, because they are moved there for each call.
    """
    if any(parameter.is_meta for parameter in unet.parameters()):
        raise ValueError("The network cannot be inspected: its weights are in memory only while it is called.")
    with torch.device("meta"):
        other = type(unet).from_config(unet.config)
    other.load_state_dict(unet.state_dict(), assign=True)
    return other.eval().requires_grad_(False)


def inspection_pipeline(pipe: Any) -> Any:
    """Return a pipeline over the same weights, with a network and a tokenizer of its own. `pipe` stays usable."""
    own = {"unet": share_weights(pipe.unet), "tokenizer": copy.deepcopy(pipe.tokenizer)}
    if pipe.upscaler is not None:
        own["upscaler"] = share_weights(pipe.upscaler)
    return type(pipe)(**pipe.components | own)


# ---- words ----


@dataclass(frozen=True)
class Word:
    """A word of a prompt and its tokens. The text is "" for the marks of the beginning and the end."""

    text: str
    tokens: tuple[int, ...]


def split_words(tokenizer: Any, prompt: str) -> list[Word]:
    """Return the words of a prompt in order, as far as the text encoder reads it, with the marks at both ends.

    Tokens with no space between them belong to one word.
    """
    encoding = tokenizer(prompt, truncation=True, return_offsets_mapping=True, return_special_tokens_mask=True)
    words: list[Word] = []
    last_end = None  # where the last word ends in the prompt; None after a mark
    for index, (begin, end) in enumerate(encoding["offset_mapping"]):
        if encoding["special_tokens_mask"][index] or begin == end:
            words.append(Word("", (index,)))
            last_end = None
            continue
        text = prompt[begin:end].strip()
        if last_end == begin:
            words[-1] = Word(words[-1].text + text, (*words[-1].tokens, index))
        else:
            words.append(Word(text, (index,)))
        last_end = end
    return words


# ---- a step of a trace, computed again ----


@dataclass(frozen=True)
class BlockFeatures:
    """The output of a block: its shape, and the channels that vary most, each scaled to 0 ... 1."""

    name: str
    channels: int
    height: int
    width: int
    shown: np.ndarray  # (K, h, w)


@dataclass(frozen=True)
class StepInspection:
    """One network call of a trace, computed again and recorded.

    words: of the prompts of all tiles; none of a network that reads no words.
    maps: attention (words, H, W) in [0, 1] at the picture's size, by the side in px at which a block attends.
    blocks: features of the first tile.
    prediction: (3, H, W), with the words; guided only if guidance is an input of the network.
    tile_size: height and width of a tile.
    tiles: number of tiles.
    """

    words: list[Word]
    maps: dict[int, np.ndarray]
    blocks: list[BlockFeatures]
    prediction: np.ndarray
    tile_size: tuple[int, int]
    tiles: int

    @property
    def mean_map(self) -> np.ndarray:
        """(words, H, W): the mean over all sizes. Inside the tiles the words sum to 1."""
        if not self.maps:
            return np.zeros((0, *self.prediction.shape[1:]), np.float32)
        return np.mean(list(self.maps.values()), axis=0)


@dataclass(frozen=True)
class _Tiles:
    """The tiles of a picture (H, W). Each caption has the same number of them, in the order of the captions."""

    height: int
    width: int
    size: int
    corners: tuple[tuple[int, int], ...]
    captions: tuple[str, ...]
    is_layout: bool

    @property
    def per_caption(self) -> int:
        return len(self.corners) // len(self.captions)

    def cut(self, picture: Tensor) -> Tensor:
        """Cut (C, H, W) into (tiles, C, h, w)."""
        return torch.stack([picture[:, top : top + self.size, left : left + self.size] for top, left in self.corners])

    def blend(self, parts: Tensor) -> list[Tensor]:
        """Blend (tiles, C, h, w) to (C, H, W) for each caption; the sum over captions is the picture."""
        blended = []
        for number in range(len(self.captions)):
            blend = TileBlender(self.height, self.width, self.size, self.corners, is_grid=not self.is_layout)
            first = number * self.per_caption
            for index in range(first, first + self.per_caption):
                blend.add(parts[index].cpu(), *self.corners[index])
            blended.append(blend.result())
        return blended


def _tiles_of(pipe: Any, prompt: str, stage: Stage, shape: tuple[int, int], from_words: bool, denoised: bool) -> _Tiles:
    """Return the tiles in which the network saw a picture (height, width) of a stage."""
    height, width = shape
    is_large = denoised or stage.task == Task.SUPER_RESOLUTION
    size = pipe.window_size if is_large else pipe.sample_size
    if stage.component == "upscaler":
        size = pipe.upscaler.config.window_size
    layout = parse_layout(prompt, size) if from_words else None
    if layout and shape == (layout.side, layout.side):
        return _Tiles(height, width, size, tuple(layout.corners), tuple(layout.captions), is_layout=True)
    # Runs that start from a picture have other sizes than a layout, and one caption.
    return _Tiles(height, width, size, tuple(tile_corners(height, width, size)), (prompt,), is_layout=False)


@torch.no_grad()
def replay_step(
    pipe: Any,
    prompt: str,
    stage: Stage,
    step: Step,
    *,
    channels: int = 6,
    from_words: bool = True,
    denoised: bool = False,
) -> StepInspection:
    """Compute a network call of a trace again, with the words of the prompt, and return what happened in it.

    A prompt of several things has a caption for each, which counts in its own tile.

    pipe: a `StudioPipeline` that nobody else uses at the same time, such as an `inspection_pipeline`.
    channels: shown of each block.
    from_words: whether the run started as text to image; only then do things have tiles of their own.
    denoised: whether the run removed the noise of a picture; it sees larger tiles.
    """
    unet = getattr(pipe, stage.component)
    reads_words = not unet.config.low_res_only
    device, dtype = unet.device, unet.dtype
    x_t = torch.from_numpy(np.array(step.x_t, dtype=np.float32))
    height, width = x_t.shape[1:]
    condition = torch.zeros(CONDITION_CHANNELS, height, width)
    if stage.condition is not None:
        condition = torch.from_numpy(np.array(stage.condition, dtype=np.float32))
    tiles = _tiles_of(pipe, prompt, stage, (height, width), from_words, denoised)
    inputs = tiles.cut(torch.cat([x_t, condition]))  # (tiles, 10, h, w)
    count = len(inputs)
    text, mask = None, None
    if reads_words:
        text, mask = pipe.encode(tiles.captions)
        text = text.to(device, dtype).repeat_interleave(tiles.per_caption, 0)
        mask = mask.to(device).repeat_interleave(tiles.per_caption, 0)
    one_pass = bool(unet.config.guidance_rank) and step.guidance_difference is None and step.guidance_scale != 1
    with record_activations(unet) as record:
        output = unet(
            inputs.to(device, dtype),
            torch.full((count,), float(step.timestep), device=device),
            text,
            mask,
            torch.full((count,), int(stage.task or 0), device=device),
            torch.full((count,), float(stage.noise_level), device=device),
            torch.full((count,), float(step.guidance_scale), device=device) if one_pass else None,
        ).sample.float()
    words = [split_words(pipe.tokenizer, caption) for caption in tiles.captions] if reads_words else []
    tile_height, tile_width = inputs.shape[2:]
    return StepInspection(
        [word for of_caption in words for word in of_caption],
        _attention_maps(record, tiles, words, (tile_height, tile_width)),
        [block_features(name, features, channels) for name, features in record.features],
        torch.stack(tiles.blend(output)).sum(0).numpy(),
        (tile_height, tile_width),
        count,
    )


def _attention_maps(
    record: ActivationRecord, tiles: _Tiles, words: list[list[Word]], tile_size: tuple[int, int]
) -> dict[int, np.ndarray]:
    """Return the mean attention to each word, (words, H, W), by the side at which blocks attend, largest first."""
    by_side: dict[int, list[np.ndarray]] = {}
    for _, weights in record.attention:  # (B, heads, h, w, L)
        of_tokens = weights.mean(1).permute(0, 3, 1, 2)  # (B, L, h, w), mean over the heads
        blended = tiles.blend(F.interpolate(of_tokens, size=tile_size, mode="bilinear", align_corners=False))
        of_words = []
        for of_caption, caption_words in zip(blended, words, strict=True):
            of_words += [of_caption[list(word.tokens)].sum(0) for word in caption_words]
        by_side.setdefault(weights.shape[3], []).append(torch.stack(of_words).numpy())
    return {side: np.mean(maps, axis=0) for side, maps in sorted(by_side.items(), reverse=True)}


def block_features(name: str, output: Tensor, channels: int) -> BlockFeatures:
    """Return the first tile's channels of greatest variance, each scaled to its own range."""
    values = output[0].cpu()  # (C, h, w)
    order = values.flatten(1).var(1).argsort(descending=True)[:channels]
    chosen = values[order]
    low, high = chosen.amin((1, 2), keepdim=True), chosen.amax((1, 2), keepdim=True)
    shown = (chosen - low) / (high - low).clamp(min=1e-8)
    return BlockFeatures(name, len(values), values.shape[1], values.shape[2], shown.numpy())


def stretch_contrast(maps: np.ndarray) -> np.ndarray:
    """Scale each map of (words, H, W) from its least to its largest value; a flat map becomes 0."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / np.maximum(high - low, 1e-6)
