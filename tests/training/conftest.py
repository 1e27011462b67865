"""Twelve made-up concepts, shapes of twelve colours, drawn in four styles: what stands in for the icon packages."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from studio.training.data.sprites import SIZE, STYLES, Sprites
from studio.training.evaluation.classifier import Classifier, Recipe, train_classifier
from studio.training.evaluation.detector import Detector, DetectorRecipe, train_detector

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
    """(4, SIZE, SIZE) uint8, premultiplied."""
    picture = Image.new("RGBA", (SIZE, SIZE))
    pen = ImageDraw.Draw(picture)
    look = {"fill": colour, "outline": "black", "width": 14} if style == "twemoji" else {"fill": colour}
    low, high = 8, SIZE - 8
    match shape:
        case "disc":
            pen.ellipse((low, low, high, high), **look)
        case "square":
            pen.rectangle((low, low, high, high), **look)
        case "triangle":
            pen.polygon([(SIZE // 2, low), (high, high), (low, high)], **look)
        case "cross":
            arms = [(44, 8), (84, 8), (84, 44), (120, 44), (120, 84), (84, 84), (84, 120), (44, 120), (44, 84)]
            pen.polygon([*arms, (8, 84), (8, 44), (44, 44)], **look)
    if style == "glossy":
        pen.ellipse((42, 42, 86, 86), fill="white")
    if style == "flat":
        pen.rectangle((0, 56, SIZE, 72), fill=(0, 0, 0, 0))
    rgba = np.asarray(picture, dtype=np.float32)
    rgba = np.concatenate([rgba[..., :3] * rgba[..., 3:] / 255, rgba[..., 3:]], axis=2)
    return torch.from_numpy(rgba.round().astype(np.uint8)).permute(2, 0, 1)


@pytest.fixture(scope="session")
def sprites() -> Sprites:
    concepts = [f"{colour} {SHAPES[number % 4]}" for number, colour in enumerate(COLOURS)]
    drawn = [
        (draw_sprite(concept.split()[1], COLOURS[concept.split()[0]], style), c, s, (concept, style) in HELD_OUT)
        for s, style in enumerate(STYLES)
        for c, concept in enumerate(concepts)
    ]
    rgba, concept, style, held = zip(*drawn, strict=True)
    return Sprites(
        torch.stack(rgba),
        torch.tensor(concept),
        torch.tensor(style),
        torch.tensor(held),
        tuple(concepts),
        tuple("Shapes" for _ in concepts),
        tuple(("round thing",) if concept == "teal disc" else () for concept in concepts),
    )


@pytest.fixture(scope="session")
def trained(sprites) -> Classifier:
    """A judge of the made-up concepts."""
    return train_classifier(sprites, Recipe(width=16, views=66, batch=16, learning_rate=4e-3))


@pytest.fixture(scope="session")
def detector(sprites, trained) -> Detector:
    """The judge of several things."""
    return train_detector(sprites, trained, DetectorRecipe(updates=260, batch=16, learning_rate=4e-3))
