"""Find models in folders, and read what each one is. Needs no torch; a model takes milliseconds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from studio.models.folders import check_model_folder, component_weights, read_model_folder, read_title
from studio.models.formats import ModelError, TensorInfo, quote_name, read_floats, read_header
from studio.models.identify import COMPONENTS, STUDIO, UNKNOWN, Identity, identify_folder
from studio.models.identify_file import SD2_CLUE, USED_PREFIXES, identify_file

MAX_DEPTH = 3  # of folders within folders
MAX_FILES = 20_000  # that a scan looks at
PICKLED_CHECKPOINTS = {".ckpt"}


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model of the catalog.

    id: its folder's name, or its file's name without ".safetensors"; a second one has its parent's name in front.
    name: for people.
    path: the folder in diffusers layout, or the single file.
    layout: "folder" or "file".
    bytes: of the weights that would be loaded, as stored. parameters: their number.
    dtype: of most of these bytes, as safetensors names it: "F32", "F16", "BF16" ...; "" if there are none.
    identity: as detected, with the person's overrides applied.
    overrides: what the person has set: family, variant, prediction_type, defaults, trigger_words.
    defaults: request fields -> values: sampler, spacing, steps, guidance, guidance_rescale, clip_skip, width, height.
    trigger_words: words for the prompt that the model was trained on.
    problems: a sentence for each reason why it cannot be loaded.
    """

    id: str
    name: str
    path: Path
    layout: str
    bytes: int
    parameters: int
    dtype: str
    identity: Identity
    overrides: Mapping[str, Any]
    defaults: Mapping[str, Any]
    trigger_words: str
    problems: tuple[str, ...]

    @property
    def weights(self) -> tuple[Path, ...]:
        """The file, or the files of a folder's U-Net, whose hash names the model. Raises ModelError."""
        return (self.path,) if self.layout == "file" else component_weights(self.path, "unet")


def find_models(folders: Iterable[Path]) -> list[Path]:
    """Return the folders in diffusers layout and the single files below some folders, by name."""
    found: list[Path] = []
    budget = [MAX_FILES]
    for folder in folders:
        found += _find(folder, MAX_DEPTH, budget)
    return found


def _find(folder: Path, depth: int, budget: list[int]) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            listed = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:  # no such folder, or not readable
        return
    subfolders: list[Path] = []
    for entry in sorted(listed, key=lambda entry: entry.name):
        budget[0] -= 1
        if budget[0] < 0:
            return
        path = folder / entry.name
        if not entry.is_dir():
            if path.suffix.lower() in {".safetensors", *PICKLED_CHECKPOINTS}:
                yield path
        elif (path / "model_index.json").exists() or (path / "unet").is_dir():
            yield path
        else:
            subfolders.append(path)
    for path in subfolders if depth > 1 else ():
        yield from _find(path, depth - 1, budget)


def read_entry(path: Path) -> ModelEntry:
    """Return what a folder or a file holds, with no id and without a person's overrides; never raises.

    Its problems are those of its files; those of its kind are its identity's.
    """
    return _read_folder(path) if path.is_dir() else _read_file(path)


def _read_folder(path: Path) -> ModelEntry:
    files = read_model_folder(path)
    identity = identify_folder(files, quote_name(path.name))
    used = COMPONENTS.get(identity.family, tuple(files.headers))
    tensors = [tensor for part in used for header in files.headers.get(part, ()) for tensor in header.tensors.values()]
    is_studio = identity.family == STUDIO
    return _entry(
        path,
        name=read_title(path) if is_studio else path.name,
        tensors=tensors,
        identity=identity,
        problems=tuple(check_model_folder(path)) if is_studio else files.problems,
    )


def _read_file(path: Path) -> ModelEntry:
    name = path.stem
    try:
        if not path.exists():
            raise ModelError(f"The model {quote_name(str(path))} does not exist.")
        if path.suffix.lower() in PICKLED_CHECKPOINTS:
            raise ModelError(f"The file {quote_name(path.name)} is a pickle, which can run code; safetensors are read.")
        header = read_header(path)
        clue = read_floats(path, header, SD2_CLUE) if SD2_CLUE in header.tensors else ()
    except ModelError as problem:
        identity = Identity(family=UNKNOWN, version="unreadable file")
        return _entry(path, name=name, tensors=(), identity=identity, problems=(str(problem),))
    identity = identify_file(header, quote_name(path.name), sd2_clue=clue)
    tensors = header.tensors.items()
    if identity.family != UNKNOWN:
        tensors = [(key, tensor) for key, tensor in tensors if key.startswith(USED_PREFIXES)]
    return _entry(
        path,
        name=name,
        tensors=[tensor for _, tensor in tensors],
        identity=identity,
        trigger_words=header.metadata.get("modelspec.trigger_phrase", "")[:1000],
    )


def _entry(
    path: Path,
    *,
    name: str,
    tensors: Iterable[TensorInfo],
    identity: Identity,
    problems: tuple[str, ...] = (),
    trigger_words: str = "",
) -> ModelEntry:
    bytes_of: Counter[str] = Counter()
    parameters = 0
    for tensor in tensors:
        bytes_of[tensor.dtype] += tensor.end - tensor.start
        parameters += prod(tensor.shape)
    return ModelEntry(
        id="",
        name=quote_name(name),
        path=path,
        layout="folder" if path.is_dir() else "file",
        bytes=bytes_of.total(),
        parameters=parameters,
        dtype=max(bytes_of, key=lambda dtype: bytes_of[dtype], default=""),
        identity=identity,
        overrides={},
        defaults={},
        trigger_words=trigger_words,
        problems=problems,
    )
