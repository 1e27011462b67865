"""Files that somebody made to do harm: each is refused with one sentence, in little memory, and nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.models.catalog import Catalog
from studio.models.catalog.scan import find_models, read_entry
from tests.models import tiny

MODEL = Path(__file__).resolve().parents[2] / "assets" / "model"
MAX_MEGABYTES = 200


class Pickle:
    """Makes a folder if it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def problems_of_only_model(folder: Path) -> tuple[str, ...]:
    """Read the one model in a folder, and hold that to its limit of memory."""
    tracemalloc.start()
    try:
        [path] = find_models([folder])
        entry = read_entry(path)
        megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    assert megabytes < MAX_MEGABYTES
    return (*entry.problems, *entry.identity.problems)


def assert_refused(folder: Path, says: str) -> None:
    problems = problems_of_only_model(folder)
    assert any(says in problem for problem in problems), problems
    for problem in problems:
        assert problem.endswith(".") and problem.isprintable() and len(problem) < 400


def header(head: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def tensors(**entries: object) -> bytes:
    return json.dumps(entries).encode()


def f32(*shape: object, start: object = 0, end: object = 4) -> dict[str, object]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}


FOUR = b"\0\0\0\0"
NOT_AGREED = "whose type, shape and length do not agree"
SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is cut short or is not safetensors"),
    "a few bytes": (b"\x02\0\0\0\0\0\0\0{", "is cut short or is not safetensors"),
    "no JSON": (header(b"{" + b"x" * 50), "is cut short or is not JSON"),
    "not UTF-8": (header(b'{"a": "' + b"\xff" * 9 + b'"}'), "is cut short or is not JSON"),
    "a list": (header(b"[]  "), "is cut short or is not safetensors"),
    "length beyond the file": (header(b"{}", length=2**63), "is cut short or is not safetensors"),
    "a long header": (header(b'{"a": "' + b"x" * 9_000_000 + b'"}'), "holds more than 8 MB of JSON"),
    "many values": (header(b'{"a": [' + b"[]," * 400_000 + b"0]}"), "holds more than 300,000 JSON values"),
    "deep": (header(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "is nested too deeply"),
    "a long number": (header(b'{"a": ' + b"9" * 100_000 + b"}"), "is cut short or is not JSON"),
    "infinity as a number": (header(tensors(a=f32(1, end=0)).replace(b"[1]", b"[1e999]")), NOT_AGREED),
    "infinity as a word": (header(b'{"a": Infinity}'), "holds Infinity, which is not JSON"),
    "two of a name": (header(b'{"a": 1, "a": 2}'), "names an entry twice"),
    "no entry": (header(tensors(a=5)), NOT_AGREED),
    "an entry that is a text": (header(tensors(a="dtype")), NOT_AGREED),
    "no type": (header(tensors(a={"shape": [1], "data_offsets": [0, 4]}), FOUR), NOT_AGREED),
    "another type": (header(tensors(a={**f32(1), "dtype": "Q4"}), FOUR), NOT_AGREED),
    "a type that is a list": (header(tensors(a={**f32(1), "dtype": ["F32"]}), FOUR), NOT_AGREED),
    "offsets as texts": (header(tensors(a=f32(1, start="0", end="4")), FOUR), NOT_AGREED),
    "three offsets": (header(tensors(a={**f32(1), "data_offsets": [0, 4, 8]}), FOUR), NOT_AGREED),
    "a negative shape": (header(tensors(a=f32(-1, -1)), FOUR), NOT_AGREED),
    "a shape of truths": (header(tensors(a=f32(True)), FOUR), NOT_AGREED),
    "a shape of fractions": (header(tensors(a=f32(1.0)), FOUR), NOT_AGREED),
    "a shape of a mapping": (header(tensors(a={**f32(), "shape": {"1": 1}}), FOUR), NOT_AGREED),
    "a long shape": (header(tensors(a=f32(*[1] * 200_000)), FOUR), NOT_AGREED),
    "a huge shape": (header(tensors(a=f32(2**40, 2**40, 2**40, end=2**47))), NOT_AGREED),
    "more bytes than the file": (header(tensors(a=f32(10**9, end=4 * 10**9)), FOUR), "is cut short: "),
    "an overlap": (header(tensors(a=f32(1), b=f32(1)), FOUR), "has a gap or an overlap"),
    "a gap": (header(tensors(a=f32(1), b=f32(1, start=8, end=12)), FOUR * 3), "has a gap or an overlap"),
    "backwards": (header(tensors(a=f32(start=4, end=0)), FOUR), NOT_AGREED),
    "data without a name": (header(tensors(a=f32(1)), FOUR * 2), "has 4 bytes too many"),
    "metadata that is a list": (header(tensors(__metadata__=[1])), "has metadata that are not texts"),
    "metadata of numbers": (header(tensors(__metadata__={"a": 1})), "has metadata that are not texts"),
    "a name of control characters": (header(tensors(**{"\x1b[31m\n" * 100: 5})), NOT_AGREED),
    "markup for a name": (header(tensors(**{"<script>alert(1)</script>": 5})), NOT_AGREED),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    "many tensors": (
        header(tensors(**{str(i): f32(0, end=0) for i in range(5_000)})),
        "holds weights of a kind that the studio does not know",
    ),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_broken_safetensors_are_refused(tmp_path, name):
    content, says = SAFETENSORS[name]
    (tmp_path / "bad.safetensors").write_bytes(content)
    assert_refused(tmp_path, says)


def test_a_pickle_is_never_opened(tmp_path):
    mark = tmp_path / "mark"
    models = tmp_path / "models"
    models.mkdir()
    (models / "one.ckpt").write_bytes(pickle.dumps(Pickle(mark)))
    assert_refused(models, "is a pickle, which can run code")
    (models / "one.ckpt").rename(models / "one.safetensors")
    assert_refused(models, "is cut short or is not safetensors")
    assert not mark.exists()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    assert_refused(tmp_path, "is a pipe or a device, not a file")


def edit(path: Path, **entries: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def replace_by_link(path: Path, target: Path) -> None:
    shutil.move(path, target)
    path.symlink_to(target)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def many_components(folder: Path) -> None:
    edit(folder / "model_index.json", **{f"part_{i}": ["diffusers", "X"] for i in range(100)})


UNET = "unet/diffusion_pytorch_model.safetensors"
FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an index of another shape": (lambda f: (f / "model_index.json").write_text("[]"), "is not a JSON object"),
    "a deep index": (lambda f: (f / "model_index.json").write_text('{"a":' * 99_999), "is nested too deeply"),
    "a long index": (lambda f: (f / "model_index.json").write_text(" " * 9_000_000), "holds more than 8 MB of JSON"),
    "an index that is a folder": (
        lambda f: ((f / "model_index.json").unlink(), (f / "model_index.json").mkdir()),
        "The file model_index.json of the model sd",
    ),
    "a component outside": (
        lambda f: edit(f / "model_index.json", **{"../../unet": ["diffusers", "UNet2DConditionModel"]}),
        "has no ../../unet",
    ),
    "many components": (many_components, "names 105 components; it may have 32"),
    "a class of its own": (
        lambda f: edit(f / "model_index.json", unet=["evil", "Evil"]),
        "is a StableDiffusionPipeline; this studio runs",
    ),
    "a program for a U-Net": (lambda f: edit(f / "model_index.json", unet=["os", "system"]), "this studio runs"),
    "a pipe for a config": (lambda f: replace_by_pipe(f / "unet/config.json"), "is a pipe or a device"),
    "a pipe for weights": (lambda f: replace_by_pipe(f / UNET), "is a pipe or a device"),
    "a pipe for an index": (lambda f: replace_by_pipe(f / "model_index.json"), "is a pipe or a device"),
    "a config elsewhere": (lambda f: replace_by_link(f / "unet/config.json", f.parents[1] / "c"), "is a link out of"),
    "weights elsewhere": (lambda f: replace_by_link(f / UNET, f.parents[1] / "w"), "is a link out of its folder"),
    "a component elsewhere": (lambda f: replace_by_link(f / "vae", f.parents[1] / "vae"), "is a link out of"),
    "an index elsewhere": (lambda f: replace_by_link(f / "model_index.json", f.parents[1] / "i"), "is a link out of"),
    "a link to itself": (
        lambda f: ((f / "unet/config.json").unlink(), (f / "unet/config.json").symlink_to("config.json")),
        "is a link out of its folder",
    ),
    "shards outside": (
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"w": "../../../x.safetensors"}})
        ),
        "does not name the files of the weights",
    ),
    "shards of no name": (
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": {"w": [1]}}'),
        "does not name the files of the weights",
    ),
    "pickles only": (
        lambda f: ((f / UNET).unlink(), (f / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(1))),
        "has no safetensors weights for unet",
    ),
    "an unknown prediction": (
        lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="flow\x1b"),
        "predicts flow\\x1b",
    ),
    "a class of control characters": (
        lambda f: edit(f / "model_index.json", _class_name="\x1b" * 10_000, unet=None),
        "this studio runs",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_broken_folders_are_refused(tmp_path, name):
    harm, says = FOLDERS[name]
    shutil.copytree(tiny.folder("sd15"), tmp_path / "models" / "sd")
    harm(tmp_path / "models" / "sd")
    assert_refused(tmp_path / "models", says)


def test_names_that_are_no_text_are_written_out(tmp_path):
    for name in (b"\xff\xfe.safetensors", b"a\x1b[31mb.safetensors"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    ids = [entry.id for entry in Catalog(MODEL, [tmp_path]).entries[1:]]
    assert ids == [r"a\x1b[31mb", r"\udcff\udcfe"]


def test_a_scan_ends_where_links_lead_in_a_circle(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path)
    (tmp_path / "a" / "x.safetensors").write_bytes(b"")
    assert [entry.path.name for entry in Catalog(MODEL, [tmp_path]).entries] == ["model", "x.safetensors"]
