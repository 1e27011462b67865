"""What an owner is at work on in a tab: the picture and the mask, over a refresh, an error and a restart.

Knows pictures, owners and names of tabs; knows nothing of jobs or pages. A draft is a convenience: the oldest go when
there are many, and the job that was made of one has copies of its own. Safe to use from several threads.
"""

from __future__ import annotations

import base64
import hmac
import logging
import time
from contextlib import suppress
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.library.files import TEMPORARY_SUFFIX, atomic_write, remove, translate_errors

log = logging.getLogger(__name__)

MOST_BYTES = 1_000_000_000  # of all drafts
MOST_SECONDS = 30 * 86_400.0  # that one is kept untouched
_NOTE = "note"


class Drafts:
    """A folder of PNG files whose names only who knows the owner and the library's key could guess."""

    def __init__(self, folder: Path, key: str):
        self.folder, self._key = folder / "drafts", key

    def put(self, owner: str, tab: str, what: str, picture: Image.Image, note: str = "") -> None:
        """note: a few words to be kept with it.  Raises Refusal if the disk will not."""
        info = PngInfo()
        info.add_text(_NOTE, note)
        with translate_errors("The picture could not be kept"):
            self.folder.mkdir(exist_ok=True)
            with atomic_write(self._path(owner, tab, what)) as file:
                picture.save(file, "PNG", compress_level=1, pnginfo=info)
        self._sweep()

    def get(self, owner: str, tab: str, what: str) -> Image.Image | None:
        try:
            with Image.open(self._path(owner, tab, what), formats=["PNG"]) as picture:
                picture.load()
                picture.info = {}
                return picture.copy()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None

    def note(self, owner: str, tab: str, what: str) -> str:
        try:
            with Image.open(self._path(owner, tab, what), formats=["PNG"]) as picture:
                return str(picture.info.get(_NOTE, ""))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return ""

    def path(self, owner: str, tab: str, what: str) -> Path | None:
        path = self._path(owner, tab, what)
        return path if path.exists() else None

    def drop(self, owner: str, tab: str, *names: str) -> None:
        for what in names:
            remove(self._path(owner, tab, what))

    def _path(self, owner: str, tab: str, what: str) -> Path:
        made = hmac.digest(self._key.encode(), f"draft/{tab}/{what}/{owner}".encode(), "sha256")
        return self.folder / f"{base64.urlsafe_b64encode(made)[:22].decode()}.png"

    def _sweep(self) -> None:
        """Removes what is old, and beyond MOST_BYTES what has not been touched for the longest."""
        found = []
        for path in self.folder.glob("*.png"):
            try:
                found.append((path.stat().st_mtime, path.stat().st_size, path))
            except OSError:  # another thread was quicker
                continue
        total, oldest = 0, time.time() - MOST_SECONDS
        for number, (touched, size, path) in enumerate(sorted(found, reverse=True)):
            total += size
            if number and (total > MOST_BYTES or touched < oldest):
                remove(path)
        for part in self.folder.glob(f".*{TEMPORARY_SUFFIX}"):
            with suppress(OSError):  # it may be another thread's, and done by now
                if part.stat().st_mtime < oldest:  # left by a crash
                    remove(part)
