"""Quotas, and how long pictures, traces and jobs stay."""

from __future__ import annotations

import os
import shutil
import time
from types import SimpleNamespace

import pytest
from PIL import Image

from studio.engine.job import JobRejected
from studio.engine.requests import Inpaint, SuperResolve, TextToImage
from studio.library import retention
from tests.library.helpers import (
    ME,
    YOU,
    finish,
    list_files,
    make_picture,
    make_trace,
    submit,
)


def test_failed_and_cancelled_jobs_stay_for_a_week(library, monkeypatch):
    for state, error in (("failed", "It did not fit."), ("cancelled", None)):
        job = submit(library)
        job.state, job.error, job.notes = state, error, ("Why.",)
        library.journal.mark_ended(job)
        library.journal.mark_ended(job)
        record = library.get_job(ME, job.id)
        assert (record.state, record.error, record.notes, record.pictures) == (state, error, ("Why.",), ())
    assert [record.state for record in library.find_ended_jobs(ME)] == ["cancelled", "failed"]
    assert len(library.find_ended_jobs(ME, limit=1)) == 1
    assert library.journal.load_unfinished() == []
    later = time.time() + retention.FORGET_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    library.purge()
    assert library.find_ended_jobs(ME) == []


def test_deleted_pictures_are_removed_after_ten_minutes(library, reopen, monkeypatch):
    first, second = finish(library, "a cat").pictures[0], finish(library, "a boat").pictures[0]
    library.delete(ME, [first.id])
    later = time.time() + retention.UNDO_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    assert library.undo_delete(ME, [first.id]) == 0  # even before a purge
    library = reopen(library)
    assert list_files(library)["pictures"] == [f"{second.id}.png"]
    assert list_files(library)["traces"] == [f"{second.id}.safetensors"]
    assert [record.caption for record in library.find_ended_jobs(ME)] == ["a boat"]


def test_pictures_of_anonymous_owners_go_after_a_week(library, monkeypatch):
    mine, anonymous = finish(library).pictures[0], finish(library, owner="call:1").pictures[0]
    library.purge()
    assert library.get_picture("call:1", anonymous.id)
    later = time.time() + retention.FORGET_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    library.purge()
    assert library.get_picture(ME, mine.id) and list_files(library)["pictures"] == [f"{mine.id}.png"]


def test_deleted_pictures_over_the_quota_go_at_once(open_library, tmp_path):
    library = open_library(tmp_path, owner_quota_bytes=250_000)
    for number in range(4):
        job = submit(library)
        (kept,) = library.journal.save_results(job, [make_picture(150, 150, number)], [None])  # 68 kB
        library.delete(ME, [kept.id])
    library.purge()
    assert len(os.listdir(tmp_path / "pictures")) == 3
    assert library.undo_delete(ME, [kept.id]) == 1


def test_owner_over_quota_is_rejected_and_loses_nothing(open_library, tmp_path):
    library = open_library(tmp_path, owner_quota_bytes=200_000)
    finish(library, traced=False)
    waiting = submit(library)
    with pytest.raises(
        JobRejected, match=r"Your pictures take up 0\.0 of 0\.2 MB, .* Please delete some pictures first\.$"
    ):
        submit(library)  # the queued job may need the room
    submit(library, owner=YOU)
    library.journal.save_results(waiting, [make_picture()], [None])
    assert len(library.find_pictures(ME)) == 2
    submit(library)


def test_deleting_makes_room_and_inputs_count(open_library, tmp_path):
    request = SuperResolve(make_picture(100, 100), 2)
    library = open_library(tmp_path, owner_quota_bytes=300_000)
    job = submit(library, request)
    kept = library.journal.save_results(job, [make_picture(200, 200)], [None])
    used, quota = library.get_usage(ME)
    files = sum(path.stat().st_size for name in ("pictures", "inputs") for path in (tmp_path / name).iterdir())
    assert (used, quota) == (files, 300_000) and used > 150_000
    with pytest.raises(JobRejected):
        submit(library, request)
    library.delete(ME, [kept[0].id])
    assert library.get_usage(ME)[0] == 0
    submit(library, request)


def test_inputs_and_prompts_count_before_a_job_is_accepted(open_library, tmp_path):
    transparent = Inpaint("", make_picture(300, 300).convert("RGBA"), Image.new("L", (300, 300), 255))
    library = open_library(tmp_path, owner_quota_bytes=700_000)
    with pytest.raises(JobRejected, match="delete some pictures first"):
        submit(library, transparent)  # 360 kB of results and as much of inputs
    assert list_files(library)["inputs"] == [] and library.journal.load_unfinished() == []
    job = submit(library, TextToImage("🍎" * 10_000, negative_prompt="🍐" * 10_000))
    library.journal.save_results(job, [make_picture()], [None])
    assert 400_000 < library.get_usage(ME)[0] < 700_000  # the file holds the prompts
    with pytest.raises(JobRejected, match="delete some pictures first"):
        submit(library, TextToImage("🍎" * 10_000))


def test_anonymous_owner_loses_the_oldest_pictures(open_library, tmp_path):
    library = open_library(tmp_path, owner_quota_bytes=250_000)
    kept = []
    for number in range(4):
        job = submit(library, owner="call:1")
        kept += library.journal.save_results(job, [make_picture(150, 150, number)], [None])  # 68 kB
    assert [p.id for p in library.find_pictures("call:1")] == [p.id for p in kept[:0:-1]]
    assert library.get_usage("call:1")[0] < 250_000
    with pytest.raises(JobRejected, match="delete some pictures first"):
        submit(library, TextToImage("a cat", count=9), owner="call:1")  # more than the whole quota


def test_the_end_of_the_disk_stays_free(library, monkeypatch):
    waiting = submit(library)
    free = retention.MIN_FREE_BYTES + 150_000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free, total=10**12))
    with pytest.raises(JobRejected, match="disk is nearly full"):
        submit(library, owner=YOU)  # the queued job reserves a part of it
    library.journal.save_results(waiting, [make_picture()], [None])
    submit(library, owner=YOU)


def test_oldest_traces_go_first_and_those_of_favourites_last(open_library, tmp_path):
    size = len(make_trace().to_bytes())
    library = open_library(tmp_path, trace_quota_bytes=3 * size + size // 2)
    jobs = [finish(library, f"number {number}") for number in range(3)]
    ids = [job.pictures[0].id for job in jobs]
    library.set_favourite(ME, ids[0], True)
    ids += [finish(library, f"number {number}", YOU).pictures[0].id for number in (3, 4)]

    def find_traced() -> list[int]:
        traced = []
        for number, (owner, id) in enumerate(zip((ME, ME, ME, YOU, YOU), ids, strict=True)):
            has_trace = library.load_trace(owner, id) is not None
            assert library.get_picture(owner, id).has_trace == has_trace
            if has_trace:
                traced.append(number)
        return traced

    assert find_traced() == [0, 3, 4] and len(os.listdir(tmp_path / "traces")) == 3
    leftover = tmp_path / "traces" / f"{ids[1]}.safetensors"
    leftover.write_bytes(make_trace().to_bytes())  # as if the process had been killed before it removed the file
    library.close()
    library = open_library(tmp_path)
    assert find_traced() == [0, 3, 4] and not leftover.exists()
    assert len(os.listdir(tmp_path / "pictures")) == 5
