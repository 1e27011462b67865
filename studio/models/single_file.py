"""Read single files of weights in the layout of CompVis and Stability AI: no configs, other names for the weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from studio.models import configs
from studio.models.formats import ModelError
from studio.models.identify import Identity

UNET = "model.diffusion_model."
OPEN_CLIP = "cond_stage_model.model."
# Where OpenCLIP's weights begin: in SD 2 and x4 files, in SDXL files, in refiner files.
_OPEN_CLIP_PREFIXES = (OPEN_CLIP, "conditioner.embedders.1.model.", "conditioner.embedders.0.model.")


def choose_configs(identity: Identity, weights: Mapping[str, torch.Tensor]) -> dict[str, configs.Config]:
    """Return the configs for a file: of its family, with what its weights and its identity say beside it."""
    is_sd2 = any(key.startswith(OPEN_CLIP) for key in weights)
    by_family = {
        "stable-diffusion": configs.SD2 if is_sd2 else configs.SD1,
        "sdxl": configs.SDXL,
        "sdxl-refiner": configs.SDXL_REFINER,
        "upscaler-x4": configs.X4,
    }
    chosen = dict(by_family[identity.family])
    unet, scheduler = dict(chosen["unet"]), dict(chosen["scheduler"])
    if (conv_in := weights.get(f"{UNET}input_blocks.0.0.weight")) is not None:
        unet["in_channels"] = conv_in.shape[1]
    if (guidance := weights.get(f"{UNET}time_embed.cond_proj.weight")) is not None:
        unet["time_cond_proj_dim"] = guidance.shape[1]
    if identity.variant == "lcm":
        scheduler = {"_class_name": "LCMScheduler", **_betas(scheduler)}
    elif identity.variant == "turbo":
        scheduler = {
            "_class_name": "EulerAncestralDiscreteScheduler",
            **_betas(scheduler),
            "timestep_spacing": "trailing",
        }
    return {**chosen, "unet": unet, "scheduler": scheduler}


def _betas(scheduler: configs.Config) -> configs.Config:
    return {key: scheduler[key] for key in ("beta_start", "beta_end", "beta_schedule", "steps_offset")}


def convert(name: str, module: Any, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a component under diffusers' names. Raises ModelError if the file has none of it.

    module: the component, of which the config is read.
    """
    from diffusers.loaders import single_file_utils

    converters: Any = single_file_utils
    converted: dict[str, torch.Tensor] = {}
    try:
        if name == "unet":
            converted = converters.convert_ldm_unet_checkpoint(weights, module.config)
            if (guidance := weights.get(f"{UNET}time_embed.cond_proj.weight")) is not None:
                converted["time_embedding.cond_proj.weight"] = guidance
        elif name == "vae":
            converted = converters.convert_ldm_vae_checkpoint(weights, module.config)
        else:
            converted = _convert_text_encoder(name, module, weights)
    except (KeyError, IndexError, AttributeError) as problem:  # what the converters raise where a weight is missing
        raise ModelError(f"The weights of the {name} in the file are not whole: {problem} is missing.") from problem
    if not converted:
        raise ModelError(f"The file holds no weights of the {name}.")
    return converted


def _convert_text_encoder(name: str, module: Any, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from diffusers.loaders import single_file_utils

    converters: Any = single_file_utils
    for prefix in _OPEN_CLIP_PREFIXES:
        is_second = prefix != OPEN_CLIP
        if is_second == (name == "text_encoder_2") and any(key.startswith(prefix) for key in weights):
            converted: dict[str, torch.Tensor] = converters.convert_open_clip_checkpoint(module, weights, prefix)
            if not is_second:
                converted.pop("text_projection.weight", None)
            return converted
    return converters.convert_ldm_clip_checkpoint(weights)


@functools.cache
def _clip_merges() -> tuple[tuple[str, str], ...]:
    merges: list[tuple[str, str]] = []
    for line in configs.CLIP_MERGES.read_text("utf-8").splitlines():
        first, second = line.split(" ")
        merges.append((first, second))
    return tuple(merges)


def clip_tokenizer(pad_token: str) -> Any:
    """Return CLIP's tokenizer: 49,408 tokens, at most 77 of a text.

    pad_token: "<|endoftext|>" for OpenAI's text encoder, "!" for OpenCLIP's.
    """
    import transformers

    # The tokens' order (Radford et al. 2021, simple_tokenizer.py): bytes, bytes that end a word, merges, marks. Bytes
    # without a visible character of their own get those from 256 on.
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(byte) for byte in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    merges = _clip_merges()
    tokens = [*characters, *(f"{character}</w>" for character in characters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer_class: Any = transformers.CLIPTokenizer
    return tokenizer_class(vocab=vocabulary, merges=list(merges), model_max_length=77, pad_token=pad_token)
