"""Scenes: what is in a training picture, the words that say so, and the picture composed on the training device.

A scene is drawn as numbers and words first (`SceneMaker`), then many are painted at once (`Painter`), at any size and
through any window, so that a low-resolution picture and its sharp original are two paintings of one scene.
Knows sprites; knows nothing of networks or of training.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from studio.prompts.nouns import plural, with_article
from studio.training.data.sprites import STYLES, Sprites

GROUNDS = {  # the named colours, sRGB in [0, 1]
    "white": (1.0, 1.0, 1.0),
    "black": (0.06, 0.06, 0.07),
    "red": (0.86, 0.20, 0.20),
    "green": (0.20, 0.66, 0.33),
    "blue": (0.20, 0.40, 0.86),
    "yellow": (0.98, 0.82, 0.20),
    "pink": (0.98, 0.60, 0.75),
    "purple": (0.55, 0.30, 0.80),
    "orange": (0.98, 0.58, 0.15),
    "gray": (0.55, 0.56, 0.58),
}
TINTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
PATTERNS = ("plain", "gradient", "striped", "dotted")
COUNTS = {1: "", 2: "two", 3: "three"}
FAVOUR = 3  # times as often as another is a favoured concept drawn
RELATIONS = ("left of", "right of", "above", "below", "and")


@dataclass(frozen=True)
class Mix:
    """What scenes show: shares of all."""

    one: float = 0.60  # one thing
    pair: float = 0.25  # two things in a relation; the rest are two or three of a kind
    tinted: float = 0.15  # of things, in a colour that is not their own


@dataclass(frozen=True)
class Thing:
    """A sprite in a scene: centre and side as shares of the scene's side, and a colour name if it is tinted."""

    sprite: int
    x: float
    y: float
    side: float
    tint: str | None = None


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    background: str
    ground2: str | None = None  # second colour of a pattern
    pattern: str = "plain"
    phase: float = 0.0  # shifts a pattern, in [0, 1)
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)  # added to the ground's colour
    relation: str | None = None
    caption: str = ""
    labels: dict = field(default_factory=dict, compare=False)  # what an evaluation asks for


def phrase(subject: str, style: str | None, background: str | None, rng: random.Random) -> str:
    """One of the phrasings that the model is to understand. `subject` comes with its article or number."""
    bare = subject.removeprefix("a ").removeprefix("an ")
    if style and background:
        return rng.choice(
            (
                f"{subject}, {style} style, on a {background} background",
                f"{subject}, {style} style, on a {background} background",
                f"{subject} in {style} style on a {background} background",
                f"{subject} on a {background} background, {style} style",
                f"{bare}, {style}, {background} background",
                f"{with_article(f'{style} {bare}')} on a {background} background",
                f"a {style} picture of {subject} on {background}",
            )
        )
    if style:
        return rng.choice(
            (
                f"{subject}, {style} style",
                f"{subject} in {style} style",
                f"{style} {bare}",
                f"{with_article(f'{style} {bare}')}",
                f"a {style} picture of {subject}",
            )
        )
    if background:
        return rng.choice(
            (
                f"{subject} on a {background} background",
                f"{subject} on {background}",
                f"{bare}, {background} background",
                f"a picture of {subject} on a {background} background",
                f"{background} background, {bare}",
            )
        )
    return rng.choice((subject, subject, bare, f"a picture of {subject}", f"an emoji of {subject}"))


def default_prompt(subject: str, style: str | None = None, background: str | None = None) -> str:
    """The page's and the evaluation's phrasing: "a red apple, flat style, on a blue background"."""
    style_words = f", {style} style" if style else ""
    joint = ", on" if style else " on"
    return subject + style_words + (f"{joint} a {background} background" if background else "")


class SceneMaker:
    """Draws scenes and their captions from a seeded source of randomness.

    Held-out (concept, style) pairs are drawn only with `held_out=True`, and then nothing else is.
    """

    def __init__(
        self,
        sprites: Sprites,
        seed: int,
        held_out: bool = False,
        freedom: float = 1.0,
        mix: Mix | None = None,
        favoured: Collection[int] = (),
    ) -> None:
        """freedom: how far the place and size of a thing alone vary, 0 (not at all) to 1.  mix: default: training's.

        favoured: concepts that are drawn `FAVOUR` times as often as another.
        """
        self.sprites, self.freedom, self.mix = sprites, freedom, mix or Mix()
        self.rng = random.Random(seed)
        self.index: dict[tuple[int, int], int] = {}
        for i, (c, s) in enumerate(zip(sprites.concept.tolist(), sprites.style.tolist(), strict=True)):
            if bool(sprites.held_out[i]) == held_out:
                self.index[c, s] = i
        drawn = [key for key in self.index for _ in range(FAVOUR if key[0] in favoured else 1)]
        self.by_style = [[c for c, s in drawn if s == style] for style in range(len(STYLES))]
        self.styles = [style for style, concepts in enumerate(self.by_style) if concepts]

    def draw(self) -> Scene:
        """A scene of the mix."""
        rng, mix = self.rng, self.mix
        kind = rng.random()
        style = rng.choice(self.styles)
        if kind < mix.one:
            return self.alone()
        if kind < mix.one + mix.pair:
            return self.pair(style)
        return self.several(style)

    def alone(self) -> Scene:
        """A scene of one thing."""
        style = self.rng.choice(self.styles)
        return self.single(self.rng.choice(self.by_style[style]), style)

    def single(self, concept: int, style: int, background: str | None = None) -> Scene:
        rng = self.rng
        side = 0.79 + self.freedom * rng.uniform(-0.17, 0.17)
        slack = self.freedom * ((1 - side) / 2 + 0.02)
        thing = Thing(
            self.index[concept, style],
            0.5 + rng.uniform(-slack, slack),
            0.5 + rng.uniform(-slack, slack),
            side,
            self.tint(),
        )
        return self.finish((thing,), with_article(self.called(concept, thing.tint)), style, background)

    def pair(self, style: int) -> Scene:
        rng = self.rng
        first, second = rng.choice(self.by_style[style]), rng.choice(self.by_style[style])
        relation = rng.choice(RELATIONS)
        flat = relation in ("left of", "right of", "and")
        places = self.row(2) if flat else [(y, x, side) for x, y, side in self.row(2)]
        if relation in ("right of", "below"):
            places.reverse()
        tints = [self.tint() for _ in range(2)]
        things = tuple(
            Thing(self.index[c, style], *place, tint)
            for c, place, tint in zip((first, second), places, tints, strict=True)
        )
        names = [with_article(self.called(c, t)) for c, t in zip((first, second), tints, strict=True)]
        to_the = rng.choice(("", "to the ")) if relation.endswith("of") else ""
        return self.finish(things, f"{names[0]} {to_the}{relation} {names[1]}", style, relation=relation)

    def several(self, style: int) -> Scene:
        rng = self.rng
        concept, count = rng.choice(self.by_style[style]), rng.choice((2, 3))
        tint = self.tint()
        places = self.row(count)
        if count == 3 and rng.random() < 0.6:  # a triangle leaves each more room than a row
            side = rng.uniform(0.40, 0.48)
            places = [(0.5, 0.27, side), (0.27, 0.73, side), (0.73, 0.73, side)]
            if rng.random() < 0.5:
                places = [(x, 1 - y, s) for x, y, s in places]
        things = tuple(Thing(self.index[concept, style], *place, tint) for place in places)
        return self.finish(things, f"{COUNTS[count]} {plural(self.called(concept, tint))}", style)

    def tint(self) -> str | None:
        return self.rng.choice(TINTS) if self.rng.random() < self.mix.tinted else None

    def row(self, count: int) -> list[tuple[float, float, float]]:
        """(x, y, side) of `count` places from left to right."""
        side = self.rng.uniform(0.84, 0.98) / count
        drift = self.rng.uniform(-0.12, 0.12)
        return [((i + 0.5) / count, 0.5 + drift + self.rng.uniform(-0.04, 0.04), side) for i in range(count)]

    def called(self, concept: int, tint: str | None) -> str:
        name, synonyms = self.sprites.concepts[concept], self.sprites.synonyms[concept]
        if synonyms and self.rng.random() < 0.05:
            name = self.rng.choice(synonyms)
        return f"{tint} {name}" if tint else name

    def finish(
        self,
        things: tuple[Thing, ...],
        subject: str,
        style: int,
        background: str | None = None,
        relation: str | None = None,
    ) -> Scene:
        """Put a ground under the things and words to the whole."""
        rng = self.rng
        pattern = rng.choices(PATTERNS, (0.82, 0.06, 0.06, 0.06))[0] if background is None else "plain"
        tints = {thing.tint for thing in things}  # a red thing would not be seen on red
        background = background or rng.choice([name for name in GROUNDS if name not in tints])
        ground2 = rng.choice([name for name in GROUNDS if name != background]) if pattern != "plain" else None
        words = {
            "plain": background,
            "gradient": f"{background} to {ground2}",
            "striped": f"striped {background} and {ground2}",
            "dotted": f"{background} dotted {ground2}",
        }[pattern]
        said_style = STYLES[style] if rng.random() < 0.9 else None
        said_ground = words if rng.random() < 0.8 else None
        return Scene(
            things,
            background,
            ground2,
            pattern,
            rng.random(),
            tuple(rng.uniform(-0.035, 0.035) for _ in range(3)),
            relation,
            phrase(subject, said_style, said_ground, rng),
            {"style": style, "concepts": [int(self.sprites.concept[t.sprite]) for t in things]},
        )


@dataclass(frozen=True)
class View:
    """The part of a scene that a picture shows: its left upper corner and its side, as shares of the scene's side."""

    left: float = 0.0
    top: float = 0.0
    side: float = 1.0


class Painter:
    """Paints scenes as (B, 3, size, size) float32 in [-1, 1] on the sprites' device."""

    def __init__(self, sprites: Sprites, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.levels = [sprites.rgba.to(self.device)]  # a mip pyramid: sampling a large sprite small would alias
        while self.levels[-1].shape[-1] > 16:
            halves = [F.avg_pool2d(part.float(), 2).round().byte() for part in self.levels[-1].split(256)]
            self.levels.append(torch.cat(halves))
        self.sides = torch.tensor([level.shape[-1] for level in self.levels])
        self.lightness = lightness(self.levels[-1].float() / 255)
        self.colours = torch.tensor(list(GROUNDS.values()))
        self.names = list(GROUNDS)

    def __call__(self, scenes: list[Scene], size: int, views: list[View] | None = None) -> torch.Tensor:
        views = views or [View()] * len(scenes)
        window = torch.tensor([(v.left, v.top, v.side) for v in views])
        picture = self._grounds(scenes, size, window)
        for layer in range(max(len(scene.things) for scene in scenes)):
            rows = [i for i, scene in enumerate(scenes) if len(scene.things) > layer]
            things = [scenes[i].things[layer] for i in rows]
            rgba = self._things(things, size, window[rows])
            here = torch.tensor(rows, device=self.device)
            picture[here] = rgba[:, :3] + picture[here] * (1 - rgba[:, 3:])
        return picture.mul_(2).sub_(1).clamp_(-1, 1)

    def _things(self, things: list[Thing], size: int, window: torch.Tensor) -> torch.Tensor:
        """(M, 4, size, size) premultiplied, each thing alone on nothing."""
        place = torch.tensor([(t.x, t.y, t.side) for t in things])
        scale = window[:, 2] / place[:, 2]  # picture sides per sprite side
        theta = torch.zeros(len(things), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = scale
        theta[:, :, 2] = 2 * (window[:, :2] + window[:, 2:] / 2 - place[:, :2]) / place[:, 2:]
        pixels = size / scale  # side of the drawn sprite in the picture's pixels
        level = ((self.sides[None] >= 0.75 * pixels[:, None]).sum(1) - 1).clamp(min=0)
        sprite = torch.tensor([t.sprite for t in things])
        out = torch.empty(len(things), 4, size, size, device=self.device)
        for number in level.unique().tolist():
            rows = (level == number).nonzero()[:, 0]
            source = self.levels[number][sprite[rows].to(self.device)].float() / 255
            grid = F.affine_grid(theta[rows].to(self.device), [len(rows), 4, size, size], align_corners=False)
            out[rows.to(self.device)] = F.grid_sample(source, grid, align_corners=False)
        tinted = [i for i, thing in enumerate(things) if thing.tint]
        if tinted:
            colours = torch.tensor([GROUNDS[things[i].tint] for i in tinted], device=self.device)
            rows = torch.tensor(tinted, device=self.device)
            out[rows] = tint(out[rows], colours, self.lightness[sprite[tinted].to(self.device)])
        return out

    def _grounds(self, scenes: list[Scene], size: int, window: torch.Tensor) -> torch.Tensor:
        first = self.colours[[self.names.index(s.background) for s in scenes]]
        second = self.colours[[self.names.index(s.ground2 or s.background) for s in scenes]]
        jitter = torch.tensor([s.jitter for s in scenes])
        pair = (torch.stack([first, second]) + jitter).clamp(0, 1).to(self.device)
        pattern = torch.tensor([PATTERNS.index(s.pattern) for s in scenes], device=self.device)
        phase = torch.tensor([s.phase for s in scenes], device=self.device)[:, None, None]
        steps = (torch.arange(size, device=self.device) + 0.5) / size
        window = window.to(self.device)
        x = (window[:, 0:1] + window[:, 2:] * steps)[:, None, :]  # (B, 1, W)
        y = (window[:, 1:2] + window[:, 2:] * steps)[:, :, None]  # (B, H, 1)
        edge = (size / 8 / window[:, 2])[:, None, None]  # one pixel of blending at a pattern's edges
        gradient = y.expand(-1, -1, size)
        stripes = (((x + y) * 4 + phase * 2) % 2 - 1).abs()  # triangle wave
        cell_x, cell_y = ((x * 5 + phase) % 1 - 0.5), ((y * 5 + phase) % 1 - 0.5)
        dots = 1 - (cell_x**2 + cell_y**2).sqrt() / 0.5
        hard = torch.where(pattern[:, None, None] == 2, stripes - 0.5, dots - 0.45) * edge + 0.5
        kind = pattern[:, None, None].expand(-1, size, size)
        mix = torch.where(kind == 0, torch.zeros_like(gradient), torch.where(kind == 1, gradient, hard.clamp(0, 1)))
        return torch.lerp(pair[0][:, :, None, None], pair[1][:, :, None, None], mix[:, None])


def luminance(rgba: torch.Tensor) -> torch.Tensor:
    """(M, 4, H, W) -> (M, 1, H, W), premultiplied where that is."""
    weights = torch.tensor([0.2126, 0.7152, 0.0722], device=rgba.device)[:, None, None]
    return (rgba[:, :3] * weights).sum(1, keepdim=True)


def lightness(rgba: torch.Tensor) -> torch.Tensor:
    """(M,) mean luminance, in [0, 1], of what premultiplied (M, 4, H, W) covers."""
    return luminance(rgba).sum((1, 2, 3)) / rgba[:, 3].sum((1, 2)).clamp(min=1e-3)


def tint(rgba: torch.Tensor, colour: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Repaint premultiplied (M, 4, H, W) in shades of `colour` (M, 3): dark stays dark, light stays light.

    Luminance runs from black through the colour, at the whole sprite's own mean (M,), to white.
    """
    alpha = rgba[:, 3:]
    light = luminance(rgba) / alpha.clamp(min=1e-3)
    mean = mean.clamp(0.3, 0.8)[:, None, None, None]
    below = (light / mean).clamp(0, 1)
    above = ((light - mean) / (1 - mean)).clamp(0, 1)
    colour = colour[:, :, None, None]
    return torch.cat([(colour * below + (1 - colour) * above * 0.85) * alpha, alpha], 1)
