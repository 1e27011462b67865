"""Downloads from a stand-in hub: what is fetched, what is refused, what an interruption leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from studio.models.catalog import Catalog
from studio.models.catalog.scan import read_entry
from studio.models.download import Download, look_up
from studio.models.formats import ModelError
from tests.models import tiny
from tests.models.hub import serve_hub

MODEL = "someone/small-model"
MODEL_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "model"
WEIGHTS = os.urandom(3_000_000)


def index(**components: list) -> bytes:
    return json.dumps({"_class_name": "StableDiffusionPipeline", **components}).encode()


UNET = ["diffusers", "UNet2DConditionModel"]
FILES = {
    "model_index.json": index(
        unet=UNET,
        vae=["diffusers", "AutoencoderKL"],
        tokenizer=["transformers", "CLIPTokenizer"],
        scheduler=["diffusers", "PNDMScheduler"],
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
    ),
    "README.md": b"# Small",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": WEIGHTS + WEIGHTS,
    "unet/diffusion_pytorch_model.fp16.safetensors": WEIGHTS,
    "unet/diffusion_pytorch_model.non_ema.safetensors": WEIGHTS,
    "unet/diffusion_pytorch_model.bin": b"pickle",
    "unet/modeling.py": b"import os",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model-00001-of-00002.safetensors": b"one",
    "vae/diffusion_pytorch_model-00002-of-00002.safetensors": b"two",
    "vae/diffusion_pytorch_model.safetensors.index.json": b"{}",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"#",
    "scheduler/scheduler_config.json": b"{}",
    "safety_checker/config.json": b"{}",
    "safety_checker/model.safetensors": b"checker",
    "v1.safetensors": WEIGHTS,
}
WANTED = {
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
    "vae/diffusion_pytorch_model-00002-of-00002.safetensors",
    "vae/diffusion_pytorch_model.safetensors.index.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "scheduler/scheduler_config.json",
}
UNET_WEIGHTS = "unet/diffusion_pytorch_model.fp16.safetensors"


@pytest.fixture
def hub(monkeypatch):
    with serve_hub() as hub:
        hub.repositories[MODEL] = dict(FILES)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def fetched(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finish(download: Download) -> Download:
    download.wait(20)
    return download


def test_only_what_a_model_needs_is_fetched(hub, tmp_path):
    model = look_up(MODEL)
    assert set(model.files) == WANTED and hub.ranges == [("model_index.json", 0)]  # the size is known beforehand
    assert model.bytes == sum(len(FILES[path]) for path in WANTED)
    download = finish(Download(model, tmp_path))
    assert (download.state, download.error, download.done_bytes) == ("done", "", model.bytes)
    assert download.path == tmp_path / "someone--small-model"
    assert fetched(tmp_path) == {f"someone--small-model/{path}": FILES[path] for path in WANTED}
    again = finish(Download(model, tmp_path))
    assert again.state == "failed" and again.error == (
        "The models folder already has someone--small-model; delete it to fetch it again."
    )


def test_a_fetched_model_is_in_the_catalog(hub, tmp_path):
    folder = tiny.folder("sd15")
    hub.repositories["someone/sd15"] = fetched(folder)
    catalog = Catalog(MODEL_FOLDER, [tmp_path])
    download = finish(Download(look_up("someone/sd15"), tmp_path))
    catalog.rescan()
    entry = catalog.get("someone--sd15")
    assert (entry.path, entry.problems, entry.identity.family) == (download.path, (), "stable-diffusion")
    assert entry.bytes == read_entry(folder).bytes


def test_a_single_file_is_fetched_by_its_name(hub, tmp_path):
    model = look_up(f"{MODEL}/v1.safetensors")
    assert finish(Download(model, tmp_path)).state == "done"
    assert fetched(tmp_path) == {"v1.safetensors": WEIGHTS}


def test_a_broken_connection_goes_on_where_it_stopped(hub, tmp_path):
    hub.breaks[UNET_WEIGHTS] = [1_200_000, 1_100_000]
    assert finish(Download(look_up(MODEL), tmp_path)).state == "done"
    starts = [start for path, start in hub.ranges if path == UNET_WEIGHTS]
    assert len(starts) == 3 and 0 == starts[0] < starts[1] <= 1_200_000 and starts[1] < starts[2] <= 2_000_000
    assert fetched(tmp_path / "someone--small-model")[UNET_WEIGHTS] == WEIGHTS


def test_a_cancelled_download_goes_on_later(hub, tmp_path):
    hub.pauses[UNET_WEIGHTS] = threading.Event()
    model = look_up(MODEL)
    download = Download(model, tmp_path)
    others = sum(size for path, size in model.files.items() if path != UNET_WEIGHTS)
    deadline = time.monotonic() + 10
    while download.done_bytes <= others and time.monotonic() < deadline:
        time.sleep(0.002)
    download.cancel()
    hub.pauses[UNET_WEIGHTS].set()
    finish(download)
    assert download.state == "cancelled" and not download.path.exists()
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]  # a scan does not see it
    hub.ranges.clear()
    assert finish(Download(model, tmp_path)).state == "done"
    assert hub.ranges[0][0] == UNET_WEIGHTS and hub.ranges[0][1] > 0
    assert fetched(tmp_path) == {f"someone--small-model/{path}": FILES[path] for path in WANTED}


def test_changed_bytes_are_noticed(hub, tmp_path):
    hub.corrupt.add(UNET_WEIGHTS)
    download = finish(Download(look_up(MODEL), tmp_path))
    assert download.state == "failed" and not download.path.exists()
    assert download.error == f"The file {UNET_WEIGHTS} of {MODEL} did not arrive whole; try again."
    hub.corrupt.clear()
    assert finish(Download(look_up(MODEL), tmp_path)).state == "done"


@pytest.mark.parametrize(
    ("hub_id", "says"),
    [
        ("", "is named owner/name"),
        ("small-model", "is named owner/name"),
        ("../../etc", "is named owner/name"),
        ("someone/..", "is named owner/name"),
        ("someone/small-model/../x.safetensors", "is named owner/name"),
        ("someone/small-model/unet/diffusion_pytorch_model.bin", "is named owner/name"),
        ("http://127.0.0.1/a/b", "is named owner/name"),
        ("someone/small-model/none.safetensors", "has no file none.safetensors"),
        ("someone/nothing", "The hub has no model someone/nothing, or it is private."),
        ("someone/gated", "asks for consent to its licence"),
        ("someone/file-only", "has no model_index.json on the hub"),
        ("someone/flux", "is a FluxPipeline; this studio runs"),
        ("someone/pickles", "has no safetensors weights for unet"),
        ("someone/broken", "is cut short or is not JSON"),
    ],
)
def test_what_cannot_be_fetched_is_refused_with_a_sentence(hub, hub_id, says):
    hub.gated.add("someone/gated")
    hub.repositories |= {
        "someone/file-only": {"model.safetensors": b""},
        "someone/flux": {"model_index.json": json.dumps({"_class_name": "FluxPipeline"}).encode()},
        "someone/pickles": {
            "model_index.json": index(unet=UNET),
            "unet/config.json": b"{}",
            "unet/diffusion_pytorch_model.bin": b"pickle",
        },
        "someone/broken": {"model_index.json": b'{"unet'},
    }
    with pytest.raises(ModelError, match=says) as refusal:
        look_up(hub_id)
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


def test_a_hub_that_is_away_is_a_sentence(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match="could not be fetched from the hub: "):
        look_up(MODEL)


def test_the_environment_names_the_hub(hub):
    script = "from studio.models.download import look_up; print(look_up('someone/small-model').bytes)"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    output = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
    assert int(output) == look_up(MODEL).bytes


def test_nothing_is_asked_offline(hub, monkeypatch, tmp_path):
    model = look_up(MODEL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.ranges.clear()
    sentence = "Nothing is fetched from the hub, because HF_HUB_OFFLINE is set."
    with pytest.raises(ModelError, match=sentence):
        look_up(MODEL)
    assert finish(Download(model, tmp_path)).error == sentence
    assert hub.ranges == []
