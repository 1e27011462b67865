"""The official client against a running studio."""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.error
import urllib.request

import numpy as np
import openai
import pytest
from PIL import Image

from tests.api.openai.conftest import OWNER


@pytest.fixture(scope="module")
def client(programs_url):
    with openai.OpenAI(base_url=f"{programs_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def opened(picture) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture.b64_json)))


def png(mode="RGB", colour="red", size=(64, 64)) -> tuple[str, bytes, str]:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return "picture.png", file.getvalue(), "image/png"


def half_mask() -> tuple[str, bytes, str]:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    file = io.BytesIO()
    mask.save(file, "PNG")
    return "mask.png", file.getvalue(), "image/png"


def test_two_pictures_are_generated_and_lie_in_the_callers_library(client, programs_url):
    answer = client.images.generate(prompt="a red apple", n=2, size="auto")
    sizes = {f"{opened(picture).width}x{opened(picture).height}" for picture in answer.data}
    assert len(answer.data) == 2 and sizes == {answer.size}
    assert answer.notes == [] and answer.seeds[1] == (answer.seeds[0] + 1) % 2**32
    saved = programs_url.studio.context.library.find_pictures(OWNER)
    assert {picture.seed for picture in saved} == set(answer.seeds)


@pytest.mark.parametrize(("output_format", "name"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_formats_and_foreign_names_are_mapped_and_said(client, output_format, name):
    answer = client.images.generate(
        prompt="a cat", model="dall-e-3", size="1024x1024", style="vivid", quality="low", background="transparent",
        output_format=output_format, output_compression=50,
    )  # fmt: skip
    assert opened(answer.data[0]).format == name
    notes = " ".join(answer.notes)
    assert all(word in notes for word in ("dall-e-3", "The size is 512x512; 1024x1024", "vivid", "low", "opaque"))


def test_an_address_answers_its_caller_alone(client):
    url = client.images.generate(prompt="a cat", response_format="url").data[0].url
    with urllib.request.urlopen(url) as answer:
        assert Image.open(answer).format == "PNG"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, headers={"X-Test-Owner": "user:bob"}))
    assert refused.value.code == 404
    refused.value.close()


def test_a_stream_shows_pictures_on_the_way(client):
    *partial, last = client.images.generate(prompt="a cat", quality="high", stream=True, partial_images=2)
    assert {event.type for event in partial} == {"image_generation.partial_image"}
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))  # a slow follower misses some
    assert last.type == "image_generation.completed" and opened(last).size == (64, 64)


def test_only_the_transparent_part_of_the_mask_is_painted(client):
    answer = client.images.edit(image=png(), mask=half_mask(), prompt="a pizza")
    pixels = np.asarray(opened(answer.data[0]).convert("RGB"))
    assert (pixels[:, 32:] == (255, 0, 0)).all() and (pixels[:, :32] != (255, 0, 0)).any()


def test_without_a_mask_the_whole_picture_is_painted_anew(client):
    answer = client.images.edit(image=[png(), png(colour="blue")], prompt="a pizza")
    assert len(answer.data) == 1 and "Only the first of 2 images is read." in answer.notes


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # OpenAI means to drop variations
def test_a_picture_is_varied(client):
    answer = client.images.create_variation(image=png(), n=2)
    assert [opened(picture).size for picture in answer.data] == [(64, 64)] * 2


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["model"]
    assert client.models.retrieve("model").id == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gone")


@pytest.mark.parametrize(
    ("wrong", "param", "says"),
    [
        ({"n": 10}, "n", "The n must be a whole number from 1 to 9; it was 10."),
        ({"n": True}, "n", "it was"),
        ({"prompt": 3}, "prompt", "The prompt must be text; it was 3."),
        ({"size": "big"}, "size", "such as \"512x512\""),
        ({"output_format": "gif"}, "output_format", 'must be png, jpeg or webp; it was "gif".'),
        ({"style": "plaid"}, None, "The style must be one of any"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_with_a_sentence(client, wrong, param, says):
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(**({"prompt": "a cat"} | wrong))
    assert says in refused.value.body["message"] and refused.value.param == param


def test_a_mask_without_alpha_and_a_damaged_picture_are_refused(client):
    with pytest.raises(openai.BadRequestError, match="alpha channel"):
        client.images.edit(image=png(), mask=png(), prompt="a pizza")
    with pytest.raises(openai.BadRequestError, match="damaged"):
        client.images.edit(image=("x.png", b"x", "image/png"), prompt="a pizza")


def test_a_picture_too_long_for_webp_is_refused_before_it_is_painted(client):
    with pytest.raises(openai.BadRequestError, match="at most 16383 px a side"):
        client.images.edit(image=png(size=(16400, 8)), prompt="a pizza", output_format="webp")


def test_who_is_not_known_gets_nothing(client):
    with pytest.raises(openai.AuthenticationError):
        client.images.generate(prompt="a cat", extra_headers={"X-Test-Owner": ""})
    with pytest.raises(openai.AuthenticationError):
        client.with_options(default_headers={"X-Test-Owner": ""}).models.list()


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_that_hangs_up_ends_its_job(client, programs_url, stream):
    studio, owner = programs_url.studio.context, f"user:gone-{stream}"
    caller = client.with_options(default_headers={"X-Test-Owner": owner}, timeout=30 if stream else 0.3)
    values = {"prompt": "a cat", "n": 9, "quality": "high"}
    if stream:
        with caller.images.generate(**values, stream=True, partial_images=3) as events:
            assert next(iter(events)).type == "image_generation.partial_image"
    else:
        with pytest.raises(openai.APITimeoutError):
            caller.images.generate(**values)
    deadline = time.monotonic() + 10
    while studio.engine.jobs(owner) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert studio.engine.jobs(owner) == []
    assert [job.state for job in studio.library.find_ended_jobs(owner)] == ["cancelled"]


# What two chat front ends send: the URL, the method and the keys.
FRONT_ENDS = {
    "Open WebUI": {"model": "dall-e-2", "prompt": "a cat", "n": 1, "size": "512x512", "response_format": "b64_json"},
    "LibreChat": {
        "model": "dall-e-3", "prompt": "a cat", "n": 1, "size": "1024x1024", "quality": "standard", "style": "vivid",
    },
}  # fmt: skip


@pytest.mark.parametrize("body", FRONT_ENDS.values(), ids=list(FRONT_ENDS))
def test_front_ends_get_what_they_read(programs_url, body):
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
    request = urllib.request.Request(f"{programs_url}/v1/images/generations", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["data"][0]["b64_json"]


def test_plain_options_are_answered(programs_url):
    request = urllib.request.Request(f"{programs_url}/v1/images/generations", method="OPTIONS")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 204


def test_the_page_lists_every_route_and_asks_no_other_host(programs_url):
    with urllib.request.urlopen(f"{programs_url}/openapi.json") as answer:
        document = json.load(answer)
    with urllib.request.urlopen(f"{programs_url}/docs") as answer:
        page = answer.read().decode()
    assert len(document["paths"]) >= 6 and all(path in page for path in document["paths"])
    assert "http" not in page.replace(programs_url, "")
