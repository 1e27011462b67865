"""Batches: scenes made into what the network is trained on, for all three tasks at once.

Knows scenes, the masks and the degradations of the tasks; knows nothing of networks, losses or noise schedules.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from studio.diffusion.conditioning import Condition, Task
from studio.training.data.scenes import Painter, SceneMaker, View

PAINTING = {Task.TEXT_TO_IMAGE: 0.75, Task.INPAINT: 0.25}  # shares of a batch
SHARPENING = {Task.SUPER_RESOLUTION: 1.0}
MAX_NOISE_LEVEL = 0.3  # standard deviation of the noise put on low-resolution pictures


@dataclass
class Batch:
    """B rows of mixed tasks."""

    picture: torch.Tensor  # (B, 3, S, S) in [-1, 1]: what is to be painted
    condition: torch.Tensor  # (B, 7, S, S), see studio.diffusion.conditioning
    task: torch.Tensor  # (B,) int
    noise_level: torch.Tensor  # (B,) of the low-resolution picture
    captions: list[str]


class BatchMaker:
    """Endless batches of `batch_size` pictures of `size` px, of tasks in these shares; a seed gives the same again."""

    def __init__(self, scenes: SceneMaker, painter: Painter, seed: int, text_dropout: float = 0.1) -> None:
        self.scenes, self.painter, self.text_dropout = scenes, painter, text_dropout
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, batch_size: int, size: int, shares: dict[Task, float]) -> Batch:
        rng = self.rng
        tasks = rng.choices(list(shares), list(shares.values()), k=batch_size)
        # words become one thing at a time (see `studio.diffusion.composition`); what is restored may show several
        scenes = [self.scenes.alone() if task == Task.TEXT_TO_IMAGE else self.scenes.draw() for task in tasks]
        views = [window(rng) if task == Task.SUPER_RESOLUTION else View() for task in tasks]
        picture = self.painter(scenes, size, views)
        condition = picture.new_zeros(batch_size, 7, size, size)
        noise_level = torch.zeros(batch_size)
        captions = []
        for row, (task, scene) in enumerate(zip(tasks, scenes, strict=True)):
            silent = {Task.TEXT_TO_IMAGE: self.text_dropout, Task.INPAINT: 0.3, Task.SUPER_RESOLUTION: 0.5}[task]
            caption = "" if rng.random() < silent else scene.caption
            captions.append(caption)
            given = Condition((size, size))
            if task == Task.INPAINT:
                given = Condition.inpaint(picture[row], random_hole(size, rng)[0].to(picture))
            elif task == Task.SUPER_RESOLUTION:
                low = degrade(picture[row : row + 1], rng.choice((2, 4)), rng)[0]
                noise_level[row] = rng.choice((0.0, 1.0)) * rng.uniform(0.0, MAX_NOISE_LEVEL)
                noise = torch.randn(low.shape, generator=self.generator).to(low)
                given = Condition.super_resolution(low + noise_level[row] * noise, (size, size))
            condition[row] = given.crop(0, 0, size, size, picture)
        return Batch(
            picture,
            condition,
            torch.tensor(tasks, device=picture.device),
            noise_level.to(picture.device),
            captions,
        )


def window(rng: random.Random) -> View:
    """A part of a scene, down to a bit under half its side: sprites are drawn no larger than they were rendered."""
    side = 1.0 if rng.random() < 0.4 else rng.uniform(0.45, 1.0)
    return View(rng.uniform(0, 1 - side), rng.uniform(0, 1 - side), side)


def random_hole(size: int, rng: random.Random) -> torch.Tensor:
    """(1, 1, size, size), 1 in the hole: strokes, boxes, an ellipse, a half plane, or everything."""
    kind = rng.choices(("strokes", "boxes", "ellipse", "half", "all"), (0.3, 0.25, 0.2, 0.15, 0.1))[0]
    steps = (torch.arange(size) + 0.5) / size
    y, x = steps[:, None], steps[None, :]
    hole = torch.zeros(size, size, dtype=torch.bool)
    if kind == "all":
        hole[:] = True
    elif kind == "half":
        angle = rng.uniform(0, 2 * torch.pi)
        direction = torch.tensor(angle)
        hole = (x - 0.5) * direction.cos() + (y - 0.5) * direction.sin() > rng.uniform(-0.25, 0.25)
    elif kind == "ellipse":
        centre_x, centre_y = rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75)
        hole = ((x - centre_x) / rng.uniform(0.15, 0.4)) ** 2 + ((y - centre_y) / rng.uniform(0.15, 0.4)) ** 2 < 1
    elif kind == "boxes":
        for _ in range(rng.randint(1, 3)):
            wide, high = rng.uniform(0.15, 0.6), rng.uniform(0.15, 0.6)
            left, top = rng.uniform(0, 1 - wide), rng.uniform(0, 1 - high)
            hole |= (x >= left) & (x < left + wide) & (y >= top) & (y < top + high)
    else:
        for _ in range(rng.randint(1, 3)):
            from_x, from_y, thick = rng.random(), rng.random(), rng.uniform(0.04, 0.12)
            for _ in range(rng.randint(1, 4)):
                to_x, to_y = rng.random(), rng.random()
                along = ((x - from_x) * (to_x - from_x) + (y - from_y) * (to_y - from_y)) / (
                    (to_x - from_x) ** 2 + (to_y - from_y) ** 2 + 1e-6
                )
                along = along.clamp(0, 1)
                near_x, near_y = from_x + along * (to_x - from_x), from_y + along * (to_y - from_y)
                hole |= (x - near_x) ** 2 + (y - near_y) ** 2 < thick**2
                from_x, from_y = to_x, to_y
    return hole.float()[None, None]


def degrade(picture: torch.Tensor, factor: int, rng: random.Random) -> torch.Tensor:
    """(1, 3, S, S) -> (1, 3, S / factor, S / factor): shrunk in one of several ways, sometimes through JPEG."""
    size = picture.shape[-1] // factor
    how = rng.random()
    if how < 0.5:
        low = F.avg_pool2d(picture, factor)
    else:
        mode = "bicubic" if how < 0.75 else "bilinear"
        low = F.interpolate(picture, size=(size, size), mode=mode, antialias=True).clamp(-1, 1)
    if rng.random() < 0.2:
        low = through_jpeg(low, rng.randint(40, 95))
    return low


def through_jpeg(picture: torch.Tensor, quality: int) -> torch.Tensor:
    """(1, 3, H, W) in [-1, 1], as it comes back from a JPEG file of this quality (1 to 95)."""
    pixels = ((picture[0] + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    back = torch.from_numpy(np.array(Image.open(file))).to(picture)
    return back.permute(2, 0, 1)[None] / 127.5 - 1
