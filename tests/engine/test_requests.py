import math

import pytest

from studio.engine.requests import ANY, GROUNDS, MAX_SEED, SAMPLERS, STYLES, InvalidRequest, TextToImage, caption


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("steps", 0, "The steps must be a whole number from 1 to 1000; it was 0."),
        ("steps", 10_000, "from 1 to 1000; it was 10000"),
        ("steps", 2.5, "it was 2.5"),
        ("steps", True, "it was True"),
        ("steps", "20", 'it was "20"'),
        ("steps", None, "it was empty"),
        ("guidance", math.nan, "The guidance must be a number from 0 to 30; it was NaN."),
        ("guidance", math.inf, "it was inf"),
        ("guidance", -0.1, "it was -0.1"),
        ("guidance", False, "it was False"),
        ("count", 1000, "The number of pictures must be a whole number from 1 to 9; it was 1000."),
        ("count", 0, "from 1 to 9"),
        ("seed", -1, "The seed must be a whole number from 0 to 4294967295; it was -1."),
        ("seed", MAX_SEED + 1, "from 0 to 4294967295"),
        (
            "sampler",
            "plms",
            'The sampler must be one of studio, ddim, ddpm, dpm++2m, unipc, euler, heun; it was "plms".',
        ),
        ("style", ["noto"], "The style must be one of any, noto"),
        ("ground", "mauve", "The ground colour must be one of any, white"),
        ("prompt", None, "The prompt must be text, not empty."),
        ("prompt", "x" * 10_001, "The prompt may have at most 10,000 characters; this one has 10,001."),
        ("negative_prompt", 3, "The negative prompt must be text, not 3."),
    ],
)
def test_what_is_wrong_is_named_with_its_range(field, value, says):
    with pytest.raises(InvalidRequest) as problem:
        TextToImage(**{"prompt": "a cat", field: value})
    assert says in str(problem.value)
    assert str(problem.value).endswith(".") and "\n" not in str(problem.value)


def test_the_ends_of_every_range_are_allowed():
    TextToImage("", steps=1, guidance=0, count=1, seed=0)
    TextToImage("x" * 10_000, steps=1000, guidance=30, count=9, seed=MAX_SEED)


def test_the_caption_is_phrased_as_in_training():
    assert caption("a red apple") == "a red apple"
    assert caption("a red apple", "glossy") == "a red apple, glossy style"
    assert caption(" a red apple, ", "glossy", "blue") == "a red apple, glossy style, on a blue background"
    assert caption("a red apple", ground="blue") == "a red apple on a blue background"
    assert caption("") == "" and caption("", "noto", "blue") == "noto style, on a blue background"


def test_the_caption_is_the_one_that_training_calls_its_default():
    scenes = pytest.importorskip("studio.training.scenes")
    for style in (None, *STYLES):
        for ground in (None, *GROUNDS):
            assert caption("an owl", style or ANY, ground or ANY) == scenes.default_prompt("an owl", style, ground)
    assert tuple(scenes.GROUNDS) == GROUNDS and tuple(scenes.STYLES) == STYLES


def test_each_picture_has_its_own_seed():
    assert TextToImage("", count=3, seed=MAX_SEED).seeds == [MAX_SEED, 0, 1]


def test_the_page_offers_the_samplers_that_there_are():
    samplers = pytest.importorskip("studio.diffusion.samplers")
    assert list(SAMPLERS) == list(samplers.SAMPLERS)
