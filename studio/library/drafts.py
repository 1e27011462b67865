"""Drafts: the picture and mask that an owner is editing in a tab, kept over a refresh, an error and a restart.

A draft is a convenience: the oldest are removed when there are many. A submitted job has copies of its own.
"""

from __future__ import annotations

import base64
import hmac
import time
from contextlib import suppress
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.library.files import TEMPORARY_SUFFIX, atomic_write, remove_file, translate_errors

MAX_BYTES = 1_000_000_000  # of all drafts
MAX_AGE_SECONDS = 30 * 86_400.0  # since a draft was last saved

_NOTE_KEY = "note"
_READ_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class Drafts:
    """A folder of PNG files, by owner, tab and name. Thread-safe.

    key: the library's; without it nobody can guess the names of the files.
    """

    def __init__(self, folder: Path, key: str):
        self.folder, self._key = folder / "drafts", key

    def put(self, owner: str, tab: str, name: str, picture: Image.Image, note: str = "") -> None:
        """Save a picture with a short note. Raises JobRejected if the disk fails."""
        info = PngInfo()
        info.add_text(_NOTE_KEY, note)
        with translate_errors("The picture could not be saved"):
            self.folder.mkdir(exist_ok=True)
            with atomic_write(self._file(owner, tab, name)) as file:
                picture.save(file, "PNG", compress_level=1, pnginfo=info)
        self._remove_old()

    def get(self, owner: str, tab: str, name: str) -> Image.Image | None:
        """Return a saved picture; None if there is none, or it is damaged."""
        try:
            with Image.open(self._file(owner, tab, name), formats=["PNG"]) as picture:
                picture.load()
                picture.info = {}
                return picture.copy()
        except _READ_ERRORS:
            return None

    def get_note(self, owner: str, tab: str, name: str) -> str:
        """Return the note of a saved picture, or ""."""
        try:
            with Image.open(self._file(owner, tab, name), formats=["PNG"]) as picture:
                return str(picture.info.get(_NOTE_KEY, ""))
        except _READ_ERRORS:
            return ""

    def get_path(self, owner: str, tab: str, name: str) -> Path | None:
        """Return the file of a saved picture, if there is one."""
        path = self._file(owner, tab, name)
        return path if path.exists() else None

    def delete(self, owner: str, tab: str, name: str) -> None:
        """Remove a saved picture if there is one."""
        remove_file(self._file(owner, tab, name))

    def _file(self, owner: str, tab: str, name: str) -> Path:
        digest = hmac.digest(self._key.encode(), f"draft/{tab}/{name}/{owner}".encode(), "sha256")
        return self.folder / f"{base64.urlsafe_b64encode(digest)[:22].decode()}.png"

    def _remove_old(self) -> None:
        """Remove drafts older than MAX_AGE_SECONDS, and the oldest beyond MAX_BYTES. The newest always stays."""
        drafts: list[tuple[float, int, Path]] = []
        for path in self.folder.glob("*.png"):
            with suppress(OSError):  # another thread may have removed it
                stat = path.stat()
                drafts.append((stat.st_mtime, stat.st_size, path))
        total, oldest = 0, time.time() - MAX_AGE_SECONDS
        for number, (saved, size, path) in enumerate(sorted(drafts, reverse=True)):
            total += size
            if number and (total > MAX_BYTES or saved < oldest):
                remove_file(path)
        for leftover in self.folder.glob(f".*{TEMPORARY_SUFFIX}"):
            with suppress(OSError):  # another thread may have renamed it
                if leftover.stat().st_mtime < oldest:  # younger ones may be in use
                    remove_file(leftover)
