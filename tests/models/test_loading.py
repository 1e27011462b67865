"""Models of a catalog, opened by their families and run by one engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.engine.checks import InvalidRequest
from studio.engine.engine import Engine
from studio.engine.requests import Request, TextToImage
from studio.models.catalog import Catalog
from studio.models.families import loading
from studio.models.families.loading import device_memory, open_models
from studio.models.formats import ModelError
from studio.models.resolver import ModelResolver
from tests.engine.conftest import eventually
from tests.fakes import MODEL, MemoryJournal
from tests.models import tiny

KINDS = ("sd15", "sdxl", "refiner")
REQUESTS = [
    TextToImage("a red apple", steps=2, seed=1),
    TextToImage("a red apple", steps=3, seed=2, model_id="sd15", width=64, height=64, sampler="ddim"),
    TextToImage("a cat", steps=2, seed=3, model_id="sd15", width=64, height=64, guidance=1.0, count=2),
    TextToImage("a cat", steps=2, seed=4, model_id="sdxl", width=64, height=64),
    TextToImage("a cat", steps=4, seed=5, model_id="sdxl", width=64, height=64, refiner="refiner", refiner_start=0.5),
]


@pytest.fixture
def catalog(tmp_path: Path):
    for kind in KINDS:
        (tmp_path / kind).symlink_to(tiny.folder(kind))
    catalog = Catalog(MODEL, [tmp_path])
    yield catalog
    catalog.close()


def run(engine: Engine, journal: MemoryJournal, requests: list[Request]) -> list[list[Image.Image]]:
    """Run requests together, and return the pictures of each."""
    ids = [engine.submit(request, "me") for request in requests]
    eventually(lambda: not engine.jobs("me"))
    for job_id in ids:
        assert engine.view(job_id, "me").state == "done", engine.view(job_id, "me").error
    return [[journal.images[picture.id] for picture in journal.entries[job_id].pictures] for job_id in ids]


def difference(some: list[Image.Image], others: list[Image.Image]) -> int:
    pairs = zip(some, others, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)


def test_jobs_of_several_models_give_the_same_pictures_together_and_alone(catalog):
    """Within one level of 255. The budget holds two or three of the four models."""
    sizes = {entry.id: 4 * entry.parameters for entry in catalog.entries}
    budget = sizes["model"] + sizes["sdxl"] + sizes["refiner"]
    models, journal = open_models(catalog, device="cpu", memory=budget), MemoryJournal()
    engine = Engine(models, journal, resolve=ModelResolver(catalog).resolve, patience=0.01).start()
    try:
        alone = [run(engine, journal, [request])[0] for request in REQUESTS]
        together = run(engine, journal, REQUESTS[::-1])
        assert models.bytes <= budget
    finally:
        assert engine.shutdown(60)
    for request, pictures, others in zip(REQUESTS, alone, together[::-1], strict=True):
        assert difference(pictures, others) <= 1, request


def test_a_model_whose_kind_was_set_otherwise_is_loaded_again(catalog):
    models = open_models(catalog, device="cpu")
    models.load("sd15")
    backend = models.get("sd15")
    assert models.loaded == ("sd15",) and models.bytes == pytest.approx(backend.loaded.bytes, rel=0.01)
    catalog.override("sd15", prediction_type="v_prediction")
    assert models.loaded == () and models.get("sd15") is None and not models.fits(["sd15"], ["sd15"])
    models.make_room(["sd15"], [])
    models.load("sd15")
    assert models.get("sd15") is not backend
    assert models.get("sd15").loaded.scheduler_config["prediction_type"] == "v_prediction"


def test_what_cannot_be_loaded_is_refused_with_a_sentence(catalog, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{", "utf-8")
    catalog.rescan()
    models = open_models(catalog, device="cpu", memory=1000)
    with pytest.raises(ModelError, match="broken"):
        models.load("broken")
    with pytest.raises(InvalidRequest, match="The model must be one of"):
        models.load("gone")
    with pytest.raises(ModelError, match="The model sd15 takes 0.0 GB of memory"):
        models.load("sd15")
    assert models.fits(["gone"], []) and models.fits(["sd15"], [])  # loading says why not
    models = open_models(catalog, device="cuda:77")
    with pytest.raises(ModelError, match=r"The device must be auto or one of those|cuda:77"):
        models.load("sd15")


def test_the_memory_of_a_cpu_is_limited_by_its_container(monkeypatch, tmp_path):
    whole = device_memory("cpu")
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(loading, "MEMORY_LIMITS", (tmp_path / "memory.max", tmp_path / "none"))
    assert device_memory("cpu") >= whole
    (tmp_path / "memory.max").write_text("1000000\n")
    assert device_memory("cpu") == 1_000_000
