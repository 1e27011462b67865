"""A disk that is full, read-only or broken: every failure gives a sentence, and nothing is half written."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from studio.engine.job import JobRejected
from studio.library import files, storage
from tests.library.helpers import (
    INPAINT,
    ME,
    PAINT,
    finish,
    list_files,
    make_picture,
    make_trace,
    resume,
    submit,
)

REASONS = [
    (errno.ENOSPC, "the disk is full"),
    (errno.EROFS, "the data folder cannot be written to"),
    (errno.EIO, "Input/output error"),
]


@pytest.mark.parametrize(("code", "reason"), REASONS)
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_failed_save_gives_a_sentence_and_leaves_nothing(library, monkeypatch, code, reason, call, nth):
    def failing(*arguments, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) >= nth:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    job, real = submit(library, PAINT), getattr(os, call)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(JobRejected, match=f"^The pictures could not be saved: {reason}.$"):
            library.journal.save_results(job, [make_picture()] * 3, [None] * 3)
    assert list_files(library) == {"pictures": [], "traces": [], "inputs": []}
    assert library.find_pictures(ME) == [] and [job.id for job in library.journal.load_unfinished()] == [job.id]
    assert len(library.journal.save_results(job, [make_picture()] * 3, [None] * 3)) == 3  # the disk works again


@pytest.mark.parametrize(("code", "reason"), REASONS)
def test_job_that_cannot_be_stored_is_rejected(library, monkeypatch, code, reason):
    def failing(*arguments):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(JobRejected, match=f"^The job could not be accepted: {reason}.$"):
            submit(library, INPAINT)
    assert library.journal.load_unfinished() == [] and list_files(library)["inputs"] == []
    submit(library, INPAINT)


def test_failed_trace_loses_no_picture(library, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(library._storage.blobs, "write_trace", lambda *arguments: os.fsync(-1))
        (kept,) = finish(library).pictures
    assert not kept.has_trace and library.load_trace(ME, kept.id) is None and Path(kept.path).exists()


FULL = """
import resource, sys
from studio.engine.job import JobRejected
from studio.library.store import Library
from tests.library.helpers import ME, make_picture, submit

library = Library(sys.argv[1])
job, (soft, hard) = submit(library), resource.getrlimit(resource.RLIMIT_FSIZE)
accepted = 0
resource.setrlimit(resource.RLIMIT_FSIZE, ((library.folder / "library.sqlite-wal").stat().st_size + 50_000, hard))
try:
    library.journal.save_results(job, [make_picture(500, 500)], [None])
except JobRejected as problem:
    print(problem)
try:
    for accepted in range(1000):
        submit(library)
except JobRejected as problem:
    print(problem)
print(len(library.find_pictures(ME)), len(library.journal.load_unfinished()) == accepted + 1, accepted > 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
submit(library)
library.journal.save_results(job, [make_picture(200, 200)], [None])
library.close()
library = Library(sys.argv[1])
print(len(library.find_pictures(ME)), len(library.journal.load_unfinished()) == accepted + 1)
"""


def test_full_disk_gives_sentences_and_later_it_works(tmp_path):
    """A limit on the size of files stands for a full disk: it affects both the pictures and SQLite's log."""
    process = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    not_saved, not_accepted, *rest = process.stdout.splitlines()
    assert not_saved == "The pictures could not be saved: the disk is full."
    assert not_accepted.startswith("The job could not be accepted: the disk ")
    assert rest == ["0 True True", "1 True"]


def test_full_disk_has_a_reserve_for_deleting(library, reopen, monkeypatch):
    (kept,) = finish(library).pictures
    library.purge()
    reserve = library.folder / "reserve"
    assert reserve.stat().st_size == 1_000_000
    usage = type(shutil.disk_usage(library.folder))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 4096))
    assert library.delete(ME, [kept.id]) == 1 and not reserve.exists()
    library = reopen(library)
    assert not reserve.exists()
    monkeypatch.undo()
    library.purge()
    assert reserve.stat().st_size == 1_000_000


def test_locked_database_gives_a_sentence(open_library, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.05)
    library = open_library(tmp_path)
    job = submit(library)
    other = sqlite3.connect(tmp_path / "library.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JobRejected, match="^The job could not be accepted: another program is using the library.$"):
        submit(library)
    with pytest.raises(JobRejected, match="^The pictures could not be saved: another program is using the library.$"):
        library.journal.save_results(job, [make_picture()], [make_trace()])
    job.state = "cancelled"
    library.journal.mark_ended(job)  # these two give no error, since nobody could be told
    library.journal.update_order(job)
    assert library.find_pictures(ME) == [] and list_files(library)["pictures"] == []
    other.execute("ROLLBACK")
    other.close()
    (loaded,) = resume(library)
    assert len(library.journal.save_results(loaded, [make_picture()], [make_trace()])) == 1


@pytest.mark.parametrize("problem", [PermissionError(errno.EACCES, "no"), OSError(errno.EROFS, "no")])
def test_read_only_folder_can_still_be_read(library, monkeypatch, problem):
    (kept,) = finish(library).pictures
    library._storage._connection.execute("PRAGMA query_only = ON")

    def refuse(*arguments, **options):
        raise problem

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    for request in (PAINT, INPAINT):
        with pytest.raises(JobRejected, match="^The job could not be accepted: the data folder cannot be written to.$"):
            submit(library, request)
    with pytest.raises(JobRejected, match="^The pictures could not be deleted: the data folder cannot be written to.$"):
        library.delete(ME, [kept.id])
    assert library.find_pictures(ME) == [kept] and library.load_trace(ME, kept.id)
