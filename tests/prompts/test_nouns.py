"""Nouns in one and in several, as captions and prompts have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.diffusion.composition import parse_layout
from studio.models.families.studio import BACKGROUNDS, STYLES
from studio.prompts.nouns import is_collective, plural, singular, with_article, without_style
from tests.fakes import CAPABILITIES

VOCABULARY = Path(__file__).parents[2] / "assets" / "model" / "vocabulary.json"


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
        ("taxi", "taxis"),
        ("books", "books"),
        ("open book", "open books"),
        ("boxing glove", "boxing gloves"),
        ("nesting dolls", "nesting dolls"),
    ],
)
def test_singular_and_plural(one, several):
    assert plural(one) == several and singular(several) == one
    assert is_collective(several) == (one == several)


def test_singular_inverts_plural_for_nearly_all_concepts():
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


@pytest.mark.parametrize("prompt", ["a red apple", "an owl left of a cactus", "three foxes", ""])
@pytest.mark.parametrize("background", ["any", BACKGROUNDS[0]])
def test_a_caption_without_its_style_is_the_caption_without_a_style(prompt, background):
    for style in STYLES:
        told = CAPABILITIES.caption(prompt, style, background)
        assert without_style(told) == CAPABILITIES.caption(prompt, background=background) != told
        laid_out, plain = parse_layout(told, 16), parse_layout(CAPABILITIES.caption(prompt, background=background), 16)
        if laid_out:
            assert tuple(map(without_style, laid_out.captions)) == plain.captions


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a cat in a flat style", "a cat"),
        ("a cat in the flat style on a red background", "a cat on a red background"),
        ("Glossy style, a cat", "a cat"),
        ("a cat, pixel art style, at night", "a cat, at night"),
        ("a cat, flat and glossy style", "a cat"),
        ("a house in Gothic style, at night", "a house, at night"),
        ("a cat in Van Gogh's style", "a cat"),
        ("flat style", ""),
        # what follows says it of something else, or in words that are not looked for
        ("a cat in the style of Monet", "a cat in the style of Monet"),
        ("a cat, in the same style", "a cat, in the same style"),
        ("an old style telephone", "an old style telephone"),
        ("a stylish cat (flat style)", "a stylish cat (flat style)"),
        ("", ""),
    ],
)
def test_a_style_in_other_words(prompt, plain):
    assert without_style(prompt) == plain
