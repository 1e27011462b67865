"""The engine with latent models: jobs of several models together, and memory that is full."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from studio.engine.engine import Engine
from studio.engine.requests import TextToImage
from studio.models.cache import ModelCache
from studio.models.latent.backend import LatentBackend
from studio.models.loader import load_latent
from studio.models.placement import Placement
from tests.fakes import MemoryJournal, single_model
from tests.models import tiny
from tests.models.latent.helpers import backend, resolve, run


def load(kind: str) -> LatentBackend:
    """Load a tiny model as the studio does."""
    return LatentBackend(load_latent(tiny.entry(kind), Placement(device="cpu", dtype="float32")), find)


def find(model_id: str) -> LatentBackend:
    found = MODELS.get(model_id)
    assert isinstance(found, LatentBackend)
    return found


MODELS = ModelCache("sd15", load, size=lambda _: 1, budget=lambda: 3)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(MODELS, MemoryJournal(), resolve=resolve).start()
    yield engine
    engine.shutdown()


def picture(engine: Engine, job: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Wait for a job; return its picture and its notes."""
    *_, view = engine.follow(job, "me")
    assert view.state == "done", view.error
    return np.asarray(view.previews[0]), view.notes


def test_jobs_of_several_models_together_are_those_of_each_alone(engine):
    shared = {"steps": 3, "model_id": "sdxl", "sampler": "euler_a"}
    requests = [
        TextToImage("a cat", steps=4, sampler="dpm++2m", spacing="karras", seed=1, model_id="sd15"),
        TextToImage("a dog", refiner="refiner", refiner_start=0.5, seed=2, **shared),
        TextToImage("a fox", guidance=1.0, seed=3, **shared),
        TextToImage("an owl", negative_prompt="a cat", steps=2, sampler="heun", seed=4, model_id="sd15"),
    ]
    jobs = [engine.submit(request, "me", save=False) for request in requests]
    for job, request in zip(jobs, requests, strict=True):
        shown, notes = picture(engine, job)
        alone = run(find(request.model_id), request)[0] * 255
        assert np.abs(shown - alone).max() <= 0.51 and notes == (), request
    assert set(engine.loaded) == {"sd15", "sdxl", "refiner"}


def test_calls_that_are_too_large_for_memory_are_halved():
    """The U-Net takes two rows, and the VAE no whole picture: smaller calls and tiles make the same pictures."""
    small = backend(tiny.build("sd15"))
    requests = [TextToImage("a cat", steps=2, guidance=4.0, sampler="ddim", seed=seed) for seed in range(3)]
    rows: list[int] = []

    def needs_few_rows(_, arguments):
        rows.append(len(arguments[0]))
        if len(arguments[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    def needs_small_tiles(_, arguments):
        if arguments[0].shape[2] > 8:
            raise torch.OutOfMemoryError("out of memory")

    small.networks.unet.register_forward_pre_hook(needs_few_rows)
    small.networks.vae.decoder.register_forward_pre_hook(needs_small_tiles)
    small.networks.vae.register_to_config(sample_size=16)  # tiles of 8 latent px
    engine = Engine(single_model(lambda: small, "tiny"), MemoryJournal(), resolve=resolve).start()
    try:
        jobs = [engine.submit(request, "me", save=False) for request in requests]
        results = [picture(engine, job) for job in jobs]
    finally:
        engine.shutdown()
    assert max(rows) > 2
    assert any("tiles" in note for _, notes in results for note in notes)
    for (shown, _), request in zip(results, requests, strict=True):
        assert np.abs(shown - run(small, request)[0] * 255).max() <= 0.51
