"""From trained networks to a model folder: fp16 safetensors in diffusers' layout, the vocabulary, and thumbnails.

    python -m studio.training.export --run CACHE/run --sprites CACHE/sprites --out assets/model

With `--halfway MODEL` the weights are the mean of the run's and of those that it began from.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.diffusion.unet import StudioUNet
from studio.prompts.nouns import with_article
from studio.training.data.scenes import GROUNDS, default_prompt
from studio.training.data.sprites import STYLES, Sprites

SHARD = "15MB"  # a Space and a git host take files below 10 to 100 MB without further ado
COLUMNS = 20  # thumbnails in a row of the sheet


def build_pipeline(
    unet: StudioUNet, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StudioTextToImagePipeline:
    """The pipeline of trained networks, in evaluation mode."""
    scheduler = StudioScheduler.from_config(STUDIO_CONFIG)
    pipe = StudioTextToImagePipeline(unet.eval(), scheduler, text_encoder.eval(), tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save(pipe: StudioTextToImagePipeline, folder: Path) -> None:
    """Write the weights in fp16. The networks are in fp16 afterwards, too."""
    pipe.unet.half()
    pipe.text_encoder.half()
    pipe.save_pretrained(folder, safe_serialization=True, max_shard_size=SHARD)
    unet_config = folder / "unet" / "config.json"
    kept = {key: value for key, value in json.loads(unet_config.read_text()).items() if key != "_name_or_path"}
    unet_config.write_text(json.dumps(kept, indent=2) + "\n")  # where it was begun from is nobody's business
    config = folder / "text_encoder" / "config.json"
    content = json.loads(config.read_text())
    content["dtype"] = "float32"  # transformers loads what stands here; float32 is what a CPU wants
    config.write_text(json.dumps(content, indent=2) + "\n")


def paint(pipe: StudioTextToImagePipeline, prompts: list[str], first_seed: int = 0, **options) -> list[Image.Image]:
    """Pictures of the prompts, some at a time; their seeds count up from `first_seed`."""
    pictures = []
    for begin in range(0, len(prompts), 32):
        part = prompts[begin : begin + 32]
        seed = first_seed + begin
        rows = pipe.prepare(part, seeds=range(seed, seed + len(part)), **options)
        while not rows[0].finished:
            pipe.denoise_step(rows)
        pictures += [pipe.decode(row) for row in rows]
    return pictures


def sheet(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size, row by row."""
    width, height = pictures[0].size
    whole = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % columns * width, number // columns * height))
    return whole


def sample_prompts(sprites: Sprites, count: int) -> list[str]:
    """Every so-manieth concept, styles and grounds in turn: what a run's sample sheets show."""
    backgrounds = list(GROUNDS)
    return [
        default_prompt(
            with_article(sprites.concepts[number * len(sprites.concepts) // count]),
            STYLES[number % len(STYLES)],
            backgrounds[number % len(backgrounds)],
        )
        for number in range(count)
    ]


def write_vocabulary(pipe: StudioTextToImagePipeline, sprites: Sprites, folder: Path) -> None:
    """vocabulary.json, and a sheet of thumbnails painted by the model itself, in the order of the concepts."""
    concepts = [
        {"name": name, "category": category, "synonyms": list(synonyms)}
        for name, category, synonyms in zip(sprites.concepts, sprites.categories, sprites.synonyms, strict=True)
    ]
    thumbnails = {"file": "thumbnails.webp", "tile": pipe.default_size}
    content = {"concepts": concepts, "styles": STYLES, "backgrounds": list(GROUNDS), "thumbnails": thumbnails}
    (folder / "vocabulary.json").write_text(json.dumps(content, indent=1) + "\n")
    kept_out = {
        (c, s)
        for c, s, held in zip(sprites.concept.tolist(), sprites.style.tolist(), sprites.held_out.tolist(), strict=True)
        if held
    }
    prompts = []
    for number, name in enumerate(sprites.concepts):
        style = next(s for s in (STYLES.index("glossy"), 0, 1, 2) if (number, s) not in kept_out)
        prompts.append(default_prompt(with_article(name), STYLES[style], "white"))
    sheet(paint(pipe, prompts), COLUMNS).save(folder / thumbnails["file"], quality=90)


def export(pipe: StudioTextToImagePipeline, sprites: Sprites, folder: Path) -> None:
    """The whole model folder, thumbnails painted by the weights as they will be loaded."""
    save(pipe, folder)
    saved = StudioTextToImagePipeline.from_pretrained(folder)
    saved.set_progress_bar_config(disable=True)
    write_vocabulary(saved, sprites, folder)


def load_averaged(run: Path) -> StudioTextToImagePipeline:
    """The pipeline of a run's averaged weights, as last saved."""
    average = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)["average"]
    parts: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "text_encoder": {}}
    for name, value in average.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    unet = StudioUNet.from_config(StudioUNet.load_config(run, subfolder="unet"))
    text_encoder = CLIPTextModel(CLIPTextModel.config_class.from_pretrained(run / "text_encoder"))
    unet.load_state_dict(parts["unet"])
    text_encoder.load_state_dict(parts["text_encoder"])
    return build_pipeline(unet, text_encoder, CLIPTokenizer.from_pretrained(run / "tokenizer"))


@torch.no_grad()
def halfway(pipe: StudioTextToImagePipeline, model: Path) -> None:
    """Take the U-Net to the mean of its weights and those of a model folder: a run from where another ended errs
    elsewhere, and the mean less than either (Wortsman et al. 2022, arXiv 2203.05482). What the folder was taught
    besides, guidance in one pass, is left out. ValueError for another shape."""
    other = StudioUNet.from_pretrained(model, subfolder="unet", dtype=torch.float32).state_dict()
    weights = pipe.unet.state_dict()
    if any(name not in other or value.shape != other[name].shape for name, value in weights.items()):
        raise ValueError(f"the U-Net in {model} has other weights than the run's: there is no mean of the two")
    for name, value in weights.items():
        value.lerp_(other[name].to(value), 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--sprites", type=Path, required=True, help="what it was trained on")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--halfway", type=Path, help="model folder that the run began from, to take the mean with")
    args = parser.parse_args()
    pipe = load_averaged(args.run)
    if args.halfway is not None:
        halfway(pipe, args.halfway)
    export(pipe, Sprites.load(args.sprites), args.out)


if __name__ == "__main__":
    main()
