"""The second judge: where the things in a picture are, what each is, and in which colour.

A centre detector (CenterNet, arXiv 1904.07850) that begins with the first judge's body: a heat map whose peaks are
things, and a concept and a tint at each peak. Trained on real sprites, held-out pairs too, composed as training
composes them. It is never told a relation or a count: these are read off the places, so that habit cannot answer.
Knows sprites and scenes; knows nothing of the networks that it judges.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from studio.training.classifier import SIZE, Classifier, augment, autocast, fit, kept, residual_body
from studio.training.scenes import TINTS, Painter, Scene, SceneMaker
from studio.training.sprites import STYLES, Sprites

CELLS = SIZE // 8  # on a side of the heat map
SPREAD = 0.6  # cells: how far heat reaches from a centre
WARM = 0.4  # heat from which on a cell is to name its thing
FOUND = 0.3  # heat of a peak that counts as a thing: a centre on a corner of four cells warms each to 0.5
OWN = len(TINTS)  # the tint of a thing in its own colours


@dataclass(frozen=True)
class DetectorRecipe:
    """How it is made; part of the name under which it is cached."""

    updates: int = 1000
    minutes: float = 5.0  # at most: fewer updates on a slow machine
    batch: int = 64
    learning_rate: float = 1.5e-3
    seed: int = 0
    version: int = 1  # raised when the network or what it is shown changes


@dataclass(frozen=True)
class Found:
    """A thing that was found: its concept's index, the index of its tint (OWN for none), its centre as shares of the
    picture's sides, and the heat there, in [0, 1]."""

    concept: int
    tint: int
    x: float
    y: float
    heat: float


class Detector(nn.Module):
    """(B, 3, SIZE, SIZE) in [-1, 1] -> logits of heat (B, 1, CELLS, CELLS), concept and tint (B, ., CELLS, CELLS)."""

    def __init__(self, concepts: int, width: int) -> None:
        super().__init__()
        self.body = residual_body(width)
        self.heat = nn.Conv2d(4 * width, 1, 1)
        self.concept = nn.Conv2d(4 * width, concepts, 1)
        self.tint = nn.Conv2d(4 * width, len(TINTS) + 1, 1)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = self.body(picture)
        return self.heat(seen).float(), self.concept(seen).float(), self.tint(seen).float()


class ComposedPictures:
    """Pictures of one thing, of two, and of two or three of a kind, a third each, many of them in a colour."""

    def __init__(self, sprites: Sprites, seed: int, device: torch.device | str = "cpu") -> None:
        self.sprites = replace(sprites, held_out=torch.zeros_like(sprites.held_out))  # the judge knows all pairs
        self.maker = SceneMaker(self.sprites, seed)
        self.painter = Painter(self.sprites, device)
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, count: int) -> tuple[torch.Tensor, list[Scene]]:
        scenes = [self.draw() for _ in range(count)]
        return augment(self.painter(scenes, SIZE), self.generator), scenes

    def draw(self) -> Scene:
        style = self.rng.randrange(len(STYLES))
        kind = self.rng.randrange(3)
        if kind == 0:
            scene = self.maker.single(self.rng.choice(self.maker.by_style[style]), style)
        else:
            scene = self.maker.pair(style) if kind == 1 else self.maker.several(style)
        colours = [colour for colour in TINTS if colour not in (scene.ground, scene.ground2)]  # else it cannot be seen
        tints = [self.rng.choice(colours) if self.rng.random() < 0.4 else None for _ in scene.things]
        if kind == 2:  # things of a kind are alike
            tints = tints[:1] * len(tints)
        things = (replace(thing, tint=tint) for thing, tint in zip(scene.things, tints, strict=True))
        return replace(scene, things=tuple(things))


def targets(scenes: Sequence[Scene], sprites: Sprites) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Heat (B, 1, CELLS, CELLS) in [0, 1]; concept and tint (B, CELLS, CELLS), -100 where no thing is near."""
    middles = (torch.arange(CELLS) + 0.5) / CELLS
    heat = torch.zeros(len(scenes), CELLS, CELLS)
    concept = torch.full((len(scenes), CELLS, CELLS), -100)
    tint = concept.clone()
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            square = (middles[None] - thing.x) ** 2 + (middles[:, None] - thing.y) ** 2  # (CELLS, CELLS), y first
            warmth = torch.exp(-square * CELLS**2 / (2 * SPREAD**2))
            nearest = warmth > heat[i]
            heat[i] = torch.where(nearest, warmth, heat[i])
            here = nearest & (warmth > WARM)
            concept[i][here] = int(sprites.concept[thing.sprite])
            tint[i][here] = TINTS.index(thing.tint) if thing.tint else OWN
    return heat[:, None], concept, tint


def train_detector(
    sprites: Sprites, classifier: Classifier, recipe: DetectorRecipe, device: torch.device | str = "cpu"
) -> Detector:
    """A detector of `sprites` whose body begins as the classifier's."""
    torch.manual_seed(recipe.seed)
    device = torch.device(device)
    model = empty_detector(classifier)
    model.body.load_state_dict(classifier.body.state_dict())
    model = model.to(device, memory_format=torch.channels_last).train()
    pictures = ComposedPictures(sprites, recipe.seed, device)

    def loss() -> torch.Tensor:
        picture, scenes = pictures(recipe.batch)
        heat, concept, tint = (target.to(device) for target in targets(scenes, sprites))
        with autocast(device):
            warmth, concepts, tints = model(picture.contiguous(memory_format=torch.channels_last))
        # heat is rare: a sum over cells, that it may weigh as much as what is said of the few that are warm
        loss = 0.3 * F.binary_cross_entropy_with_logits(warmth, heat, reduction="sum") / len(scenes)
        return loss + F.cross_entropy(concepts, concept) + 0.5 * F.cross_entropy(tints, tint)

    return fit(model, loss, recipe.updates, recipe.minutes, recipe.learning_rate, "detector")


def empty_detector(classifier: Classifier) -> Detector:
    return Detector(classifier.concept.out_features, classifier.concept.in_features // 8)


def cached_detector(
    sprites: Sprites,
    folder: Path,
    classifier: Classifier,
    judge_digest: str,
    recipe: DetectorRecipe,
    device: torch.device | str = "cpu",
) -> Detector:
    """The detector that begins with the judge of this digest: from `folder`, or trained now and left there."""
    name = hashlib.sha256(json.dumps([asdict(recipe), judge_digest]).encode()).hexdigest()[:16]
    path = folder / f"detector-{name}.safetensors"
    model = kept(path, empty_detector(classifier), lambda: train_detector(sprites, classifier, recipe, device))
    return model.to(device, memory_format=torch.channels_last).eval()


@torch.no_grad()
def find(model: Detector, pictures: torch.Tensor, rows: int = 128) -> list[list[Found]]:
    """The things in each of (B, 3, S, S) in [-1, 1], of any size, the surest first."""
    device = next(model.parameters()).device
    found: list[list[Found]] = []
    for part in pictures.split(rows):
        if part.shape[-1] != SIZE:
            part = F.interpolate(part, size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(-1, 1)
        logits, concept, tint = model(part.to(device).contiguous(memory_format=torch.channels_last))
        heat = logits.sigmoid()
        peak = (heat == F.max_pool2d(heat, 3, stride=1, padding=1)) & (heat > FOUND)
        here: list[list[Found]] = [[] for _ in part]
        for i, _, y, x in peak.nonzero().tolist():
            what, colour, warmth = concept[i, :, y, x].argmax(), tint[i, :, y, x].argmax(), heat[i, 0, y, x]
            place = ((x + 0.5) / CELLS, (y + 0.5) / CELLS)
            here[i].append(Found(what.item(), colour.item(), *place, warmth.item()))
        found += [sorted(things, key=lambda thing: -thing.heat) for things in here]
    return found
