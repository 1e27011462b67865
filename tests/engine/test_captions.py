from collections import Counter

import pytest

from studio.engine.captions import ANY, DULL, GROUNDS, STYLES, caption, chosen
from studio.training import scenes


def test_the_caption_is_phrased_as_in_training():
    assert caption("a red apple") == "a red apple"
    assert caption("a red apple", "glossy") == "a red apple, glossy style"
    assert caption(" a red apple, ", "glossy", "blue") == "a red apple, glossy style, on a blue background"
    assert caption("a red apple", ground="blue") == "a red apple on a blue background"
    assert caption("") == "" and caption("", "noto", "blue") == "noto style, on a blue background"


def test_the_caption_is_the_one_that_training_calls_its_default():
    for style in (None, *STYLES):
        for ground in (None, *GROUNDS):
            assert caption("an owl", style or ANY, ground or ANY) == scenes.default_prompt("an owl", style, ground)
    assert tuple(scenes.GROUNDS) == GROUNDS and tuple(scenes.STYLES) == STYLES


def test_the_seed_chooses_evenly_and_always_the_same():
    looks = [chosen("a cat", seed) for seed in range(4000)]
    assert looks == [chosen("a cat", seed) for seed in range(4000)]
    styles, grounds = Counter(style for style, _ in looks), Counter(ground for _, ground in looks)
    assert set(styles) == set(STYLES) and set(grounds) == set(GROUNDS) - set(DULL)
    assert min(styles.values()) > 900 and min(grounds.values()) > 430
    assert len(set(looks)) == len(STYLES) * len(grounds)
    assert chosen("a dog", 7) == chosen("a cat", 7)  # what is typed in live mode keeps its look


@pytest.mark.parametrize("prompt", ["a cat, flat style", "a glossy cat", "a cat in the pixel art style", "noto cat"])
def test_a_style_that_is_said_is_left_alone(prompt):
    assert {chosen(prompt, seed)[0] for seed in range(50)} == {ANY}
    assert ANY not in {chosen(prompt, seed)[1] for seed in range(50)}


@pytest.mark.parametrize(
    "prompt", ["a cat on a red background", "a cat on pink", "dotted background, cat", "cat, on blue"]
)
def test_a_ground_that_is_said_is_left_alone(prompt):
    assert {chosen(prompt, seed)[1] for seed in range(50)} == {ANY}
    assert ANY not in {chosen(prompt, seed)[0] for seed in range(50)}


def test_no_thing_is_put_on_its_own_colour():
    grounds = {chosen("a red apple left of a Green pear", seed)[1] for seed in range(500)}
    assert grounds == set(GROUNDS) - {"red", "green", *DULL}
    assert chosen(" ".join(GROUNDS), 1)[1] in GROUNDS
