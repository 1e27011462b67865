"""Looking inside the network while it works: attention to the words, and what each level holds.

The network's modules are only listened to: what it says is the same with a `Watch` and without. A watch belongs to one
network object, so a network that others use at the same time is watched through its `twin`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from studio.diffusion.composition import parse_layout
from studio.diffusion.conditioning import CONDITION_CHANNELS, Task
from studio.diffusion.tiling import TileBlender, tile_corners
from studio.diffusion.unet import StudioUNet, TransformerBlock, attention_weights


@dataclass
class Watch:
    """What was seen in the calls so far, in the order of the network."""

    attention: list[tuple[str, torch.Tensor]] = field(default_factory=list)  # (block, (B, heads, h, w, L))
    features: list[tuple[str, torch.Tensor]] = field(default_factory=list)  #  (place, (B, C, h, w))

    def clear(self) -> None:
        self.attention.clear()
        self.features.clear()


@contextmanager
def record_activations(unet: StudioUNet) -> Iterator[Watch]:
    """Listens to every cross-attention and every stage of a network, until the block is left."""
    seen, handles = Watch(), []
    for name, block in named_blocks(unet):
        handles.append(
            block.register_forward_hook(
                lambda module, given, out, name=name: seen.features.append((name, out.detach().float()))
            )
        )
        if block.attention is not None:
            handles += _listen(block.attention, name, seen)
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def named_blocks(unet: StudioUNet) -> list[tuple[str, Any]]:
    """The network's stages by name, in the order in which a picture goes through them."""
    found = [(f"down {level}", stage) for level, stages in enumerate(unet.down) for stage in stages]
    found += [("mid", stage) for stage in unet.mid]
    found += [(f"up {level}", unet.up[level][i]) for level in reversed(range(len(unet.up))) for i in range(
        len(unet.up[level])
    )]  # fmt: skip
    return found


def _listen(block: TransformerBlock, name: str, seen: Watch) -> list[Any]:
    """Query and key are heard where they are made; the probabilities are then reckoned a second time, beside the
    network, by its own function."""
    heard: dict[str, torch.Tensor] = {}

    def on_query(module: Any, given: Any, out: torch.Tensor) -> None:
        heard["query"] = out

    def on_key(module: Any, given: Any, out: torch.Tensor) -> None:
        heard["key"] = out.chunk(2, dim=-1)[0]

    def on_leave(module: Any, given: tuple, out: torch.Tensor) -> None:
        mask = given[2] if len(given) > 2 else None
        query, key = (block._split(heard[part].detach()) for part in ("query", "key"))
        weights = attention_weights(query, key, mask).float()  # (B, heads, N, L)
        seen.attention.append((name, weights.unflatten(2, tuple(out.shape[2:]))))

    return [
        block.to_q.register_forward_hook(on_query),
        block.to_kv.register_forward_hook(on_key),
        block.register_forward_hook(on_leave),
    ]


def share_weights(unet: StudioUNet) -> StudioUNet:
    """A second network over the very same weights in memory, with modules of its own to listen to."""
    with torch.device("meta"):
        other = type(unet).from_config(unet.config)
    other.load_state_dict(unet.state_dict(), assign=True)
    return other.eval().requires_grad_(False)


def inspection_pipeline(pipe: Any) -> Any:
    """A pipeline over the same weights, with modules and a tokenizer of its own: the first may go on working."""
    return type(pipe)(
        **pipe.components | {"unet": share_weights(pipe.unet), "tokenizer": copy.deepcopy(pipe.tokenizer)}
    )


# ---- words ----


@dataclass(frozen=True)
class Word:
    """A word of a prompt and the tokens it was read as; text is "" for the marks of the beginning and the end."""

    text: str
    tokens: tuple[int, ...]


def words(tokenizer: Any, prompt: str) -> list[Word]:
    """The words of a prompt in order, as far as the text encoder reads it, its two marks included.

    Tokens of one word are those between which the prompt has no space.
    """
    read = tokenizer(prompt, truncation=True, return_offsets_mapping=True, return_special_tokens_mask=True)
    found: list[list] = []  # [begin, end, tokens]
    for index, ((begin, end), special) in enumerate(
        zip(read["offset_mapping"], read["special_tokens_mask"], strict=True)
    ):
        if special or begin == end:
            found.append([None, None, [index]])
        elif found and found[-1][1] == begin:
            found[-1][1] = end
            found[-1][2].append(index)
        else:
            found.append([begin, end, [index]])
    return [Word("" if b is None else prompt[b:e].strip(), tuple(tokens)) for b, e, tokens in found]


# ---- a step of a trace, seen again ----


@dataclass(frozen=True)
class Level:
    """What a place of the network holds: its true shape, and the channels that vary most, each to 0 ... 1."""

    name: str
    channels: int
    height: int
    width: int
    shown: np.ndarray  # (K, h, w)


@dataclass(frozen=True)
class Insight:
    """One network call of a trace, made again with the network listened to."""

    words: list[Word]  # of all windows that have words of their own
    maps: dict[int, np.ndarray]  # side in px at which a block attends -> (words, H, W) in [0, 1], at the picture's size
    levels: list[Level]
    prediction: np.ndarray  # (3, H, W), with the words; guided only where guidance was the network's own input
    window: tuple[int, int]  # height and width of what the network is shown at once
    windows: int  # that the picture is seen in; the levels are of the first

    @property
    def merged(self) -> np.ndarray:
        """(words, H, W): the mean over all sizes. Over the words they sum to 1 wherever a window is."""
        return np.mean(list(self.maps.values()), axis=0)


@torch.no_grad()
def replay_step(
    pipe: Any,
    prompt: str,
    stage: Any,
    step: Any,
    channels: int = 6,
    from_words: bool = True,
    denoised: bool = False,
) -> Insight:
    """Makes the network call of a step of a trace once more, with the prompt's words, and says what went on in it.

    A prompt of several things has the words of each, which count where its window does.

    pipe: a `StudioPipeline` that nobody else uses at the same time, such as a `listener`.
    from_words: whether the run began as text to image: in no other have things windows of their own.
    denoised: whether the run took the noise out of a picture, which is seen in larger windows.
    """
    unet = pipe.unet
    device, dtype = unet.device, unet.dtype
    task = int(stage.task or 0)
    x_t = torch.from_numpy(np.array(step.x_t, dtype=np.float32))
    height, width = x_t.shape[1:]
    condition = torch.zeros(CONDITION_CHANNELS, height, width)
    if stage.condition is not None:
        condition = torch.from_numpy(np.array(stage.condition, dtype=np.float32))
    window = pipe.window_size if denoised or task == Task.SUPER_RESOLUTION else pipe.sample_size
    layout = parse_layout(prompt, window) if from_words else None
    if layout and (height, width) != (layout.side, layout.side):  # begun from a picture that is no square, or larger
        layout = None
    captions = layout.captions if layout else (prompt,)
    corners = list(layout.corners) if layout else tile_corners(height, width, window)
    whole = torch.cat([x_t, condition])
    tiles = [whole[:, top : top + window, left : left + window] for top, left in corners]
    count, each = len(tiles), len(tiles) // len(captions)
    text, mask = pipe.encode(captions)
    one_pass = bool(unet.config.guidance_rank) and step.guidance_difference is None and step.guidance_scale != 1
    guidance = torch.full((count,), float(step.guidance_scale), device=device) if one_pass else None
    with record_activations(unet) as seen:
        said = unet(
            torch.stack(tiles).to(device, dtype),
            torch.full((count,), float(step.timestep), device=device),
            text.to(device, dtype).repeat_interleave(each, 0),
            mask.to(device).repeat_interleave(each, 0),
            torch.full((count,), task, device=device),
            torch.full((count,), float(stage.noise_level), device=device),
            guidance,
        ).sample.float()
    spoken = [words(pipe.tokenizer, caption) for caption in captions]
    side = tuple(tiles[0].shape[1:])

    def wholes(parts: torch.Tensor) -> list[torch.Tensor]:
        """Windows (B, C, h, w) at their own size -> (C, H, W) of each caption, as much of it as counts."""
        of_each = []
        for k in range(len(captions)):
            blend = TileBlender(height, width, window, corners, is_grid=layout is None)
            for part, corner in list(zip(parts.cpu(), corners, strict=True))[k * each : (k + 1) * each]:
                blend.add(part, *corner)
            of_each.append(blend.result())
        return of_each

    by_size: dict[int, list[np.ndarray]] = {}
    for _, weights in seen.attention:  # (B, heads, h, w, L)
        tokens = weights.mean(1).permute(0, 3, 1, 2)  # (B, L, h, w): over the heads
        of_tokens = wholes(F.interpolate(tokens, size=side, mode="bilinear", align_corners=False))
        of_words = [
            part[list(word.tokens)].sum(0) for part, told in zip(of_tokens, spoken, strict=True) for word in told
        ]
        by_size.setdefault(weights.shape[3], []).append(torch.stack(of_words).numpy())
    maps = {size: np.mean(found, axis=0) for size, found in sorted(by_size.items(), reverse=True)}
    levels = [_level(name, out, channels) for name, out in seen.features]
    return Insight(sum(spoken, []), maps, levels, sum(wholes(said)).numpy(), side, count)


def _level(name: str, out: torch.Tensor, channels: int) -> Level:
    """The first window's channels of greatest variance, each stretched to its own range."""
    values = out[0].cpu()  # (C, h, w)
    order = values.flatten(1).var(1).argsort(descending=True)[:channels]
    chosen = values[order]
    low, high = chosen.amin((1, 2), keepdim=True), chosen.amax((1, 2), keepdim=True)
    shown = (chosen - low) / (high - low).clamp(min=1e-8)
    return Level(name, len(values), values.shape[1], values.shape[2], shown.numpy())


def stretch_contrast(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Maps (words, H, W) each stretched from its least to its largest value, for drawing; a flat one is 0."""
    array = np.asarray(maps)
    low, high = array.min((1, 2), keepdims=True), array.max((1, 2), keepdims=True)
    return (array - low) / np.maximum(high - low, 1e-6)
