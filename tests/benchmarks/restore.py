"""Quality of inpainting, super-resolution and denoising, compared with methods that need no model.

    python -m tests.benchmarks.restore --sprites CACHE/sprites --cache CACHE/evaluation [--scenes 64]
        [--strips assets/restoring]

Scenes are composed of held-out (concept, style) pairs; photographs are those of scikit-image. Feature distance and
concepts come from the evaluation's classifier. It measures quality, not time: a busy machine gives the same figures.

BM3D is not among the methods: the package `bm3d` allows non-commercial use only.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from studio.training.data.renderer import SceneRenderer
from studio.training.data.scenes import Scene, SceneMaker
from studio.training.data.sprites import Sprites
from studio.training.evaluation.backbone import INPUT_SIZE
from studio.training.evaluation.classifier import Classifier, ClassifierConfig, cached_classifier, classify
from studio.training.evaluation.report import contact_sheet, format_figure, mean, share
from studio.training.evaluation.restoration import (
    RESTORATION_MIX,
    feature_distance,
    object_masks,
    psnr,
    restore,
    to_images,
    to_tensor,
)
from tests.benchmarks.machine import describe, table

SEED = 8_000  # of scenes, holes and noise; the defaults were chosen on scenes of other seeds
SIZE = (INPUT_SIZE, INPUT_SIZE)
STRIP_ROWS = 4
PHOTOGRAPHS = (
    "astronaut",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "retina",
    "rocket",
    "brick",
    "grass",
    "gravel",
)

Results = dict[str, torch.Tensor]  # method -> pictures (N, 3, S, S) in [-1, 1]


def draw_single_scenes(sprites: Sprites, count: int) -> list[Scene]:
    """Return scenes of one object each, of held-out pairs."""
    maker = SceneMaker(sprites, SEED, held_out=True, mix=RESTORATION_MIX)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = maker.draw()
        if len(scene.objects) == 1:
            scenes.append(scene)
    return scenes


def draw_holes_over(masks: torch.Tensor) -> torch.Tensor:
    """Return (N, 1, S, S): training's holes over 25 to 75 % of the object and at most half of the picture."""
    rng = random.Random(SEED)
    holes = []
    for mask in masks:
        while True:
            hole = random_hole(INPUT_SIZE, rng)[0]
            if 0.25 <= (mask * hole).sum() / mask.sum() <= 0.75 and hole.mean() <= 0.5:
                break
        holes.append(hole)
    return torch.stack(holes)


def ssim(pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return (N,): the structural similarity of whole pictures."""
    pairs = zip(pictures.numpy(), truth.numpy(), strict=True)
    return torch.tensor([structural_similarity(a, b, channel_axis=0, data_range=2.0) for a, b in pairs])


def to_floats(picture: Image.Image) -> np.ndarray:
    """Return (H, W, 3) in [0, 1]."""
    return np.asarray(picture, dtype=np.float32) / 255


def from_floats(values: np.ndarray) -> torch.Tensor:
    """Round (H, W, 3) in [0, 1] to eight bits and return (3, H, W) in [-1, 1]."""
    return image_to_tensor((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


def inpaint_opencv(pictures: Sequence[Image.Image], masks: Sequence[Image.Image], method: int) -> torch.Tensor:
    """Fill by one of OpenCV's methods, radius 3 px."""
    filled = [
        image_to_tensor(cv2.inpaint(np.array(picture), np.array(mask), 3, method))
        for picture, mask in zip(pictures, masks, strict=True)
    ]
    return torch.stack(filled)


def inpaint_by_biharmonic(pictures: Sequence[Image.Image], masks: Sequence[Image.Image]) -> torch.Tensor:
    """Fill by biharmonic functions."""
    filled = [
        from_floats(inpaint_biharmonic(to_floats(picture), np.array(mask) > 0, channel_axis=-1))
        for picture, mask in zip(pictures, masks, strict=True)
    ]
    return torch.stack(filled)


def compare_inpainting(pipe: Any, classifier: Classifier, sprites: Sprites, count: int) -> tuple[str, Results]:
    """Return a table of methods, and their pictures between the given ones and the truth."""
    scenes = draw_single_scenes(sprites, count)
    truth = SceneRenderer(sprites).render(scenes, INPUT_SIZE)
    concepts = torch.tensor([int(sprites.concept[scene.objects[0].sprite]) for scene in scenes])
    holes = draw_holes_over(object_masks(scenes, truth, sprites))
    masks = [Image.fromarray((hole[0] * 255).byte().numpy()) for hole in holes]
    given = [
        Image.composite(Image.new("RGB", mask.size, "gray"), picture, mask)
        for picture, mask in zip(to_images(truth), masks, strict=True)
    ]

    def ours(prompts: list[str], **options: Any) -> torch.Tensor:
        return restore(pipe, SEED, {"prompt": prompts, "image": given, "mask_image": masks}, **options)

    captions = [scene.caption for scene in scenes]
    results = {
        "ours, painted area": ours(captions, whole_picture=False),
        "ours, whole picture": ours(captions),
        "ours, without prompt": ours([""] * count),
        "Telea": inpaint_opencv(given, masks, cv2.INPAINT_TELEA),
        "Navier-Stokes": inpaint_opencv(given, masks, cv2.INPAINT_NS),
        "biharmonic": inpaint_by_biharmonic(given, masks),
    }
    rows = []
    for name, pictures in results.items():
        figures = (
            mean(psnr(pictures, truth, holes), "dB"),
            mean(ssim(pictures, truth), ""),
            mean(feature_distance(classifier, pictures, truth), ""),
            share(classify(classifier, pictures).concept.argmax(1) == concepts),
        )
        rows.append([name, *map(format_figure, figures)])
    title = f"### Inpainting: {count} scenes of one object, 25 to 75 % of it in the hole\n\n"
    head = ["method", "PSNR in the hole", "SSIM", "feature distance", "concept, top-1"]
    return title + table(head, rows), {"given": to_tensor(given), **results, "truth": truth}


def load_photographs() -> torch.Tensor:
    """Return (N, 3, S, S): of each photograph a crop from the middle, and one after shrinking its shorter side to S."""
    photographs = []
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        scale = INPUT_SIZE / min(picture.size)
        width, height = (max(round(side * scale), INPUT_SIZE) for side in picture.size)
        for source in (picture, picture.resize((width, height), Image.Resampling.LANCZOS)):
            left, top = (source.width - INPUT_SIZE) // 2, (source.height - INPUT_SIZE) // 2
            photographs.append(image_to_tensor(source.crop((left, top, left + INPUT_SIZE, top + INPUT_SIZE))))
    return torch.stack(photographs)


def resize(pictures: Sequence[Image.Image], method: Image.Resampling) -> torch.Tensor:
    return to_tensor([picture.resize(SIZE, method) for picture in pictures])


def compare_super_resolution(
    pipe: Any, classifier: Classifier, truth: torch.Tensor, factor: int, subject: str
) -> tuple[str, Results]:
    """Return a table of methods, and their pictures between the given ones and the truth."""
    side = INPUT_SIZE // factor
    small = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in to_images(truth)]
    results = {
        "ours": restore(pipe, SEED, {"image": small}, scale_factor=factor),
        "bicubic": resize(small, Image.Resampling.BICUBIC),
        "Lanczos": resize(small, Image.Resampling.LANCZOS),
    }
    bicubic = psnr(results["bicubic"], truth)
    rows = []
    for name, pictures in results.items():
        figures = (
            mean(psnr(pictures, truth), "dB"),
            mean(psnr(pictures, truth) - bicubic, "dB"),
            mean(ssim(pictures, truth), ""),
            mean(feature_distance(classifier, pictures, truth), ""),
        )
        rows.append([name, *map(format_figure, figures)])
    title = f"### Super-resolution x{factor} to {INPUT_SIZE} px: {len(truth)} {subject}\n\n"
    head = ["method", "PSNR", "PSNR over bicubic", "SSIM", "feature distance"]
    given = resize(small, Image.Resampling.NEAREST)
    return title + table(head, rows), {"given": given, **results, "truth": truth}


def denoise_non_local(pictures: Sequence[Image.Image], sigma: float) -> torch.Tensor:
    """Denoise by non-local means that know sigma, a share of the value range."""
    options = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * sigma, "sigma": sigma, "channel_axis": -1}
    return torch.stack([from_floats(denoise_nl_means(to_floats(picture), **options)) for picture in pictures])


def denoise_by_wavelet(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Denoise by a wavelet transform that estimates sigma itself."""
    options = {"convert2ycbcr": True, "channel_axis": -1}
    return torch.stack([from_floats(denoise_wavelet(to_floats(picture), **options)) for picture in pictures])


def compare_denoising(pipe: Any, classifier: Classifier, truth: torch.Tensor, sigma: int) -> tuple[str, Results]:
    """Return a table of methods, and their pictures before the truth. sigma: on the scale of 0 to 255."""
    generator = torch.Generator().manual_seed(SEED + sigma)
    noisy = [
        tensor_to_image(picture + sigma / 127.5 * torch.randn(picture.shape, generator=generator)) for picture in truth
    ]
    results = {
        "ours, posterior mean": restore(pipe, SEED, {"image": noisy}),
        "ours, 8 steps": restore(pipe, SEED, {"image": noisy}, num_inference_steps=8),
        "non-local means": denoise_non_local(noisy, sigma / 255),
        "wavelet": denoise_by_wavelet(noisy),
        "unchanged": to_tensor(noisy),
    }
    rows = []
    for name, pictures in results.items():
        figures = (
            mean(psnr(pictures, truth), "dB"),
            mean(ssim(pictures, truth), ""),
            mean(feature_distance(classifier, pictures, truth), ""),
        )
        rows.append([name, *map(format_figure, figures)])
    estimate = mean(torch.tensor([estimate_noise_sigma(picture) for picture in noisy]), "levels")
    text = (
        f"### Denoising at sigma {sigma} of 255: {len(truth)} scenes\n\nOurs and the wavelet estimate sigma (ours: "
        f"{format_figure(estimate)}). Non-local means know it.\n\n"
    )
    return text + table(["method", "PSNR", "SSIM", "feature distance"], rows), {**results, "truth": truth}


def strip(results: Results) -> Image.Image:
    """Return a contact sheet of the first scenes, not picked, with a column for each method."""
    pictures, captions = [], []
    for row in range(STRIP_ROWS):
        for name, column in results.items():
            if row < len(column):
                pictures.append(tensor_to_image(column[row]))
                captions.append(name)
    return contact_sheet(pictures, captions, len(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="pipeline folder")
    parser.add_argument("--sprites", type=Path, required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the classifier")
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--strips", type=Path, help="folder for contact sheets of the first scenes, one for each table")
    args = parser.parse_args()
    sprites = Sprites.load(args.sprites)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    classifier, _ = cached_classifier(sprites, args.cache, ClassifierConfig(), device)
    inpaint = StudioInpaintPipeline.from_pretrained(args.model).to(device)
    upscale, denoise = StudioUpscalePipeline(**inpaint.components), StudioDenoisePipeline(**inpaint.components)
    for pipe in (inpaint, upscale, denoise):
        pipe.set_progress_bar_config(disable=True)
    print(f"`python -m tests.benchmarks.restore {shlex.join(sys.argv[1:])}`\n\n{describe()}\n")
    print("In brackets: 95 % intervals; pictures count as independent.", flush=True)

    def report(name: str, text: str, results: Results) -> None:
        print(f"\n{text}", flush=True)
        if args.strips:
            args.strips.mkdir(parents=True, exist_ok=True)
            strip(results).save(args.strips / f"{name}.webp", lossless=True, method=6)

    maker = SceneMaker(sprites, SEED + 1, held_out=True, mix=RESTORATION_MIX)
    art = SceneRenderer(sprites).render([maker.draw() for _ in range(args.scenes)], INPUT_SIZE)
    report("inpainting", *compare_inpainting(inpaint, classifier, sprites, args.scenes))
    for subject, truth in (("scenes", art), ("photographs", load_photographs())):
        for factor in (2, 4):
            name = f"super-resolution-x{factor}-{subject}"
            report(name, *compare_super_resolution(upscale, classifier, truth, factor, subject))
    for sigma in (25, 50):
        report(f"denoising-{sigma}", *compare_denoising(denoise, classifier, art, sigma))


if __name__ == "__main__":
    main()
