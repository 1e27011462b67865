"""The endpoints of the noise tab, called as another program would, over a tiny network with random weights."""

from __future__ import annotations

import re

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from tests.serving import free_port
from tests.ui.journeys.noise_page import serving_noise


@pytest.fixture(scope="module")
def noise_url(tmp_path_factory):
    with serving_noise(tmp_path_factory.mktemp("noise"), free_port()) as url:
        yield url


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_endpoints(noise_url, tmp_path):
    client = Client(noise_url, verbose=False)
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    file, numbers = client.predict(
        image=handle_file(path), t=300, schedule="linear", size=32, api_name="/forward_noise"
    )
    assert size_of(file) == (32, 32)
    assert numbers["alpha"] ** 2 + numbers["sigma"] ** 2 == pytest.approx(1)
    assert numbers["measured"]["variance"] == pytest.approx(numbers["expected"]["variance"], rel=0.1)
    for change, sentence in (
        ({"t": 1000}, "t is 1000; it must be a whole number from 0 to 999"),
        ({"schedule": "sigmoid"}, "schedule is 'sigmoid'; it must be one of"),
        ({"size": 7}, "size is 7; it must be one of 16, 32"),
        ({"seed": -1}, "The seed must be a whole number from 0 to 4294967295; it was -1."),
        ({"image": {"path": "assets/examples/1.png"}}, "The image must be an uploaded file"),
    ):
        with pytest.raises(AppError, match=re.escape(sentence)):
            client.predict(**{"image": handle_file(path), **change}, api_name="/forward_noise")
    strip, info = client.predict(prompt="a red apple", steps=3, seed=5, api_name="/reverse_trace")
    assert size_of(strip) == (48, 16) and info["seed"] == 5
    assert [len(stage["steps"]) for stage in info["stages"]] == [3, 1]
    assert info["stages"][0]["steps"][2]["arithmetic"] == "x_next = 1.0000 · x̂0"
    with pytest.raises(AppError, match="sampler"):
        client.predict(prompt="x", sampler="plms", api_name="/reverse_trace")
