"""What a model is, and how a folder in diffusers layout says it by its configs. Pure functions, no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from studio.models.folders import STUDIO_UNET, ModelFolder
from studio.models.formats import quote_name

STUDIO = "studio"
UNKNOWN = "unknown"
# family -> its name for people
FAMILIES = {
    STUDIO: "Diffusion Studio",
    "stable-diffusion": "Stable Diffusion",
    "sdxl": "SDXL",
    "sdxl-refiner": "SDXL refiner",
    "upscaler-x4": "SD x4 upscaler",
}
VARIANTS = ("text-to-image", "inpainting", "lcm", "turbo")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
# The components that a folder of a family must have.
COMPONENTS = {
    "stable-diffusion": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
    "sdxl-refiner": ("unet", "vae", "text_encoder_2", "tokenizer_2", "scheduler"),
    "upscaler-x4": ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "low_res_scheduler"),
}
RUNS = "this studio runs SD 1.x, SD 2.x, SDXL and the SD x4 upscaler"
_BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D"}
VARIANT_OF_CHANNELS = {4: "text-to-image", 9: "inpainting"}  # the U-Net's input channels -> variant
_TEXT_WIDTHS = {768: "SD 1.x", 1024: "SD 2.x"}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a model is, as its files say or as a person has set it.

    family: a key of FAMILIES, or UNKNOWN for a file that is no model, or none that this studio runs.
    variant: one of VARIANTS. "inpainting" has a mask and a picture among the network's input channels.
    prediction_type: one of PREDICTION_TYPES, as diffusers' schedulers name them.
    version: for people: "SD 1.x", "SD 2.x", "SDXL" ...; of an unknown file what it is, "LoRA" for example.
    evidence: a sentence for each fact that was found in the files.
    problems: a sentence for each reason why it cannot paint, if its files are read correctly.
    latent_channels: channels of what the network denoises (3: pixels).
    sample_size: default width and height of a picture in px.
    zero_terminal_snr: whether it was trained with noise alone at the last time (diffusers: rescale_betas_zero_snr).
    embeds_guidance: whether guidance is an input of the network, as in a whole LCM (diffusers: time_cond_proj_dim).
    """

    family: str
    variant: str = "text-to-image"
    prediction_type: str = "epsilon"
    version: str
    evidence: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    latent_channels: int = 4
    sample_size: tuple[int, int] = (512, 512)
    zero_terminal_snr: bool = False
    embeds_guidance: bool = False


def unknown(version: str, problem: str) -> Identity:
    """Return the identity of something that this studio does not run."""
    return Identity(family=UNKNOWN, version=version, evidence=(), problems=(problem,))


def with_overrides(identity: Identity, overrides: Mapping[str, Any]) -> Identity:
    """Return the identity with the family, the variant and the prediction type that a person has set."""
    fields = {name: overrides[name] for name in ("family", "variant", "prediction_type") if name in overrides}
    evidence = [f"You set the {name.replace('_', ' ')} to {value}." for name, value in fields.items()]
    if fields.get("family", identity.family) != identity.family:
        fields["version"] = FAMILIES[fields["family"]]
        if identity.family == UNKNOWN:
            fields["problems"] = ()
    return replace(identity, **fields, evidence=(*identity.evidence, *evidence))


def identify_folder(files: ModelFolder, name: str) -> Identity:
    """Identify a folder in diffusers layout by its configs. name: the folder's, weak evidence of a turbo model."""
    index, unet = files.index, files.configs.get("unet", {})
    pipeline = quote_name(str(index.get("_class_name") or "model without a pipeline class"))
    if index.get("unet") == STUDIO_UNET:
        return _identify_studio(files)
    if index.get("unet") != ["diffusers", "UNet2DConditionModel"]:
        return unknown(pipeline, f"{name} is a {pipeline}; {RUNS}.")
    if not unet:
        return Identity(family=UNKNOWN, version=pipeline)  # the folder's problems say why
    family, version, why = _folder_family(unet)
    if not family:
        return unknown(pipeline, f"{name} is a {pipeline} with a U-Net of another kind; {RUNS}.")
    evidence = [f"model_index.json names the pipeline {pipeline}.", f"unet/config.json: {why}, as in {version}."]
    scheduler = files.configs.get("scheduler", {})
    scheduler_class = _component_class(index, "scheduler")
    if scheduler_class.startswith(("EDM", "FlowMatch")):
        return unknown(pipeline, f"{name} has noise levels of another kind ({scheduler_class}); {RUNS}.")
    variant, why = VARIANT_OF_CHANNELS.get(_int(unet, "in_channels"), "text-to-image"), ""
    if variant == "inpainting":
        why = "unet/config.json: 9 input channels, so it takes a mask and a picture."
    elif unet.get("time_cond_proj_dim") is not None:
        variant, why = "lcm", "unet/config.json: guidance is an input of the network, as in an LCM."
    elif scheduler_class == "LCMScheduler":
        variant, why = "lcm", "model_index.json names the LCMScheduler."
    elif scheduler_class == "EulerAncestralDiscreteScheduler" and scheduler.get("timestep_spacing") == "trailing":
        variant, why = "turbo", "scheduler_config.json: Euler a with trailing timesteps, as Turbo models have it."
    elif word := find_fast_word(name):
        variant, why = "turbo", f'Its name contains "{word}".'
    evidence += [why] if why else []
    prediction_type = scheduler.get("prediction_type", "epsilon")
    if prediction_type not in PREDICTION_TYPES:
        shown = quote_name(str(prediction_type))
        return unknown(pipeline, f"The network of {name} predicts {shown}; allowed are {', '.join(PREDICTION_TYPES)}.")
    is_named = "prediction_type" in scheduler
    evidence.append(
        f"scheduler_config.json: the network predicts {prediction_type}."
        if is_named
        else "scheduler_config.json names no prediction type, so it is epsilon, as in diffusers."
    )
    missing = [part for part in COMPONENTS[family] if not _component_class(index, part)]
    return Identity(
        family=family,
        variant=variant,
        prediction_type=prediction_type,
        version=version,
        evidence=tuple(evidence),
        problems=tuple(f"The model_index.json of {name} names no {part}." for part in missing),
        sample_size=_folder_sample_size(unet, files.configs.get("vae", {}), family),
        zero_terminal_snr=scheduler.get("rescale_betas_zero_snr") is True,
        embeds_guidance=unet.get("time_cond_proj_dim") is not None,
    )


def _identify_studio(files: ModelFolder) -> Identity:
    unet, scheduler = files.configs.get("unet", {}), files.configs.get("scheduler", {})
    side = max(_int(unet, "sample_size"), _int(unet, "window_size")) or 64
    prediction_type = scheduler.get("prediction_type")
    return Identity(
        family=STUDIO,
        prediction_type=prediction_type if prediction_type in PREDICTION_TYPES else "v_prediction",
        version=FAMILIES[STUDIO],
        evidence=("model_index.json names StudioUNet, the network of this studio.",),
        latent_channels=3,
        sample_size=(side, side),
    )


def _folder_family(unet: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return family, version and evidence of a UNet2DConditionModel; empty if it is of no kind that runs here."""
    blocks = unet.get("down_block_types")
    is_plain = isinstance(blocks, list) and {str(block) for block in cast("list[Any]", blocks)} <= _BLOCKS
    is_plain = is_plain and unet.get("encoder_hid_dim") is None and unet.get("class_embed_type") is None
    channels, labels, addition = _int(unet, "in_channels"), unet.get("num_class_embeds"), "addition_embed_type"
    if not is_plain or _int(unet, "out_channels") != 4:
        return "", "", ""
    if channels == 7 and unet.get(addition) is None and labels is not None:
        return "upscaler-x4", FAMILIES["upscaler-x4"], "7 input channels, and class labels for noise levels"
    if channels not in VARIANT_OF_CHANNELS or labels is not None:
        return "", "", ""
    text_width = _int(unet, "cross_attention_dim")
    if unet.get(addition) is None:
        if text_width in _TEXT_WIDTHS:
            return "stable-diffusion", _TEXT_WIDTHS[text_width], f"it reads text vectors of {text_width} numbers"
        if unet.get("use_linear_projection") is True:
            return "stable-diffusion", "SD 2.x", "its attention has linear projections"
        return "stable-diffusion", "SD 1.x", "its attention has convolutions as projections"
    if unet.get(addition) != "text_time":
        return "", "", ""
    # SDXL gives six numbers to the network (size, crop, target size), the refiner five (size, crop, score); each
    # becomes `addition_time_embed_dim` values behind the pooled text vector.
    width, numbers = _int(unet, "projection_class_embeddings_input_dim"), _int(unet, "addition_time_embed_dim")
    if width == text_width + 5 * numbers:
        return "sdxl-refiner", FAMILIES["sdxl-refiner"], "it reads the picture's size, crop and score"
    return "sdxl", FAMILIES["sdxl"], "it reads the picture's size, crop and target size"


def _int(config: Mapping[str, Any], key: str) -> int:
    """Return a whole number of a config; 0 if there is none."""
    value = config.get(key)
    return value if type(value) is int else 0


def _component_class(index: Mapping[str, Any], component: str) -> str:
    """Return the class that model_index.json names for a component; empty if it names none."""
    entry = index.get(component)
    if not isinstance(entry, list) or len(cast("list[Any]", entry)) != 2:
        return ""
    return str(cast("list[Any]", entry)[1] or "")


def _folder_sample_size(unet: Mapping[str, Any], vae: Mapping[str, Any], family: str) -> tuple[int, int]:
    """Return the width and the height that the configs say, else those of the family."""
    side = unet.get("sample_size")
    sides = cast("list[Any]", side) if isinstance(side, list) else [side, side]
    blocks = vae.get("block_out_channels")
    levels = len(cast("list[Any]", blocks)) if isinstance(blocks, list) else 0
    pixels = [side * 2 ** (levels - 1) for side in sides if type(side) is int and 1 <= side <= 512 and 1 <= levels <= 8]
    if len(pixels) == 2 and max(pixels) <= 4096:
        return pixels[1], pixels[0]  # configs name the height first
    return (1024, 1024) if family.startswith("sdxl") else (512, 512)


def find_fast_word(name: str) -> str:
    """Return the word in a model's name that says that it needs few steps; empty if there is none."""
    found = re.search(r"turbo|lightning", name.lower())
    return found[0] if found else ""


def default_settings(identity: Identity) -> dict[str, Any]:
    """Return the settings that suit most models of a kind: fields of TextToImage -> values."""
    if identity.family in (STUDIO, UNKNOWN):
        return {}
    settings: dict[str, Any] = {"sampler": "dpm++2m", "spacing": "", "steps": 25, "guidance": 7.0}
    if identity.variant == "lcm":
        settings |= {"sampler": "lcm", "steps": 4, "guidance": 8.0 if identity.embeds_guidance else 1.0}
    elif identity.variant == "turbo":
        settings |= {"sampler": "euler_a", "spacing": "trailing", "steps": 4, "guidance": 1.0}
    elif identity.zero_terminal_snr:  # arXiv 2305.08891, sections 3.3 and 3.4
        settings |= {"sampler": "ddim", "spacing": "trailing", "guidance_rescale": 0.7}
    if identity.family != "upscaler-x4":
        settings["width"], settings["height"] = identity.sample_size
    return settings
