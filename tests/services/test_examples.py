"""The shipped examples: with all that the studio writes beside a picture, and taken for its own work."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from studio.engine.requests import request_from, with_current_names
from studio.library.metadata import read_png_settings
from studio.services.examples import ENLARGED_EXAMPLE, EXAMPLES, FILLED_EXAMPLE
from studio.services.import_settings import import_settings
from studio.services.picture_kind import PHOTOGRAPH, picture_kind
from tests.fakes import MODELS

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "examples"
PICTURES = {
    **{f"{number}.png": request for number, request in enumerate(EXAMPLES, 1)},
    "inpaint/picture.png": FILLED_EXAMPLE,
    "super-resolution/picture.png": ENLARGED_EXAMPLE,
}


@pytest.mark.parametrize("name", PICTURES)
def test_an_example_says_how_it_was_painted(name):
    settings = read_png_settings(FOLDER / name)
    assert settings["model"] == "Studio Emoji" and settings["size"] == "64x64"
    names = PICTURES[name].settings()
    stored = {key: value for key, value in with_current_names(settings).items() if key in names}
    assert request_from(stored, {}) == replace(PICTURES[name], model_id="model")
    assert import_settings(settings, MODELS).values["seed"] == PICTURES[name].seed


@pytest.mark.parametrize("name", PICTURES)
def test_an_example_is_not_taken_for_a_photograph(name):
    with Image.open(FOLDER / name) as picture:
        assert picture_kind(picture, FOLDER / name) == ""


def test_a_picture_of_noise_is(tmp_path):
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    noise.save(tmp_path / "noise.png")
    assert picture_kind(noise, tmp_path / "noise.png") == PHOTOGRAPH
