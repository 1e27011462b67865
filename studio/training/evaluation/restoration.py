"""Quality of restored pictures: super-resolution against bicubic enlargement, inpainting against Telea's method."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from studio.diffusion.pipelines.base import image_to_tensor, tensor_to_image
from studio.training.data.batches import random_hole
from studio.training.data.renderer import SceneRenderer
from studio.training.data.scenes import Scene, SceneMaker, SceneMix
from studio.training.data.sprites import Sprites
from studio.training.evaluation.backbone import INPUT_SIZE
from studio.training.evaluation.classifier import Classifier, classify
from studio.training.evaluation.report import Column, mean

SCENES = 192  # for each task
RESTORATION_MIX = SceneMix(single=0.80, pair=0.13, tinted=0.07)  # fixed, so that figures of all runs compare
SCENE_SEED = 7_002
BATCH_SIZE = 32  # pictures in one call
MIN_ERROR = 1 / 12 / 255**2  # mean square of 8-bit rounding
OBJECT_THRESHOLD = 0.1  # difference from the bare background, of values in [-1, 1], from which a pixel is an object's
MIN_HOLE, MAX_HOLE = 0.05, 0.5  # share of the picture
MIN_OBJECT_SHARE = 0.3  # of a hole
HOLE_ATTEMPTS = 60

Strip = list[list[Image.Image]]  # columns of a contact sheet


def to_tensor(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Return (B, 3, H, W) in [-1, 1]."""
    return torch.stack([image_to_tensor(picture) for picture in pictures])


def to_images(pictures: torch.Tensor) -> list[Image.Image]:
    """Return the pictures of (B, 3, H, W) in [-1, 1]."""
    return [tensor_to_image(picture) for picture in pictures]


def psnr(pictures: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """Return (B,) in dB, at most 58.9, of (B, 3, H, W) in [-1, 1], over the pixels where (B, 1, H, W) is 1."""
    where = torch.ones_like(truth[:, :1]) if where is None else where
    error = ((pictures - truth) / 2).square().mean(1, keepdim=True)
    error = (error * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
    return -10 * error.clamp(min=MIN_ERROR).log10()


def feature_distance(classifier: Classifier, pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return (B,), 0 to 2: the distance between the classifier's normalized features."""
    features, expected = (F.normalize(classify(classifier, part).features) for part in (pictures, truth))
    return (features - expected).norm(dim=1)


def compare_means(measure: str, baseline: str, ours: torch.Tensor, theirs: torch.Tensor, unit: str) -> Column:
    """Return both means and the mean of the paired difference."""
    values = {"ours": ours, baseline: theirs, "difference": ours - theirs}
    return {f"{measure}, {name}": mean(part, unit) for name, part in values.items()}


def scenes_to_restore(sprites: Sprites, count: int, seed: int) -> tuple[list[Scene], torch.Tensor]:
    """Return scenes of held-out pairs alone, and their pictures (count, 3, INPUT_SIZE, INPUT_SIZE)."""
    maker = SceneMaker(sprites, SCENE_SEED + seed, held_out=True, mix=RESTORATION_MIX)
    scenes = [maker.draw() for _ in range(count)]
    return scenes, SceneRenderer(sprites).render(scenes, INPUT_SIZE)


def object_masks(scenes: Sequence[Scene], pictures: torch.Tensor, sprites: Sprites) -> torch.Tensor:
    """Return (B, 1, H, W): 1 where a picture differs from its bare background."""
    bare_scenes = [replace(scene, objects=()) for scene in scenes]
    bare = SceneRenderer(sprites).render(bare_scenes, pictures.shape[-1])
    return ((pictures - bare).abs().amax(1, keepdim=True) > OBJECT_THRESHOLD).float()


def draw_holes(scenes: Sequence[Scene], truth: torch.Tensor, sprites: Sprites, seed: int) -> torch.Tensor:
    """Return (B, 1, INPUT_SIZE, INPUT_SIZE), 1 in the hole: training's holes over 5 to 50 % of the picture.

    At least 30 % of a hole is over objects, where an attempt gives that: a plain background is easy to fill.
    """
    rng = random.Random(SCENE_SEED + seed)
    holes = []
    for mask in object_masks(scenes, truth, sprites):
        best, best_share = torch.zeros_like(mask), -1.0
        for _ in range(HOLE_ATTEMPTS):
            hole = random_hole(INPUT_SIZE, rng)[0]
            object_share = ((mask * hole).sum() / hole.sum()).item()
            if object_share > best_share and MIN_HOLE <= hole.mean() <= MAX_HOLE:
                best, best_share = hole, object_share
            if best_share >= MIN_OBJECT_SHARE:
                break
        holes.append(best)
    return torch.stack(holes)


def restore(pipe: Any, seed: int, inputs: dict[str, list], **options: Any) -> torch.Tensor:
    """Return a pipeline's pictures (B, 3, H, W) for lists of inputs, in batches, each picture with its own seed."""
    pictures = []
    for start in range(0, len(inputs["image"]), BATCH_SIZE):
        batch = {name: values[start : start + BATCH_SIZE] for name, values in inputs.items()}
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(batch["image"]))]
        pictures += pipe(**batch, **options, generator=generators).images
    return to_tensor(pictures)


def inpaint_telea(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Fill by Telea's fast marching method with OpenCV (radius 3 px)."""
    try:
        import cv2
    except ImportError as error:
        raise SystemExit("comparing inpainting needs OpenCV: pip install opencv-python-headless") from error
    return Image.fromarray(cv2.inpaint(np.array(picture), np.array(mask), 3, cv2.INPAINT_TELEA))


def evaluate_super_resolution(pipe: Any, truth: torch.Tensor, factor: int, seed: int) -> tuple[Column, Strip]:
    """Measure enlargement without words, of pictures shrunk by `factor` (bicubic, antialiased).

    Returns:
        The figures, and the columns given, ours, bicubic, truth of a contact sheet.
    """
    side = INPUT_SIZE // factor
    small = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in to_images(truth)]
    bicubic = to_tensor([picture.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC) for picture in small])
    ours = restore(pipe, seed, {"image": small}, scale_factor=factor)
    column = compare_means("PSNR", "bicubic", psnr(ours, truth), psnr(bicubic, truth), "dB")
    return column, [small, *map(to_images, (ours, bicubic, truth))]


def evaluate_inpainting(
    pipe: Any, classifier: Classifier, scenes: Sequence[Scene], truth: torch.Tensor, holes: torch.Tensor, *, seed: int
) -> tuple[Column, Strip]:
    """Measure PSNR in the hole and feature distance to the truth; the prompt is the scene's caption.

    PSNR is given twice: of the pipeline's pictures, and of the posterior mean, predicted in one unguided call from pure
    noise. A sample's mean square error is twice the mean's, however good the model (see arXiv 1711.06077): samples are
    3 dB behind a smooth estimate such as Telea's. The pipeline's default begins near the mean.

    Returns:
        The figures, and the columns given, ours, Telea, truth of a contact sheet.
    """
    masks = [Image.fromarray((hole[0] * 255).byte().numpy()) for hole in holes]
    given = []  # gray in the hole, so that no resizing can show what was there
    for picture, mask in zip(to_images(truth), masks, strict=True):
        given.append(Image.composite(Image.new("RGB", picture.size, "gray"), picture, mask))
    baseline = to_tensor([inpaint_telea(picture, mask) for picture, mask in zip(given, masks, strict=True)])
    inputs = {"prompt": [scene.caption for scene in scenes], "image": given, "mask_image": masks}
    ours = restore(pipe, seed, inputs)
    posterior_mean = restore(pipe, seed, inputs, num_inference_steps=1, guidance_scale=1.0, finishing_steps=0)
    baseline_psnr, mean_psnr = psnr(baseline, truth, holes), psnr(posterior_mean, truth, holes)
    column = compare_means("PSNR in the hole", "Telea", psnr(ours, truth, holes), baseline_psnr, "dB")
    column["PSNR in the hole, posterior mean"] = mean(mean_psnr, "dB")
    column["PSNR in the hole, posterior mean, difference"] = mean(mean_psnr - baseline_psnr, "dB")
    distances = [feature_distance(classifier, pictures, truth) for pictures in (ours, baseline)]
    column |= compare_means("feature distance", "Telea", distances[0], distances[1], "")
    return column, [given, *map(to_images, (ours, baseline, truth))]
