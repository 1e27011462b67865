"""The list of models, and requests that name one."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from studio.api.models import list_models
from studio.models.catalog import Catalog
from studio.models.resolver import ModelResolver
from studio.services.context import AppContext
from tests.fakes import MODEL, FakeBackend
from tests.serving import launched
from tests.ui.harness import fake_studio


@pytest.fixture(scope="module")
def client(studio_url, tmp_path_factory):
    client = Client(studio_url, download_files=str(tmp_path_factory.mktemp("files")), verbose=False)
    yield client
    client.close()


def test_the_list_is_the_same_by_call_and_by_address(client, studio_url):
    listed = client.predict(api_name="/models")
    with urllib.request.urlopen(f"{studio_url}/models.json") as answer:
        assert json.load(answer) == listed
    assert listed[0]["id"] == "model" and listed[0]["problems"] == []


def test_a_model_is_listed_with_what_a_caller_needs():
    class Engine:
        loaded = ("model",)

    models = ModelResolver(Catalog(MODEL))
    (model,) = list_models(AppContext(Engine(), None, models))
    assert (model["family"], model["prediction_type"], model["size"]) == ("studio", "v_prediction", [64, 64])
    assert model["loaded"] and model["problems"] == [] and model["evidence"]
    assert model["defaults"]["inpaint"]["steps"] == 6 and "inpaint" in model["tasks"]
    assert str(MODEL) not in json.dumps(model)


def test_who_has_not_signed_in_does_not_see_the_list(tmp_path):
    with fake_studio(tmp_path, lambda: FakeBackend()) as studio, launched(studio, auth=("ann", "secret")) as url:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/models.json")
        assert refused.value.code == 401
        refused.value.close()
        client = Client(url, auth=("ann", "secret"), verbose=False)
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        request = urllib.request.Request(f"{url}/models.json", headers={"Cookie": cookies})
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)[0]["id"] == "model"
        client.close()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": "gone"}, 'The model must be .*; it was "gone".'),
        ({"width": 512}, "The width must be empty for Blob 64; it was 512."),
        ({"spacing": "karras"}, 'The spacing must be empty for Blob 64; it was "karras".'),
        ({"clip_skip": 2}, "The clip skip must be 0 for Blob 64; it was 2."),
        ({"refiner": "other"}, 'The refiner must be empty for Blob 64; it was "other".'),
    ],
)
def test_what_the_model_cannot_do_is_refused(client, wrong, says):
    with pytest.raises(AppError, match=says):
        client.predict("a cat", **wrong, api_name="/text_to_image")


def test_the_default_models_id_may_be_given(client):
    _, info = client.predict("a cat", model="model", steps=1, api_name="/text_to_image")
    assert info["model"] == "model"
