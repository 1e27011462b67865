"""Training scenes: which sprites stand where, on which background, and the caption that describes them.

A scene is numbers and words. `SceneRenderer` (renderer.py) turns scenes into pictures of any size.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from studio.prompts.nouns import plural, with_article
from studio.training.data.captions import random_caption
from studio.training.data.sprites import STYLES, Sprites

BACKGROUND_COLORS = {  # sRGB in [0, 1]
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
PATTERN_WEIGHTS = (0.82, 0.06, 0.06, 0.06)
COUNT_WORDS = {1: "", 2: "two", 3: "three"}
OVERSAMPLING = 3  # how many times as often an oversampled concept is drawn
RELATIONS = ("left of", "right of", "above", "below", "and")

Place = tuple[float, float, float]  # x and y of the centre, side: shares of the scene's side


@dataclass(frozen=True)
class SceneMix:
    """Shares of the kinds of scenes. The rest of the scenes show two or three objects of one concept."""

    single: float = 0.60  # scenes of one object
    pair: float = 0.25  # scenes of two objects in a relation
    tinted: float = 0.15  # objects in another colour than their own, in scenes of every kind


@dataclass(frozen=True)
class SceneObject:
    """A sprite at a place of a scene. x, y (centre) and side are shares of the scene's side."""

    sprite: int
    x: float
    y: float
    side: float
    tint: str | None = None  # colour name: repaint the sprite in shades of it


@dataclass(frozen=True)
class Scene:
    """What a training picture shows, and its caption."""

    objects: tuple[SceneObject, ...]
    background: str
    second_background: str | None = None  # second colour of a pattern
    pattern: str = "plain"
    phase: float = 0.0  # shift of a pattern, in [0, 1)
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)  # added to the background's RGB
    relation: str | None = None
    caption: str = ""
    labels: dict[str, Any] = field(default_factory=dict, compare=False)  # "style": index; "concepts": indices


class SceneMaker:
    """Draws random scenes with captions; the same seed gives the same scenes.

    Args:
        held_out: draw the held-out (concept, style) pairs and no others; by default all but them.
        placement_variation: how far place and size of a single object vary, 0 (not at all) to 1.
        mix: shares of the kinds of scenes.
        oversampled: indices of concepts to draw `OVERSAMPLING` times as often as the others.
    """

    def __init__(
        self,
        sprites: Sprites,
        seed: int,
        *,
        held_out: bool = False,
        placement_variation: float = 1.0,
        mix: SceneMix | None = None,
        oversampled: Collection[int] = (),
    ) -> None:
        self.sprites, self.placement_variation, self.mix = sprites, placement_variation, mix or SceneMix()
        self.rng = random.Random(seed)
        self.sprite_index: dict[tuple[int, int], int] = {}  # (concept, style) -> sprite
        for sprite, (concept, style) in enumerate(zip(sprites.concept.tolist(), sprites.style.tolist(), strict=True)):
            if bool(sprites.held_out[sprite]) == held_out:
                self.sprite_index[concept, style] = sprite
        self.concepts_by_style: list[list[int]] = [[] for _ in STYLES]  # repeated where oversampled
        for concept, style in self.sprite_index:
            self.concepts_by_style[style] += [concept] * (OVERSAMPLING if concept in oversampled else 1)
        self.styles = [style for style, concepts in enumerate(self.concepts_by_style) if concepts]

    def draw(self) -> Scene:
        """Draw a scene of the mix."""
        kind = self.rng.random()
        style = self.rng.choice(self.styles)
        if kind < self.mix.single:
            return self.draw_single()
        if kind < self.mix.single + self.mix.pair:
            return self.draw_pair(style)
        return self.draw_group(style)

    def draw_single(self) -> Scene:
        """Draw a scene of one object."""
        style = self.rng.choice(self.styles)
        return self.make_single(self.rng.choice(self.concepts_by_style[style]), style)

    def make_single(self, concept: int, style: int, background: str | None = None) -> Scene:
        """Draw a scene of this concept in this style, on a plain `background` where one is given."""
        rng, variation = self.rng, self.placement_variation
        side = 0.79 + variation * rng.uniform(-0.17, 0.17)
        slack = variation * ((1 - side) / 2 + 0.02)
        x, y = 0.5 + rng.uniform(-slack, slack), 0.5 + rng.uniform(-slack, slack)
        tint = self._draw_tint()
        item = SceneObject(self.sprite_index[concept, style], x, y, side, tint)
        return self._complete((item,), with_article(self._draw_name(concept, tint)), style, background=background)

    def draw_pair(self, style: int) -> Scene:
        """Draw a scene of two objects in a relation."""
        rng = self.rng
        concepts = rng.choice(self.concepts_by_style[style]), rng.choice(self.concepts_by_style[style])
        relation = rng.choice(RELATIONS)
        places = self._draw_row(2)
        if relation in ("above", "below"):
            places = [(y, x, side) for x, y, side in places]
        if relation in ("right of", "below"):
            places.reverse()
        tints = [self._draw_tint() for _ in concepts]
        objects = tuple(
            SceneObject(self.sprite_index[concept, style], *place, tint)
            for concept, place, tint in zip(concepts, places, tints, strict=True)
        )
        first, second = (
            with_article(self._draw_name(concept, tint)) for concept, tint in zip(concepts, tints, strict=True)
        )
        joint = rng.choice(("", "to the ")) if relation.endswith("of") else ""
        return self._complete(objects, f"{first} {joint}{relation} {second}", style, relation=relation)

    def draw_group(self, style: int) -> Scene:
        """Draw a scene of two or three objects of one concept."""
        rng = self.rng
        concept, count = rng.choice(self.concepts_by_style[style]), rng.choice((2, 3))
        tint = self._draw_tint()
        places = self._draw_row(count)
        if count == 3 and rng.random() < 0.6:  # a triangle leaves each object more room than a row
            side = rng.uniform(0.40, 0.48)
            places = [(0.5, 0.27, side), (0.27, 0.73, side), (0.73, 0.73, side)]
            if rng.random() < 0.5:
                places = [(x, 1 - y, side) for x, y, side in places]
        objects = tuple(SceneObject(self.sprite_index[concept, style], *place, tint) for place in places)
        return self._complete(objects, f"{COUNT_WORDS[count]} {plural(self._draw_name(concept, tint))}", style)

    def _draw_tint(self) -> str | None:
        return self.rng.choice(TINTS) if self.rng.random() < self.mix.tinted else None

    def _draw_row(self, count: int) -> list[Place]:
        """Draw `count` places from left to right."""
        side = self.rng.uniform(0.84, 0.98) / count
        drift = self.rng.uniform(-0.12, 0.12)
        return [((i + 0.5) / count, 0.5 + drift + self.rng.uniform(-0.04, 0.04), side) for i in range(count)]

    def _draw_name(self, concept: int, tint: str | None) -> str:
        """Return the concept's name or, in one of 20 cases, a synonym, after its tint."""
        name, synonyms = self.sprites.concepts[concept], self.sprites.synonyms[concept]
        if synonyms and self.rng.random() < 0.05:
            name = self.rng.choice(synonyms)
        return f"{tint} {name}" if tint else name

    def _complete(
        self,
        objects: tuple[SceneObject, ...],
        subject: str,
        style: int,
        *,
        background: str | None = None,
        relation: str | None = None,
    ) -> Scene:
        """Draw the background, unless it is given, and the caption."""
        rng = self.rng
        pattern = rng.choices(PATTERNS, PATTERN_WEIGHTS)[0] if background is None else "plain"
        tints = {item.tint for item in objects}  # a red object would vanish on red
        background = background or rng.choice([name for name in BACKGROUND_COLORS if name not in tints])
        second = None
        if pattern != "plain":
            second = rng.choice([name for name in BACKGROUND_COLORS if name != background])
        background_words = {
            "plain": background,
            "gradient": f"{background} to {second}",
            "striped": f"striped {background} and {second}",
            "dotted": f"{background} dotted {second}",
        }[pattern]
        caption_style = STYLES[style] if rng.random() < 0.9 else None
        caption_background = background_words if rng.random() < 0.8 else None
        return Scene(
            objects,
            background,
            second_background=second,
            pattern=pattern,
            phase=rng.random(),
            jitter=(rng.uniform(-0.035, 0.035), rng.uniform(-0.035, 0.035), rng.uniform(-0.035, 0.035)),
            relation=relation,
            caption=random_caption(subject, caption_style, caption_background, rng),
            labels={"style": style, "concepts": [int(self.sprites.concept[item.sprite]) for item in objects]},
        )
