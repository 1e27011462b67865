"""Tiny random latent diffusion models, made from configs: one diffusers pipeline of each kind that the studio loads."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from studio.models.catalog import ModelEntry
from studio.models.identify import Identity

SIDE = 64  # px, the default side of their pictures (x4: 16 px in, 64 px out)
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NO_CHECKER: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def byte_characters() -> list[str]:
    """Return the 256 characters that stand for bytes in a CLIP vocabulary, in the order of the vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """Return CLIP's tokenizer without merges: each character is a token."""
    characters = byte_characters()
    words = [*characters, *(f"{character}</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77, pad_token=pad)


def text_encoder(
    words: CLIPTokenizer, *, width: int = 32, projection: int | None = None, act: str = "quick_gelu"
) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=act,
        projection_dim=projection or width,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def vae(*channels: int, **options: Any) -> AutoencoderKL:
    channels = channels or (16, 32)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        **options,
    )


def unet(**options: Any) -> UNet2DConditionModel:
    defaults: dict[str, Any] = {
        "sample_size": SIDE // 2,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
    }
    return UNet2DConditionModel(**{**defaults, **options})


def pndm() -> PNDMScheduler:
    return PNDMScheduler(**BETAS, steps_offset=1, skip_prk_steps=True, set_alpha_to_one=False)


def ddim(**options: Any) -> DDIMScheduler:
    return DDIMScheduler(**BETAS, steps_offset=1, clip_sample=False, set_alpha_to_one=False, **options)


def sd15(pipeline: Any = StableDiffusionPipeline, scheduler: Any = None, **unet_options: Any) -> Any:
    words = tokenizer()
    return pipeline(
        vae=vae(),
        unet=unet(**unet_options),
        text_encoder=text_encoder(words),
        tokenizer=words,
        scheduler=scheduler or pndm(),
        **NO_CHECKER,
    )


def inpainting() -> StableDiffusionInpaintPipeline:
    return sd15(StableDiffusionInpaintPipeline, in_channels=9)


def lcm() -> LatentConsistencyModelPipeline:
    scheduler = LCMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False)
    return sd15(LatentConsistencyModelPipeline, scheduler, time_cond_proj_dim=32)


def turbo() -> StableDiffusionPipeline:
    return sd15(scheduler=EulerAncestralDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="trailing"))


def sd2_v() -> StableDiffusionPipeline:
    words = tokenizer()
    return StableDiffusionPipeline(
        vae=vae(),
        unet=unet(use_linear_projection=True, attention_head_dim=(2, 4)),
        text_encoder=text_encoder(words, act="gelu"),
        tokenizer=words,
        scheduler=ddim(prediction_type="v_prediction"),
        **NO_CHECKER,
    )


def sdxl(pipeline: Any = StableDiffusionXLPipeline, **unet_options: Any) -> Any:
    words, words_2 = tokenizer(), tokenizer(pad="!")
    return pipeline(
        vae=vae(scaling_factor=0.13025, force_upcast=True),
        unet=sdxl_unet(cross_attention_dim=80, projection_class_embeddings_input_dim=6 * 8 + 48, **unet_options),
        text_encoder=text_encoder(words),
        tokenizer=words,
        # A single file tells the two encoders apart by their widths.
        text_encoder_2=text_encoder(words_2, width=48, projection=48, act="gelu"),
        tokenizer_2=words_2,
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
    )


def sdxl_unet(**options: Any) -> UNet2DConditionModel:
    return unet(
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        **options,
    )


def sdxl_inpainting() -> StableDiffusionXLInpaintPipeline:
    return sdxl(StableDiffusionXLInpaintPipeline, in_channels=9)


def refiner() -> StableDiffusionXLImg2ImgPipeline:
    words_2 = tokenizer(pad="!")
    return StableDiffusionXLImg2ImgPipeline(
        vae=vae(scaling_factor=0.13025, force_upcast=True),
        unet=sdxl_unet(cross_attention_dim=48, projection_class_embeddings_input_dim=5 * 8 + 48),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=text_encoder(words_2, width=48, projection=48, act="gelu"),
        tokenizer_2=words_2,
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )


def x4() -> StableDiffusionUpscalePipeline:
    words = tokenizer()
    return StableDiffusionUpscalePipeline(
        vae=vae(16, 16, 32, scaling_factor=0.08333),
        unet=unet(
            sample_size=16,
            in_channels=7,
            attention_head_dim=8,
            use_linear_projection=True,
            only_cross_attention=(True, False),
            num_class_embeds=1000,
        ),
        low_res_scheduler=DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.0001, beta_end=0.02),
        scheduler=DDIMScheduler(**{**BETAS, "beta_start": 0.0001, "beta_end": 0.02}, prediction_type="v_prediction"),
        text_encoder=text_encoder(words, act="gelu"),
        tokenizer=words,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        max_noise_level=350,
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "sd15": sd15,
    "inpainting": inpainting,
    "lcm": lcm,
    "turbo": turbo,
    "sd2-v": sd2_v,
    "sdxl": sdxl,
    "sdxl-inpainting": sdxl_inpainting,
    "refiner": refiner,
    "x4": x4,
}
KINDS = tuple(BUILDERS)


def build(kind: str, seed: int = 0) -> Any:
    """Return a new pipeline of a kind with random weights, in evaluation mode. The global generator is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = BUILDERS[kind]()
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@functools.cache
def models_dir() -> Path:
    """Return the folder of this process's tiny models. It is removed when the process ends."""
    path = Path(tempfile.mkdtemp(prefix="tiny-models-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def folder(kind: str) -> Path:
    """Return the diffusers folder of a kind. It is made once in a process; tests that change files copy it first."""
    path = models_dir() / kind
    build(kind).save_pretrained(path)
    return path


def stock(kind: str) -> Any:
    """Return the stock pipeline of a kind, loaded from `folder(kind)` with its weights."""
    pipeline = DiffusionPipeline.from_pretrained(folder(kind), local_files_only=True, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


IDENTITIES: dict[str, dict[str, Any]] = {
    "sd15": {"family": "stable-diffusion", "version": "SD 1.x"},
    "inpainting": {"family": "stable-diffusion", "version": "SD 1.x", "variant": "inpainting"},
    "lcm": {"family": "stable-diffusion", "version": "SD 1.x", "variant": "lcm"},
    "turbo": {"family": "stable-diffusion", "version": "SD 1.x", "variant": "turbo"},
    "sd2-v": {"family": "stable-diffusion", "version": "SD 2.x", "prediction_type": "v_prediction"},
    "sdxl": {"family": "sdxl", "version": "SDXL"},
    "sdxl-inpainting": {"family": "sdxl", "version": "SDXL", "variant": "inpainting"},
    "refiner": {"family": "sdxl-refiner", "version": "SDXL refiner"},
    "x4": {"family": "upscaler-x4", "version": "x4 upscaler", "prediction_type": "v_prediction"},
}


def entry(kind: str, path: Path | None = None, **identity: Any) -> ModelEntry:
    """Return the catalog entry of a kind: of `folder(kind)`, or of another folder or file.

    identity: fields of the Identity that differ.
    """
    path = path or folder(kind)
    return ModelEntry(
        id=kind,
        name=kind,
        path=path,
        layout="folder" if path.is_dir() else "file",
        bytes=2_000_000,
        parameters=500_000,
        dtype="F32",
        identity=Identity(**{**IDENTITIES[kind], "sample_size": (SIDE, SIDE), **identity}),
        overrides={},
        defaults={},
        trigger_words="",
        problems=(),
    )
