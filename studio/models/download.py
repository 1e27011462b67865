"""Fetch models from the Hugging Face hub: safetensors, configs and tokenizers, never pickles or code.

HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE count, as for every program that uses huggingface_hub.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from studio.engine.checks import quote_value
from studio.models.folders import STUDIO_UNET, is_component
from studio.models.formats import FileDefect, ModelError, describe_defect, parse_json, quote_name
from studio.models.identify import RUNS

MAX_INDEX_BYTES = 1_000_000
CHUNK_BYTES = 1_000_000
TIMEOUT_SECONDS = 20.0  # without any byte from the hub
ATTEMPTS = 3  # in a row without a new byte, where the connection breaks
_HUB_ID = re.compile(
    r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:/((?:[\w-][\w .-]*/){0,3}([\w-][\w .-]*\.safetensors)))?",
    re.ASCII,
)
_CONFIGS = (
    "config.json",
    "scheduler_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_SHARD = r"(-\d{5}-of-\d{5})"
# The files of a component's weights; the first pattern that matches a file counts. Half precision is half the download.
_WEIGHTS = tuple(
    f"{stem}{pattern}"
    for stem in ("diffusion_pytorch_model", "model")
    for pattern in (
        r"\.fp16\.safetensors",
        rf"({_SHARD}\.fp16|\.fp16{_SHARD})\.safetensors|{stem}\.safetensors\.index\.fp16\.json",
        r"\.safetensors",
        rf"{_SHARD}\.safetensors|{stem}\.safetensors\.index\.json",
    )
)


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """What a download would fetch.

    id: "owner/name", or "owner/name/file.safetensors" for a single file.
    revision: the commit that the sizes are of.
    target: name of the folder or file that it becomes in a models folder.
    files: path within the repository -> size in bytes.
    hashes: path -> SHA-256 as hexadecimal digits, of the files that the hub has one of.
    """

    id: str
    revision: str
    target: str
    files: Mapping[str, int]
    hashes: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(self.files.values())

    @property
    def repository(self) -> str:
        """ "owner/name"."""
        return "/".join(self.id.split("/")[:2])


def look_up(hub_id: str) -> HubModel:
    """Ask the hub which files a model has. Raises ModelError with one sentence."""
    found = _HUB_ID.fullmatch(hub_id.strip())
    if found is None or ".." in hub_id:
        raise ModelError(
            "A model of the hub is named owner/name, or owner/name/file.safetensors for a single file; "
            f"it was {quote_value(hub_id)}."
        )
    repository, path, file_name = found.groups()
    try:
        return _look_up(repository, path, file_name)
    except ModelError:
        raise
    except Exception as problem:  # the library and its HTTP client raise many kinds
        raise ModelError(_describe(repository, problem)) from problem


def _look_up(repository: str, path: str | None, file_name: str | None) -> HubModel:
    from huggingface_hub import HfApi  # imported late: it takes half a second

    info = HfApi().model_info(repository, files_metadata=True, timeout=TIMEOUT_SECONDS)
    revision = info.sha or ""
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ModelError(f"The hub names no commit of {repository}.")
    siblings = {file.rfilename: file for file in info.siblings or ()}
    sizes = {name: file.size for name, file in siblings.items() if isinstance(file.size, int)}
    if path is not None and file_name is not None:
        if path not in sizes:
            raise ModelError(f"The model {repository} has no file {quote_name(path)} on the hub.")
        chosen, target = [path], file_name
    else:
        if "model_index.json" not in sizes:
            raise ModelError(
                f"The model {repository} has no model_index.json on the hub; "
                "add a file's name for a single file: owner/name/file.safetensors."
            )
        index = _read_index(repository, revision)
        chosen, target = choose_files(repository, index, sizes), repository.replace("/", "--")
    return HubModel(
        id=repository if path is None else f"{repository}/{path}",
        revision=revision,
        target=target,
        files={name: sizes[name] for name in chosen},
        hashes={name: lfs.sha256 for name in chosen if (lfs := siblings[name].lfs) is not None},
    )


def choose_files(repository: str, index: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the files that a model needs among those of its repository. Raises ModelError if weights are missing.

    index: its model_index.json.
    """
    if index.get("unet") not in (["diffusers", "UNet2DConditionModel"], STUDIO_UNET):
        kind = quote_name(str(index.get("_class_name") or "model without a pipeline class"))
        raise ModelError(f"The model {repository} is a {kind}; {RUNS}.")
    names = set(names)
    chosen = ["model_index.json", *({"vocabulary.json"} & names if index["unet"] == STUDIO_UNET else ())]
    for component, entry in index.items():
        if not is_component(component, entry):
            continue
        files = sorted(name.removeprefix(f"{component}/") for name in names if name.startswith(f"{component}/"))
        wanted = [name for name in files if name in _CONFIGS]
        if "config.json" in wanted:
            weights = (list(filter(re.compile(pattern).fullmatch, files)) for pattern in _WEIGHTS)
            found = next(filter(None, weights), None)
            if found is None:
                raise ModelError(f"The model {repository} has no safetensors weights for {component} on the hub.")
            wanted += found
        chosen += [f"{component}/{name}" for name in wanted]
    return chosen


def _read_index(repository: str, revision: str) -> dict[str, Any]:
    from huggingface_hub.utils import hf_raise_for_status

    data = b""
    with _open(repository, revision, "model_index.json") as response:
        hf_raise_for_status(response)
        for chunk in response.iter_bytes(CHUNK_BYTES):
            data += chunk
            if len(data) > MAX_INDEX_BYTES:
                break
    try:
        if len(data) > MAX_INDEX_BYTES:
            raise FileDefect("is too long")
        return parse_json(data)
    except FileDefect as problem:
        raise ModelError(f"The model_index.json of {repository} {describe_defect(problem)}.") from problem


def _open(repository: str, revision: str, name: str, start: int = 0) -> Any:
    """Return a context manager: the hub's response with the bytes of a file from `start` on."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub import utils as hub

    headers = {**cast("Any", hub).build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    url = hf_hub_url(repository, name, revision=revision)
    return hub.get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS)


def _describe(repository: str, problem: Exception) -> str:
    """Return a sentence about an error of the hub."""
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(problem, OfflineModeIsEnabled):
        return "Nothing is fetched from the hub, because HF_HUB_OFFLINE is set."
    if isinstance(problem, GatedRepoError):
        return f"The model {repository} asks for consent to its licence: accept it on its page and set HF_TOKEN."
    if isinstance(problem, RepositoryNotFoundError):
        return f"The hub has no model {repository}, or it is private."
    text = " ".join(str(problem).split()) or type(problem).__name__
    return f"The model {repository} could not be fetched from the hub: {quote_name(text)}."


class _Cancelled(Exception):
    pass


class Download:
    """A download that runs in a thread of its own.

    state: "running", "done", "cancelled" or "failed"; error: the sentence of a failed one.
    done_bytes: of model.bytes, those that are there.
    path: where the model is once it is done.
    """

    def __init__(self, model: HubModel, folder: Path):
        """Start to fetch a model into a models folder. One that was interrupted goes on where it stopped."""
        self.model, self.path = model, folder / model.target
        self.state, self.error = "running", ""
        # A scan leaves out names with a dot. Another commit begins anew.
        self._place = folder / f".{model.target}.{model.revision[:12]}.part"
        self._complete_bytes = self._partial_bytes = 0
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="download", daemon=True)
        self._thread.start()

    @property
    def done_bytes(self) -> int:
        """The bytes that are there."""
        return self._complete_bytes + self._partial_bytes

    def cancel(self) -> None:
        """Stop; what is there is kept for the next try."""
        self._cancelled.set()

    def wait(self, timeout: float | None = None) -> None:
        """Return when the download has ended, or after `timeout` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._fetch_all()
            self.state = "done"
        except _Cancelled:
            self.state = "cancelled"
        except ModelError as problem:
            self.error, self.state = str(problem), "failed"
        except Exception as problem:  # the library, its HTTP client and the disk raise many kinds
            self.error, self.state = _describe(self.model.repository, problem), "failed"

    def _fetch_all(self) -> None:
        if self.path.exists():
            raise ModelError(f"The models folder already has {self.path.name}; delete it to fetch it again.")
        self._place.mkdir(parents=True, exist_ok=True)
        there = sum(path.stat().st_size for path in self._place.rglob("*") if path.is_file())
        free = shutil.disk_usage(self._place).free
        if free < self.model.bytes - there:
            missing = (self.model.bytes - there) / 1e9
            raise ModelError(f"The model {self.model.id} needs {missing:.1f} GB; {free / 1e9:.1f} GB are free.")
        for name, size in self.model.files.items():
            self._fetch(name, size)
            self._complete_bytes += size
            self._partial_bytes = 0
        if len(self.model.files) == 1:
            os.replace(self._place / next(iter(self.model.files)), self.path)
            shutil.rmtree(self._place)
        else:
            os.replace(self._place, self.path)

    def _fetch(self, name: str, size: int) -> None:
        """Fetch what is missing of a file, and check its length and its hash."""
        path = self._place / name
        if path.exists():  # only a complete file has its own name
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        failures = 0
        while True:
            before = self._partial_bytes
            try:
                self._append(name, part, size)
                break
            except (_Cancelled, ModelError):
                raise
            except Exception as problem:
                failures = 1 if self._partial_bytes > before else failures + 1
                if failures == ATTEMPTS or getattr(problem, "response", None) is not None:  # an answer, not a break
                    raise
        if part.stat().st_size != size or not self._has_hash(name, part):
            part.unlink()
            raise ModelError(f"The file {name} of {self.model.repository} did not arrive whole; try again.")
        os.replace(part, path)

    def _append(self, name: str, part: Path, size: int) -> None:
        """Fetch the bytes of a file that `part` does not have yet."""
        from huggingface_hub.utils import hf_raise_for_status

        with part.open("ab") as file:
            self._partial_bytes = file.tell()
            if self._partial_bytes >= size:
                return
            with _open(self.model.repository, self.model.revision, name, self._partial_bytes) as response:
                hf_raise_for_status(response)
                if response.status_code != 206:  # the server sends the file from its beginning
                    file.truncate(0)
                    self._partial_bytes = 0
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    if self._cancelled.is_set():
                        raise _Cancelled
                    if self._partial_bytes + len(chunk) > size:
                        raise ModelError(f"The file {name} of {self.model.repository} is longer than the hub said.")
                    file.write(chunk)
                    self._partial_bytes += len(chunk)

    def _has_hash(self, name: str, part: Path) -> bool:
        """Return whether a file has the hash that the hub names, if it names one."""
        expected = self.model.hashes.get(name)
        if expected is None:
            return True
        hasher = hashlib.sha256()
        with part.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                if self._cancelled.is_set():
                    raise _Cancelled
                hasher.update(chunk)
        return hasher.hexdigest() == expected
