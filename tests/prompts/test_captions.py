from collections import Counter

import pytest

from studio.models.families.studio import BACKGROUNDS, REQUEST_ONLY_BACKGROUNDS, STYLES
from studio.prompts import captions
from studio.prompts.captions import ANY, build_caption
from studio.training.data.captions import default_prompt
from studio.training.data.scenes import BACKGROUND_COLORS
from studio.training.data.sprites import STYLES as SPRITE_STYLES
from tests.fakes import CAPABILITIES

GLOSSY, BLUE = "{prompt}, glossy style", "{prompt} on a blue background"


def choose_style_and_background(prompt: str, seed: int) -> tuple[str, str]:
    return captions.choose_style_and_background(prompt, seed, STYLES, BACKGROUNDS, REQUEST_ONLY_BACKGROUNDS)


def test_the_caption_is_phrased_as_in_training():
    assert build_caption("a red apple") == "a red apple"
    assert build_caption("a red apple", GLOSSY) == "a red apple, glossy style"
    assert build_caption(" a red apple, ", GLOSSY, BLUE) == "a red apple, glossy style, on a blue background"
    assert build_caption("a red apple", background=BLUE) == "a red apple on a blue background"
    assert build_caption("") == "" and build_caption("", GLOSSY, BLUE) == "glossy style, on a blue background"


def test_the_caption_is_the_one_that_training_calls_its_default():
    for style in (None, *STYLES):
        for background in (None, *BACKGROUNDS):
            assert CAPABILITIES.caption("an owl", style or ANY, background or ANY) == default_prompt(
                "an owl", style, background
            )
    assert tuple(BACKGROUND_COLORS) == BACKGROUNDS and SPRITE_STYLES == STYLES


def test_the_seed_chooses_evenly_and_always_the_same():
    chosen = [choose_style_and_background("a cat", seed) for seed in range(4000)]
    assert chosen == [choose_style_and_background("a cat", seed) for seed in range(4000)]
    styles, backgrounds = Counter(style for style, _ in chosen), Counter(background for _, background in chosen)
    assert set(styles) == set(STYLES) and set(backgrounds) == set(BACKGROUNDS) - set(REQUEST_ONLY_BACKGROUNDS)
    assert min(styles.values()) > 900 and min(backgrounds.values()) > 430
    assert len(set(chosen)) == len(STYLES) * len(backgrounds)
    # While a person types in live mode, the style and the background stay.
    assert choose_style_and_background("a dog", 7) == choose_style_and_background("a cat", 7)


@pytest.mark.parametrize("prompt", ["a cat, flat style", "a glossy cat", "a cat in the pixel art style", "noto cat"])
def test_a_style_in_the_prompt_is_kept(prompt):
    assert {choose_style_and_background(prompt, seed)[0] for seed in range(50)} == {ANY}
    assert ANY not in {choose_style_and_background(prompt, seed)[1] for seed in range(50)}


@pytest.mark.parametrize(
    "prompt", ["a cat on a red background", "a cat on pink", "dotted background, cat", "cat, on blue"]
)
def test_a_background_in_the_prompt_is_kept(prompt):
    assert {choose_style_and_background(prompt, seed)[1] for seed in range(50)} == {ANY}
    assert ANY not in {choose_style_and_background(prompt, seed)[0] for seed in range(50)}


def test_a_background_has_no_colour_of_the_prompt():
    backgrounds = {choose_style_and_background("a red apple left of a Green pear", seed)[1] for seed in range(500)}
    assert backgrounds == set(BACKGROUNDS) - {"red", "green", *REQUEST_ONLY_BACKGROUNDS}
    assert choose_style_and_background(" ".join(BACKGROUNDS), 1)[1] in BACKGROUNDS
