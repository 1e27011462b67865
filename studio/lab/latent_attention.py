"""The cross-attention of diffusers' `UNet2DConditionModel` to each word, and the channels of its blocks, in a step.

Hooks record the modules' outputs and change nothing, so the prediction is that of the network without them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studio.lab.attention import (
    ActivationRecord,
    StepInspection,
    Word,
    block_features,
    split_words,
)
from studio.lab.latents import as_tensor
from studio.lab.trace_protocol import Stage, Step

# Returns the prediction (C, h, w) for a sample (C, h, w) and a train step, of the network that is recorded.
Predict = Callable[[Tensor, float], Tensor]


@contextmanager
def record_cross_attention(unet: Any, size: tuple[int, int]) -> Iterator[ActivationRecord]:
    """Record every cross-attention and every level of a `UNet2DConditionModel` inside a `with` statement.

    size: height and width of the latents.
    """
    record, handles = ActivationRecord(), list[Any]()

    def record_features(name: str) -> Any:
        def on_output(module: Any, inputs: Any, output: Any) -> None:
            values = output if isinstance(output, Tensor) else output[0]  # transformers give a tuple
            record.features.append((name, values.detach().float()))

        return on_output

    for name, module in _levels(unet):
        handles.append(module.register_forward_hook(record_features(name)))
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            handles += _record_attention(module, name, size, record)
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _levels(unet: Any) -> list[tuple[str, Any]]:
    """Return the last module of every level that keeps the level's size, by name, in the order in which they run."""
    count = len(unet.up_blocks)
    named = [(f"down {level}", block) for level, block in enumerate(unet.down_blocks)]
    named.append(("mid", unet.mid_block))
    named += [(f"up {count - 1 - index}", block) for index, block in enumerate(unet.up_blocks)]
    levels: list[tuple[str, Any]] = []
    for name, block in named:
        has_attention = name != "mid" and getattr(block, "has_cross_attention", False)
        levels.append((name, (block.attentions if has_attention else block.resnets)[-1]))
    return levels


def _record_attention(attention: Any, name: str, size: tuple[int, int], record: ActivationRecord) -> list[Any]:
    """Record the probabilities of an attention, computed again from its query and key: the mean over the heads."""
    latest: dict[str, Tensor] = {}

    def on_query(module: Any, inputs: Any, output: Tensor) -> None:
        latest["query"] = output.detach()

    def on_key(module: Any, inputs: Any, output: Tensor) -> None:
        heads = attention.heads
        query, key = (x.unflatten(-1, (heads, -1)).transpose(1, 2).float() for x in (latest.pop("query"), output))
        weights = (query @ key.detach().transpose(-1, -2) * attention.scale).softmax(-1)  # (B, heads, h w, L)
        height, width = level_size(size, weights.shape[2])
        record.attention.append((name, weights.mean(1, keepdim=True).unflatten(2, (height, width))))

    return [attention.to_q.register_forward_hook(on_query), attention.to_k.register_forward_hook(on_key)]


def level_size(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Return height and width of the level that has so many px. size: of the latents; each level halves it, rounded up.

    Raises ValueError if no level has.
    """
    height, width = size
    while height * width > pixels:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != pixels:
        raise ValueError(f"no level of latents of {size[0]} × {size[1]} has {pixels} px")
    return height, width


def split_padded_words(tokenizer: Any, prompt: str, length: int) -> list[Word]:
    """Return the words of a prompt, with the padding up to `length` tokens in the mark of the end."""
    words = split_words(tokenizer, prompt)
    padding = range(words[-1].tokens[-1] + 1, length)
    return [*words[:-1], replace(words[-1], tokens=(*words[-1].tokens, *padding))]


def bind_prompt(unet: Any, arguments: Mapping[str, Any], stage: Stage, step: Step) -> Predict:
    """Return a function that calls a network as in a step of a stage.

    arguments: of the network for one row, `encoder_hidden_states` (1, L, D) and what SDXL adds.
    Raises ValueError if the network has further input channels that the trace does not hold.
    """
    options = dict(arguments)
    channels = list[Tensor]() if stage.condition is None else [as_tensor(stage.condition)]
    missing = unet.config.in_channels - len(step.x_t) - sum(map(len, channels))
    if missing:
        raise ValueError(f"The network cannot be inspected: {missing} of its input channels are not kept in the trace.")
    if unet.config.time_cond_proj_dim:
        options["timestep_cond"] = embed_guidance(step.guidance_scale, unet.config.time_cond_proj_dim)[None].to(
            unet.device, unet.dtype
        )
    if unet.config.num_class_embeds:
        options["class_labels"] = torch.tensor([round(stage.noise_level)], device=unet.device)

    def predict(sample: Tensor, timestep: float) -> Tensor:
        array = torch.cat([sample, *channels])[None].to(unet.device, unet.dtype)  # (1, C + K, h, w)
        return unet(array, torch.tensor([timestep], device=unet.device), **options, return_dict=False)[0][0]

    return predict


def embed_guidance(guidance: float, width: int) -> Tensor:
    """Return the embedding (width,) by which latent consistency models read the guidance scale.

    Sines and cosines of 1000 (guidance - 1), as in diffusers' `get_guidance_scale_embedding`.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) / (half - 1) * torch.arange(half))
    angles = (guidance - 1) * 1000.0 * frequencies
    return F.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))


@torch.no_grad()
def replay_latent_step(
    unet: Any, predict: Predict, tokenizer: Any, prompt: str, step: Step, *, channels: int = 6
) -> StepInspection:
    """Compute the network call of a trace's step again, with the words of the prompt, and return what happened in it.

    unet: a network that nobody else uses at the same time, such as by `studio.lab.attention.share_weights`.
    predict: calls this network with the prompt.
    channels: shown of each block.
    """
    x_t = as_tensor(step.x_t)
    size = (x_t.shape[1], x_t.shape[2])
    with record_cross_attention(unet, size) as record:
        prediction = predict(x_t, step.timestep).float().cpu()
    words = split_padded_words(tokenizer, prompt, record.attention[0][1].shape[-1])
    return StepInspection(
        words,
        _attention_maps(record, words, size),
        [block_features(name, features, channels) for name, features in record.features],
        prediction.numpy(),
        size,
        1,
    )


def _attention_maps(record: ActivationRecord, words: list[Word], size: tuple[int, int]) -> dict[int, np.ndarray]:
    """Return the mean attention to each word, (words, H, W), by the side at which blocks attend, largest first."""
    by_side: dict[int, list[np.ndarray]] = {}
    for _, weights in record.attention:  # (1, 1, h, w, L)
        of_tokens = weights[0].permute(0, 3, 1, 2).cpu()  # (1, L, h, w)
        (enlarged,) = F.interpolate(of_tokens, size=size, mode="bilinear", align_corners=False)
        of_words = torch.stack([enlarged[list(word.tokens)].sum(0) for word in words])
        by_side.setdefault(weights.shape[3], []).append(of_words.numpy())
    return {side: np.mean(maps, axis=0) for side, maps in sorted(by_side.items(), reverse=True)}
