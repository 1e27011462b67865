"""Detector of several objects: where they are, which concept each shows, and in which colour.

It starts from the classifier's weights and looks twice. First it sees the whole picture and predicts a heat map, whose
peaks are the objects' centres (CenterNet, arXiv 1904.07850). Then it sees a window around each centre, as large as the
next object allows, and names concept and tint. It is trained on real sprites, composed as for training, held-out pairs
included. It never sees relations or counts: these follow from the places, so that it cannot guess the usual ones.
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

from studio.training.data.renderer import SceneRenderer
from studio.training.data.scenes import TINTS, Scene, SceneMaker
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
from studio.training.evaluation.classifier import Classifier, augment

CELLS = INPUT_SIZE // 8  # on a side of the heat map
HEAT_SIGMA = 0.6  # cells: width of the bell around a centre
PEAK_THRESHOLD = 0.3  # heat: a centre on a corner of four cells heats each to 0.5
HEAT_WEIGHT = 0.2  # of the heat map's loss
UNTINTED = len(TINTS)  # tint index of an object in its own colours
TINTED_SHARE = 0.4  # of the objects in training pictures

Window = tuple[float, float, float]  # x and y of the centre, side: shares of the picture's side


@dataclass(frozen=True)
class DetectorConfig:
    """Training of the detector. Names and values of the fields are part of the digest in the cache."""

    updates: int = 2800
    batch: int = 32  # pictures, and a window of each
    learning_rate: float = 1e-3
    seed: int = 0
    version: int = 2  # raise it when the network or its training pictures change


@dataclass(frozen=True)
class Detection:
    """An object in a picture."""

    concept: int  # index, the most likely
    tint: int  # index of the nearest tint
    x: float  # of the centre: shares of the picture's sides
    y: float
    heat: float  # confidence, in [0, 1]
    top_concepts: tuple[int, ...] = ()  # the five most likely


class Detector(nn.Module):
    """(B, 3, INPUT_SIZE, INPUT_SIZE) in [-1, 1] -> logits: heat (B, 1, CELLS, CELLS), concept and tint (B, ...)."""

    def __init__(self, concepts: int, width: int) -> None:
        super().__init__()
        self.body = residual_body(width)
        self.heat = nn.Conv2d(4 * width, 1, 1)
        self.concept = nn.Linear(8 * width, concepts)
        self.tint = nn.Linear(8 * width, len(TINTS) + 1)

    @classmethod
    def like(cls, classifier: Classifier) -> Detector:
        """Return an untrained detector of the classifier's concepts and width."""
        return cls(classifier.concept.out_features, classifier.concept.in_features // 8)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps = self.body(pictures).float()
        features = pooled_features(maps)
        return self.heat(maps).float(), self.concept(features).float(), self.tint(features).float()


class ComposedPictures:
    """Random pictures of one object, of two, and of two or three of a kind, a third each."""

    def __init__(self, sprites: Sprites, seed: int, device: torch.device | str = "cpu") -> None:
        self.sprites = replace(sprites, held_out=torch.zeros_like(sprites.held_out))
        self.maker = SceneMaker(self.sprites, seed)
        self.renderer = SceneRenderer(self.sprites, device)
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> tuple[torch.Tensor, list[Scene]]:
        """Return the next `count` pictures, augmented, and their scenes."""
        scenes = [self.draw_scene() for _ in range(count)]
        return augment(self.renderer.render(scenes, INPUT_SIZE), self.generator), scenes

    def draw_scene(self) -> Scene:
        """Draw a scene whose tints all differ from the background. Objects of a kind have one tint."""
        style = self.rng.randrange(len(STYLES))
        kind = self.rng.randrange(3)
        if kind == 0:
            scene = self.maker.make_single(self.rng.choice(self.maker.concepts_by_style[style]), style)
        else:
            scene = self.maker.draw_pair(style) if kind == 1 else self.maker.draw_group(style)
        visible = [tint for tint in TINTS if tint not in (scene.background, scene.second_background)]
        tints = [self.rng.choice(visible) if self.rng.random() < TINTED_SHARE else None for _ in scene.objects]
        if kind == 2:
            tints = tints[:1] * len(tints)
        objects = (replace(item, tint=tint) for item, tint in zip(scene.objects, tints, strict=True))
        return replace(scene, objects=tuple(objects))


def heatmap_targets(scenes: Sequence[Scene]) -> torch.Tensor:
    """Return (B, 1, CELLS, CELLS) in [0, 1]: 1 at the centre of an object, with a bell around it."""
    centers = (torch.arange(CELLS) + 0.5) / CELLS
    heat = torch.zeros(len(scenes), 1, CELLS, CELLS)
    for i, scene in enumerate(scenes):
        for item in scene.objects:
            square = (centers[None] - item.x) ** 2 + (centers[:, None] - item.y) ** 2  # (CELLS, CELLS), y first
            heat[i, 0] = torch.maximum(heat[i, 0], torch.exp(-square * CELLS**2 / (2 * HEAT_SIGMA**2)))
    return heat


def window_around(centers: Sequence[tuple[float, float]], number: int) -> Window:
    """Return the window of one of the objects at these centres: it reaches to the next centre.

    A single object has the whole picture.
    """
    x, y = centers[number]
    distances = [math.hypot(x - other_x, y - other_y) for i, (other_x, other_y) in enumerate(centers) if i != number]
    return (x, y, min(distances)) if distances else (0.5, 0.5, 1.0)


def crop_windows(pictures: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
    """Return (B, 3, S, S): each picture's window, enlarged. Borders are repeated beyond the picture."""
    x, y, side = torch.tensor(windows).T
    theta = torch.zeros(len(pictures), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, 0, 2], theta[:, 1, 2] = 2 * x - 1, 2 * y - 1
    grid = F.affine_grid(theta.to(pictures), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def train_detector(
    sprites: Sprites, classifier: Classifier, config: DetectorConfig, device: torch.device | str = "cpu"
) -> Detector:
    """Train a detector of `sprites` that starts from the classifier's weights."""
    torch.manual_seed(config.seed)
    device = torch.device(device)
    detector = Detector.like(classifier)
    detector.body.load_state_dict(classifier.body.state_dict())
    detector.concept.load_state_dict(classifier.concept.state_dict())
    detector = channels_last(detector, device).train()
    source, rng = ComposedPictures(sprites, config.seed, device), random.Random(config.seed)

    def loss() -> torch.Tensor:
        pictures, scenes = source.draw(config.batch)
        chosen = [rng.randrange(len(scene.objects)) for scene in scenes]
        windows = []
        for scene, i in zip(scenes, chosen, strict=True):
            x, y, side = window_around([(item.x, item.y) for item in scene.objects], i)
            windows.append((rng.gauss(x, 0.02), rng.gauss(y, 0.02), side * rng.uniform(0.9, 1.1)))
        objects = [scene.objects[i] for scene, i in zip(scenes, chosen, strict=True)]
        concept = sprites.concept[[item.sprite for item in objects]].to(device)
        tint = torch.tensor([TINTS.index(item.tint) if item.tint else UNTINTED for item in objects], device=device)
        both = torch.cat([pictures, crop_windows(pictures, windows)])
        with autocast(device):
            heat, concepts, tints = detector(both.contiguous(memory_format=torch.channels_last))
        targets = heatmap_targets(scenes).to(device)
        # most cells are cold: a sum over cells gives the few centres weight
        heat_loss = F.binary_cross_entropy_with_logits(heat[: config.batch], targets, reduction="sum") / config.batch
        concept_loss = F.cross_entropy(concepts[config.batch :], concept, label_smoothing=0.1)
        return HEAT_WEIGHT * heat_loss + concept_loss + 0.5 * F.cross_entropy(tints[config.batch :], tint)

    return train_network(detector, loss, config.updates, config.learning_rate, name="detector")


def cached_detector(
    sprites: Sprites,
    folder: Path,
    classifier: Classifier,
    classifier_digest: str,
    config: DetectorConfig,
    *,
    device: torch.device | str = "cpu",
) -> Detector:
    """Return the detector that starts from this classifier. It is trained once and kept in `folder`."""
    digest = hashlib.sha256(json.dumps([asdict(config), classifier_digest]).encode()).hexdigest()[:16]
    detector = load_or_train(
        folder / f"detector-{digest}.safetensors",
        Detector.like(classifier),
        lambda: train_detector(sprites, classifier, config, device),
    )
    return channels_last(detector, device).eval()


@torch.no_grad()
def detect(
    detector: nn.Module, pictures: torch.Tensor, batch_size: int = 128, *, single: bool = False
) -> list[list[Detection]]:
    """Return the objects in each of (B, 3, S, S) in [-1, 1], of any size, the most confident first.

    single: take the whole picture for one object.
    """
    device = next(detector.parameters()).device
    detections: list[list[Detection]] = []
    for batch in pictures.split(batch_size):
        batch = resize_input(batch).to(device)
        if single:
            peaks = [[(0.5, 0.5, 1.0)]] * len(batch)
        else:
            heat, _, _ = detector(batch.contiguous(memory_format=torch.channels_last))
            peaks = [find_peaks(map_) for map_ in heat.sigmoid().cpu()]
        detections += _name_objects(detector, batch, peaks, batch_size)
    return detections


def _name_objects(
    detector: nn.Module, pictures: torch.Tensor, peaks: Sequence[Sequence[Window]], batch_size: int
) -> list[list[Detection]]:
    """Look at a window around each peak (x, y, heat) of each picture."""
    rows, windows = [], []  # of all peaks
    for row, places in enumerate(peaks):
        centers = [(x, y) for x, y, _ in places]
        for number in range(len(places)):
            rows.append(row)
            windows.append(window_around(centers, number))
    detections: list[list[Detection]] = [[] for _ in peaks]
    places = [place for places in peaks for place in places]
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        crops = crop_windows(pictures[rows[part]], windows[part])
        _, concepts, tints = detector(crops.contiguous(memory_format=torch.channels_last))
        top_concepts = concepts.topk(min(5, concepts.shape[1])).indices.tolist()
        nearest_tints = tints[:, :UNTINTED].argmax(1).tolist()
        for row, place, top, tint in zip(rows[part], places[part], top_concepts, nearest_tints, strict=True):
            detections[row].append(Detection(top[0], tint, *place, tuple(top)))
    return detections


def find_peaks(heat: torch.Tensor) -> list[tuple[float, float, float]]:
    """Return (x, y, heat) of the peaks in (1, CELLS, CELLS), the hottest first.

    A peak's place is the mean of its cell and the eight around it, weighted by their heat.
    """
    is_peak = (heat == F.max_pool2d(heat, 3, stride=1, padding=1)) & (heat > PEAK_THRESHOLD)
    peaks = []
    for y, x in is_peak[0].nonzero().tolist():
        top, left = max(y - 1, 0), max(x - 1, 0)
        around = heat[0, top : y + 2, left : x + 2]
        columns = torch.arange(around.shape[1]) + left + 0.5
        rows = torch.arange(around.shape[0]) + top + 0.5
        center_x = (around.sum(0) * columns).sum() / around.sum()
        center_y = (around.sum(1) * rows).sum() / around.sum()
        peaks.append((center_x.item() / CELLS, center_y.item() / CELLS, heat[0, y, x].item()))
    return sorted(peaks, key=lambda peak: -peak[2])
