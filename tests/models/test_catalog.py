"""The catalog: what a scan finds, ids, a person's settings, hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from studio.engine.checks import InvalidRequest
from studio.models.catalog import Catalog
from tests.models import tiny
from tests.models.layouts import layout, write_header

MODEL = Path(__file__).resolve().parents[2] / "assets" / "model"


@pytest.fixture
def models(tmp_path) -> Path:
    """A folder of models, as people have them."""
    return make_models(tmp_path / "models")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory) -> Path:
    """The same folder, for tests that change nothing in it."""
    return make_models(tmp_path_factory.mktemp("unchanged") / "models")


def make_models(root: Path) -> Path:
    (root / "more").mkdir(parents=True)
    shutil.copytree(tiny.folder("sd15"), root / "sd15")
    shutil.copytree(tiny.folder("sd2-v"), root / "more" / "sd15")
    write_header(root / "xl.safetensors", layout("sdxl"), metadata={"modelspec.trigger_phrase": "in xl style"})
    write_header(root / "detail.safetensors", {"lora_unet_x.lora_down.weight": (4, 4)})
    (root / "broken.safetensors").write_bytes(b"nothing")
    (root / ".hidden.safetensors").write_bytes(b"nothing")
    (root / "notes.txt").write_text("nothing")
    return root


def ids(catalog: Catalog) -> list[str]:
    return [entry.id for entry in catalog.entries]


def test_a_scan_finds_folders_and_files_with_ids_of_their_own(unchanged):
    catalog = Catalog(MODEL, [unchanged])
    by_id = {entry.id: entry for entry in catalog.entries}
    assert list(by_id) == ["model", "broken", "detail", "sd15", "xl", "more/sd15"]
    assert [entry.path for entry in catalog.entries[1:]] == [
        unchanged / "broken.safetensors",
        unchanged / "detail.safetensors",
        unchanged / "sd15",
        unchanged / "xl.safetensors",
        unchanged / "more" / "sd15",
    ]
    xl = by_id["xl"]
    assert (xl.layout, xl.dtype, xl.trigger_words, xl.problems) == ("file", "F16", "in xl style", ())
    assert 2 * xl.parameters == xl.bytes > 6e9
    assert xl.defaults["width"] == xl.defaults["height"] == 1024
    assert by_id["detail"].problems == ("detail.safetensors is a LoRA, which cannot paint alone.",)
    assert by_id["broken"].problems == ("The file models/broken.safetensors is cut short or is not safetensors.",)
    assert catalog.get() == catalog.entries[0] and catalog.get("").identity.family == "studio"


def test_the_default_model_may_be_any_and_is_listed_once(unchanged, tmp_path):
    catalog = Catalog(unchanged / "sd15", [unchanged, unchanged / "more", unchanged])
    assert catalog.get().path == unchanged / "sd15" and len(catalog.entries) == 5
    assert Catalog(unchanged / "xl.safetensors").get().id == "xl"
    missing = Catalog(tmp_path / "none", [tmp_path / "nowhere"])
    assert [entry.problems for entry in missing.entries] == [(f"The model {tmp_path / 'none'} does not exist.",)]


def test_an_unknown_id_is_refused_with_those_that_run(unchanged):
    with pytest.raises(InvalidRequest) as refusal:
        Catalog(MODEL, [unchanged]).get("nothing")
    assert str(refusal.value).startswith("The model must be one of model, ")
    assert str(refusal.value).endswith('; it was "nothing".') and "broken" not in str(refusal.value)


def test_a_rescan_sees_what_has_changed(models):
    catalog = Catalog(MODEL, [models])
    (models / "broken.safetensors").unlink()
    shutil.copytree(tiny.folder("lcm"), models / "lcm")
    catalog.rescan()
    assert "broken" not in ids(catalog) and catalog.get("lcm").identity.variant == "lcm"


def test_what_a_person_sets_is_kept(unchanged, tmp_path):
    file = tmp_path / "data" / "models.json"
    catalog = Catalog(MODEL, [unchanged], settings_file=file)
    entry = catalog.override("xl", prediction_type="v_prediction", defaults={"steps": 9}, trigger_words="soft")
    assert entry == catalog.get("xl") and entry.identity.prediction_type == "v_prediction"
    assert (entry.defaults["steps"], entry.defaults["width"], entry.trigger_words) == (9, 1024, "soft")
    catalog.override("model", trigger_words="a red")
    again = Catalog(MODEL, [unchanged], settings_file=file)
    assert again.get("xl") == entry and again.get("model").trigger_words == "a red"
    again.override("xl", prediction_type=None, defaults=None, trigger_words=None)
    assert again.get("xl") == Catalog(MODEL, [unchanged]).get("xl")
    assert [path.name for path in file.parent.iterdir()] == ["models.json"]  # no temporary files


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"family": "flux"}, "The family must be one of stable-diffusion, sdxl,"),
        ({"family": "studio"}, 'it was "studio"'),
        ({"variant": 5}, "The variant must be one of"),
        ({"prediction_type": "v"}, "The prediction type must be one of epsilon, v_prediction, sample"),
        ({"defaults": 5}, "The default settings must be a mapping; they were 5."),
        ({"defaults": {"prompt": "x"}}, "The default setting must be one of sampler,"),
        ({"defaults": {"steps": 0}}, "The default steps must be a whole number from 1 to"),
        ({"defaults": {"width": "wide"}}, "The default width must be a whole number"),
        ({"defaults": {"width": 77}}, "The default width must be a multiple of 8 from 64 to 2048; it was 77."),
        ({"defaults": {"guidance": float("nan")}}, "The default guidance must be a number"),
        ({"trigger_words": 1}, "The trigger words must be text"),
        ({"path": "/"}, 'not "path"'),
    ],
)
def test_wrong_settings_are_refused_and_nothing_changes(unchanged, fields, says):
    catalog = Catalog(MODEL, [unchanged])
    before = catalog.get("xl")
    with pytest.raises(InvalidRequest, match=says):
        catalog.override("xl", **fields)
    assert catalog.get("xl") == before
    with pytest.raises(InvalidRequest, match="cannot be set: it is this studio's own"):
        catalog.override("model", family="sdxl")


def test_a_family_set_by_a_person_makes_an_unknown_folder_a_model(models):
    index = models / "sd15" / "model_index.json"
    index.write_text(index.read_text().replace("UNet2DConditionModel", "MyUNet"))
    catalog = Catalog(MODEL, [models])
    assert catalog.get("sd15").problems != ()
    entry = catalog.override("sd15", family="stable-diffusion")
    assert entry.problems == () and entry.identity.version == "Stable Diffusion"


@pytest.mark.parametrize(
    "content", ["", "[]", '{"overrides": {"/xl": {"family": 5}}, "hashes": {}}', '{"overrides": 1}']
)
def test_a_damaged_settings_file_is_kept_aside(unchanged, tmp_path, content):
    file = tmp_path / "models.json"
    file.write_text(content)
    catalog = Catalog(MODEL, [unchanged], settings_file=file)
    assert catalog.get("xl").overrides == {}
    catalog.override("xl", variant="turbo")
    assert json.loads(file.read_text())["overrides"] == {str(unchanged / "xl.safetensors"): {"variant": "turbo"}}
    assert (tmp_path / "models.damaged.json").read_text() == content


def hashed(catalog: Catalog, model_id: str) -> str | None:
    deadline = time.monotonic() + 20
    while (digest := catalog.sha256(catalog.get(model_id))) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return digest


def test_hashes_are_those_of_the_weights_and_are_kept(models, tmp_path):
    file = tmp_path / "models.json"
    weights = models / "sd15" / "unet" / "diffusion_pytorch_model.safetensors"
    catalog = Catalog(MODEL, [models], settings_file=file)
    assert catalog.sha256(catalog.get("sd15")) is None  # not known at once
    assert hashed(catalog, "sd15") == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert catalog.sha256(catalog.get("broken")) is None
    catalog.close()
    again = Catalog(MODEL, [models], settings_file=file)
    assert again.sha256(again.get("sd15")) == hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    os.utime(weights, ns=(1, 1))
    assert again.sha256(again.get("sd15")) is None
    assert hashed(again, "sd15") == hashlib.sha256(weights.read_bytes()).hexdigest()
    again.close()


def test_closing_stops_a_long_hash(unchanged):
    catalog = Catalog(MODEL, [unchanged])
    assert catalog.sha256(catalog.get("xl")) is None  # 7 GB
    catalog.close()
    assert catalog.sha256(catalog.get("xl")) is None


def test_the_hash_of_shards_is_that_of_all_their_bytes(models):
    folder = models / "sd15" / "unet"
    data = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    os.rename(folder / "diffusion_pytorch_model.safetensors", folder / "b.safetensors")
    shutil.copy(folder / "b.safetensors", folder / "a.safetensors")
    index = {"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    catalog = Catalog(MODEL, [models])
    assert hashed(catalog, "sd15") == hashlib.sha256(data + data).hexdigest()
    catalog.close()
