"""Settings of older and newer pictures, as the controls of the page have them."""

from __future__ import annotations

import pytest

from studio.engine.requests import TextToImage
from studio.models.families.studio import PRESETS
from studio.models.resolver import ModelResolver
from studio.services.import_settings import import_settings
from studio.ui.tabs.text_to_image_form import preset_of
from tests.fakes import CAPABILITIES, MODELS
from tests.models.test_resolver import OtherModels, entry

SETTINGS = TextToImage("a cat", style="flat", seed=5, style_emphasis=True).settings()


@pytest.mark.parametrize(
    ("settings", "emphasis"),
    [
        (SETTINGS, True),
        (SETTINGS | {"style_emphasis": False}, False),
        ({name: value for name, value in SETTINGS.items() if name not in ("style_emphasis", "one_pass")}, False),
        ({"prompt": "a cat", "steps": 12}, None),  # of another studio: stays as it is on the page
    ],
)
def test_a_style_is_emphasized_where_it_was(settings, emphasis):
    assert import_settings(settings, MODELS).values.get("style_emphasis") == emphasis


@pytest.mark.parametrize(
    ("settings", "randomize_style"),
    [
        (TextToImage("a cat", style="flat", randomize_style=True).settings(), True),
        (TextToImage("a cat", background="blue").settings(), False),
        (
            TextToImage("a cat", style="flat", background="blue").settings(),
            None,
        ),  # nothing is left open: as on the page
        ({"prompt": "a cat", "steps": 12}, False),  # of another studio, whose prompt is whole
        ({"steps": 12}, None),
    ],
)
def test_nothing_is_added_to_a_prompt_to_which_nothing_was(settings, randomize_style):
    assert import_settings(settings, MODELS).values.get("randomize_style") == randomize_style


def test_presets_are_known_by_their_numbers():
    defaults = TextToImage("a cat").settings()
    assert preset_of(CAPABILITIES, defaults) == "balanced"
    for name, preset in PRESETS.items():
        assert preset_of(CAPABILITIES, defaults | preset) == name
    assert preset_of(CAPABILITIES, defaults | {"style_emphasis": True}) is None


PONY = {"prompt": "a cat", "model": "pony", "sampler": "dpm++2m", "spacing": "karras", "steps": 28, "size": "832x1216",
        "clip_skip": 1, "seed": 5, "not_understood": ["Hires upscale", "Lora hashes"]}  # fmt: skip


def test_settings_are_those_of_the_model_that_made_the_picture():
    models = ModelResolver(OtherModels(entry("pony")))
    imported = import_settings(PONY, models)
    assert imported.model_id == "pony" and imported.notes == ("Not understood: Hires upscale, Lora hashes.",)
    taken = {"sampler": "dpm++2m", "spacing": "karras", "width": 832, "height": 1216, "clip_skip": 1, "seed": 5}
    assert imported.values == {**imported.values, **taken}
    models.capabilities_of("pony").check_settings(imported.values)


def test_what_the_model_in_use_cannot_do_is_named():
    imported = import_settings(PONY, MODELS)
    assert imported.model_id == "model" and "clip_skip" not in imported.values and "width" not in imported.values
    assert imported.notes == (
        'Not loaded: the spacing must be empty for Studio Emoji; it was "karras".',
        "Not loaded: the clip skip must be 0 for Studio Emoji; it was 1.",
        "Another model made the picture, pony, so the same settings give another picture.",
        "Not understood: Hires upscale, Lora hashes.",
    )
