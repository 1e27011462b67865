"""/text_to_image, called as another program would."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from studio.library.metadata import read_png


@pytest.fixture(scope="module")
def client(studio_url, tmp_path_factory):
    client = Client(studio_url, download_files=str(tmp_path_factory.mktemp("files")), verbose=False)
    yield client
    client.close()


def test_words_become_files_and_facts(client):
    files, info = client.predict("a red apple", style="glossy", count=2, seed=7, api_name="/text_to_image")
    assert info["seeds"] == [7, 8] and info["seed"] == 7 and info["seconds"] > 0
    assert info["prompt"] == "a red apple, glossy style" and info["notes"] == []
    assert [read_png(file)["seed"] for file in files] == [7, 8]
    with Image.open(files[0]) as picture:
        assert picture.size == (64, 64)


def test_only_the_prompt_is_needed(client):
    seeds = {client.predict(prompt="a cat", api_name="/text_to_image")[1]["seed"] for _ in range(2)}
    assert len(seeds) == 2


def test_notes_tell_what_was_not_understood(client):
    _, info = client.predict("a castle", api_name="/text_to_image")
    assert info["notes"][0].startswith("The model does not know “castle”")
    _, info = client.predict("a red apple " * 800, api_name="/text_to_image")
    assert "It did not read" in info["notes"][0]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "The steps must be a whole number from 1 to 1000; it was 0."),
        ({"steps": 10_000}, "from 1 to 1000; it was 10000"),
        ({"count": 1000}, "The number of pictures must be a whole number from 1 to 9; it was 1000."),
        ({"guidance": "NaN"}, "The guidance must be a number from 0 to 30"),
        ({"seed": -1}, "The seed must be a whole number from 0 to 4294967295; it was -1."),
        ({"seed": 1.5}, "it was 1.5"),
        ({"sampler": "magic"}, "The sampler must be one of studio, ddim"),
        ({"style": {"a": 1}}, "The style must be one of any"),
        ({"ground": None}, "The ground colour must be one of any"),
        ({"prompt": 3}, "The prompt must be text, not 3."),
    ],
)
def test_wrong_values_are_refused_by_name_and_range(client, wrong, says):
    with pytest.raises(AppError) as problem:
        client.predict(**({"prompt": "a cat"} | wrong), api_name="/text_to_image")
    assert says in str(problem.value)
    client.predict("a cat", steps=1, api_name="/text_to_image")


def test_nothing_else_is_public(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/text_to_image", "/inpaint", "/super_resolution", "/forward_noise", "/reverse_trace"]


def test_other_files_are_not_served(studio_url):
    for path in ("app.py", "/etc/passwd", "studio/ui/page.py", "assets/../app.py"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{studio_url}/gradio_api/file={path}")
        assert refused.value.code in (403, 404)
        refused.value.close()


def test_other_origins_are_refused(studio_url):
    request = urllib.request.Request(f"{studio_url}/config", headers={"Origin": "http://evil.example"})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers.get("Access-Control-Allow-Origin") != "http://evil.example"
        assert json.load(answer)["title"] == "Diffusion Studio"
