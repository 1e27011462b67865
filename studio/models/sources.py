"""Where a model's components come from: a folder in diffusers layout, or a single file. Both read safetensors only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from studio.models import single_file
from studio.models.components import COMPONENTS
from studio.models.folders import UNUSED_COMPONENTS, component_weights, read_model_folder
from studio.models.formats import FileDefect, ModelError, describe_defect, read_header, read_json
from studio.models.identify import Identity

MAX_TOKENIZER_BYTES = 8_000_000  # of one file
MAX_TOKENS = 77  # of a text, as CLIP reads it


class Source(Protocol):
    """The files of a model. Methods raise ModelError."""

    @property
    def classes(self) -> Mapping[str, str]: ...  # component -> name of its class, of COMPONENTS
    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]: ...  # of modules and schedulers
    @property
    def options(self) -> Mapping[str, Any]: ...  # of the pipeline: "requires_aesthetics_score" ...

    def weight_count(self, component: str) -> int:
        """Return how many tensors a component has at most."""
        ...

    def weights(self, component: str, module: Any) -> Mapping[str, torch.Tensor]:
        """Return a component's tensors, mapped from the file: they take memory only where they are read.

        module: the component without weights.
        """
        ...

    def tokenizer(self, component: str) -> Any: ...


def open_source(path: Path, layout: str, identity: Identity) -> Source:
    """Return the source of a catalog entry. Raises ModelError."""
    if identity.family not in COMPONENTS:
        raise ModelError(f"The model {path.name} is of the family {identity.family!r}, which cannot be loaded.")
    return FolderSource(path, identity) if layout == "folder" else FileSource(path, identity)


class FolderSource:
    """A folder in diffusers layout."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        files = read_model_folder(folder)
        if files.problems:
            raise ModelError(files.problems[0])
        allowed = COMPONENTS[identity.family]
        self.folder, self.configs = folder, files.configs
        self.classes: dict[str, str] = {}
        options: dict[str, Any] = {}
        for name, entry in files.index.items():
            if name in UNUSED_COMPONENTS:
                continue
            if not isinstance(entry, list):
                options[name] = entry
            elif (class_name := _class_name(entry)) is not None:
                if name not in allowed or (allowed[name] and class_name not in allowed[name]):
                    raise ModelError(
                        f"The model {folder.name} has {name} of the class {class_name[:60]!r}; a {identity.version} "
                        f"model has {', '.join(allowed[name]) if allowed.get(name) else 'no such component'}."
                    )
                self.classes[name] = class_name
        if missing := allowed.keys() - self.classes.keys():
            raise ModelError(f"The model {folder.name} has no {sorted(missing)[0]}.")
        self.options: Mapping[str, Any] = {name: value for name, value in options.items() if not name.startswith("_")}
        self._headers = files.headers

    def weight_count(self, component: str) -> int:
        return sum(len(header.tensors) for header in self._headers[component])

    def weights(self, component: str, module: Any) -> Mapping[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        for path in component_weights(self.folder, component):
            tensors.update(_map_tensors(path))
        return tensors

    def tokenizer(self, component: str) -> Any:
        from transformers import CLIPTokenizer

        place = self.folder / component
        for path in sorted(place.iterdir()):
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise ModelError(f"The file {component}/{path.name} is a link out of the model's folder.")
            if not path.is_file() or path.stat().st_size > MAX_TOKENIZER_BYTES:
                raise ModelError(f"The file {component}/{path.name} is not a file of a tokenizer.")
            if path.suffix == ".json":
                try:
                    read_json(path)
                except (OSError, FileDefect) as problem:
                    raise ModelError(f"The file {component}/{path.name} {describe_defect(problem)}.") from problem
        try:
            tokenizer = cast("Any", CLIPTokenizer).from_pretrained(str(place), local_files_only=True)
        except Exception as problem:  # the tokenizers library raises plain Exception
            raise ModelError(f"The {component} could not be read: {' '.join(str(problem).split())[:200]}") from problem
        tokenizer.model_max_length = min(tokenizer.model_max_length, MAX_TOKENS)
        return tokenizer


class FileSource:
    """A single file in the layout of CompVis and Stability AI."""

    def __init__(self, path: Path, identity: Identity) -> None:
        read_header(path)  # its limits hold before the library reads the file
        self._weights = _map_tensors(path)
        self._identity = identity
        chosen = single_file.choose_configs(identity, self._weights)
        self.options: Mapping[str, Any] = chosen.pop("options", {})
        self.configs: Mapping[str, Mapping[str, Any]] = chosen
        allowed = COMPONENTS[identity.family]
        self.classes = {name: classes[0] if classes else "" for name, classes in allowed.items()}

    def weight_count(self, component: str) -> int:
        return len(self._weights)

    def weights(self, component: str, module: Any) -> Mapping[str, torch.Tensor]:
        return single_file.convert(component, module, self._weights)

    def tokenizer(self, component: str) -> Any:
        encoder = component.replace("tokenizer", "text_encoder")
        is_open_clip = self.configs[encoder].get("hidden_act") == "gelu"
        return single_file.clip_tokenizer("!" if is_open_clip else "<|endoftext|>")


def _class_name(entry: Any) -> str | None:
    """Return the class of an entry of model_index.json, [library, class]; None if it names none."""
    library_and_class = cast("list[Any]", entry)
    if len(library_and_class) != 2 or library_and_class[1] is None:
        return None
    return str(library_and_class[1])


def _map_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, mapped into memory. Raises ModelError."""
    import safetensors

    library: Any = safetensors
    try:
        with library.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError) as problem:
        raise ModelError(f"The file {path.name} cannot be read: {' '.join(str(problem).split())[:200]}") from problem
