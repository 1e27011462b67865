"""The noise service on latent models: real backends over tiny networks, from the run to its decoded latents."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.requests import TextToImage
from studio.engine.trace import Trace
from studio.services.noise import run_service
from studio.services.noise.data_uris import image_from_uri
from studio.services.noise.service import NoiseService
from tests.services.latent_models import noise_service

OWNER = "me"
SIDE = 64  # px of the tiny models' pictures
FACTOR = 2  # px per latent px


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[NoiseService]:
    with noise_service(tmp_path_factory.mktemp("noise")) as service:
        service.runs.engine.wait_until_ready(60)
        yield service


def opened(service: NoiseService, model: str = "sd15", **options) -> tuple[dict, Trace]:
    """Run once with a latent model. Return what opens its picture, and the trace."""
    params = {"prompt": "a cat, on a boat", "steps": 3, "seed": 4, "sampler": "euler", "model": model} | options
    *_, last = (json.loads(text) for text in service.runs.run(params, OWNER))
    assert "problem" not in last, last
    trace = service.runs.library.load_trace(OWNER, last["view"]["picture"])
    assert trace is not None
    return last["view"], trace


def backend(service: NoiseService, model: str):
    return service.runs.engine.backend(model)


@pytest.mark.parametrize("model", ["sd15", "sd2-v", "sdxl"])
def test_a_run_of_a_latent_model_opens_step_by_step(service, model):
    view, trace = opened(service, model)
    assert (trace.model.id, trace.model.space, trace.model.channels) == (model, "latent", 4)
    assert trace.stages[0].x_t.shape == (3, 4, SIDE // FACTOR, SIDE // FACTOR)
    (stage,) = view["stages"]
    assert view["model"] == model and stage["latent"] and stage["width"] == SIDE // FACTOR
    assert [step["how"] for step in stage["steps"]] == ["exact"] * 3
    assert all(step["identity_error"] < 1e-4 and (step["rest"] or 0) < 1e-4 for step in stage["steps"])
    assert ("predicts v" if model == "sd2-v" else "predicts ε̂") in stage["steps"][0]["conversion"]
    assert {"x_t", "eps", "x0", "x_next", "difference"} == stage["sheets"].keys()
    assert view["params"]["model"] == model
    *_, again = (json.loads(text) for text in service.runs.run(view["params"], OWNER))
    assert again["view"]["stages"][0]["sheets"] == stage["sheets"]  # the link of a run repeats it


def test_the_last_latents_decode_to_the_picture(service):
    view, _ = opened(service)
    answer = service.decode({"key": view["key"], "stage": 0, "step": 2, "array": "x_next"})
    picture = service.runs.library.get_picture(OWNER, view["picture"])
    with Image.open(picture.path) as file:
        difference = np.abs(np.asarray(image_from_uri(answer["picture"]), int) - np.asarray(file.convert("RGB"), int))
    assert difference.max() <= 1
    channels = service.channels({"key": view["key"], "stage": 0})["sheets"]
    assert image_from_uri(channels["x0"]).size == (3 * SIDE, SIDE)  # two by two channels for each of three steps


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_attention_to_each_word_in_one_step(service, model):
    view, trace = opened(service, model)
    answer = service.inspect({"key": view["key"], "stage": 0, "step": 1})
    assert answer["words"] == ["", "a", "cat,", "on", "a", "boat", ""]
    (look,) = answer["looks"]
    assert look["index"] == 1 and sum(look["shares"]) == pytest.approx(1, abs=1e-4)
    assert (answer["input_channels"], answer["output_channels"], answer["tiles"]) == (4, 4, 1)


def test_an_inspected_step_is_that_of_the_run(service):
    """Without guidance, the prediction with the words is all there is to a step."""
    from studio.lab.latent_attention import bind_prompt, replay_latent_step

    view, trace = opened(service, guidance=1.0)
    model, step = backend(service, "sd15"), trace.steps[1]
    predict = bind_prompt(model.networks.unet, model.encode_text(view["caption"]), trace.stages[0], step)
    with torch.no_grad():
        inspection = replay_latent_step(model.networks.unet, predict, model.loaded.tokenizers[0], view["caption"], step)
    np.testing.assert_allclose(inspection.prediction, step.eps, atol=2e-5)


def test_wrong_stages_and_steps_are_sentences(service):
    view, _ = opened(service)
    for method in (service.inspect, service.decode):
        problem = method({"key": view["key"], "stage": 0, "step": 3})["problem"]
        assert problem == "The step must be a whole number from 0 to 2; it was 3."
    for method in (service.inspect, service.decode, service.channels):
        assert "from 0 to 0; it was 1" in method({"key": view["key"], "stage": 1})["problem"]
        assert "no longer kept" in method({"key": "gone", "stage": 0})["problem"]
    assert "array" in service.decode({"key": view["key"], "array": "eps"})["problem"]


def test_pixels_and_latents(service):
    opened(service)  # loads the model
    answer = service.latents({"picture": 0, "size": 128, "model": "sd15"})
    assert answer["model"] == "sd15" and answer["latent_shape"] == [4, 64, 64] and answer["ratio"] == 3
    assert image_from_uri(answer["reconstruction"]).size == (128, 128) and len(answer["channels"]) == 4
    assert service.latents({"picture": 0, "size": 128})["model"] in service.runs.engine.loaded  # any loaded one
    assert "one of 128, 256, 512" in service.latents({"picture": 0, "size": 100})["problem"]


def test_noise_is_added_to_latents(service):
    opened(service)
    view = service.forward({"picture": 0, "size": 16, "space": "latents", "model": "sd15"})
    assert (view["channels"], view["size"], len(view["preview"])) == (4, 16, 5)
    assert service.forward({"picture": 0, "size": 16})["preview"] is None
    for params in ({"size": 17}, {"space": "frequencies"}):
        assert "must be" in service.forward({"picture": 0, "space": "latents"} | params)["problem"]


def test_runs_of_latent_models_are_compared(service, monkeypatch):
    monkeypatch.setattr(run_service, "LATENT_REFERENCE_STEPS", 6)
    run = {"prompt": "a cat", "steps": 2, "seed": 1, "model": "sd15"}
    params = {"runs": [run | {"sampler": "euler"}, run | {"sampler": "pndm"}]}
    *progress, last = (json.loads(text) for text in service.runs.compare(params, OWNER))
    assert progress and last["view"]["latent"] and last["view"]["converged"] == 6
    assert [len(each["t"]) for each in last["view"]["runs"]] == [3, 4]


def test_a_model_that_is_not_loaded_is_a_sentence(tmp_path):
    with noise_service(tmp_path, budget=1) as service:
        view, _ = opened(service)
        service.runs.run_and_wait(TextToImage("a cat", steps=1), OWNER)  # the default model takes its place
        for method in (service.inspect, service.decode):
            answer = method({"key": view["key"], "stage": 0})
            assert answer["problem"] == 'The model "sd15" is not loaded. Paint a picture with it, and try again.'
        assert "sheets" in service.channels({"key": view["key"]})  # needs no model
        assert "picture" in json.loads(service.runs.open(OWNER, view["picture"]))["view"]
        for answer in (service.latents({"picture": 0}), service.forward({"picture": 0, "space": "latents"})):
            assert answer["problem"].startswith("No latent model is loaded. Choose a Stable Diffusion model")
