"""Settings of older and newer pictures, as the controls of the page have them."""

from __future__ import annotations

import pytest

from studio.engine.requests import TextToImage
from studio.models.families.studio import PRESETS
from studio.services.import_settings import import_settings
from studio.ui.tabs.text_to_image_form import DEFAULTS, preset_of
from tests.fakes import CAPABILITIES

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
    assert import_settings(settings, CAPABILITIES).values.get("style_emphasis") == emphasis


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
    assert import_settings(settings, CAPABILITIES).values.get("randomize_style") == randomize_style


def test_presets_are_known_by_their_numbers():
    assert preset_of(CAPABILITIES, DEFAULTS) == "balanced"
    for name, preset in PRESETS.items():
        assert preset_of(CAPABILITIES, DEFAULTS | preset) == name
    assert preset_of(CAPABILITIES, DEFAULTS | {"style_emphasis": True}) is None
