"""What kind of model a single safetensors file holds, by the names and shapes in its header. Pure functions, no torch.

"Unknown" is an answer. Nothing is taken for a model because it is nothing else: its own names must be there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from studio.models.formats import Header
from studio.models.identify import FAMILIES, RUNS, VARIANT_OF_CHANNELS, Identity, find_fast_word, unknown

UNET = "model.diffusion_model."  # in the layout of the original code, the U-Net's names begin with it
# The tensor that tells SD 2.x models that predict v from those that predict noise.
SD2_CLUE = f"{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
# What the names of the tensors begin with that are loaded. Others are averages of the weights, or belong to training.
USED_PREFIXES = (UNET, "first_stage_model.", "cond_stage_model.", "conditioner.")
# What the names of text encoders begin with.
_ENCODERS = (
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.0.model.",
    "conditioner.embedders.1.model.",
)
# A pattern of the beginning of tensor names -> the kind, and the end of a sentence about it.
# The first pattern that matches any name counts.
_KINDS = (
    (r".*\.(lora_(up|down|[AB])|lora\.(up|down)|hada_w[12]_[ab]|lokr_w[12])\b", "LoRA", "is a LoRA"),
    (r"(control_model|lllite_unet)|.*(controlnet_cond_embedding|input_hint_block)\.", "ControlNet", "is a ControlNet"),
    (r"(ip_adapter|image_proj)\.", "IP-Adapter", "is an IP-Adapter"),
    (r".*motion_modules\.", "motion module", "is a motion module"),
    (rf"({UNET})?(double_blocks|single_transformer_blocks)\.", "Flux", f"is a model of the Flux kind; {RUNS}"),
    (rf"({UNET})?joint_blocks\.", "SD 3", f"is an SD 3 model; {RUNS}"),
    (UNET, "another model", f"is a diffusion model of another kind; {RUNS}"),
    (r"(first_stage_model\.)?(encoder|decoder)\.(conv_in|layers\.0)\.", "VAE", "is a VAE"),
    (r".*(token_embedding|resblocks\.0)\.|encoder\.block\.0\.", "text encoder", "is a text encoder"),
    (r"down_blocks\.0\.", "U-Net", "is a U-Net without text encoder and VAE"),
    (r"(emb_params|clip_[lg])$", "embedding", "is an embedding (textual inversion)"),
    (r"(model\.0|conv_first|body\.0)\.", "enlarging network", f"is a network that enlarges pictures; {RUNS}"),
)
_EMBEDDING_WIDTHS = {768, 1024, 1280, 2048}


def identify_file(header: Header, name: str, *, sd2_clue: Sequence[float] = ()) -> Identity:
    """Identify a single file in the layout of the original (CompVis, Stability) code by its tensors' names and shapes.

    name: the file's, weak evidence of a turbo or LCM model.
    sd2_clue: the values of the tensor SD2_CLUE, if the file has it. Their deviation tells networks that predict v
        (above 0.09) from those that predict noise: ComfyUI's rule for SD 2.x.
    """
    tensors, metadata = header.tensors, header.metadata
    first = tensors.get(f"{UNET}input_blocks.0.0.weight")
    if first is None or len(first.shape) != 4:
        kind, problem = _describe_other_file(header)
        return unknown(kind, f"{name} {problem}.")
    family, version, encoders, why = _file_family(header)
    if family is None:
        return unknown(version, f"{name} is {version}; {RUNS}.")
    evidence, channels = [why], first.shape[1]
    embeds_guidance = f"{UNET}time_embed.cond_proj.weight" in tensors
    variant = VARIANT_OF_CHANNELS.get(channels, "text-to-image")
    if variant == "inpainting":
        evidence.append("Its U-Net has 9 input channels, so it takes a mask and a picture.")
    elif embeds_guidance:
        variant = "lcm"
        evidence.append("Guidance is an input of its network, as in an LCM.")
    elif re.search(r"(?<![a-z])lcm(?![a-z])", name.lower()):
        variant = "lcm"
        evidence.append('Its name contains "lcm".')
    elif word := find_fast_word(name):
        variant = "turbo"
        evidence.append(f'Its name contains "{word}".')
    prediction_type, why = _file_prediction_type(header, family, version, variant, sd2_clue)
    evidence.append(why)
    problems: list[str] = []
    if not encoders:
        problems.append(f"{name} has no text encoder, only the weights of its other parts, so it cannot read a prompt.")
    if not any(key.startswith("first_stage_model.") for key in tensors):
        problems.append(f"{name} has no VAE, so it cannot turn latents into pictures.")
    side = 1024 if family.startswith("sdxl") else 512
    if version == "SD 2.x" and prediction_type == "v_prediction":
        side = 768
    size = (512, 512) if variant == "turbo" else (side, side)
    stated = re.fullmatch(r"(\d{2,4})x(\d{2,4})", metadata.get("modelspec.resolution", ""))
    if stated and all(64 <= int(side) <= 4096 and int(side) % 8 == 0 for side in stated.groups()):
        size = int(stated[1]), int(stated[2])
        evidence.append(f"Its metadata names the size {size[0]} x {size[1]} px.")
    return Identity(
        family=family,
        variant=variant,
        prediction_type=prediction_type,
        version=version,
        evidence=tuple(evidence),
        problems=tuple(problems),
        sample_size=size,
        zero_terminal_snr="ztsnr" in tensors,
        embeds_guidance=embeds_guidance,
    )


def _file_family(header: Header) -> tuple[str | None, str, bool, str]:
    """Return family (None: one that does not run here), version, whether text encoders are there, and the evidence."""
    tensors = header.tensors
    channels = tensors[f"{UNET}input_blocks.0.0.weight"].shape[1]
    has_labels = f"{UNET}label_emb.0.0.weight" in tensors  # sizes (SDXL), or a picture's embedding (unCLIP)
    encoders = {part for part in _ENCODERS if any(name.startswith(part) for name in tensors)}
    to_k = next((tensor for name, tensor in tensors.items() if name.endswith(".attn2.to_k.weight")), None)
    width = to_k.shape[-1] if to_k is not None and to_k.shape else 0
    out = tensors.get(f"{UNET}out.2.weight")
    if "edm_mean" in tensors or "edm_vpred.sigma_max" in tensors:
        return None, "a model with noise levels of another kind (EDM)", True, ""
    if channels == 8:
        return None, "a model that edits or animates pictures (8 input channels)", True, ""
    if channels == 7 and f"{UNET}label_emb.weight" in tensors:
        why = "Its U-Net has 7 input channels and a table of noise levels, as the x4 upscaler."
        return "upscaler-x4", FAMILIES["upscaler-x4"], bool(encoders), why
    if channels not in VARIANT_OF_CHANNELS or out is None or not out.shape or out.shape[0] != 4:
        return None, f"a U-Net with {channels} input channels", True, ""
    if encoders == {"conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."} and has_labels:
        return "sdxl", "SDXL", True, "It has the two text encoders of SDXL."
    if encoders == {"conditioner.embedders.0.model."} and has_labels:
        return "sdxl-refiner", FAMILIES["sdxl-refiner"], True, "It has the one text encoder of the SDXL refiner."
    if encoders == {"cond_stage_model.transformer."} and not has_labels:
        return "stable-diffusion", "SD 1.x", True, "It has the text encoder of SD 1.x (CLIP ViT-L)."
    if encoders == {"cond_stage_model.model."} and not has_labels:
        return "stable-diffusion", "SD 2.x", True, "It has the text encoder of SD 2.x (OpenCLIP ViT-H)."
    by_width = {
        (768, False): ("stable-diffusion", "SD 1.x"),
        (1024, False): ("stable-diffusion", "SD 2.x"),
        (2048, True): ("sdxl", "SDXL"),
        (1280, True): ("sdxl-refiner", FAMILIES["sdxl-refiner"]),
    }
    if encoders or (width, has_labels) not in by_width:
        return None, "a U-Net whose text encoders are of another kind", True, ""
    family, version = by_width[width, has_labels]
    return family, version, False, f"Its U-Net reads text vectors of {width} numbers, as {version}."


def _file_prediction_type(
    header: Header, family: str, version: str, variant: str, sd2_clue: Sequence[float]
) -> tuple[str, str]:
    """Return the prediction type and the evidence for it."""
    stated = header.metadata.get("modelspec.prediction_type", "")
    names = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
    if stated in names:
        return names[stated], f"Its metadata say that the network predicts {names[stated]}."
    if "v_pred" in header.tensors:
        return "v_prediction", "It has the key v_pred, so the network predicts v_prediction."
    if family == "upscaler-x4":
        return "v_prediction", "The network of the x4 upscaler predicts v_prediction."
    if version == "SD 2.x" and variant != "inpainting" and sd2_clue and all(map(math.isfinite, sd2_clue)):
        mean = math.fsum(sd2_clue) / len(sd2_clue)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in sd2_clue) / len(sd2_clue))
        found = "v_prediction" if deviation > 0.09 else "epsilon"
        return found, f"The deviation {deviation:.3f} of a bias in its U-Net suggests {found}."
    return "epsilon", "It does not say what its network predicts. Most models of its kind predict noise (epsilon)."


def _describe_other_file(header: Header) -> tuple[str, str]:
    """Return the kind of a file that is no whole model, and the end of a sentence about it."""
    names = tuple(header.tensors)
    if not names:
        return "empty file", "holds no weights"
    for pattern, kind, problem in _KINDS:
        if any(map(re.compile(pattern).match, names)):
            return kind, problem if RUNS in problem else f"{problem}, which cannot paint alone"
    shapes = [tensor.shape for tensor in header.tensors.values()]
    if len(shapes) == 1 and 1 <= len(shapes[0]) <= 2 and shapes[0][-1] in _EMBEDDING_WIDTHS:
        return "embedding", "is an embedding (textual inversion), which cannot paint alone"
    return "unknown file", f"holds weights of a kind that the studio does not know; {RUNS}"
