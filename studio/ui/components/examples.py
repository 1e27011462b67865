"""The shipped pictures as cards, and the drawings that stand in for them and for pictures not yet painted."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from studio.library.metadata import read_png_settings
from studio.ui.components.image_card import ImageCard, data_uri

_COLOURS = ((214, 74, 66), (58, 120, 214), (70, 160, 96), (240, 178, 50), (150, 92, 196), (236, 124, 160))


def example_cards(folder: Path, placeholder_settings: Sequence[Mapping[str, Any]]) -> list[ImageCard]:
    """Return the shipped pictures with the settings in their files.

    placeholder_settings: where no picture is shipped, there is a placeholder for each of these.
    """
    cards: list[ImageCard] = []
    for path in sorted(folder.glob("*.png")):
        try:
            settings = read_png_settings(path)
        except (OSError, ValueError):
            continue
        if settings and settings.get("prompt"):
            settings.setdefault("caption", settings["prompt"])
            cards.append(ImageCard(str(path.resolve()), settings, f"example:{len(cards)}"))
    return cards or [
        ImageCard(placeholder_uri(index), settings, f"example:{index}")
        for index, settings in enumerate(placeholder_settings)
    ]


def example_pair(folder: Path) -> ImageCard:
    """Return the shipped result.png of a task beside its picture.png, or a placeholder where one is missing.

    folder: named after the task.
    """
    original, result = ((folder / f"{name}.png").resolve() for name in ("picture", "result"))
    try:
        settings = read_png_settings(result)
    except (OSError, ValueError):
        settings = None
    if not settings or not original.exists():
        return ImageCard(placeholder_uri(3), {"caption": "", "task": folder.name}, "example:0")
    settings.setdefault("caption", settings.get("prompt", ""))
    return ImageCard(str(result), settings, "example:0", str(original))


@cache
def noise_uri(size: int = 64) -> str:
    """Return a square of gray-centred noise, the start of every picture."""
    return data_uri(Image.frombytes("RGB", (size, size), _noise_bytes(random.Random(7), size)))


@cache
def placeholder_uri(seed: int, size: int = 32) -> str:
    """Return a drawing for a missing example: a disc that is noise on the left and clean on the right."""
    generator = random.Random(seed)
    disc, tint = _COLOURS[seed % 6], _COLOURS[(seed * 2 + 1) % 6]
    background = tuple(round(0.35 * channel + 0.65 * 245) for channel in tint)
    noise = _noise_bytes(generator, size)
    values = bytearray()
    for y in range(size):
        for x in range(size):
            is_disc = (x - size / 2 + 0.5) ** 2 + (y - size / 2 + 0.5) ** 2 < (size * 0.34) ** 2
            clean = min(1.0, max(0.0, (x + generator.uniform(-3, 3)) / (0.8 * size)))  # 0: noise, 1: drawing
            for channel in range(3):
                value = (disc if is_disc else background)[channel]
                values.append(round(clean * value + (1 - clean) * noise[3 * (y * size + x) + channel]))
    return data_uri(Image.frombytes("RGB", (size, size), bytes(values)))


def _noise_bytes(generator: random.Random, size: int) -> bytes:
    return bytes(min(255, max(0, round(generator.gauss(128, 52)))) for _ in range(3 * size * size))
