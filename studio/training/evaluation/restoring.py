"""How well pictures are restored: super-resolution against bicubic enlargement, inpainting against Telea's method."""

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
from studio.training.data.scenes import Mix, Painter, Scene, SceneMaker
from studio.training.data.sprites import Sprites
from studio.training.evaluation.classifier import SIZE, Classifier, judge
from studio.training.evaluation.report import mean

SCENES = 192  # restored in each task
RESTORED = Mix(0.80, 0.13, 0.07)  # what they show: that of the first evaluation, whatever training draws now
SCENE_SEED = 7_002
ROWS = 32  # pictures in one call
LEAST_ERROR = 1 / 12 / 255**2  # mean square of rounding to 8 bits: no picture file is nearer, on average


def tensor(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """(B, 3, H, W) in [-1, 1]."""
    return torch.stack([image_to_tensor(picture) for picture in pictures])


def psnr(pictures: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """(B,) dB, of (B, 3, H, W) in [-1, 1], over the pixels of `where` (B, 1, H, W); at most 58.9."""
    where = torch.ones_like(truth[:, :1]) if where is None else where
    error = ((pictures - truth) / 2).square().mean(1, keepdim=True)
    error = (error * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
    return -10 * error.clamp(min=LEAST_ERROR).log10()


def feature_distance(classifier: Classifier, pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(B,) distance between the directions of the judge's features, 0 to 2."""
    ours, theirs = (F.normalize(judge(classifier, part).features) for part in (pictures, truth))
    return (ours - theirs).norm(dim=1)


def comparison(name: str, ours: torch.Tensor, theirs: torch.Tensor, unit: str) -> dict[str, dict]:
    """Both means, and that of the difference picture by picture."""
    return {"ours": mean(ours, unit), name: mean(theirs, unit), "difference": mean(ours - theirs, unit)}


def scenes_to_restore(sprites: Sprites, count: int, seed: int) -> tuple[list[Scene], torch.Tensor]:
    """Scenes whose every thing is a held-out pair, and their pictures (count, 3, SIZE, SIZE)."""
    maker = SceneMaker(sprites, SCENE_SEED + seed, held_out=True, mix=RESTORED)
    scenes = [maker.draw() for _ in range(count)]
    return scenes, Painter(sprites)(scenes, SIZE)


def holes(scenes: list[Scene], truth: torch.Tensor, sprites: Sprites, seed: int) -> torch.Tensor:
    """(B, 1, SIZE, SIZE): training's strokes, boxes and ellipses, over 5 to 50 % of the picture, and at least 30 % of
    that over things: a hole in a plain ground is no question."""
    rng = random.Random(SCENE_SEED + seed)
    bare = Painter(sprites)([replace(scene, things=()) for scene in scenes], SIZE)
    things = ((truth - bare).abs().amax(1, keepdim=True) > 0.1).float()
    chosen = []
    for thing in things:
        best, most = torch.zeros_like(thing), -1.0
        for _ in range(60):
            hole = random_hole(SIZE, rng)[0]
            over = ((thing * hole).sum() / hole.sum()).item()
            if over > most and 0.05 <= hole.mean() <= 0.5:
                best, most = hole, over
            if most >= 0.3:
                break
        chosen.append(best)
    return torch.stack(chosen)


def restored(pipe: Any, seed: int, inputs: dict[str, list], **options) -> torch.Tensor:
    """The pipeline's pictures for lists of inputs, ROWS at a time, each with its own seed; (B, 3, H, W)."""
    pictures = []
    for begin in range(0, len(inputs["image"]), ROWS):
        part = {name: values[begin : begin + ROWS] for name, values in inputs.items()}
        generators = [torch.Generator().manual_seed(seed + begin + i) for i in range(len(part["image"]))]
        pictures += pipe(**part, **options, generator=generators).images
    return tensor(pictures)


def telea(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Telea's fast marching inpainting, as OpenCV has it (radius 3 px)."""
    try:
        import cv2
    except ImportError as error:
        raise SystemExit("comparing inpainting needs OpenCV: pip install opencv-python-headless") from error
    return Image.fromarray(cv2.inpaint(np.array(picture), np.array(mask), 3, cv2.INPAINT_TELEA))


def evaluate_super_resolution(pipe: Any, truth: torch.Tensor, factor: int, seed: int) -> tuple[dict, list]:
    """PSNR of pictures shrunk by `factor` (bicubic, antialiased) and painted large again without words."""
    small = [tensor_to_image(picture).resize((SIZE // factor,) * 2, Image.Resampling.BICUBIC) for picture in truth]
    bicubic = tensor([picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for picture in small])
    ours = restored(pipe, seed, {"image": small}, scale_factor=factor)
    column = {
        f"PSNR, {row}": figure
        for row, figure in comparison("bicubic", psnr(ours, truth), psnr(bicubic, truth), "dB").items()
    }
    return column, [small, *([tensor_to_image(p) for p in part] for part in (ours, bicubic, truth))]


def evaluate_inpainting(
    pipe: Any, classifier: Classifier, scenes: list[Scene], truth: torch.Tensor, hole: torch.Tensor, seed: int
) -> tuple[dict, list]:
    """PSNR inside the hole and distance to the truth in the judge's eyes; the prompt says what the scene shows.

    PSNR both of the picture that users get and of the posterior's mean: the prediction of one call for nothing but
    noise, unguided. A sample's mean square error is twice the mean's, however good the model (see arXiv 1711.06077), so
    that sharp pictures stand 3 dB behind the smooth estimate, as Telea's is; the default begins near the mean.
    """
    pictures = [tensor_to_image(picture) for picture in truth]
    masks = [Image.fromarray((h[0] * 255).byte().numpy()) for h in hole]
    gray = [Image.composite(Image.new("RGB", p.size, "gray"), p, m) for p, m in zip(pictures, masks, strict=True)]
    baseline = tensor([telea(picture, mask) for picture, mask in zip(gray, masks, strict=True)])
    prompts = [scene.caption for scene in scenes]
    # given gray in the hole, so that not even a resizing could see what was there
    inputs = {"prompt": prompts, "image": gray, "mask_image": masks}
    ours = restored(pipe, seed, inputs)
    one_call = {"num_inference_steps": 1, "guidance_scale": 1.0, "finishing_steps": 0}
    smooth = psnr(restored(pipe, seed, inputs, **one_call), truth, hole)
    close = comparison("Telea", psnr(ours, truth, hole), psnr(baseline, truth, hole), "dB")
    alike = comparison(
        "Telea", feature_distance(classifier, ours, truth), feature_distance(classifier, baseline, truth), ""
    )
    column = {f"PSNR in the hole, {row}": figure for row, figure in close.items()}
    column["PSNR in the hole, posterior mean"] = mean(smooth, "dB")
    column["PSNR in the hole, posterior mean, difference"] = mean(smooth - psnr(baseline, truth, hole), "dB")
    column |= {f"feature distance, {row}": figure for row, figure in alike.items()}
    return column, [gray, *([tensor_to_image(p) for p in part] for part in (ours, baseline, truth))]
