"""Pictures of more than a thing on a ground: a colour that belongs to the thing, two things in a relation, two or three
of a kind. What is asked, real scenes that show it, and whether a picture does.

Knows sprites, scenes and what a detector finds; knows nothing of pipelines.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from studio.prompts.nouns import plural, with_article
from studio.training.data.scenes import COUNTS, GROUNDS, TINTS, Scene, SceneMaker, default_prompt
from studio.training.data.sprites import STYLES, Sprites
from studio.training.evaluation.detector import Found

TURNS = ("left of", "right of", "above", "below")  # the relations that have a place
COLOUR, PAIR, TWO, THREE = KINDS = (
    "A thing in a colour",
    "Two things in a relation",
    "Two of a kind",
    "Three of a kind",
)


@dataclass(frozen=True)
class Question:
    """What a picture is asked to show: one concept, or two where there is a relation."""

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
        return {1: COLOUR, 2: TWO, 3: THREE}[self.count]


def words(question: Question, sprites: Sprites) -> str:
    """The prompt: "a cat face left of a pizza, flat style, on a blue background"."""
    names = [sprites.concepts[concept] for concept in question.concepts]
    if question.relation:
        subject = f"{with_article(names[0])} {question.relation} {with_article(names[1])}"
    elif question.count > 1:
        subject = f"{COUNTS[question.count]} {plural(names[0])}"
    else:
        subject = with_article(f"{question.tint} {names[0]}" if question.tint else names[0])
    return default_prompt(subject, STYLES[question.style], question.background)


def compose(question: Question, maker: SceneMaker) -> Scene:
    """A scene that shows what is asked, its things at places of the maker's own choosing."""
    style = question.style
    if question.relation:
        scene = maker.pair(style)
        while scene.relation != question.relation:
            scene = maker.pair(style)
    elif question.count > 1:
        scene = maker.several(style)
        while len(scene.things) != question.count:
            scene = maker.several(style)
    else:
        scene = maker.single(*question.concepts, style, question.background)
    things = (
        replace(thing, sprite=maker.index[concept, style], tint=question.tint)
        for thing, concept in zip(scene.things, question.concepts * question.count, strict=True)
    )
    return replace(scene, things=tuple(things), background=question.background, ground2=None, pattern="plain")


def questions(sprites: Sprites, concepts: Sequence[int], count: int, seed: int) -> list[Question]:
    """A colour for `count` of the concepts at most, and as many pairs, and as many of a kind, half two and half three.

    Of (concept, style) pairs that training saw. A colour is neither the ground's nor the thing's own.
    """
    rng = random.Random(seed)
    seen = ~sprites.held_out
    styles: dict[int, list[int]] = {c: [] for c in concepts}
    for c, s in zip(sprites.concept[seen].tolist(), sprites.style[seen].tolist(), strict=True):
        if c in styles:
            styles[c].append(s)
    usable = [c for c in concepts if styles[c]]
    asked = []
    for c in rng.sample(usable, min(count, len(usable))):
        style, background = rng.choice(styles[c]), rng.choice(list(GROUNDS))
        kept = (background, own_colour(sprites, c, style))
        asked.append(Question((c,), style, background, tint=rng.choice([tint for tint in TINTS if tint not in kept])))
    for number in range(count):
        style = number % len(STYLES)
        pair = tuple(rng.sample([c for c in usable if style in styles[c]], 2))
        asked.append(Question(pair, style, rng.choice(list(GROUNDS)), relation=TURNS[number // len(STYLES) % 4]))
    for number in range(count):
        c = rng.choice(usable)
        asked.append(Question((c,), rng.choice(styles[c]), rng.choice(list(GROUNDS)), count=2 + number % 2))
    return asked


def own_colour(sprites: Sprites, concept: int, style: int) -> str:
    """The tint nearest to the mean colour of a sprite."""
    row = ((sprites.concept == concept) & (sprites.style == style)).nonzero()[0, 0]
    rgba = sprites.rgba[row].float()
    mean = rgba[:3].sum((1, 2)) / rgba[3].sum().clamp(min=1)
    colours = torch.tensor([GROUNDS[tint] for tint in TINTS])
    return TINTS[int((colours - mean).norm(dim=1).argmin())]


def answers(question: Question, found: Sequence[Found]) -> dict[str, bool]:
    """Whether the things found in a picture, the surest first, are what was asked for."""
    said = [thing.concept for thing in found]
    if question.relation:
        first, second = ([thing for thing in found if thing.concept == c] for c in question.concepts)
        both = bool(first and second)
        return {"both present": both, "relation right": both and related(question.relation, first[0], second[0])}
    if question.count > 1:
        right = len(found) == question.count
        return {"count right": right, "each the thing asked for": right and set(said) == {question.concepts[0]}}
    surest = found[0] if found else None
    colour = surest is not None and question.tint is not None and surest.tint == TINTS.index(question.tint)
    thing = surest is not None and question.concepts[0] in (surest.concept, *surest.likely)
    return {
        "the colour": colour,
        "the thing, top-1": bool(said) and said[0] == question.concepts[0],
        "the thing, top-5": thing,
        "the colour on the thing, top-5": colour and thing,
    }


def related(relation: str, first: Found, second: Found) -> bool:
    """Whether the first lies so of the second: further that way than across it."""
    right, down = first.x - second.x, first.y - second.y
    along, across = {
        "left of": (-right, down),
        "right of": (right, down),
        "above": (-down, right),
        "below": (down, right),
    }[relation]
    return along > abs(across)
