"""Hashes of weights, computed in the background: a checkpoint of 7 GB takes a minute."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.models.catalog.settings import ModelSettings

CHUNK_BYTES = 4_000_000


class Hasher:
    """Computes hashes one after the other in a thread, and keeps them in `settings`."""

    def __init__(self, settings: ModelSettings):
        self._settings, self._lock, self._closed = settings, threading.Lock(), threading.Event()
        self._waiting: list[tuple[Path, ...]] = []  # the first one is being hashed
        self._thread: threading.Thread | None = None

    def sha256(self, files: Sequence[Path]) -> str | None:
        """Return the SHA-256 of the files' bytes in order, as hexadecimal digits; None while it is computed.

        None also if a file cannot be read.
        """
        files = tuple(files)
        try:
            digest = self._settings.find_hash(files[0], _stamp(files))
        except OSError:
            return None
        if digest is None:
            self._enqueue(files)
        return digest

    def close(self) -> None:
        """Stop, and return once the thread has ended."""
        self._closed.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _enqueue(self, files: tuple[Path, ...]) -> None:
        with self._lock:
            if self._closed.is_set() or files in self._waiting:
                return
            self._waiting.append(files)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hasher", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._closed.is_set():
                    self._thread = None
                    return
                files = self._waiting[0]
            try:
                stamp = _stamp(files)
                digest = self._compute(files)
                if digest is not None:
                    self._settings.set_hash(files[0], stamp, digest)
            except OSError:  # a file was moved, or the disk is full: the next call tries again
                pass
            with self._lock:
                self._waiting.remove(files)

    def _compute(self, files: tuple[Path, ...]) -> str | None:
        hasher = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    if self._closed.is_set():
                        return None
                    hasher.update(chunk)
        return hasher.hexdigest()


def _stamp(files: Sequence[Path]) -> list[Any]:
    """Return what changes when a file is written: its size and its time of change, in nanoseconds."""
    stamp: list[Any] = []
    for path in files:
        status = path.stat()
        stamp += [status.st_size, status.st_mtime_ns]
    return stamp
