"""Classifier of concept, style and background: it decides whether generated pictures show what the prompt names.

It is trained on the real sprites, held-out pairs included. Strong augmentation lets it recognize pictures that differ
a little from the artwork.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from studio.training.data.renderer import SceneRenderer
from studio.training.data.scenes import BACKGROUND_COLORS, SceneMaker
from studio.training.data.sprites import STYLES, Sprites
from studio.training.evaluation.backbone import (
    INPUT_SIZE,
    autocast,
    channels_last,
    load_or_train,
    pooled_features,
    residual_body,
    resize_input,
    train_network,
)


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape and training of the classifier. Names and values of the fields are part of the digest in the cache."""

    width: int = 48  # channels at half the picture's side; they double twice from there
    views: int = 100  # augmented pictures of every sprite
    batch: int = 64
    learning_rate: float = 2e-3
    smoothing: float = 0.1  # of the concept's label
    seed: int = 0
    version: int = 2  # raise it when the network or the augmentation changes


@dataclass(frozen=True)
class Labels:
    """Indices, (B,) each: into the sprites' concepts, STYLES and BACKGROUND_COLORS."""

    concept: torch.Tensor
    style: torch.Tensor
    background: torch.Tensor


@dataclass(frozen=True)
class Predictions:
    """Logits (B, concepts), (B, styles) and (B, backgrounds), and the features (B, D) that they are computed from."""

    concept: torch.Tensor
    style: torch.Tensor
    background: torch.Tensor
    features: torch.Tensor


class Classifier(nn.Module):
    """Classifies (B, 3, S, S) in [-1, 1]; S is a multiple of 8."""

    def __init__(self, concepts: int, width: int = 48) -> None:
        super().__init__()
        self.body = residual_body(width)
        self.concept = nn.Linear(8 * width, concepts)
        self.style = nn.Linear(8 * width, len(STYLES))
        self.background = nn.Linear(8 * width, len(BACKGROUND_COLORS))

    def forward(self, pictures: torch.Tensor) -> Predictions:
        features = pooled_features(self.body(pictures).float())
        return Predictions(self.concept(features), self.style(features), self.background(features), features)


class LabelledPictures:
    """Random pictures of single real sprites on plain backgrounds, with their labels."""

    def __init__(self, sprites: Sprites, seed: int, device: torch.device | str = "cpu") -> None:
        self.sprites = replace(sprites, held_out=torch.zeros_like(sprites.held_out))
        self.scenes = SceneMaker(self.sprites, seed)
        self.renderer = SceneRenderer(self.sprites, device)
        self.generator = torch.Generator().manual_seed(seed)
        self.order: list[int] = []

    def draw(self, count: int) -> tuple[torch.Tensor, Labels]:
        """Return the next `count` pictures, augmented. Every sprite comes once before any comes again."""
        while len(self.order) < count:
            self.order += torch.randperm(len(self.sprites), generator=self.generator).tolist()
        rows, self.order = torch.tensor(self.order[:count]), self.order[count:]
        backgrounds = torch.randint(len(BACKGROUND_COLORS), (count,), generator=self.generator)
        labels = Labels(self.sprites.concept[rows], self.sprites.style[rows], backgrounds)
        return augment(self.render(labels), self.generator), labels

    def render(self, labels: Labels) -> torch.Tensor:
        """Return (B, 3, INPUT_SIZE, INPUT_SIZE) in [-1, 1]: the labels' sprites at random places, in their own colours.

        Tints are removed: with them a red heart could become a blue heart with a wrong label.
        """
        names = list(BACKGROUND_COLORS)
        scenes = []
        for concept, style, background in zip(
            labels.concept.tolist(), labels.style.tolist(), labels.background.tolist(), strict=True
        ):
            scene = self.scenes.make_single(concept, style, names[background])
            scenes.append(replace(scene, objects=tuple(replace(item, tint=None) for item in scene.objects)))
        return self.renderer.render(scenes, INPUT_SIZE)


def augment(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Distort (B, 3, S, S) in [-1, 1] as generated pictures may differ from the artwork.

    Rotates, stretches and warps; blurs some of the rows; changes brightness, contrast and colour; adds noise.
    """
    count, _, size, _ = pictures.shape

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * (high - low) + low).to(pictures)

    angle, shear = uniform(-0.12, 0.12, count), uniform(-0.08, 0.08, count)
    scale_x, scale_y = uniform(0.92, 1.08, count), uniform(0.92, 1.08, count)
    zeros = torch.zeros_like(angle)
    theta = torch.stack([scale_x, angle + shear, zeros, -angle, scale_y, zeros], dim=1).view(count, 2, 3)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    warp = uniform(-0.07, 0.07, count, 2, 5, 5)  # in halves of the picture's side
    warp = F.interpolate(warp, size=(size, size), mode="bicubic", align_corners=False)
    pictures = F.grid_sample(pictures, grid + warp.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)

    blurred = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear", align_corners=False)
    share = uniform(0, 1, count, 1, 1, 1)
    share = torch.where(share < 0.5, torch.zeros_like(share), 2 * share - 1)  # half of the rows stay sharp
    pictures = torch.lerp(pictures, blurred, share)

    pictures = pictures * uniform(0.88, 1.1, count, 1, 1, 1) + uniform(-0.06, 0.06, count, 3, 1, 1)
    noise = torch.randn(pictures.shape, generator=generator).to(pictures)
    pictures = pictures + noise * uniform(0, 0.08, count, 1, 1, 1)
    return pictures.clamp_(-1, 1)


def train_classifier(
    sprites: Sprites, config: ClassifierConfig, device: torch.device | str = "cpu", *, log: bool = False
) -> Classifier:
    """Train a classifier of `sprites`. The number of updates depends on the config alone, not on the machine."""
    torch.manual_seed(config.seed)
    device = torch.device(device)
    classifier = channels_last(Classifier(len(sprites.concepts), config.width), device).train()
    pictures = LabelledPictures(sprites, config.seed, device)

    def loss() -> torch.Tensor:
        batch, labels = pictures.draw(config.batch)
        with autocast(device):
            predictions = classifier(batch.contiguous(memory_format=torch.channels_last))
        concept = F.cross_entropy(predictions.concept, labels.concept.to(device), label_smoothing=config.smoothing)
        style = F.cross_entropy(predictions.style, labels.style.to(device))
        background = F.cross_entropy(predictions.background, labels.background.to(device))
        return concept + 0.5 * style + 0.3 * background

    updates = math.ceil(len(sprites) * config.views / config.batch)
    return train_network(classifier, loss, updates, config.learning_rate, name="classifier" if log else "")


def classifier_digest(sprites: Sprites, config: ClassifierConfig) -> str:
    """Return 16 hexadecimal digits that change with the sprites or with the config."""
    digest = hashlib.sha256(json.dumps([asdict(config), sprites.concepts]).encode())
    for part in (sprites.rgba, sprites.concept, sprites.style):
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def cached_classifier(
    sprites: Sprites, folder: Path, config: ClassifierConfig, device: torch.device | str = "cpu"
) -> tuple[Classifier, str]:
    """Return the classifier of `sprites` and its digest. It is trained once and kept in `folder`."""
    digest = classifier_digest(sprites, config)
    classifier = load_or_train(
        folder / f"classifier-{digest}.safetensors",
        Classifier(len(sprites.concepts), config.width),
        lambda: train_classifier(sprites, config, device, log=True),
    )
    return channels_last(classifier, device).eval(), digest


@torch.no_grad()
def classify(classifier: Classifier, pictures: torch.Tensor, batch_size: int = 128) -> Predictions:
    """Return predictions for (B, 3, S, S) in [-1, 1], of any size; in float32, on the CPU."""
    device = next(classifier.parameters()).device
    parts = []
    for batch in pictures.split(batch_size):
        batch = resize_input(batch).to(device).contiguous(memory_format=torch.channels_last)
        parts.append(classifier(batch))
    names = ("concept", "style", "background", "features")
    return Predictions(*(torch.cat([getattr(part, name) for part in parts]).cpu() for name in names))
