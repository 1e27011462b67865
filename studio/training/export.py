"""Write a model folder from a training run: fp16 safetensors in diffusers' layout, vocabulary and thumbnails.

    python -m studio.training.export --run CACHE/run --sprites CACHE/sprites --out assets/model

With `--average-with MODEL` the U-Net's weights are the mean of the run's and of those that it began from.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.unet import StudioUNet
from studio.prompts.nouns import with_article
from studio.training.data.captions import default_prompt
from studio.training.data.scenes import BACKGROUND_COLORS
from studio.training.data.sprites import STYLES, Sprites
from studio.training.loading import make_scheduler, new_unet

MAX_SHARD_SIZE = "15MB"  # some git hosts refuse larger files
BATCH_SIZE = 32  # pictures in one network call
THUMBNAIL_COLUMNS = 20
THUMBNAIL_STYLES = ("glossy", "noto", "twemoji", "flat")  # the first that is not held out


def build_pipeline(
    unet: StudioUNet, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StudioTextToImagePipeline:
    """Return a pipeline of these networks, in evaluation mode."""
    pipe = StudioTextToImagePipeline(unet.eval(), make_scheduler(), text_encoder.eval(), tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_averaged(run: Path) -> StudioTextToImagePipeline:
    """Return the pipeline of the averaged weights in a run's last checkpoint."""
    average = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)["average"]
    weights: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "text_encoder": {}}
    for name, value in average.items():
        component, _, parameter = name.partition(".")
        weights[component][parameter] = value
    unet = new_unet(run)
    text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(run / "text_encoder"))
    unet.load_state_dict(weights["unet"])
    text_encoder.load_state_dict(weights["text_encoder"])
    return build_pipeline(unet, text_encoder, CLIPTokenizer.from_pretrained(run / "tokenizer"))


@torch.no_grad()
def average_weights(pipe: StudioTextToImagePipeline, model: Path) -> None:
    """Replace the U-Net's weights by their mean with those of a model folder (arXiv 2203.05482).

    Adapters for one-pass guidance in the folder are left out.

    Raises:
        ValueError: when the folder's U-Net has other shapes.
    """
    other = StudioUNet.from_pretrained(model, subfolder="unet", dtype=torch.float32).state_dict()
    weights = pipe.unet.state_dict()
    if any(name not in other or value.shape != other[name].shape for name, value in weights.items()):
        raise ValueError(f"the U-Net in {model} has other shapes than the run's: their weights cannot be averaged")
    for name, value in weights.items():
        value.lerp_(other[name].to(value), 0.5)


def generate(
    pipe: StudioTextToImagePipeline, prompts: Sequence[str], first_seed: int = 0, **options: Any
) -> list[Image.Image]:
    """Return a picture of each prompt, in batches. Seeds count up from `first_seed`; options: those of `prepare`."""
    pictures = []
    for start in range(0, len(prompts), BATCH_SIZE):
        batch = list(prompts[start : start + BATCH_SIZE])
        seed = first_seed + start
        rows = pipe.prepare(batch, seeds=range(seed, seed + len(batch)), **options)
        while not rows[0].finished:
            pipe.denoise_step(rows)
        pictures += [pipe.decode(row) for row in rows]
    return pictures


def image_grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Return pictures of one size, row by row, as one picture."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    grid = Image.new("RGB", (columns * width, rows * height), "white")
    for number, picture in enumerate(pictures):
        grid.paste(picture, (number % columns * width, number // columns * height))
    return grid


def sample_prompts(sprites: Sprites, count: int) -> list[str]:
    """Return prompts for a run's samples: concepts at even intervals; styles and backgrounds in turn."""
    backgrounds = list(BACKGROUND_COLORS)
    prompts = []
    for number in range(count):
        subject = with_article(sprites.concepts[number * len(sprites.concepts) // count])
        prompts.append(default_prompt(subject, STYLES[number % len(STYLES)], backgrounds[number % len(backgrounds)]))
    return prompts


def export(pipe: StudioTextToImagePipeline, sprites: Sprites, folder: Path) -> None:
    """Write the whole model folder, which keeps its upscaler. The weights as saved, in fp16, paint the thumbnails."""
    if (folder / "upscaler").exists():
        pipe.register_modules(upscaler=StudioUNet.from_pretrained(folder, subfolder="upscaler", dtype=torch.float32))
    save_model(pipe, folder)
    saved = StudioTextToImagePipeline.from_pretrained(folder)
    saved.set_progress_bar_config(disable=True)
    write_vocabulary(saved, sprites, folder)


def save_model(pipe: StudioTextToImagePipeline, folder: Path) -> None:
    """Write the weights in fp16. This converts the pipeline's networks to fp16, too."""
    for network in (pipe.unet, pipe.text_encoder, pipe.upscaler):
        if network is not None:
            network.half()
    pipe.save_pretrained(folder, safe_serialization=True, max_shard_size=MAX_SHARD_SIZE)
    unet_config = folder / "unet" / "config.json"
    config = json.loads(unet_config.read_text())
    config.pop("_name_or_path", None)  # a local path
    unet_config.write_text(json.dumps(config, indent=2) + "\n")
    text_config = folder / "text_encoder" / "config.json"
    config = json.loads(text_config.read_text())
    config["dtype"] = "float32"  # transformers loads the dtype in the config; CPUs compute float32
    text_config.write_text(json.dumps(config, indent=2) + "\n")


def write_vocabulary(pipe: StudioTextToImagePipeline, sprites: Sprites, folder: Path) -> None:
    """Write vocabulary.json, and thumbnails painted by the model itself, in the order of the concepts."""
    concepts = [
        {"name": name, "category": category, "synonyms": list(synonyms)}
        for name, category, synonyms in zip(sprites.concepts, sprites.categories, sprites.synonyms, strict=True)
    ]
    thumbnails = {"file": "thumbnails.webp", "tile": pipe.default_size}
    backgrounds = list(BACKGROUND_COLORS)
    content = {"concepts": concepts, "styles": STYLES, "backgrounds": backgrounds, "thumbnails": thumbnails}
    (folder / "vocabulary.json").write_text(json.dumps(content, indent=1) + "\n")
    held_out = set(sprites.held_out_pairs())
    prompts = []
    for concept, name in enumerate(sprites.concepts):
        style = next(style for style in THUMBNAIL_STYLES if (concept, STYLES.index(style)) not in held_out)
        prompts.append(default_prompt(with_article(name), style, "white"))
    image_grid(generate(pipe, prompts), THUMBNAIL_COLUMNS).save(folder / thumbnails["file"], quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--sprites", type=Path, required=True, help="the sprites that it was trained on")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument(
        "--average-with",
        "--halfway",
        type=Path,
        metavar="MODEL",
        help="average the U-Net's weights with those of this model folder, from which the run began",
    )
    args = parser.parse_args()
    pipe = load_averaged(args.run)
    if args.average_with is not None:
        average_weights(pipe, args.average_with)
    export(pipe, Sprites.load(args.sprites), args.out)


if __name__ == "__main__":
    main()
