"""Earlier names of parameters still work."""

from __future__ import annotations

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from studio.api.aliases import current_value


def test_the_earlier_name_stands_for_the_current_one():
    assert current_value("background", "any", "any", "ground", None) == "any"
    assert current_value("background", "any", "any", "ground", "blue") == "blue"
    assert current_value("background", "blue", "any", "ground", "blue") == "blue"
    assert current_value("randomize_style", True, True, "varied", False) is False


def test_two_different_values_are_refused():
    with pytest.raises(ValueError, match="ground is the earlier name of background"):
        current_value("background", "red", "any", "ground", "blue")


def test_programs_may_use_the_earlier_names(studio_url):
    client = Client(studio_url, verbose=False)
    try:
        _, info = client.predict("a cat", ground="blue", varied=False, steps=1, api_name="/text_to_image")
        assert info["prompt"] == "a cat on a blue background" and info["prompts"] == [info["prompt"]]
        with pytest.raises(AppError, match="Give background alone"):
            client.predict("a cat", background="red", ground="blue", api_name="/text_to_image")
    finally:
        client.close()
