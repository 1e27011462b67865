"""Prompts of several objects or of tinted ones, real scenes that show them, and the check whether a picture does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from studio.prompts.nouns import plural, with_article
from studio.training.data.captions import default_prompt
from studio.training.data.scenes import BACKGROUND_COLORS, COUNT_WORDS, TINTS, Scene, SceneMaker
from studio.training.data.sprites import STYLES, Sprites
from studio.training.evaluation.detector import Detection

SPATIAL_RELATIONS = ("left of", "right of", "above", "below")
COLOR, PAIR, TWO, THREE = KINDS = (
    "An object in a colour",
    "Two objects in a relation",
    "Two of a kind",
    "Three of a kind",
)


@dataclass(frozen=True)
class Composition:
    """What a prompt asks for: one concept, or two in a relation."""

    concepts: tuple[int, ...]
    style: int
    background: str
    tint: str | None = None
    relation: str | None = None
    count: int = 1  # of the one concept

    @property
    def kind(self) -> str:
        if self.relation:
            return PAIR
        return {1: COLOR, 2: TWO, 3: THREE}[self.count]


def composition_prompt(composition: Composition, sprites: Sprites) -> str:
    """Return the prompt, such as "a cat face left of a pizza, flat style, on a blue background"."""
    names = [sprites.concepts[concept] for concept in composition.concepts]
    if composition.relation:
        subject = f"{with_article(names[0])} {composition.relation} {with_article(names[1])}"
    elif composition.count > 1:
        subject = f"{COUNT_WORDS[composition.count]} {plural(names[0])}"
    else:
        subject = with_article(f"{composition.tint} {names[0]}" if composition.tint else names[0])
    return default_prompt(subject, STYLES[composition.style], composition.background)


def compose_scene(composition: Composition, maker: SceneMaker) -> Scene:
    """Return a scene that shows the composition, with random places."""
    style = composition.style
    if composition.relation:
        scene = maker.draw_pair(style)
        while scene.relation != composition.relation:
            scene = maker.draw_pair(style)
    elif composition.count > 1:
        scene = maker.draw_group(style)
        while len(scene.objects) != composition.count:
            scene = maker.draw_group(style)
    else:
        scene = maker.make_single(composition.concepts[0], style, composition.background)
    objects = (
        replace(item, sprite=maker.sprite_index[concept, style], tint=composition.tint)
        for item, concept in zip(scene.objects, composition.concepts * composition.count, strict=True)
    )
    return replace(
        scene,
        objects=tuple(objects),
        background=composition.background,
        second_background=None,
        pattern="plain",
    )


def draw_compositions(sprites: Sprites, concepts: Sequence[int], count: int, seed: int) -> list[Composition]:
    """Draw `count` pairs, `count` groups (half of two, half of three) and at most `count` tinted single objects.

    Only (concept, style) pairs from training are used. A tint is neither the background's nor the sprite's own.
    """
    rng = random.Random(seed)
    trained = ~sprites.held_out
    styles: dict[int, list[int]] = {concept: [] for concept in concepts}
    for concept, style in zip(sprites.concept[trained].tolist(), sprites.style[trained].tolist(), strict=True):
        if concept in styles:
            styles[concept].append(style)
    usable = [concept for concept in concepts if styles[concept]]
    backgrounds = list(BACKGROUND_COLORS)
    compositions = []
    for concept in rng.sample(usable, min(count, len(usable))):
        style, background = rng.choice(styles[concept]), rng.choice(backgrounds)
        excluded = (background, nearest_tint(sprites, concept, style))
        tint = rng.choice([tint for tint in TINTS if tint not in excluded])
        compositions.append(Composition((concept,), style, background, tint=tint))
    for number in range(count):
        style = number % len(STYLES)
        first, second = rng.sample([concept for concept in usable if style in styles[concept]], 2)
        relation = SPATIAL_RELATIONS[number // len(STYLES) % len(SPATIAL_RELATIONS)]
        compositions.append(Composition((first, second), style, rng.choice(backgrounds), relation=relation))
    for number in range(count):
        concept = rng.choice(usable)
        style, background = rng.choice(styles[concept]), rng.choice(backgrounds)
        compositions.append(Composition((concept,), style, background, count=2 + number % 2))
    return compositions


def nearest_tint(sprites: Sprites, concept: int, style: int) -> str:
    """Return the tint nearest to the mean colour of a sprite."""
    row = ((sprites.concept == concept) & (sprites.style == style)).nonzero()[0, 0]
    rgba = sprites.rgba[row].float()
    mean = rgba[:3].sum((1, 2)) / rgba[3].sum().clamp(min=1)
    colors = torch.tensor([BACKGROUND_COLORS[tint] for tint in TINTS])
    return TINTS[int((colors - mean).norm(dim=1).argmin())]


def check_composition(composition: Composition, detections: Sequence[Detection]) -> dict[str, bool]:
    """Return by criterion whether a picture's objects, the most confident first, are those of the composition."""
    if composition.relation:
        first, second = (
            [detection for detection in detections if detection.concept == concept] for concept in composition.concepts
        )
        both = bool(first and second)
        right = both and relation_holds(composition.relation, first[0], second[0])
        return {"both present": both, "relation right": right}
    concept = composition.concepts[0]
    if composition.count > 1:
        right = len(detections) == composition.count
        same = right and all(detection.concept == concept for detection in detections)
        return {"count right": right, "count and concept right": same}
    if not detections:
        return {"colour": False, "concept, top-1": False, "concept, top-5": False, "colour and concept, top-5": False}
    best = detections[0]
    color = composition.tint is not None and best.tint == TINTS.index(composition.tint)
    top5 = concept in (best.concept, *best.top_concepts)
    return {
        "colour": color,
        "concept, top-1": best.concept == concept,
        "concept, top-5": top5,
        "colour and concept, top-5": color and top5,
    }


def relation_holds(relation: str, first: Detection, second: Detection) -> bool:
    """Return whether the first is that way of the second: further along that direction than across it."""
    right, down = first.x - second.x, first.y - second.y
    along, across = {
        "left of": (-right, down),
        "right of": (right, down),
        "above": (-down, right),
        "below": (down, right),
    }[relation]
    return along > abs(across)
