"""Model folders on disk: whether they are whole, and what their headers say. Needs no torch.

Folders have the diffusers layout. Only safetensors weights are accepted: no pickle and no remote code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


class ModelError(RuntimeError):
    """A model that cannot be loaded. Its text is for the person who named it."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor in a safetensors header. start, end: bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """The head of a safetensors file. length: in bytes, with the 8 bytes that hold its length."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    length: int


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file. Raises ModelError with one sentence."""
    raise NotImplementedError


def component_weights(folder: Path, component: str) -> tuple[Path, ...]:
    """Return the safetensors files of a component (shards in order): plain ones, else those of the fp16 variant.

    Raises ModelError with one sentence.
    """
    raise NotImplementedError


@dataclass(frozen=True)
class ModelInfo:
    """What the files of a model say about it."""

    name: str
    parameters: int  # in all safetensors files
    picture_size: int | None  # side in px of a picture, if no other size is requested

    @property
    def size(self) -> str:
        """The number of parameters for people: "11.5 M"."""
        count = float(self.parameters)
        for unit in ("", " k", " M"):
            if count < 1000:
                return f"{count:.3g}{unit}"
            count /= 1000
        return f"{count:.3g} G"


def read_model_info(folder: str | Path) -> ModelInfo:
    """Return the name, the parameters and the picture size of a model folder; never raises.

    The name is the title of its model card, else the folder's name.
    """
    folder = Path(folder)
    name = folder.resolve().name
    try:
        lines = (folder / "README.md").read_text("utf-8").splitlines()
        name = next((line[2:].strip() for line in lines if line.startswith("# ")), name)
    except (OSError, ValueError):
        pass
    parameters = 0
    for path in folder.rglob("*.safetensors"):
        try:
            for key, entry in _read_header(path).items():
                if key != "__metadata__":
                    parameters += prod(entry["shape"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    try:
        config = read_json(folder / "unet" / "config.json")
        picture_size = max(int(config["sample_size"]), int(config.get("window_size", 0)))
    except (OSError, ValueError, KeyError, TypeError):
        picture_size = None
    return ModelInfo(name, parameters, picture_size)


def check_model_folder(folder: str | Path) -> list[str]:
    """Return a sentence for each problem of a model folder; none if it can be loaded."""
    folder = Path(folder)
    if not folder.exists():
        return [f"The model folder {folder} does not exist."]
    if not folder.is_dir():
        return [f"The model {folder} is not a folder."]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    problems: list[str] = []
    for path in files:
        if path.suffix.lower() in PICKLE_SUFFIXES:
            problems.append(
                f"The model folder {folder} holds a pickle, {path.relative_to(folder)}; pickles can run code, "
                "only safetensors are read."
            )
    try:
        index = read_json(folder / "model_index.json")
    except FileNotFoundError:
        return [*problems, f"The model folder {folder} has no model_index.json, so it is not a diffusers model."]
    except ValueError:
        return [*problems, f"The model_index.json of {folder} is cut short or is not JSON."]
    if index.get("unet") != ["studio.diffusion.unet", "StudioUNet"]:
        class_name = str(index.get("_class_name") or "")[:60]
        kind = f"a {class_name}" if class_name else "an unnamed model"
        problems.append(
            f"The model folder {folder} holds {kind}; only models of this studio's own kind, StudioUNet, run."
        )
    for name, entry in index.items():
        if _is_component(name, entry):
            problems += _check_component(folder, name)
    for path in files:
        if path.suffix == ".safetensors" and (problem := _check_safetensors(path)):
            problems.append(f"The file {path.relative_to(folder)} of the model folder {folder} {problem}.")
    return problems


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises OSError, and ValueError if it is none."""
    return _as_object(json.loads(path.read_text("utf-8")))


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return cast("dict[str, Any]", value)


def _is_component(name: str, entry: Any) -> bool:
    """Return whether an entry of model_index.json names a component: [library, class]."""
    if name.startswith("_") or not isinstance(entry, list):
        return False
    library_and_class = cast("list[Any]", entry)
    return len(library_and_class) == 2 and library_and_class[1] is not None


def _check_component(folder: Path, name: str) -> list[str]:
    component = folder / name
    if not component.is_dir():
        return [f"The model folder {folder} has no {name}, which its model_index.json names."]
    if not (component / "config.json").exists():
        return []  # a scheduler or a tokenizer has no weights
    weights = {path.name for path in component.glob("*.safetensors")}
    if not weights:
        return [f"The model folder {folder} has no safetensors weights for {name}."]
    problems: list[str] = []
    for index in component.glob("*.safetensors.index.json"):
        try:
            shards = {str(shard) for shard in _as_object(read_json(index)["weight_map"]).values()}
        except (ValueError, KeyError):
            problems.append(f"The file {name}/{index.name} of the model folder {folder} is cut short or is not JSON.")
            continue
        problems += [f"The model folder {folder} has no {name}/{shard}." for shard in sorted(shards - weights)]
    return problems


def _read_header(path: Path) -> dict[str, Any]:
    """Return the JSON at the head of a safetensors file: 8 bytes of length (little endian), then that many bytes."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > MAX_HEADER_BYTES:
            raise ValueError("header too long")
        return _as_object(json.loads(file.read(length)))


def _check_safetensors(path: Path) -> str | None:
    """Return what is wrong with a safetensors file, as the end of a sentence; None if its length is right."""
    with path.open("rb") as file:
        start = file.read(24)
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights: fetch them with `git lfs pull`"
    try:
        ends = [entry["data_offsets"][1] for key, entry in _read_header(path).items() if key != "__metadata__"]
        (header_length,) = struct.unpack("<Q", start[:8])
        expected = 8 + header_length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, struct.error):
        return "is cut short or is not safetensors"
    length = path.stat().st_size
    if length < expected:
        return f"is cut short: {length:,} of {expected:,} bytes are there"
    return f"has {length - expected:,} bytes too many" if length > expected else None
