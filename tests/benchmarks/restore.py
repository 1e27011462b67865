"""How well holes are filled, pictures enlarged and noise taken out, against what needs no model.

    python -m tests.benchmarks.restore --sprites CACHE/sprites --cache CACHE/evaluation [--scenes 64]
        [--strips assets/restoring]

Art is composed of (concept, style) pairs that training never saw; photographs are those that come with scikit-image.
The judge is the evaluation's classifier, from the cache. Quality, not time: a busy machine gives the same figures.

BM3D is not among the methods: the package `bm3d` may be used for non-commercial purposes alone.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_nl_means, denoise_wavelet, inpaint_biharmonic

from studio.diffusion.pipelines import StudioDenoisePipeline, StudioInpaintPipeline, StudioUpscalePipeline
from studio.diffusion.pipelines.base import image_to_tensor, tensor_to_image
from studio.imaging.measure import estimate_noise_sigma
from studio.training.data.batches import random_hole
from studio.training.data.scenes import Painter, Scene, SceneMaker
from studio.training.data.sprites import Sprites
from studio.training.evaluation.classifier import SIZE, Classifier, Recipe, cached_classifier, judge
from studio.training.evaluation.report import captioned_sheet, in_words, mean, share
from studio.training.evaluation.restoring import RESTORED, feature_distance, psnr, restored, tensor
from tests.benchmarks.machine import describe, table

SEED = 8_000  # of scenes, holes and noise; defaults were chosen on scenes of other seeds
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "coins", "hubble_deep_field", "immunohistochemistry")
PHOTOGRAPHS += ("moon", "retina", "rocket", "brick", "grass", "gravel")


def single_scenes(sprites: Sprites, count: int) -> tuple[list[Scene], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scenes with one thing, their pictures (N, 3, S, S), where the thing is (N, 1, S, S), and its concept (N,)."""
    maker = SceneMaker(sprites, SEED, held_out=True, mix=RESTORED)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = maker.draw()
        if len(scene.things) == 1:
            scenes.append(scene)
    paint = Painter(sprites)
    truth, bare = (paint(each, SIZE) for each in (scenes, [replace(scene, things=()) for scene in scenes]))
    thing = ((truth - bare).abs().amax(1, keepdim=True) > 0.1).float()
    return scenes, truth, thing, torch.tensor([int(sprites.concept[scene.things[0].sprite]) for scene in scenes])


def holes_over(things: torch.Tensor) -> torch.Tensor:
    """(N, 1, S, S): training's holes, over 25 to 75 % of the thing and at most half of the picture."""
    rng = random.Random(SEED)
    chosen = []
    for thing in things:
        while True:
            hole = random_hole(SIZE, rng)[0]
            if 0.25 <= (thing * hole).sum() / thing.sum() <= 0.75 and hole.mean() <= 0.5:
                break
        chosen.append(hole)
    return torch.stack(chosen)


def ssim(pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(N,) structural similarity of whole pictures."""
    pairs = zip(pictures.numpy(), truth.numpy(), strict=True)
    return torch.tensor([structural_similarity(a, b, channel_axis=0, data_range=2.0) for a, b in pairs])


def floats(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) in [0, 1]."""
    return np.asarray(picture, dtype=np.float32) / 255


def from_floats(values: np.ndarray) -> torch.Tensor:
    """(H, W, 3) in [0, 1], rounded to eight bits -> (3, H, W) in [-1, 1]."""
    return image_to_tensor((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


def inpainting(pipes: dict, classifier: Classifier, sprites: Sprites, count: int) -> tuple[str, list]:
    scenes, truth, thing, concept = single_scenes(sprites, count)
    hole = holes_over(thing)
    masks = [Image.fromarray((h[0] * 255).byte().numpy()) for h in hole]
    gray = [
        Image.composite(Image.new("RGB", mask.size, "gray"), tensor_to_image(picture), mask)
        for picture, mask in zip(truth, masks, strict=True)
    ]

    def by_opencv(method: int) -> torch.Tensor:
        return torch.stack(
            [
                image_to_tensor(cv2.inpaint(np.array(p), np.array(m), 3, method))
                for p, m in zip(gray, masks, strict=True)
            ]
        )

    def ours(prompts: list[str], **options) -> torch.Tensor:
        inputs = {"prompt": prompts, "image": gray, "mask_image": masks}
        return restored(pipes["inpaint"], SEED, inputs, **options)

    captions = [scene.caption for scene in scenes]
    found = {
        "ours, painted area": ours(captions, whole_picture=False),
        "ours, whole picture": ours(captions),
        "ours, without words": ours([""] * count),
        "Telea": by_opencv(cv2.INPAINT_TELEA),
        "Navier-Stokes": by_opencv(cv2.INPAINT_NS),
        "biharmonic": torch.stack(
            [
                from_floats(inpaint_biharmonic(floats(p), np.array(m) > 0, channel_axis=-1))
                for p, m in zip(gray, masks, strict=True)
            ]
        ),
    }
    rows = [
        [
            name,
            in_words(mean(psnr(pictures, truth, hole), "dB")),
            in_words(mean(ssim(pictures, truth), "")),
            in_words(mean(feature_distance(classifier, pictures, truth), "")),
            in_words(share(judge(classifier, pictures).concept.argmax(1) == concept)),
        ]
        for name, pictures in found.items()
    ]
    title = f"### Inpainting: {count} scenes of one thing, 25 to 75 % of it in the hole\n\n"
    head = ["method", "PSNR in the hole", "SSIM", "feature distance", "top-1"]
    return title + table(head, rows), [("given", tensor(gray)), *found.items(), ("truth", truth)]


def photographs() -> torch.Tensor:
    """(N, 3, S, S): a crop from the middle of each, and the whole shrunk with its shorter side to S."""
    found = []
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        scale = SIZE / min(picture.size)
        small = picture.resize([max(round(side * scale), SIZE) for side in picture.size], Image.Resampling.LANCZOS)
        for each in (picture, small):
            left, top = (each.width - SIZE) // 2, (each.height - SIZE) // 2
            found.append(image_to_tensor(each.crop((left, top, left + SIZE, top + SIZE))))
    return torch.stack(found)


def super_resolution(
    pipes: dict, classifier: Classifier, truth: torch.Tensor, factor: int, what: str
) -> tuple[str, list]:
    small = [tensor_to_image(picture).resize((SIZE // factor,) * 2, Image.Resampling.BICUBIC) for picture in truth]
    found = {
        "ours": restored(pipes["upscale"], SEED, {"image": small}, scale_factor=factor),
        "bicubic": tensor([picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for picture in small]),
        "Lanczos": tensor([picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS) for picture in small]),
    }
    bicubic = psnr(found["bicubic"], truth)
    rows = [
        [
            name,
            in_words(mean(psnr(pictures, truth), "dB")),
            in_words(mean(psnr(pictures, truth) - bicubic, "dB")),
            in_words(mean(ssim(pictures, truth), "")),
            in_words(mean(feature_distance(classifier, pictures, truth), "")),
        ]
        for name, pictures in found.items()
    ]
    title = f"### Super-resolution x{factor} to {SIZE} px: {len(truth)} {what}\n\n"
    head = ["method", "PSNR", "over bicubic", "SSIM", "feature distance"]
    given = tensor([picture.resize((SIZE, SIZE), Image.Resampling.NEAREST) for picture in small])
    return title + table(head, rows), [("given", given), *found.items(), ("truth", truth)]


def denoising(pipes: dict, classifier: Classifier, truth: torch.Tensor, sigma: int) -> tuple[str, list]:
    generator = torch.Generator().manual_seed(SEED + sigma)
    noisy = [
        tensor_to_image(picture + sigma / 127.5 * torch.randn(picture.shape, generator=generator)) for picture in truth
    ]
    strength = sigma / 255
    found = {
        "ours, posterior mean": restored(pipes["denoise"], SEED, {"image": noisy}),
        "ours, full run": restored(pipes["denoise"], SEED, {"image": noisy}, num_inference_steps=8),
        "non-local means": torch.stack(
            [
                from_floats(
                    denoise_nl_means(
                        floats(p), patch_size=5, patch_distance=6, h=0.8 * strength, sigma=strength, channel_axis=-1
                    )
                )
                for p in noisy
            ]
        ),
        "wavelet": torch.stack(
            [from_floats(denoise_wavelet(floats(p), convert2ycbcr=True, channel_axis=-1)) for p in noisy]
        ),
        "nothing done": tensor(noisy),
    }
    rows = [
        [
            name,
            in_words(mean(psnr(pictures, truth), "dB")),
            in_words(mean(ssim(pictures, truth), "")),
            in_words(mean(feature_distance(classifier, pictures, truth), "")),
        ]
        for name, pictures in found.items()
    ]
    estimated = mean(torch.tensor([estimate_noise_sigma(picture) for picture in noisy]), "levels")
    title = f"### Denoising at sigma {sigma} of 255: {len(truth)} scenes\n\nOurs estimates sigma: "
    title += f"{in_words(estimated)}. The others, but for the wavelet, are told it.\n\n"
    return title + table(["method", "PSNR", "SSIM", "feature distance"], rows), [*found.items(), ("truth", truth)]


def strip(columns: Sequence[tuple[str, torch.Tensor]], rows: int = 4) -> Image.Image:
    """The first scenes, whatever they are, a method a column: nobody picks them."""
    tiles = [
        (tensor_to_image(pictures[i]), name) for i in range(rows) for name, pictures in columns if i < len(pictures)
    ]
    return captioned_sheet([picture for picture, _ in tiles], [name for _, name in tiles], len(columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="pipeline folder")
    parser.add_argument("--sprites", type=Path, required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the judge")
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--strips", type=Path, help="folder for strips of the first scenes, a file for each table")
    args = parser.parse_args()
    sprites = Sprites.load(args.sprites)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    classifier, _ = cached_classifier(sprites, args.cache, Recipe(), device)
    inpaint = StudioInpaintPipeline.from_pretrained(args.model).to(device)
    pipes = {
        "inpaint": inpaint,
        "upscale": StudioUpscalePipeline(**inpaint.components),
        "denoise": StudioDenoisePipeline(**inpaint.components),
    }
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    print(f"`python -m tests.benchmarks.restore {shlex.join(sys.argv[1:])}`\n\n{describe()}\n")
    print("In brackets: 95 % intervals, pictures counted as independent.", flush=True)
    maker = SceneMaker(sprites, SEED + 1, held_out=True, mix=RESTORED)
    art = Painter(sprites)([maker.draw() for _ in range(args.scenes)], SIZE)
    photos = photographs()
    runs: dict[str, Callable[[], tuple[str, list]]] = {
        "inpainting": lambda: inpainting(pipes, classifier, sprites, args.scenes),
        **{
            f"super-resolution-x{factor}-{what}": lambda f=factor, t=truth, w=what: super_resolution(
                pipes, classifier, t, f, w
            )
            for what, truth in (("scenes", art), ("photographs", photos))
            for factor in (2, 4)
        },
        **{f"denoising-{sigma}": lambda s=sigma: denoising(pipes, classifier, art, s) for sigma in (25, 50)},
    }
    for name, run in runs.items():
        text, columns = run()
        print(f"\n{text}", flush=True)
        if args.strips:
            args.strips.mkdir(parents=True, exist_ok=True)
            strip(columns).save(args.strips / f"{name}.webp", lossless=True, method=6)


if __name__ == "__main__":
    main()
