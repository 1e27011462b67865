"""The judge: a small network that names the concept, the style and the ground of a picture of one thing.

Trained on real sprites, held-out pairs too, under augmentation hard enough that a picture which is painted a little
wrong is still judged by what it shows. Knows sprites and scenes; knows nothing of the networks that it judges.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from studio.training.data.scenes import GROUNDS, Painter, SceneMaker
from studio.training.data.sprites import STYLES, Sprites
from studio.training.precision import fast_bf16

SIZE = 64  # px: side of the pictures that are judged


@dataclass(frozen=True)
class Recipe:
    """How the judge is made; part of the name under which it is cached."""

    width: int = 48  # channels at half the picture's side; they double twice from there
    views: int = 100  # augmented pictures of every sprite
    batch: int = 64
    learning_rate: float = 2e-3
    smoothing: float = 0.1  # of the concept's label
    seed: int = 0
    version: int = 2  # raised when the network or the augmentation changes


@dataclass(frozen=True)
class Labels:
    """Indices, (B,) each: into the sprites' concepts, STYLES and GROUNDS."""

    concept: torch.Tensor
    style: torch.Tensor
    background: torch.Tensor


@dataclass(frozen=True)
class Verdict:
    """Scores (B, concepts), (B, styles), (B, grounds), and `features` (B, D), what the judge sees before it decides."""

    concept: torch.Tensor
    style: torch.Tensor
    background: torch.Tensor
    features: torch.Tensor


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


def residual_body(width: int) -> nn.Sequential:
    """A residual network (arXiv 1512.03385): (B, 3, S, S) in [-1, 1] -> (B, 4 width, S / 8, S / 8); S divides by 8."""

    def halve(inside: int, outside: int) -> nn.Sequential:
        conv = nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU(inplace=True))

    return nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(12, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        halve(width, 2 * width),
        Residual(2 * width),
        halve(2 * width, 4 * width),
        Residual(4 * width),
        Residual(4 * width),
    )


class Classifier(nn.Module):
    """Names what is in (B, 3, S, S) in [-1, 1]; S divides by 8."""

    def __init__(self, concepts: int, width: int = 48) -> None:
        super().__init__()
        self.body = residual_body(width)
        self.concept = nn.Linear(8 * width, concepts)
        self.style = nn.Linear(8 * width, len(STYLES))
        self.background = nn.Linear(8 * width, len(GROUNDS))

    def forward(self, picture: torch.Tensor) -> Verdict:
        seen = self.body(picture).float()
        features = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1)
        return Verdict(self.concept(features), self.style(features), self.background(features), features)


class LabelledPictures:
    """Pictures of one thing on a plain ground, painted from real sprites, and what they show."""

    def __init__(self, sprites: Sprites, seed: int, device: torch.device | str = "cpu") -> None:
        self.sprites = replace(sprites, held_out=torch.zeros_like(sprites.held_out))  # the judge knows all pairs
        self.scenes = SceneMaker(self.sprites, seed)
        self.painter = Painter(self.sprites, device)
        self.generator = torch.Generator().manual_seed(seed)
        self.order: list[int] = []

    def __call__(self, count: int) -> tuple[torch.Tensor, Labels]:
        """The next `count` pictures, augmented; every sprite comes once before any comes again."""
        while len(self.order) < count:
            self.order += torch.randperm(len(self.sprites), generator=self.generator).tolist()
        rows, self.order = torch.tensor(self.order[:count]), self.order[count:]
        backgrounds = torch.randint(len(GROUNDS), (count,), generator=self.generator)
        labels = Labels(self.sprites.concept[rows], self.sprites.style[rows], backgrounds)
        return augment(self.paint(labels), self.generator), labels

    def paint(self, labels: Labels) -> torch.Tensor:
        """(B, 3, SIZE, SIZE) in [-1, 1]: the labels' sprites at varied place and size, in their own colours."""
        names = list(GROUNDS)
        scenes = []
        for concept, style, background in zip(
            labels.concept.tolist(), labels.style.tolist(), labels.background.tolist(), strict=True
        ):
            scene = self.scenes.single(concept, style, names[background])
            # a tinted red heart would be a blue heart with a wrong label
            scenes.append(replace(scene, things=tuple(replace(thing, tint=None) for thing in scene.things)))
        return self.painter(scenes, SIZE)


def augment(picture: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The ways in which a painted picture may differ from a sprite and still show it; (B, 3, S, S) in [-1, 1].

    Bent (a smooth field of shifts), turned and stretched; for a part of the rows drawn at half the resolution, or
    blurred; brightness, contrast and colour a little off; grainy.
    """
    count, _, size, _ = picture.shape

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * (high - low) + low).to(picture)

    angle, shear = uniform(-0.12, 0.12, count), uniform(-0.08, 0.08, count)
    wide, high = uniform(0.92, 1.08, count), uniform(0.92, 1.08, count)
    nothing = torch.zeros_like(angle)
    theta = torch.stack([wide, angle + shear, nothing, -angle, high, nothing], dim=1).view(count, 2, 3)
    grid = F.affine_grid(theta, list(picture.shape), align_corners=False)
    bend = uniform(-0.07, 0.07, count, 2, 5, 5)  # in halves of the picture's side
    bend = F.interpolate(bend, size=(size, size), mode="bicubic", align_corners=False)
    picture = F.grid_sample(picture, grid + bend.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)

    coarse = F.interpolate(F.avg_pool2d(picture, 2), scale_factor=2, mode="bilinear", align_corners=False)
    share = uniform(0, 1, count, 1, 1, 1)
    share = torch.where(share < 0.5, torch.zeros_like(share), 2 * share - 1)  # of coarseness; none for half the rows
    picture = torch.lerp(picture, coarse, share)

    picture = picture * uniform(0.88, 1.1, count, 1, 1, 1) + uniform(-0.06, 0.06, count, 3, 1, 1)
    noise = torch.randn(picture.shape, generator=generator).to(picture)
    picture = picture + noise * uniform(0, 0.08, count, 1, 1, 1)
    return picture.clamp_(-1, 1)


def train_classifier(
    sprites: Sprites, recipe: Recipe, device: torch.device | str = "cpu", log: bool = False
) -> Classifier:
    """A judge of `sprites`: as good a one for the same recipe on every machine, however slow."""
    torch.manual_seed(recipe.seed)
    device = torch.device(device)
    model = Classifier(len(sprites.concepts), recipe.width).to(device, memory_format=torch.channels_last).train()
    pictures = LabelledPictures(sprites, recipe.seed, device)

    def loss() -> torch.Tensor:
        picture, labels = pictures(recipe.batch)
        with autocast(device):
            verdict = model(picture.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(verdict.concept, labels.concept.to(device), label_smoothing=recipe.smoothing)
        loss = loss + 0.5 * F.cross_entropy(verdict.style, labels.style.to(device))
        return loss + 0.3 * F.cross_entropy(verdict.background, labels.background.to(device))

    updates = math.ceil(len(sprites) * recipe.views / recipe.batch)
    return fit(model, loss, updates, recipe.learning_rate, "classifier" if log else "")


def fit(
    model: nn.Module,
    loss: Callable[[], torch.Tensor],
    updates: int,
    learning_rate: float,
    name: str = "",
) -> nn.Module:
    """Train `model` for so many updates on `loss()`; returns it in evaluation mode.

    AdamW; the rate rises over the first tenth and falls to zero as a cosine. With a name it says how far it is.
    """
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)
    logged = time.monotonic()
    for update in range(updates):
        now, spent = time.monotonic(), (update + 1) / (updates + 1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, spent / 0.1 + 0.02) * 0.5 * (1 + math.cos(math.pi * spent))
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if name and now - logged > 20:
            print(f"{name}: {update}/{updates} updates, {spent:.0%}, loss {value:.3f}", flush=True)
            logged = now
    return model.eval()


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the machine has units for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device))


def digest(sprites: Sprites, recipe: Recipe) -> str:
    """16 hexadecimal digits that change with the sprites or with the recipe."""
    whole = hashlib.sha256(json.dumps([asdict(recipe), sprites.concepts]).encode())
    for part in (sprites.rgba, sprites.concept, sprites.style):
        whole.update(part.contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


def cached_classifier(
    sprites: Sprites, folder: Path, recipe: Recipe, device: torch.device | str = "cpu"
) -> tuple[Classifier, str]:
    """The judge of `sprites` and its digest: from `folder`, or trained now and left there."""
    name = digest(sprites, recipe)
    model = kept(
        folder / f"classifier-{name}.safetensors",
        Classifier(len(sprites.concepts), recipe.width),
        lambda: train_classifier(sprites, recipe, device, log=True),
    )
    return model.to(device, memory_format=torch.channels_last).eval(), name


def kept(path: Path, empty: nn.Module, train: Callable[[], nn.Module]) -> nn.Module:
    """The network with the weights in `path`, loaded into `empty`; or trained now and left there."""
    if path.exists():
        empty.load_state_dict(load_file(path))
        return empty
    model = train()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous().cpu() for key, value in model.state_dict().items()}, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)  # whole, or not there
    return model


@torch.no_grad()
def judge(model: Classifier, pictures: torch.Tensor, rows: int = 128) -> Verdict:
    """What the judge says of (B, 3, S, S) in [-1, 1], of any size; in float32, on the CPU."""
    device = next(model.parameters()).device
    verdicts = []
    for part in pictures.split(rows):
        if part.shape[-1] != SIZE:
            part = F.interpolate(part, size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(-1, 1)
        verdicts.append(model(part.to(device).contiguous(memory_format=torch.channels_last)))
    names = ("concept", "style", "background", "features")
    return Verdict(*(torch.cat([getattr(verdict, name) for verdict in verdicts]).cpu() for name in names))
