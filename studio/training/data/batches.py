"""Training batches: pictures, conditions and captions of all three tasks."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from studio.diffusion.conditioning import CONDITION_CHANNELS, Condition, Task
from studio.training.data.renderer import Crop, SceneRenderer
from studio.training.data.scenes import SceneMaker

GENERATION_SHARES = {Task.TEXT_TO_IMAGE: 0.75, Task.INPAINT: 0.25}  # of the rows of a batch
SUPER_RESOLUTION_SHARES = {Task.SUPER_RESOLUTION: 1.0}
INPAINT_CAPTION_DROPOUT, SUPER_RESOLUTION_CAPTION_DROPOUT = 0.3, 0.5
MAX_NOISE_LEVEL = 0.3  # standard deviation of the noise on low-resolution pictures


@dataclass
class Batch:
    """B rows of mixed tasks."""

    picture: torch.Tensor  # (B, 3, S, S) in [-1, 1]: x0
    condition: torch.Tensor  # (B, 7, S, S), see studio.diffusion.conditioning
    task: torch.Tensor  # (B,) int
    noise_level: torch.Tensor  # (B,) of the low-resolution picture
    captions: list[str]


class BatchMaker:
    """Makes random batches without end; the same seed gives the same batches."""

    def __init__(self, scenes: SceneMaker, renderer: SceneRenderer, seed: int, *, caption_dropout: float = 0.1) -> None:
        """caption_dropout: share of text-to-image rows with an empty caption."""
        self.scenes, self.renderer = scenes, renderer
        self.caption_dropout = {
            Task.TEXT_TO_IMAGE: caption_dropout,
            Task.INPAINT: INPAINT_CAPTION_DROPOUT,
            Task.SUPER_RESOLUTION: SUPER_RESOLUTION_CAPTION_DROPOUT,
        }
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def make(self, batch_size: int, size: int, shares: Mapping[Task, float]) -> Batch:
        """Return a batch of pictures of `size` px; `shares` are the probabilities of the tasks."""
        rng = self.rng
        tasks = rng.choices(list(shares), list(shares.values()), k=batch_size)
        # text to image learns single objects (see studio.diffusion.composition); restored pictures may show several
        scenes = [self.scenes.draw_single() if task == Task.TEXT_TO_IMAGE else self.scenes.draw() for task in tasks]
        crops = [random_crop(rng) if task == Task.SUPER_RESOLUTION else Crop() for task in tasks]
        pictures = self.renderer.render(scenes, size, crops)
        conditions = pictures.new_zeros(batch_size, CONDITION_CHANNELS, size, size)
        noise_levels = torch.zeros(batch_size)
        captions = []
        for row, (task, scene) in enumerate(zip(tasks, scenes, strict=True)):
            captions.append("" if rng.random() < self.caption_dropout[task] else scene.caption)
            condition = Condition((size, size))
            if task == Task.INPAINT:
                condition = Condition.inpaint(pictures[row], random_hole(size, rng)[0].to(pictures))
            elif task == Task.SUPER_RESOLUTION:
                low_res = degrade(pictures[row : row + 1], rng.choice((2, 4)), rng)[0]
                noise_levels[row] = rng.choice((0.0, 1.0)) * rng.uniform(0.0, MAX_NOISE_LEVEL)
                noise = torch.randn(low_res.shape, generator=self.generator).to(low_res)
                condition = Condition.super_resolution(low_res + noise_levels[row] * noise, (size, size))
            conditions[row] = condition.crop(0, 0, size, size, pictures)
        return Batch(
            pictures,
            conditions,
            torch.tensor(tasks, device=pictures.device),
            noise_levels.to(pictures.device),
            captions,
        )


def random_crop(rng: random.Random) -> Crop:
    """Draw a crop with at least 0.45 of the scene's side: sprites are not enlarged beyond their rendered size."""
    side = 1.0 if rng.random() < 0.4 else rng.uniform(0.45, 1.0)
    return Crop(rng.uniform(0, 1 - side), rng.uniform(0, 1 - side), side)


def random_hole(size: int, rng: random.Random) -> torch.Tensor:
    """Return (1, 1, size, size), 1 in the hole: strokes, boxes, an ellipse, a half plane or the whole picture."""
    kind = rng.choices(("strokes", "boxes", "ellipse", "half", "all"), (0.3, 0.25, 0.2, 0.15, 0.1))[0]
    steps = (torch.arange(size) + 0.5) / size
    y, x = steps[:, None], steps[None, :]
    hole = torch.zeros(size, size, dtype=torch.bool)
    if kind == "all":
        hole[:] = True
    elif kind == "half":
        angle = torch.tensor(rng.uniform(0, 2 * torch.pi))
        hole = (x - 0.5) * angle.cos() + (y - 0.5) * angle.sin() > rng.uniform(-0.25, 0.25)
    elif kind == "ellipse":
        center_x, center_y = rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75)
        hole = ((x - center_x) / rng.uniform(0.15, 0.4)) ** 2 + ((y - center_y) / rng.uniform(0.15, 0.4)) ** 2 < 1
    elif kind == "boxes":
        for _ in range(rng.randint(1, 3)):
            width, height = rng.uniform(0.15, 0.6), rng.uniform(0.15, 0.6)
            left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            hole |= (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
    else:
        for _ in range(rng.randint(1, 3)):
            hole |= _random_stroke(x, y, rng)
    return hole.float()[None, None]


def _random_stroke(x: torch.Tensor, y: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Return (size, size) bool: a polyline of one to four round-ended segments. x: (1, size), y: (size, 1)."""
    start_x, start_y, radius = rng.random(), rng.random(), rng.uniform(0.04, 0.12)
    stroke = torch.zeros(len(y), x.shape[1], dtype=torch.bool)
    for _ in range(rng.randint(1, 4)):
        end_x, end_y = rng.random(), rng.random()
        step_x, step_y = end_x - start_x, end_y - start_y
        along = ((x - start_x) * step_x + (y - start_y) * step_y) / (step_x**2 + step_y**2 + 1e-6)
        along = along.clamp(0, 1)  # position of the nearest point of the segment
        stroke |= (x - (start_x + along * step_x)) ** 2 + (y - (start_y + along * step_y)) ** 2 < radius**2
        start_x, start_y = end_x, end_y
    return stroke


def degrade(picture: torch.Tensor, factor: int, rng: random.Random) -> torch.Tensor:
    """Shrink (1, 3, S, S) to (1, 3, S / factor, S / factor) by a random filter, at times followed by JPEG."""
    size = picture.shape[-1] // factor
    method = rng.random()
    if method < 0.5:
        low_res = F.avg_pool2d(picture, factor)
    else:
        mode = "bicubic" if method < 0.75 else "bilinear"
        low_res = F.interpolate(picture, size=(size, size), mode=mode, antialias=True).clamp(-1, 1)
    if rng.random() < 0.2:
        low_res = compress_jpeg(low_res, rng.randint(40, 95))
    return low_res


def compress_jpeg(picture: torch.Tensor, quality: int) -> torch.Tensor:
    """Encode (1, 3, H, W) in [-1, 1] as JPEG of this quality (1 to 95) and decode it."""
    pixels = ((picture[0] + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(file))).to(picture)
    return decoded.permute(2, 0, 1)[None] / 127.5 - 1
