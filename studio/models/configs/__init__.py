"""Configs of the published models, for files that hold weights alone. What is not named has its class's default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CLIP_MERGES = Path(__file__).parent / "clip_merges.txt"

Config = dict[str, Any]

_VAE: Config = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "sample_size": 512,
}
_X4_VAE: Config = {
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [128, 256, 512],
    "layers_per_block": 2,
    "sample_size": 256,
    "scaling_factor": 0.08333,
}
_SDXL_VAE: Config = {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025}

_CLIP_L: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_OPEN_CLIP_H: Config = {  # its last layer but one is the output, so the last one is left out
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
_OPEN_CLIP_G: Config = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}

_SDXL_CONDITIONS: Config = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "use_linear_projection": True,
    "sample_size": 128,
}
_BETAS: Config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
_X4_BETAS: Config = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "scaled_linear"}
_SDXL_SCHEDULER: Config = {"_class_name": "EulerDiscreteScheduler", **_BETAS, "timestep_spacing": "leading"}

SD1: dict[str, Config] = {
    "unet": {"sample_size": 64, "cross_attention_dim": 768},
    "vae": _VAE,
    "text_encoder": _CLIP_L,
    "scheduler": {
        "_class_name": "PNDMScheduler",
        **_BETAS,
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
    },
}
SD2: dict[str, Config] = {
    "unet": {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "vae": _VAE,
    "text_encoder": _OPEN_CLIP_H,
    "scheduler": {"_class_name": "DDIMScheduler", **_BETAS, "clip_sample": False, "set_alpha_to_one": False},
}
SDXL: dict[str, Config] = {
    "unet": {
        **_SDXL_CONDITIONS,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [320, 640, 1280],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "transformer_layers_per_block": [1, 2, 10],
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": _SDXL_VAE,
    "text_encoder": _CLIP_L,
    "text_encoder_2": _OPEN_CLIP_G,
    "scheduler": _SDXL_SCHEDULER,
}
SDXL_REFINER: dict[str, Config] = {
    "unet": {
        **_SDXL_CONDITIONS,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [384, 768, 1536, 1536],
        "attention_head_dim": [6, 12, 24, 24],
        "cross_attention_dim": 1280,
        "transformer_layers_per_block": 4,
        "projection_class_embeddings_input_dim": 2560,
    },
    "vae": _SDXL_VAE,
    "text_encoder_2": _OPEN_CLIP_G,
    "scheduler": _SDXL_SCHEDULER,
    "options": {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False},
}
X4: dict[str, Config] = {
    "unet": {
        "sample_size": 128,
        "in_channels": 7,
        "block_out_channels": [256, 512, 512, 1024],
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 3],
        "up_block_types": [*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"],
        "only_cross_attention": [True, True, True, False],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
        "num_class_embeds": 1000,
    },
    "vae": _X4_VAE,
    "text_encoder": _OPEN_CLIP_H,
    "scheduler": {
        "_class_name": "DDIMScheduler",
        **_X4_BETAS,
        "steps_offset": 1,
        "clip_sample": False,
        "set_alpha_to_one": False,
    },
    "low_res_scheduler": {"_class_name": "DDPMScheduler", **_X4_BETAS},
    "options": {"max_noise_level": 350},
}
