"""Pairs of a picture and a small version of it: artwork on plain grounds and drawings, shrunk and at times damaged."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch

from studio.diffusion.pipelines.base import image_to_tensor
from studio.training.data.batches import MAX_NOISE_LEVEL, compress_jpeg
from studio.training.data.sprites import Sprites
from studio.training.upscaling.drawings import draw_picture, random_color
from studio.training.upscaling.resampling import blur_weights, crop_weights, resample, shrink_weights, to_levels

FACTOR = 2
DRAWINGS = 0.25  # share of the pictures; the others show artwork
SIDES = (20.0, 144.0)  # px of the artwork in a picture
SHARP = 0.2  # share of artwork that is shrunk by a sharper filter than means
FILTER_WEIGHTS = {"box": 0.35, "bicubic": 0.35, "Lanczos": 0.15, "bilinear": 0.05, "blur": 0.1}
BLUR_SIGMAS = (0.4, 1.2)  # px of the large picture, before means
DAMAGED = 0.2  # share of small pictures with noise, JPEG or both
JPEG_QUALITIES = (40, 95)


@dataclass(frozen=True)
class Pairs:
    """B pictures, and what the upscaler is given of them."""

    picture: torch.Tensor  # (B, 3, S, S) in [-1, 1]
    small: torch.Tensor  # (B, 3, S / 2, S / 2) in [-1, 1], noise may go beyond
    noise_level: torch.Tensor  # (B,): root mean square of the damage, in [0, 1]


class PairMaker:
    """Makes random pairs without end; the same seed gives the same pairs.

    sprites: artwork of 256 px. Held-out artwork is left out.
    """

    def __init__(self, sprites: Sprites, seed: int) -> None:
        self.sprites = sprites
        self.indices = (~sprites.held_out).nonzero()[:, 0].tolist()
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def make(self, count: int, size: int) -> Pairs:
        """Return `count` pairs of pictures of `size` px, an even number."""
        pictures, smalls, levels = [], [], []
        for _ in range(count):
            picture = self.draw(size)
            small, level = self.damage(self.shrink(picture, FACTOR))
            pictures.append(picture)
            smalls.append(small)
            levels.append(level)
        return Pairs(torch.stack(pictures), torch.stack(smalls), torch.tensor(levels))

    def draw(self, size: int) -> torch.Tensor:
        """Return a random picture (3, size, size), turned and mirrored at random, at times with other colors."""
        rng = self.rng
        if rng.random() < DRAWINGS:
            picture = image_to_tensor(draw_picture(size, rng))
        else:
            picture = self.draw_artwork(size)
        if rng.random() < 0.5:
            picture = picture.transpose(1, 2)
        picture = picture.flip([axis for axis in (1, 2) if rng.random() < 0.5])
        if rng.random() < 0.3:
            picture = picture[rng.sample(range(3), 3)]
        return to_levels(picture)

    def draw_artwork(self, size: int) -> torch.Tensor:
        """Return a part (3, size, size) of a picture of one sprite, before rounding."""
        rng = self.rng
        side = math.exp(rng.uniform(*map(math.log, SIDES)))
        # a sprite that is smaller than the picture lies inside; of a larger one the picture is a part
        low, high = sorted((0.0, size - side))
        left, top = rng.uniform(low, high), rng.uniform(low, high)
        name = rng.choice(("bicubic", "Lanczos")) if rng.random() < SHARP else "box"
        sprite = self.sprites.rgba[rng.choice(self.indices)]
        return paste_sprite(sprite, side, left, top, ground(size, rng), name)

    def shrink(self, picture: torch.Tensor, factor: int) -> torch.Tensor:
        """Return (3, S / factor, S / factor), shrunk by a random filter."""
        size = picture.shape[-1]
        name = self.rng.choices(list(FILTER_WEIGHTS), list(FILTER_WEIGHTS.values()))[0]
        if name == "blur":
            weights = shrink_weights("box", size, size // factor) @ blur_weights(size, self.rng.uniform(*BLUR_SIGMAS))
        else:
            weights = shrink_weights(name, size, size // factor)
        return to_levels(resample(picture, weights, weights))

    def damage(self, small: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return the small picture, at times with noise or compressed, and the root mean square of the difference."""
        rng = self.rng
        if rng.random() >= DAMAGED:
            return small, 0.0
        kind, damaged = rng.choice(("noise", "JPEG", "both")), small
        if kind != "JPEG":
            sigma = rng.uniform(0, MAX_NOISE_LEVEL)
            damaged = damaged + sigma * torch.randn(damaged.shape, generator=self.generator)
        if kind != "noise":
            damaged = compress_jpeg(damaged.clamp(-1, 1)[None], rng.randint(*JPEG_QUALITIES))[0]
        return damaged, (damaged - small).square().mean().sqrt().item()


def paste_sprite(
    sprite: torch.Tensor, side: float, left: float, top: float, background: torch.Tensor, name: str = "box"
) -> torch.Tensor:
    """Return (3, S, S): a sprite (4, L, L) uint8, shrunk to `side` px, on a background (3, S, S) in [-1, 1].

    side, left, top: px, any real numbers; name: the filter, one of FILTERS.
    """
    size, scale = background.shape[-1], sprite.shape[-1] / side
    rows, columns = (crop_weights(name, sprite.shape[-1], size, scale=scale, start=-scale * at) for at in (top, left))
    rgba = resample(sprite.float() / 255, rows, columns).clamp(0, 1)
    return 2 * rgba[:3] - 1 + (1 - rgba[3:]) * (background + 1)


def ground(size: int, rng: random.Random) -> torch.Tensor:
    """Return (3, size, size) in [-1, 1]: a plain color or, in one of six cases, a gradient down or across."""
    color = torch.tensor(random_color(rng))[:, None, None].expand(3, size, size) / 127.5 - 1
    if rng.random() < 5 / 6:
        return color
    other = torch.tensor(random_color(rng))[:, None, None] / 127.5 - 1
    return torch.lerp(color, other.expand_as(color), torch.linspace(0, 1, size)[:, None])


def draw_held_out(sprites: Sprites, count: int, size: int) -> torch.Tensor:
    """Return (N, 3, size, size): at most `count` held-out sprites, the same at each call, on plain colors.

    They are shown at half to whole size.
    """
    rng = random.Random(8_000)
    indices = sprites.held_out.nonzero()[:, 0].tolist()
    pictures = []
    for sprite in rng.sample(indices, min(count, len(indices))):
        side = rng.uniform(0.5, 1) * size
        left, top = rng.uniform(0, size - side), rng.uniform(0, size - side)
        background = (torch.tensor(random_color(rng)) / 127.5 - 1)[:, None, None].expand(3, size, size)
        pictures.append(to_levels(paste_sprite(sprites.rgba[sprite], side, left, top, background)))
    return torch.stack(pictures)
