"""Files that are there whole or not at all, a folder that one process works in, and what to say when a disk will not.

Knows names, bytes and errors of the system and of SQLite; knows nothing of jobs or pictures.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from studio.engine.job import JobRejected

TEMPORARY_SUFFIX = ".part"  # the end of the name of a file that is being written; one left by a crash may go


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, under another name until all is on the disk; if anything is raised, it never was.

    The name itself is on the disk once `sync_folder` has returned.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=TEMPORARY_SUFFIX)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove(Path(temporary))
        raise


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk, as `fsync` puts a file's bytes there."""
    if os.name == "nt":  # which has no such thing, and needs none
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Removes a file that may be gone already. What cannot be removed stays: it does no harm."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass


class FolderLock:
    """Held by the one process that works in a folder, until `release` or its end, however that comes.

    Raises Refusal if another holds it.
    """

    def __init__(self, folder: Path):
        self._handle: int | None = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._handle)
        except OSError as problem:
            self.release()
            raise JobRejected(
                f"Another studio is working in the data folder {folder}; give this one another folder, or end that one."
            ) from problem

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None


def _lock(handle: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DiskReserve:
    """A file that is there to be removed: a disk that is full then has room for the few bytes that deleting needs."""

    SIZE = 1_000_000  # bytes

    def __init__(self, folder: Path):
        self._file = folder / "reserve"

    def give(self) -> None:
        """Removes the file where the disk is full, or nearly."""
        if self._file.exists() and shutil.disk_usage(self._file.parent).free < self.SIZE:
            remove(self._file)

    def take(self) -> None:
        """Makes the file again where the disk has room enough."""
        try:
            if not self._file.exists() and shutil.disk_usage(self._file.parent).free > 3 * self.SIZE:
                with atomic_write(self._file) as file:
                    file.write(os.urandom(self.SIZE))  # which no file system can pack
        except OSError:
            pass


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Turns what a disk or SQLite raises into a Refusal: `what` could not be done, and why."""
    try:
        yield
    except (OSError, sqlite3.Error) as problem:
        raise JobRejected(f"{what}: {_why(problem)}.") from problem


_FULL, _WRITE, _BUSY = "the disk is full", "the data folder cannot be written to", "the library is in use elsewhere"
_BROKEN = "the file library.sqlite is damaged"
_SYSTEM = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,  # as where the size of files is limited
    errno.EROFS: _WRITE,
    errno.EACCES: _WRITE,
    errno.EPERM: _WRITE,
    errno.ENOTDIR: _WRITE,
    errno.EEXIST: _WRITE,
    errno.ENOENT: _WRITE,
}
_SQLITE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _WRITE,
    sqlite3.SQLITE_CANTOPEN: _WRITE,
    sqlite3.SQLITE_PERM: _WRITE,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_CORRUPT: _BROKEN,
    sqlite3.SQLITE_NOTADB: _BROKEN,
    sqlite3.SQLITE_IOERR: "the disk could not be read or written",
}


def _why(problem: OSError | sqlite3.Error) -> str:
    if isinstance(problem, OSError):
        return _SYSTEM.get(problem.errno or 0) or problem.strerror or str(problem)
    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF  # the kind; the bits above say more of it
    return _SQLITE.get(code) or str(problem)
