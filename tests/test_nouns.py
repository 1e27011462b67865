"""Nouns in one and in several, as captions and prompts have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.nouns import of_several, plural, singular, with_article

VOCABULARY = Path(__file__).parents[1] / "assets" / "model" / "vocabulary.json"


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ("cat", "cats"),
        ("red fox", "red foxes"),
        ("peach", "peaches"),
        ("cherry tomato", "cherry tomatoes"),
        ("tuna fish", "tuna fish"),
        ("butterfly", "butterflies"),
        ("key", "keys"),
        ("wine glass", "wine glasses"),
        ("glasses", "glasses"),
        ("octopus", "octopuses"),
        ("house", "houses"),
        ("running shoe", "running shoes"),
        ("kangaroo", "kangaroos"),
        ("axe", "axes"),
    ],
)
def test_one_and_several(one, several):
    assert plural(one) == several and singular(several) == one
    assert of_several(several) == (one == several)


def test_nearly_all_that_the_model_knows_comes_back():
    names = [concept["name"] for concept in json.loads(VOCABULARY.read_text())["concepts"]]
    assert len([name for name in names if singular(plural(name)) == name]) >= 0.98 * len(names) > 200


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        ("apple", "an apple"),
        ("Apple", "an Apple"),
        ("unicorn", "a unicorn"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("grapes", "grapes"),
        ("glass", "a glass"),
        ("cactus", "a cactus"),
        ("the moon", "the moon"),
        ("an owl", "an owl"),
        ("ant", "an ant"),
    ],
)
def test_articles(thing, said):
    assert with_article(thing) == said
