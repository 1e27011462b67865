"""Sprites of twelve invented concepts, coloured shapes in four styles, and networks trained on them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image, ImageDraw

from studio.training.data.scenes import Scene, SceneMaker
from studio.training.data.sprites import SPRITE_SIZE, STYLES, Sprites
from studio.training.evaluation.classifier import Classifier, ClassifierConfig, cached_classifier, classifier_digest
from studio.training.evaluation.detector import Detector, DetectorConfig, cached_detector

COLOURS = {
    "teal": (0, 140, 140),
    "brown": (120, 60, 20),
    "lime": (180, 255, 0),
    "navy": (20, 20, 110),
    "coral": (255, 110, 80),
    "olive": (110, 110, 0),
    "maroon": (110, 0, 20),
    "cyan": (0, 230, 255),
    "cream": (255, 245, 190),
    "magenta": (230, 0, 200),
    "lavender": (190, 170, 255),
    "charcoal": (50, 50, 60),
}
SHAPES = ("disc", "square", "triangle", "cross")
HELD_OUT = {("brown square", "flat"), ("coral disc", "noto")}


def draw_sprite(shape: str, colour: tuple[int, int, int], style: str) -> torch.Tensor:
    """(4, SPRITE_SIZE, SPRITE_SIZE) uint8, premultiplied."""
    picture = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    pen = ImageDraw.Draw(picture)
    look = {"fill": colour, "outline": "black", "width": 14} if style == "twemoji" else {"fill": colour}
    low, high = 8, SPRITE_SIZE - 8
    match shape:
        case "disc":
            pen.ellipse((low, low, high, high), **look)
        case "square":
            pen.rectangle((low, low, high, high), **look)
        case "triangle":
            pen.polygon([(SPRITE_SIZE // 2, low), (high, high), (low, high)], **look)
        case "cross":
            arms = [(44, 8), (84, 8), (84, 44), (120, 44), (120, 84), (84, 84), (84, 120), (44, 120), (44, 84)]
            pen.polygon([*arms, (8, 84), (8, 44), (44, 44)], **look)
    if style == "glossy":
        pen.ellipse((42, 42, 86, 86), fill="white")
    if style == "flat":
        pen.rectangle((0, 56, SPRITE_SIZE, 72), fill=(0, 0, 0, 0))
    rgba = np.asarray(picture, dtype=np.float32)
    rgba = np.concatenate([rgba[..., :3] * rgba[..., 3:] / 255, rgba[..., 3:]], axis=2)
    return torch.from_numpy(rgba.round().astype(np.uint8)).permute(2, 0, 1)


@pytest.fixture(scope="session")
def sprites() -> Sprites:
    concepts = tuple(f"{colour} {SHAPES[number % 4]}" for number, colour in enumerate(COLOURS))
    rgba, concept_indices, style_indices, held_out = [], [], [], []
    for style_index, style in enumerate(STYLES):
        for concept_index, concept in enumerate(concepts):
            colour, shape = concept.split()
            rgba.append(draw_sprite(shape, COLOURS[colour], style))
            concept_indices.append(concept_index)
            style_indices.append(style_index)
            held_out.append((concept, style) in HELD_OUT)
    return Sprites(
        rgba=torch.stack(rgba),
        concept=torch.tensor(concept_indices),
        style=torch.tensor(style_indices),
        held_out=torch.tensor(held_out),
        concepts=concepts,
        categories=("Shapes",) * len(concepts),
        synonyms=tuple(("round thing",) if concept == "teal disc" else () for concept in concepts),
    )


@pytest.fixture(scope="session")
def scenes(sprites) -> list[Scene]:
    maker = SceneMaker(sprites, seed=3)
    return [maker.draw() for _ in range(1500)]


CLASSIFIER = ClassifierConfig(width=8, views=66, batch=16, learning_rate=1e-2)
DETECTOR = DetectorConfig(updates=260, batch=16, learning_rate=1e-2)


@pytest.fixture(scope="session")
def network_folder(tmp_path_factory) -> Path:
    """Folder of trained networks, one for all workers of pytest-xdist."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def classifier(sprites, network_folder) -> Classifier:
    """A small classifier of the invented concepts."""
    with FileLock(network_folder / "classifier.lock"):
        return cached_classifier(sprites, network_folder, CLASSIFIER)[0]


@pytest.fixture(scope="session")
def detector(sprites, classifier, network_folder) -> Detector:
    """A small detector of several objects."""
    digest = classifier_digest(sprites, CLASSIFIER)
    with FileLock(network_folder / "detector.lock"):
        return cached_detector(sprites, network_folder, classifier, digest, DETECTOR)
