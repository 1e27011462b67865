"""The second judge: where the things in a picture are, what each is, and in which colour.

It begins as the first judge and looks twice: at the whole picture, for a heat map whose peaks are the things' centres
(CenterNet, arXiv 1904.07850), then at a window around each of them, as large as the next thing allows, for its name and
its colour. Trained on real sprites, held-out pairs too, composed as training composes them. It is never told a relation
or a count: these are read off the places, so that habit cannot answer.
Knows sprites and scenes; knows nothing of the networks that it judges.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from studio.training.data.scenes import TINTS, Painter, Scene, SceneMaker
from studio.training.data.sprites import STYLES, Sprites
from studio.training.evaluation.classifier import SIZE, Classifier, augment, autocast, fit, kept, residual_body

CELLS = SIZE // 8  # on a side of the heat map
SPREAD = 0.6  # cells: how far heat reaches from a centre
FOUND = 0.3  # heat of a peak that counts as a thing: a centre on a corner of four cells warms each to 0.5
OWN = len(TINTS)  # the tint of a thing in its own colours


@dataclass(frozen=True)
class DetectorRecipe:
    """How it is made; part of the name under which it is cached."""

    updates: int = 2800
    batch: int = 32  # pictures, and a window of each
    learning_rate: float = 1e-3
    seed: int = 0
    version: int = 2  # raised when the network or what it is shown changes


@dataclass(frozen=True)
class Found:
    """A thing that was found: its concept's index, the index of the tint nearest to its colour, its centre as shares of
    the picture's sides, the heat there, in [0, 1], and the five concepts that are most likely."""

    concept: int
    tint: int
    x: float
    y: float
    heat: float
    likely: tuple[int, ...] = ()


class Detector(nn.Module):
    """(B, 3, SIZE, SIZE) in [-1, 1] -> logits of heat (B, 1, CELLS, CELLS), of concept and of tint (B, .)."""

    def __init__(self, concepts: int, width: int) -> None:
        super().__init__()
        self.body = residual_body(width)
        self.heat = nn.Conv2d(4 * width, 1, 1)
        self.concept = nn.Linear(8 * width, concepts)
        self.tint = nn.Linear(8 * width, len(TINTS) + 1)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = self.body(picture).float()
        features = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1)
        return self.heat(seen).float(), self.concept(features).float(), self.tint(features).float()


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
        colours = [
            colour for colour in TINTS if colour not in (scene.background, scene.ground2)
        ]  # else it cannot be seen
        tints = [self.rng.choice(colours) if self.rng.random() < 0.4 else None for _ in scene.things]
        if kind == 2:  # things of a kind are alike
            tints = tints[:1] * len(tints)
        things = (replace(thing, tint=tint) for thing, tint in zip(scene.things, tints, strict=True))
        return replace(scene, things=tuple(things))


def warmth(scenes: Sequence[Scene]) -> torch.Tensor:
    """(B, 1, CELLS, CELLS) in [0, 1]: 1 at the centre of a thing, falling as a bell around it."""
    middles = (torch.arange(CELLS) + 0.5) / CELLS
    heat = torch.zeros(len(scenes), 1, CELLS, CELLS)
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            square = (middles[None] - thing.x) ** 2 + (middles[:, None] - thing.y) ** 2  # (CELLS, CELLS), y first
            heat[i, 0] = torch.maximum(heat[i, 0], torch.exp(-square * CELLS**2 / (2 * SPREAD**2)))
    return heat


def window(places: Sequence[tuple[float, float]], number: int) -> tuple[float, float, float]:
    """Centre and side of what to look at for one of the things at these places: as far as the next one's centre, and
    the whole picture where there is no other."""
    x, y = places[number]
    away = [math.hypot(x - other, y - up) for i, (other, up) in enumerate(places) if i != number]
    return (x, y, min(away)) if away else (0.5, 0.5, 1.0)


def cut(pictures: torch.Tensor, windows: Sequence[tuple[float, float, float]]) -> torch.Tensor:
    """(B, 3, S, S), each enlarged to what its window shows; beyond the picture its border goes on."""
    x, y, side = torch.tensor(windows).T
    theta = torch.zeros(len(pictures), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, 0, 2], theta[:, 1, 2] = 2 * x - 1, 2 * y - 1
    grid = F.affine_grid(theta.to(pictures), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def train_detector(
    sprites: Sprites, classifier: Classifier, recipe: DetectorRecipe, device: torch.device | str = "cpu"
) -> Detector:
    """A detector of `sprites` that begins as the classifier."""
    torch.manual_seed(recipe.seed)
    device = torch.device(device)
    model = empty_detector(classifier)
    model.body.load_state_dict(classifier.body.state_dict())
    model.concept.load_state_dict(classifier.concept.state_dict())
    model = model.to(device, memory_format=torch.channels_last).train()
    pictures, rng = ComposedPictures(sprites, recipe.seed, device), random.Random(recipe.seed)

    def loss() -> torch.Tensor:
        whole, scenes = pictures(recipe.batch)
        chosen = [rng.randrange(len(scene.things)) for scene in scenes]
        windows = [window([(t.x, t.y) for t in scene.things], i) for scene, i in zip(scenes, chosen, strict=True)]
        windows = [(rng.gauss(x, 0.02), rng.gauss(y, 0.02), side * rng.uniform(0.9, 1.1)) for x, y, side in windows]
        things = [scene.things[i] for scene, i in zip(scenes, chosen, strict=True)]
        concept = sprites.concept[[thing.sprite for thing in things]].to(device)
        tint = torch.tensor([TINTS.index(thing.tint) if thing.tint else OWN for thing in things], device=device)
        both = torch.cat([whole, cut(whole, windows)])
        with autocast(device):
            heat, concepts, tints = model(both.contiguous(memory_format=torch.channels_last))
        named = slice(recipe.batch, None)
        places = F.binary_cross_entropy_with_logits(heat[: recipe.batch], warmth(scenes).to(device), reduction="sum")
        # heat is rare: a sum over cells, that it may weigh as much as the names
        loss = 0.2 * places / recipe.batch + F.cross_entropy(concepts[named], concept, label_smoothing=0.1)
        return loss + 0.5 * F.cross_entropy(tints[named], tint)

    return fit(model, loss, recipe.updates, recipe.learning_rate, "detector")


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
def find(model: Detector, pictures: torch.Tensor, rows: int = 128, alone: bool = False) -> list[list[Found]]:
    """The things in each of (B, 3, S, S) in [-1, 1], of any size, the surest first; `alone`: the whole is one thing."""
    device = next(model.parameters()).device
    found: list[list[Found]] = []
    for part in pictures.split(rows):
        if part.shape[-1] != SIZE:
            part = F.interpolate(part, size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(-1, 1)
        part = part.to(device)
        seen = [peaks(heat) for heat in model(part.contiguous(memory_format=torch.channels_last))[0].sigmoid().cpu()]
        seen = [[(0.5, 0.5, 1.0)]] * len(part) if alone else seen
        of = [i for i, places in enumerate(seen) for _ in places]
        windows = [window([place[:2] for place in places], k) for places in seen for k in range(len(places))]
        names = []
        for begin in range(0, len(of), rows):
            parts = cut(part[of[begin : begin + rows]], windows[begin : begin + rows])
            _, concept, tint = model(parts.contiguous(memory_format=torch.channels_last))
            likely = concept.topk(min(5, concept.shape[1])).indices.tolist()
            names += zip(likely, tint[:, :OWN].argmax(1).tolist(), strict=True)
        named = iter(names)
        for places in seen:
            things = [(place, *next(named)) for place in places]
            found.append([Found(likely[0], colour, *place, tuple(likely)) for place, likely, colour in things])
    return found


def peaks(heat: torch.Tensor) -> list[tuple[float, float, float]]:
    """(x, y, heat) of the peaks in (1, CELLS, CELLS), the warmest first: each at the mean of its cell and the eight
    around it, weighed by their heat."""
    top = (heat == F.max_pool2d(heat, 3, stride=1, padding=1)) & (heat > FOUND)
    places = []
    for y, x in top[0].nonzero().tolist():
        up, left = max(y - 1, 0), max(x - 1, 0)
        around = heat[0, up : y + 2, left : x + 2]
        total = around.sum()
        across = (around.sum(0) * (torch.arange(around.shape[1]) + left + 0.5)).sum() / total
        down = (around.sum(1) * (torch.arange(around.shape[0]) + up + 0.5)).sum() / total
        places.append((across.item() / CELLS, down.item() / CELLS, heat[0, y, x].item()))
    return sorted(places, key=lambda place: -place[2])
