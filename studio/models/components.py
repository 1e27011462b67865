"""Build the components of latent diffusion models from configs, and fill them with weights that were checked first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import torch

from studio.models.formats import ModelError

_SD = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": (),
}
_SECOND = {"text_encoder_2": ("CLIPTextModelWithProjection",), "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast")}
# Family -> component -> the classes that it may have. For a scheduler: one of SCHEDULERS.
COMPONENTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "stable-diffusion": _SD,
    "sdxl": {**_SD, **_SECOND},
    "sdxl-refiner": {"unet": _SD["unet"], "vae": _SD["vae"], **_SECOND, "scheduler": ()},
    "upscaler-x4": {**_SD, "low_res_scheduler": ()},
}
# Components of stock pipelines that are never loaded: no picture depends on them.
IGNORED = frozenset({"safety_checker", "feature_extractor", "image_encoder", "watermarker"})
SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM",
        "DDPM",
        "DEISMultistep",
        "DPMSolverMultistep",
        "DPMSolverSinglestep",
        "EulerAncestralDiscrete",
        "EulerDiscrete",
        "HeunDiscrete",
        "LCM",
        "PNDM",
        "TCD",
        "UniPCMultistep",
    )
)
# What a text encoder's config may say; a config can also name code to fetch and formats that need other packages.
_CLIP_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
MAX_CONFIG_NUMBER = 1_000_000
# Names of the attention layers in the VAEs of early folders -> today's.
_EARLY_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def build(name: str, class_name: str, config: Mapping[str, Any], weight_count: int) -> Any:
    """Return a component on the meta device: it has shapes and no memory.

    name: of the component, for messages. weight_count: tensors that are there for it; a config with more layers than
    that is refused before it is built.
    Raises ModelError.
    """
    if config.get("quantization_config"):
        raise ModelError(f"The {name} is quantized; only float32, float16 and bfloat16 weights are read.")
    _check_config(name, config, weight_count)
    try:
        with torch.device("meta"):
            if class_name.startswith("CLIP"):
                return _build_text_encoder(class_name, config)
            import diffusers

            model_class: Any = getattr(diffusers, class_name)
            return model_class.from_config({key: value for key, value in config.items() if not key.startswith("_")})
    except Exception as problem:  # many kinds, for fields that do not fit each other
        raise ModelError(f"The config of the {name} is not that of a {class_name}: {_shorten(problem)}") from problem


def _build_text_encoder(class_name: str, config: Mapping[str, Any]) -> Any:
    import transformers

    fields = {key: config[key] for key in _CLIP_FIELDS if key in config}
    # Set here, an attention implementation that the config names is never looked for.
    config_class: Any = transformers.CLIPTextConfig
    model_config = config_class(**fields, attn_implementation="sdpa")
    model_class: Any = getattr(transformers, class_name)
    return model_class(model_config)


def _check_config(name: str, config: Mapping[str, Any], weight_count: int) -> None:
    layers = 1
    for key, value in config.items():
        numbers = list(_numbers(value))
        largest = max((abs(number) for number in numbers), default=0.0)
        if not isfinite(largest) or largest > MAX_CONFIG_NUMBER:
            raise ModelError(f"The config of the {name} has {key} {largest:,.0f}; {MAX_CONFIG_NUMBER:,} is the most.")
        if "layers" in key:
            layers *= max(largest, 1)
        if key == "block_out_channels":
            layers *= max(len(numbers), 1)
    if layers > weight_count:
        raise ModelError(f"The config of the {name} has more layers than its {weight_count:,} weights could belong to.")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _numbers(item)


def fill(name: str, module: Any, weights: Mapping[str, torch.Tensor], dtype: torch.dtype, device: str) -> None:
    """Give a module of the meta device its weights, copied; names and shapes are compared before memory is taken.

    The module is then in evaluation mode and needs no gradients. Raises ModelError.
    """
    expected: Mapping[str, torch.Tensor] = module.state_dict()
    weights = {_rename(key, expected): value for key, value in weights.items() if not key.endswith("position_ids")}
    _check_names_and_shapes(name, expected, weights)
    filled: dict[str, torch.Tensor] = {}
    for key, weight in weights.items():
        filled[key] = weight.to(device=device, dtype=dtype, copy=True, memory_format=torch.contiguous_format)
        # A sum is finite unless a number is not, or it overflows: cheaper than to look at each number.
        if not filled[key].sum(dtype=torch.float32).isfinite() and not filled[key].isfinite().all():
            raise ModelError(f"The weight {key} of the {name} holds NaN or infinity in {_name(dtype)}.")
    module.load_state_dict(filled, assign=True)
    for path, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # not stored in files
            owner, _, last = path.rpartition(".")
            if last != "position_ids":
                raise ModelError(f"The {name} needs {path}, which is in no file.")
            setattr(module.get_submodule(owner), last, torch.arange(buffer.shape[-1], device=device)[None])
    module.eval().requires_grad_(False)


def _rename(key: str, expected: Mapping[str, Any]) -> str:
    """Return the name that today's class has for a weight."""
    if key in expected:
        return key
    for candidate in (key.removeprefix("text_model."), f"text_model.{key}"):
        if candidate in expected:
            return candidate
    for early, today in _EARLY_ATTENTION.items():
        candidate = key.replace(f".{early}.", f".{today}.")
        if candidate in expected:
            return candidate
    return key


def _check_names_and_shapes(
    name: str, expected: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
) -> None:
    if missing := [key for key in expected if key not in weights]:
        raise ModelError(f"The weights of the {name} lack {_first_of(missing)}.")
    if extra := [key for key in weights if key not in expected]:
        raise ModelError(f"The weights of the {name} hold {_first_of(extra)}, for which its config has no place.")
    for key, weight in weights.items():
        if weight.shape != expected[key].shape:
            raise ModelError(
                f"The weight {key} of the {name} has the shape {tuple(weight.shape)}; "
                f"its config asks for {tuple(expected[key].shape)}."
            )
        if not weight.is_floating_point():
            raise ModelError(f"The weight {key} of the {name} is stored as {_name(weight.dtype)}, not as numbers.")


def _first_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """Return the scheduler that a config describes. Raises ModelError."""
    class_name = str(config.get("_class_name", ""))[:60]
    if class_name not in SCHEDULERS:
        raise ModelError(f"The {name} is a {class_name!r}; it must be one of {', '.join(sorted(SCHEDULERS))}.")
    if max((abs(number) for number in _numbers(list(config.values()))), default=0.0) > MAX_CONFIG_NUMBER:
        raise ModelError(f"The config of the {name} has a number above {MAX_CONFIG_NUMBER:,}.")
    import diffusers

    scheduler_class: Any = getattr(diffusers, class_name)
    try:
        return scheduler_class.from_config({key: value for key, value in config.items() if not key.startswith("_")})
    except Exception as problem:  # many kinds, as for modules
        raise ModelError(f"The config of the {name} is not that of a {class_name}: {_shorten(problem)}") from problem


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shorten(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200] or type(problem).__name__
