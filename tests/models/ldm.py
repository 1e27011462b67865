"""Write tiny models as single files: the names that CompVis, Stability AI and OpenCLIP give to their weights.

The inverse of `diffusers.loaders.single_file_utils`, for tests.
"""

from __future__ import annotations

import re
from typing import Any

import torch

Weights = dict[str, torch.Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding": "label_emb",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def unet_weights(unet: Any) -> Weights:
    per_block = unet.config.layers_per_block + 1
    named: Weights = {}
    for key, value in unet.state_dict().items():
        head, _, tail = key.rpartition(".")
        if head in UNET:
            name = f"{UNET[head]}.{tail}"
        elif match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", key):
            index = int(match[2]) * per_block + int(match[4])
            block = f"input_blocks.{1 + index}" if match[1] == "down" else f"output_blocks.{index}"
            name = f"{block}.0.{_resnet(match[5])}" if match[3] == "resnets" else f"{block}.1.{match[5]}"
        elif match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", key):
            name = f"input_blocks.{(int(match[1]) + 1) * per_block}.0.op.{match[2]}"
        elif match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.*)", key):
            has_attention = hasattr(unet.up_blocks[int(match[1])], "attentions")
            index = (int(match[1]) + 1) * per_block - 1
            name = f"output_blocks.{index}.{2 if has_attention else 1}.conv.{match[2]}"
        elif match := re.match(r"mid_block\.resnets\.(\d)\.(.*)", key):
            name = f"middle_block.{2 * int(match[1])}.{_resnet(match[2])}"
        else:
            name = key.replace("mid_block.attentions.0", "middle_block.1")
        named[f"model.diffusion_model.{name}"] = value
    return named


def _resnet(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"{RESNET[first]}.{rest}"


def vae_weights(vae: Any) -> Weights:
    last = len(vae.config.up_block_types) - 1
    named: Weights = {}
    for key, value in vae.state_dict().items():
        name = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda match: f"up.{last - int(match[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda match: f"up.{last - int(match[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1")
            for theirs, ours in ATTENTION.items():
                name = name.replace(f".{theirs}.", f".{ours}.")
            if value.ndim == 2:
                value = value[:, :, None, None]
        named[f"first_stage_model.{name}"] = value
    return named


def clip_weights(text_encoder: Any, prefix: str) -> Weights:
    weights = text_encoder.state_dict()
    return {f"{prefix}text_model.{key.removeprefix('text_model.')}": value for key, value in weights.items()}


def open_clip_weights(text_encoder: Any, prefix: str) -> Weights:
    weights = {key.removeprefix("text_model."): value for key, value in text_encoder.state_dict().items()}
    named: Weights = {}
    for key, value in weights.items():
        if key == "embeddings.token_embedding.weight":
            name = "token_embedding.weight"
        elif key == "embeddings.position_embedding.weight":
            name = "positional_embedding"
        elif key.startswith("final_layer_norm."):
            name = key.replace("final_layer_norm", "ln_final")
        elif key == "text_projection.weight":
            name, value = "text_projection", value.T
        elif match := re.match(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", key):
            name = f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"
            value = torch.cat([weights[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
        elif re.search(r"[kv]_proj", key):
            continue
        else:
            match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", key)
            assert match, key
            name = f"transformer.resblocks.{match[1]}.{OPEN_CLIP[match[2]]}.{match[3]}"
        named[prefix + name] = value
    return named


def file_weights(pipeline: Any) -> Weights:
    """Return the weights of a pipeline's components as a single file names them."""
    first, second = getattr(pipeline, "text_encoder", None), getattr(pipeline, "text_encoder_2", None)
    named = {**unet_weights(pipeline.unet), **vae_weights(pipeline.vae)}
    if first is not None and second is not None:
        named |= clip_weights(first, "conditioner.embedders.0.transformer.")
        named |= open_clip_weights(second, "conditioner.embedders.1.model.")
    elif second is not None:
        named |= open_clip_weights(second, "conditioner.embedders.0.model.")
    elif first.config.hidden_act == "gelu":
        named |= open_clip_weights(first, "cond_stage_model.model.")
    else:
        named |= clip_weights(first, "cond_stage_model.transformer.")
    return named
