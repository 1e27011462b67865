"""Writing files atomically, and turning the errors of a disk or of SQLite into sentences."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from studio.engine.job import JobRejected

TEMPORARY_SUFFIX = ".part"  # of a file that is being written; a crash may leave some


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to, and rename it to `path` once all its bytes are on the disk.

    If anything is raised, `path` is unchanged. The new name itself is durable after `sync_folder`.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=TEMPORARY_SUFFIX)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove_file(Path(temporary))
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as `fsync` does for a file's bytes."""
    if os.name == "nt":  # Windows cannot open a folder, and writes names at once
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_file(path: Path) -> None:
    """Remove a file if it is there and can be removed; one that stays does no harm."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


class DiskReserve:
    """A file of SIZE bytes to remove when the disk is full, since deleting pictures needs a few bytes itself."""

    SIZE = 1_000_000

    def __init__(self, folder: Path):
        self._file = folder / "reserve"

    def free_space(self) -> None:
        """Remove the file if the disk is nearly full."""
        if self._file.exists() and shutil.disk_usage(self._file.parent).free < self.SIZE:
            remove_file(self._file)

    def refill(self) -> None:
        """Write the file again if the disk has enough space."""
        with suppress(OSError):
            if not self._file.exists() and shutil.disk_usage(self._file.parent).free > 3 * self.SIZE:
                with atomic_write(self._file) as file:
                    file.write(os.urandom(self.SIZE))  # random, so that no file system compresses it


@contextmanager
def translate_errors(failure: str) -> Iterator[None]:
    """Turn errors of the disk and of SQLite into JobRejected with the sentence "<failure>: <reason>."."""
    try:
        yield
    except (OSError, sqlite3.Error) as problem:
        raise JobRejected(f"{failure}: {_describe_reason(problem)}.") from problem


_FULL = "the disk is full"
_READ_ONLY = "the data folder cannot be written to"
_BUSY = "another program is using the library"
_DAMAGED = "the file library.sqlite is damaged"
_OS_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,  # the size of files is limited
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.ENOTDIR: _READ_ONLY,
    errno.EEXIST: _READ_ONLY,
    errno.ENOENT: _READ_ONLY,
}
_SQLITE_REASONS = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_IOERR: "the disk could not be read or written",
}


def _describe_reason(problem: OSError | sqlite3.Error) -> str:
    if isinstance(problem, OSError):
        return _OS_REASONS.get(problem.errno or 0) or problem.strerror or str(problem)
    primary_code = getattr(problem, "sqlite_errorcode", 0) & 0xFF  # the higher bits hold an extended code
    return _SQLITE_REASONS.get(primary_code) or str(problem)
