import random

import pytest

from studio.training.data.captions import default_prompt, random_caption

LOOKS = [("flat", "blue"), ("flat", None), (None, "blue"), (None, None)]


@pytest.fixture(scope="module")
def captions() -> dict[tuple[str | None, str | None], set[str]]:
    """Random captions of a red apple, by style and background."""
    rng = random.Random(0)
    return {look: {random_caption("a red apple", *look, rng) for _ in range(200)} for look in LOOKS}


def test_there_are_several_phrasings_for_each_kind(captions):
    for (style, background), phrasings in captions.items():
        assert len(phrasings) >= (5 if style or background else 4)
        assert all("red apple" in caption for caption in phrasings)
        for word in (style, background):
            assert word is None or all(word in caption for caption in phrasings)
    assert "a flat red apple on a blue background" in captions["flat", "blue"]


def test_the_default_prompt_is_one_of_the_phrasings(captions):
    for look, phrasings in captions.items():
        assert default_prompt("a red apple", *look) in phrasings
