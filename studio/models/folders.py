"""Model folders in diffusers layout: whether they are whole, and what their configs and headers say. Needs no torch.

Only safetensors weights are accepted: no pickle and no remote code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from studio.models.formats import (
    FileDefect,
    Header,
    ModelError,
    describe_defect,
    format_count,
    quote_name,
    read_header,
    read_json,
    read_text,
)

PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
MAX_COMPONENTS = 32
# Components that are not loaded: they check or stamp pictures, or read pictures as prompts.
UNUSED_COMPONENTS = {"safety_checker", "feature_extractor", "image_encoder", "watermarker"}
STUDIO_UNET = ["studio.diffusion.unet", "StudioUNet"]  # the bundled model's kind, in model_index.json
_COMPONENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.safetensors")


def component_weights(folder: Path, component: str) -> tuple[Path, ...]:
    """Return the safetensors files of a component (shards in order): plain ones, else those of the fp16 variant.

    Raises ModelError with one sentence.
    """
    place = folder / component
    for variant in ("", "fp16"):
        for stem in ("diffusion_pytorch_model", "model"):
            index = place / ".".join(filter(None, (f"{stem}.safetensors.index", variant, "json")))
            if index.exists():
                return tuple(_inside(folder, place / name) for name in _shards(folder, index))
            file = place / ".".join(filter(None, (stem, variant, "safetensors")))
            if file.exists():
                return (_inside(folder, file),)
    raise ModelError(f"The model {folder.name} has no safetensors weights for {component}.")


def _shards(folder: Path, index: Path) -> list[str]:
    """Return the names of the files of a sharded component."""
    name = f"{index.parent.name}/{index.name}"
    try:
        weight_map = read_json(_inside(folder, index))["weight_map"]
        shards = sorted(set(weight_map.values()))
        is_named = all(_SHARD_NAME.fullmatch(shard) for shard in shards)
    except (OSError, FileDefect) as problem:
        raise ModelError(f"The file {name} of the model {folder.name} {describe_defect(problem)}.") from problem
    except (KeyError, TypeError, AttributeError):
        is_named, shards = False, []
    if not shards or not is_named:
        raise ModelError(f"The file {name} of the model {folder.name} does not name the files of the weights.")
    for shard in shards:
        if not (index.parent / shard).exists():
            raise ModelError(f"The model {folder.name} has no {index.parent.name}/{shard}.")
    return shards


def _inside(folder: Path, path: Path) -> Path:
    """Return the path if it does not lead out of the folder by a link. Raises ModelError."""
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        is_inside = False
    if not is_inside:
        raise ModelError(f"The file {path.relative_to(folder)} of the model {folder.name} is a link out of its folder.")
    return path


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """What the files of a folder in diffusers layout say.

    index: its model_index.json.
    configs: component -> its config.
    headers: component -> the headers of its weights.
    problems: a sentence for each reason why it cannot be loaded.
    """

    index: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    headers: Mapping[str, tuple[Header, ...]]
    problems: tuple[str, ...]


def read_model_folder(folder: Path) -> ModelFolder:
    """Read the index, the configs and the headers of a model folder; never raises."""
    problems: list[str] = []
    configs: dict[str, Mapping[str, Any]] = {}
    headers: dict[str, tuple[Header, ...]] = {}
    index: dict[str, Any] = {}
    try:
        index = read_json(_inside(folder, folder / "model_index.json"))
    except FileNotFoundError:
        problems.append(f"The model {folder.name} has no model_index.json, so it is not a diffusers model.")
    except (OSError, FileDefect) as problem:
        problems.append(f"The file model_index.json of the model {folder.name} {describe_defect(problem)}.")
    except ModelError as problem:
        problems.append(str(problem))
    components = [name for name, entry in index.items() if is_component(name, entry)]
    if len(components) > MAX_COMPONENTS:
        problems.append(f"The model {folder.name} names {len(components):,} components; it may have {MAX_COMPONENTS}.")
        components = []
    for name in components:
        try:
            configs[name], headers[name] = _read_component(folder, name)
        except ModelError as problem:
            problems.append(str(problem))
    return ModelFolder(index=index, configs=configs, headers=headers, problems=tuple(problems))


def is_component(name: str, entry: Any) -> bool:
    """Return whether an entry of model_index.json names a component that is loaded: [library, class]."""
    if name.startswith("_") or name in UNUSED_COMPONENTS or not isinstance(entry, list):
        return False
    library_and_class = cast("list[Any]", entry)
    return len(library_and_class) == 2 and library_and_class[1] is not None


def _read_component(folder: Path, name: str) -> tuple[Mapping[str, Any], tuple[Header, ...]]:
    """Return the config and the headers of a component. A scheduler or a tokenizer has no weights."""
    component = folder / name
    if not _COMPONENT_NAME.fullmatch(name) or not component.is_dir():
        raise ModelError(f"The model {folder.name} has no {quote_name(name)}, which its model_index.json names.")
    config: dict[str, Any] = {}
    has_weights = False
    for file_name in ("config.json", "scheduler_config.json"):
        path = _inside(folder, component / file_name)
        if path.exists():
            try:
                config = read_json(path)
            except (OSError, FileDefect) as problem:
                raise ModelError(
                    f"The file {name}/{file_name} of the model {folder.name} {describe_defect(problem)}."
                ) from problem
            has_weights = file_name == "config.json"
            break
    files = component_weights(folder, name) if has_weights else ()
    return config, tuple(map(read_header, files))


def check_model_folder(folder: str | Path) -> list[str]:
    """Return a sentence for each problem of a folder of the bundled model's kind; none if it can be loaded."""
    folder = Path(folder)
    if not folder.exists():
        return [f"The model folder {folder} does not exist."]
    if not folder.is_dir():
        return [f"The model {folder} is not a folder."]
    problems: list[str] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix.lower() in PICKLE_SUFFIXES:
            problems.append(
                f"The model {folder.name} holds a pickle, {path.relative_to(folder)}; pickles can run code, "
                "only safetensors are read."
            )
    files = read_model_folder(folder)
    is_index_read = bool(files.index) or not files.problems
    if is_index_read and files.index.get("unet") != STUDIO_UNET:
        class_name = str(files.index.get("_class_name") or "")[:60]
        kind = f"a {class_name}" if class_name else "an unnamed model"
        problems.append(f"The model {folder.name} is {kind}; only models of this studio's own kind, StudioUNet, run.")
        return problems
    return [*problems, *files.problems]


@dataclass(frozen=True)
class ModelInfo:
    """What the files of a model say about it."""

    name: str
    parameters: int  # in all safetensors files
    picture_size: int | None  # side in px of a picture, if no other size is requested

    @property
    def size(self) -> str:
        """The number of parameters for people: "11.5 M"."""
        return format_count(self.parameters)


def read_model_info(folder: str | Path) -> ModelInfo:
    """Return the name, the parameters and the picture size of a model folder; never raises."""
    folder = Path(folder)
    files = read_model_folder(folder)
    parameters = sum(header.parameters for headers in files.headers.values() for header in headers)
    try:
        config = files.configs["unet"]
        picture_size = max(int(config["sample_size"]), int(config.get("window_size", 0)))
    except (ValueError, KeyError, TypeError):
        picture_size = None
    return ModelInfo(read_title(folder), parameters, picture_size)


def read_title(folder: Path) -> str:
    """Return the title of a folder's model card, else the folder's name; never raises."""
    name = folder.resolve().name
    try:
        lines = read_text(folder / "README.md").splitlines()
        return next((line[2:].strip() for line in lines if line.startswith("# ")), name)
    except (OSError, ValueError):
        return name
