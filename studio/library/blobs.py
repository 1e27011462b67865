"""Where the library's files lie: pictures/, traces/ and inputs/, the pictures that jobs begin with.

Knows names and forms of files; knows nothing of owners, jobs or the database. Names of pictures cannot be guessed and
follow from the job's id, so that a job that runs again after a crash writes the same files again.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from studio.engine.trace import Trace
from studio.library.files import TEMPORARY_SUFFIX, atomic_write, remove, sync_folder
from studio.library.metadata import write_png


class BlobStore:
    """Files below a folder. Raises OSError where the disk does not do as it should."""

    def __init__(self, folder: Path):
        self._pictures, self._traces, self._inputs = (folder / name for name in ("pictures", "traces", "inputs"))
        for place in (folder, self._pictures, self._traces, self._inputs):
            place.mkdir(exist_ok=True)
            for part in place.glob(f".*{TEMPORARY_SUFFIX}"):  # left by a crash
                remove(part)
        self.secret = _secret(folder / "secret")  # of the page's storage: Gradio sends it to every browser
        self.key = _secret(folder / "key")  # of names, told to nobody
        self._inputs_lock = threading.Lock()
        self._claimed: Counter[str] = Counter()

    # ---- pictures and traces ----

    def picture_id(self, job_id: str, index: int) -> str:
        """132 bits that only this folder's key makes of a job's id: who sees one picture cannot tell the next."""
        made = hmac.digest(self.key.encode(), f"{job_id}/{index}".encode(), "sha256")
        return base64.urlsafe_b64encode(made)[:22].decode()

    def picture_path(self, id: str) -> Path:
        return self._pictures / f"{id}.png"

    def _trace_path(self, id: str) -> Path:
        return self._traces / f"{id}.safetensors"

    def write_picture(self, id: str, image: Image.Image, settings: dict[str, Any]) -> int:
        """Writes a picture, whole or not at all, and returns its bytes."""
        path = self.picture_path(id)
        write_png(image, path, settings)
        return path.stat().st_size

    def write_trace(self, id: str, trace: Trace) -> int:
        """Writes a trace, whole or not at all, and returns its bytes."""
        data = trace.to_bytes()
        with atomic_write(self._trace_path(id)) as file:
            file.write(data)
        return len(data)

    def read_trace(self, id: str) -> Trace:
        """Raises OSError if it is gone, ValueError if it is not a trace."""
        return Trace.from_bytes(self._trace_path(id).read_bytes())

    def sync(self) -> None:
        """Puts the names of the pictures and traces written so far on the disk."""
        sync_folder(self._pictures)
        sync_folder(self._traces)

    def remove_trace(self, id: str) -> None:
        remove(self._trace_path(id))

    def remove_picture(self, id: str) -> None:
        remove(self.picture_path(id))
        remove(self._trace_path(id))

    def remove_other_traces(self, ids: set[str]) -> None:
        """Removes the traces of no picture: they can be made again. Pictures that nobody knows of are left alone."""
        for path in self._traces.iterdir():
            if path.stem not in ids:
                remove(path)

    # ---- inputs: named by what they show, so that what many jobs begin with is there once ----

    @contextmanager
    def inputs_written(self, pictures: Iterable[Image.Image]) -> Iterator[list[tuple[str, int]]]:
        """Writes pictures and gives the (name, bytes) of each. They are safe from `sweep_inputs` inside: long enough to
        write down that they are in use."""
        pictures = list(pictures)
        names = [self._input_name(picture) for picture in pictures]
        with self._inputs_lock:
            self._claimed.update(names)
        try:
            sizes = []
            for name, picture in zip(names, pictures, strict=True):
                path = self.input_path(name)
                if not path.exists():
                    with atomic_write(path) as file:
                        picture.save(file, "PNG", compress_level=1)  # quick
                sizes.append(path.stat().st_size)
            if names:
                sync_folder(self._inputs)
            yield list(zip(names, sizes, strict=True))
        finally:
            with self._inputs_lock:
                self._claimed -= Counter(names)

    def input_path(self, name: str) -> Path:
        return self._inputs / f"{name}.png"

    def read_input(self, name: str) -> Image.Image:
        """Raises OSError, ValueError or SyntaxError if it is gone or broken."""
        with Image.open(self.input_path(name), formats=["PNG"]) as picture:
            picture.load()
            return picture.copy()

    def sweep_inputs(self, used: Callable[[], set[str]], names: Iterable[str] | None = None) -> None:
        """Removes those inputs, of `names` or of all, that `used` does not name and that are not just being written."""
        with self._inputs_lock:
            names = [path.stem for path in self._inputs.glob("*.png")] if names is None else list(names)
            in_use = used() if names else set()
            for name in names:
                if name not in in_use and not self._claimed[name]:
                    remove(self.input_path(name))

    def _input_name(self, picture: Image.Image) -> str:
        """Follows from what the picture shows, mode, size and pixels, and from this folder's key: who has a picture
        cannot tell whether somebody else has brought it here."""
        shown = f"{picture.mode} {picture.size}".encode() + picture.tobytes()
        return hmac.digest(self.key.encode(), shown, "sha256").hex()


def _secret(file: Path) -> str:
    """What the file holds; made once."""
    try:
        if secret := file.read_text("ascii").strip():
            return secret
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    secret = secrets.token_urlsafe(32)
    with atomic_write(file) as out:  # readable to its owner alone, as `written` makes all files
        out.write(secret.encode())
    sync_folder(file.parent)
    return secret
