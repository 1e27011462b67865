"""Requests from values that browsers and programs send."""

from __future__ import annotations

import pytest
from PIL import Image

from studio.engine.requests import MAX_SEED, InvalidRequest, SuperResolve, TextToImage
from studio.services.build_request import as_int, build_request, seed_or_random


def test_whole_numbers_may_arrive_as_floats():
    values = {"prompt": "a cat", "count": 2.0, "steps": 5.0, "seed": 7.0, "resolution": 128.0}
    assert build_request(TextToImage, values) == TextToImage("a cat", count=2, steps=5, seed=7, resolution=128)
    picture = Image.new("RGB", (20, 10))
    assert build_request(SuperResolve, {"image": picture, "target": (50.0, 33.0)}).output_size == (50, 33)


def test_other_values_stay_as_they_are_and_are_checked():
    assert [as_int(value) for value in (1.5, "3", None, True)] == [1.5, "3", None, True]
    with pytest.raises(InvalidRequest, match="it was 1.5"):
        build_request(TextToImage, {"prompt": "a cat", "steps": 1.5})


def test_a_missing_text_is_empty():
    assert build_request(TextToImage, {"prompt": None, "negative_prompt": None}) == TextToImage("")


def test_a_seed_is_kept_or_drawn():
    assert seed_or_random(7.0) == 7 and seed_or_random("x") == "x"
    assert 0 <= seed_or_random(None) <= MAX_SEED
