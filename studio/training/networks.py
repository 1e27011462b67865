"""Build the networks of a training run: new, from a pipeline folder, or as the run's checkpoint has them."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import CLIPTextModel, CLIPTokenizer

from studio.diffusion.unet import StudioUNet
from studio.training.data.scenes import SceneMaker
from studio.training.data.sprites import Sprites
from studio.training.loading import new_unet
from studio.training.objective import TrainingModel
from studio.training.options import Preset, TrainingOptions
from studio.training.text_encoder import new_text_encoder, train_text_encoder, train_tokenizer

GUIDANCE_RANK = 32  # of the adapters that learn guidance in one pass
TOKENIZER_CAPTIONS = 50_000
NEW_TEXT_ENCODER_MINUTES = 4.0

Checkpoint = dict[str, Any]  # as `Trainer.save` writes it; empty for a new run


def find_known_concepts(model: Path, sprites: Sprites) -> list[int]:
    """Return the indices of the sprites' concepts in a model folder's vocabulary; none where it has no vocabulary."""
    path = model / "vocabulary.json"
    names = {entry["name"] for entry in json.loads(path.read_text())["concepts"]} if path.exists() else set()
    return [number for number, name in enumerate(sprites.concepts) if name in names]


def find_new_concepts(model: Path, sprites: Sprites) -> set[int]:
    """Return the indices of the sprites' concepts that a model folder's vocabulary lacks."""
    return set(range(len(sprites.concepts))) - set(find_known_concepts(model, sprites))


def build_networks(
    options: TrainingOptions, preset: Preset, checkpoint: Checkpoint, scenes: SceneMaker, accelerator: Accelerator
) -> tuple[CLIPTokenizer, TrainingModel]:
    """Return the run's tokenizer and model on the CPU, and write their configs into the run's folder.

    Raises:
        ValueError: when the checkpoint trains guidance and the options do not, or the reverse.
    """
    torch.manual_seed(options.seed)
    folder = Path(options.run)
    tokenizer = _build_tokenizer(options, scenes.sprites)
    accelerator.wait_for_everyone()  # before another process finds a half-written folder
    if accelerator.is_main_process:
        tokenizer.save_pretrained(folder / "tokenizer")
    unet = _build_unet(options, preset, resume=bool(checkpoint))
    text_encoder = _build_text_encoder(options, tokenizer, scenes, accelerator, resume=bool(checkpoint))
    if accelerator.is_main_process:
        unet.save_config(folder / "unet")
        text_encoder.config.save_pretrained(folder / "text_encoder")
    model = TrainingModel(unet.float(), text_encoder.float())
    if checkpoint:
        model.load_state_dict(checkpoint["model"])
    model.text_encoder.requires_grad_(False).eval()
    model.unet.train()
    if options.guided:
        model.unet.requires_grad_(False)
        for parameter in model.unet.guidance_parameters().values():
            parameter.requires_grad_(True)
    return tokenizer, model


def _build_tokenizer(options: TrainingOptions, sprites: Sprites) -> CLIPTokenizer:
    folder = Path(options.run)
    source = folder if (folder / "tokenizer").exists() else options.source
    if source:
        return CLIPTokenizer.from_pretrained(Path(source) / "tokenizer")
    scenes = SceneMaker(sprites, options.seed)
    return train_tokenizer(scenes.draw().caption for _ in range(TOKENIZER_CAPTIONS))


def _build_unet(options: TrainingOptions, preset: Preset, *, resume: bool) -> StudioUNet:
    if resume:
        unet = new_unet(Path(options.run))
        if bool(unet.config["guidance_rank"]) != options.guided:
            use = "resume it with" if unet.config["guidance_rank"] else "resume it without"
            raise ValueError(f"{options.run} holds a run that was started otherwise: {use} --guided")
        return unet
    if options.init is None:
        config: dict[str, Any] = {"sample_size": preset.size} | preset.unet
        return StudioUNet(**config)
    source = StudioUNet.from_pretrained(options.init, subfolder="unet", dtype=torch.float32)
    # adapters are valid only for the weights that they were trained with: a run that changes those drops them
    rank = (source.config["guidance_rank"] or GUIDANCE_RANK) if options.guided else 0
    parameters = signature(StudioUNet).parameters  # configs of older models may hold other keys
    config = {key: value for key, value in source.config.items() if key in parameters}
    config["guidance_rank"] = rank
    unet = StudioUNet(**config)
    unet.load_state_dict(source.state_dict(), strict=False)
    return unet


def _build_text_encoder(
    options: TrainingOptions, tokenizer: CLIPTokenizer, scenes: SceneMaker, accelerator: Accelerator, *, resume: bool
) -> CLIPTextModel:
    source = options.source
    if resume or not source:
        text_encoder = new_text_encoder(tokenizer)
    else:
        text_encoder = CLIPTextModel.from_pretrained(source, subfolder="text_encoder", dtype=torch.float32)
    if not resume and (options.text_minutes or not source):
        text_encoder.to(accelerator.device)
        loss = train_text_encoder(
            text_encoder,
            tokenizer,
            scenes,
            options.text_minutes or NEW_TEXT_ENCODER_MINUTES,
            bf16=accelerator.mixed_precision == "bf16",
            known_concepts=find_known_concepts(Path(source), scenes.sprites) if source else (),
        )
        accelerator.print(json.dumps({"text_encoder_loss": round(loss, 4)}), flush=True)
    return text_encoder
