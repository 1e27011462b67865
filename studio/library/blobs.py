"""The library's files: pictures/, traces/, and inputs/, which holds the pictures that jobs start from."""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from studio.engine.trace import Trace
from studio.library.files import TEMPORARY_SUFFIX, atomic_write, remove_file, sync_folder
from studio.library.metadata import write_png


class StoredInput(NamedTuple):
    """An input picture's file, shared by all jobs that start from the same pixels."""

    name: str
    size: int  # bytes


class BlobStore:
    """Files below a folder, each written atomically.

    Names of pictures follow from the job's id, so that a job that runs again after a crash overwrites its own files.
    They also depend on the folder's key, so that nobody can guess them.

    Methods raise OSError if the disk fails.
    """

    def __init__(self, folder: Path):
        self._pictures, self._traces, self._inputs = folder / "pictures", folder / "traces", folder / "inputs"
        for subfolder in (folder, self._pictures, self._traces, self._inputs):
            subfolder.mkdir(exist_ok=True)
            for leftover in subfolder.glob(f".*{TEMPORARY_SUFFIX}"):
                remove_file(leftover)
        self.secret = _load_secret(folder / "secret")  # for the page's browser storage: browsers receive it
        self.key = _load_secret(folder / "key")  # for names: never leaves this process
        self._inputs_lock = threading.Lock()
        self._held_inputs: Counter[str] = Counter()  # how many callers of `write_inputs` use each name

    # ---- pictures and traces ----

    def picture_id(self, job_id: str, index: int) -> str:
        """Return the id of a job's picture: 132 bits from which no other id can be derived without the key."""
        digest = hmac.digest(self.key.encode(), f"{job_id}/{index}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest)[:22].decode()

    def picture_path(self, id: str) -> Path:
        """Return the path of a picture's file."""
        return self._pictures / f"{id}.png"

    def write_picture(self, id: str, image: Image.Image, settings: dict[str, Any]) -> int:
        """Write a picture with its settings and return its size in bytes."""
        path = self.picture_path(id)
        write_png(image, path, settings)
        return path.stat().st_size

    def write_trace(self, id: str, trace: Trace) -> int:
        """Write the trace of a picture and return its size in bytes."""
        data = trace.to_bytes()
        with atomic_write(self._traces / f"{id}.safetensors") as file:
            file.write(data)
        return len(data)

    def read_trace(self, id: str) -> Trace:
        """Read the trace of a picture. Raises OSError if it is missing, ValueError if it is damaged."""
        return Trace.from_bytes((self._traces / f"{id}.safetensors").read_bytes())

    def sync(self) -> None:
        """Make the names of the pictures and traces written so far durable."""
        sync_folder(self._pictures)
        sync_folder(self._traces)

    def remove_trace(self, id: str) -> None:
        """Remove the trace of a picture."""
        remove_file(self._traces / f"{id}.safetensors")

    def remove_picture(self, id: str) -> None:
        """Remove a picture and its trace."""
        remove_file(self.picture_path(id))
        self.remove_trace(id)

    def remove_other_traces(self, ids: set[str]) -> None:
        """Remove the traces of all other pictures. A trace can be made again; picture files are never removed here."""
        for path in self._traces.iterdir():
            if path.stem not in ids:
                remove_file(path)

    # ---- input pictures ----

    @contextmanager
    def write_inputs(self, pictures: Iterable[Image.Image]) -> Iterator[list[StoredInput]]:
        """Write input pictures and protect them from `remove_unused_inputs` until the block ends.

        The block should store in the database that the inputs are used.
        """
        named = [(self._input_name(picture), picture) for picture in pictures]
        names = Counter(name for name, _ in named)
        with self._inputs_lock:
            self._held_inputs.update(names)
        try:
            inputs: list[StoredInput] = []
            for name, picture in named:
                path = self.input_path(name)
                if not path.exists():
                    with atomic_write(path) as file:
                        picture.save(file, "PNG", compress_level=1)  # the fastest that compresses
                inputs.append(StoredInput(name, path.stat().st_size))
            if inputs:
                sync_folder(self._inputs)
            yield inputs
        finally:
            with self._inputs_lock:
                self._held_inputs -= names

    def input_path(self, name: str) -> Path:
        """Return the path of an input picture's file."""
        return self._inputs / f"{name}.png"

    def read_input(self, name: str) -> Image.Image:
        """Read an input picture. Raises OSError, ValueError or SyntaxError if it is missing or damaged."""
        with Image.open(self.input_path(name), formats=["PNG"]) as picture:
            picture.load()
            return picture.copy()

    def remove_unused_inputs(self, find_used: Callable[[], set[str]], names: Iterable[str] | None = None) -> None:
        """Remove the inputs, of these names or all, that `find_used` does not return and `write_inputs` does not hold.

        `find_used` runs under the lock, so that no input comes into use between the question and the removal.
        """
        with self._inputs_lock:
            candidates = [path.stem for path in self._inputs.glob("*.png")] if names is None else list(names)
            used = find_used() if candidates else set[str]()
            for name in candidates:
                if name not in used and not self._held_inputs[name]:
                    remove_file(self.input_path(name))

    def _input_name(self, picture: Image.Image) -> str:
        """Return a name that depends on the mode, size and pixels, so that equal pictures share a file.

        It also depends on the key: nobody who has a picture can find out whether others have uploaded it.
        """
        content = f"{picture.mode} {picture.size}".encode() + picture.tobytes()
        return hmac.digest(self.key.encode(), content, "sha256").hex()


def _load_secret(file: Path) -> str:
    """Return the random text in a file, and write one if there is none."""
    try:
        if secret := file.read_text("ascii").strip():
            return secret
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    secret = secrets.token_urlsafe(32)
    with atomic_write(file) as out:  # readable to its owner only
        out.write(secret.encode())
    sync_folder(file.parent)
    return secret
