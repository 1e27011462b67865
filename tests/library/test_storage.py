"""Opening a data folder: its lock, its versions, its secrets, and what a crash leaves."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest

from studio.engine.job import JobRejected
from studio.engine.requests import TextToImage
from studio.library.store import Library
from tests.library.helpers import (
    ME,
    finish,
    list_files,
    submit,
)


def test_folder_in_use_is_rejected_until_released(library, reopen):
    with pytest.raises(JobRejected, match=r"^Another studio uses the data folder .*data\. Choose another"):
        Library(library.folder)
    reopen(library)


HOLD_LIBRARY = """
import sys, time
from studio.library.store import Library
library = Library(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


def test_lock_ends_with_the_process_even_if_it_is_killed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD_LIBRARY, tmp_path], stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        with pytest.raises(JobRejected, match="^Another studio uses"):
            Library(tmp_path)
    finally:
        process.kill()
        process.communicate()
    Library(tmp_path).close()


def test_lock_file_of_an_earlier_version_does_no_harm(tmp_path):
    (tmp_path / "lock").touch(0o600)
    Library(tmp_path).close()
    Library(tmp_path).close()


def test_impossible_folder_is_rejected(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            JobRejected, match=rf"^The library in {folder} could not be opened: .* cannot be written to\.$"
        ):
            Library(folder)


def test_first_version_migrates_to_the_newest(library, reopen):
    job = submit(library)
    with library._storage.transaction() as db:
        db.execute("ALTER TABLE jobs DROP COLUMN begun")
        db.execute("PRAGMA user_version = 1")
    assert reopen(library).journal.load_unfinished()[0].id == job.id


def test_setting_names_of_earlier_versions_are_mapped(library):
    picture = finish(library, TextToImage("a cat", background="blue", randomize_style=True)).pictures[0]
    old_names = {"background": "ground", "randomize_style": "varied", "resolution": "finish"}
    old_settings = json.dumps({old_names.get(name, name): value for name, value in picture.settings.items()})
    with library._storage.transaction() as db:
        db.execute("UPDATE pictures SET settings = ?", (old_settings,))
        db.execute("UPDATE jobs SET settings = ?", (old_settings,))
    assert library.get_picture(ME, picture.id).settings == picture.settings
    assert library.get_job(ME, picture.job_id).settings == picture.settings
    assert library.load_request(ME, picture.id) == TextToImage("a cat", background="blue", randomize_style=True)


def test_library_of_a_newer_version_is_rejected(library):
    library.close()
    with sqlite3.connect(library.folder / "library.sqlite") as db:
        db.execute("PRAGMA user_version = 1000")
    db.close()
    with pytest.raises(JobRejected, match="A newer Diffusion Studio wrote the library"):
        Library(library.folder)


def test_damaged_database_is_rejected_and_unchanged(tmp_path):
    (tmp_path / "library.sqlite").write_bytes(b"not a database, " * 100)
    for _ in range(2):  # the first failure releases the folder
        with pytest.raises(JobRejected, match="could not be opened: the file library.sqlite is damaged.$"):
            Library(tmp_path)
    assert (tmp_path / "library.sqlite").read_bytes().startswith(b"not a database")


def test_opening_removes_leftovers_but_never_a_picture(library, reopen):
    """Pictures of an earlier studio, or of a library.sqlite that was lost, are not ours to remove."""
    job = finish(library)
    for name in ("pictures/old.png", "traces/old.safetensors", "inputs/old.png", "inputs/.x.part", ".y.part"):
        (library.folder / name).write_bytes(b"x")
    library = reopen(library)
    (id,) = [picture.id for picture in job.pictures]
    assert list_files(library) == {
        "pictures": sorted([f"{id}.png", "old.png"]),
        "traces": [f"{id}.safetensors"],
        "inputs": [],
    }
    assert not (library.folder / ".y.part").exists()


def test_secrets_are_made_once_and_are_private(library, reopen):
    secret, key = library.secret, library.key
    assert len(secret) >= 32 and len(key) >= 32 and secret != key
    assert all((library.folder / name).stat().st_mode & 0o077 == 0 for name in ("secret", "key"))
    library = reopen(library)
    assert (library.secret, library.key) == (secret, key)
