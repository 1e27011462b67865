"""Model folders on disk: are they whole, what are they called, and the loading of one.

Knows the diffusers layout and the safetensors format; knows nothing of engines or pages, and imports torch
only to load. Only safetensors are read: no pickle, no remote code, with no fallback.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors format


class ModelError(RuntimeError):
    """A model that cannot be loaded; its text is for the person who named it."""


@dataclass(frozen=True)
class ModelInfo:
    """What can be told of a model without loading it."""

    name: str
    parameters: int  # in all safetensors files
    picture_size: int | None  # pixels a side, as pictures come if nothing else is asked for

    @property
    def size(self) -> str:
        """The number of parameters for people: "11.5 M"."""
        count = float(self.parameters)
        for unit in ("", " k", " M", " G"):
            if count < 1000 or unit == " G":
                return f"{count:.3g}{unit}"
            count /= 1000
        raise AssertionError


def check_model_folder(folder: str | Path) -> list[str]:
    """Sentences for all that is wrong with a model folder; none if it can be loaded."""
    folder = Path(folder)
    if not folder.exists():
        return [f"The model folder {folder} does not exist."]
    if not folder.is_dir():
        return [f"The model {folder} is not a folder."]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    problems = [
        f"The model folder {folder} holds a pickle, {path.relative_to(folder)}; pickles can run code, "
        "only safetensors are read."
        for path in files
        if path.suffix.lower() in PICKLES
    ]
    try:
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
        components = [name for name, entry in index.items() if _is_component(name, entry)]
    except FileNotFoundError:
        return [
            *problems,
            f"The model folder {folder} has no model_index.json, so it is not a diffusers model.",
        ]
    except (ValueError, AttributeError):
        return [*problems, f"The model_index.json of {folder} is cut short or is not JSON."]
    if index.get("unet") != ["studio.diffusion.unet", "StudioUNet"]:
        kind = str(index.get("_class_name") or "model of no name")[:60]
        problems.append(
            f"The model folder {folder} holds a {kind}; only models of this studio's own kind, StudioUNet, run."
        )
    for name in components:
        problems += _check_component(folder, name)
    for path in files:
        if path.suffix == ".safetensors" and (problem := _check_safetensors(path)):
            problems.append(f"The file {path.relative_to(folder)} of the model folder {folder} {problem}.")
    return problems


def model_info(folder: str | Path) -> ModelInfo:
    """Name (the title of its model card, else of the folder), parameters and picture size; never raises."""
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
            header = _read_header(path)
            parameters += sum(prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
        except (OSError, ValueError, KeyError, TypeError):
            continue
    try:
        config = json.loads((folder / "unet" / "config.json").read_text("utf-8"))
        picture_size = max(int(config["sample_size"]), int(config.get("window_size", 0)))
    except (OSError, ValueError, KeyError, TypeError):
        picture_size = None
    return ModelInfo(name, parameters, picture_size)


def load_pipeline(folder: str | Path, device: str = "auto") -> Any:
    """The text-to-image pipeline of a folder, on `device` ("auto": CUDA, else MPS, else the CPU), in float32.

    Raises ModelProblem.
    """
    if problems := check_model_folder(folder):
        raise ModelError(" ".join(problems))
    # Seconds of imports, so not before they are needed.
    import diffusers
    import torch
    import transformers

    from studio.diffusion.pipelines import StudioTextToImagePipeline

    place = choose_device(device)
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    try:
        pipe = StudioTextToImagePipeline.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
        pipe.to(place)
        if not place.startswith("mps"):  # where it was not measured
            pipe.unet.to(memory_format=torch.channels_last)  # a tenth off a call: attention reads it without a copy
    except Exception as problem:  # diffusers and torch raise of every kind for weights that do not fit their configs
        text = " ".join(str(problem).split())
        raise ModelError(f"The model folder {folder} could not be loaded: {text[:300]}") from problem
    pipe.set_progress_bar_config(disable=True)
    return pipe


def choose_device(device: str = "auto") -> str:
    """A device that torch has. Raises ModelProblem if it has not the one named."""
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in found.items() if there)
    if not found.get(device.split(":")[0], False):
        there = ", ".join(name for name, is_there in found.items() if is_there)
        raise ModelError(f"The device must be auto or one of those found here ({there}); it was {device!r}.")
    return device


def _is_component(name: str, entry: Any) -> bool:
    return not name.startswith("_") and isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _check_component(folder: Path, name: str) -> list[str]:
    part = folder / name
    if not part.is_dir():
        return [f"The model folder {folder} has no {name}, which its model_index.json names."]
    if not (part / "config.json").exists():
        return []  # a scheduler or tokenizer: no weights
    weights = {path.name for path in part.glob("*.safetensors")}
    if not weights:
        return [f"The model folder {folder} has no safetensors weights for {name}."]
    problems = []
    for index in part.glob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            problems.append(f"The file {name}/{index.name} of the model folder {folder} is cut short or is not JSON.")
            continue
        problems += [f"The model folder {folder} has no {name}/{shard}." for shard in sorted(shards - weights)]
    return problems


def _read_header(path: Path) -> dict[str, Any]:
    """The JSON at the head of a safetensors file: 8 bytes of length (little endian), then so many bytes."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > MAX_HEADER:
            raise ValueError("header too long")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("header is not an object")
    return header


def _check_safetensors(path: Path) -> str | None:
    """What is wrong with a safetensors file, as the end of a sentence; None if it is as long as it says."""
    with path.open("rb") as file:
        start = file.read(24)
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights: fetch them with `git lfs pull`"
    try:
        header = _read_header(path)
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError):
        return "is cut short or is not safetensors"
    (length,) = struct.unpack("<Q", start[:8])
    whole, there = 8 + length + max(ends, default=0), path.stat().st_size
    if there < whole:
        return f"is cut short: {there:,} of {whole:,} bytes are there"
    return f"has {there - whole:,} bytes too many" if there > whole else None
