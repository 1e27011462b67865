"""The library: saved is loaded, nobody meets another's pictures, nothing is lost, and a disk that will not is said."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from studio.engine.job import Job, JobRejected
from studio.engine.requests import Inpaint, Request, SuperResolve, TextToImage
from studio.engine.trace import ByteBudget, Trace, TraceRecorder
from studio.library import database, files, journal, store
from studio.library.journal import MAX_CRASHES
from studio.library.metadata import read_png
from studio.library.store import Library
from tests.fakes import FakeSampler

ME, YOU = "user:me", "browser:you"


@pytest.fixture
def opened():
    """Opens libraries that are closed at the end."""
    libraries = []

    def opened(folder: Path, **options) -> Library:
        libraries.append(Library(folder, **options))
        return libraries[-1]

    yield opened
    for library in libraries:
        library.close()


@pytest.fixture
def library(opened, tmp_path):
    return opened(tmp_path / "data", model="Blob 64")


@pytest.fixture
def reopened(opened):
    def reopened(library: Library) -> Library:
        library.close()
        return opened(library.folder)

    return reopened


def picture(width: int = 8, height: int = 8, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def trace(seed: int = 0, side: int = 8) -> Trace:
    (row,) = FakeSampler(sample_size=side).prepare(TextToImage("a cat", steps=3, seed=seed))
    recorder = TraceRecorder(row, ByteBudget())
    while not row.finished:
        row.take_step()
        recorder.record()
    return recorder.trace()


def submitted(library: Library, request: Request | str = "a red apple", owner: str = ME, order: float = 0.0) -> Job:
    job = Job(TextToImage(request) if isinstance(request, str) else request, owner, order=order)
    library.add_job(job)
    return job


def done(library: Library, request: Request | str = "a red apple", owner: str = ME, traced: bool = True) -> Job:
    job = submitted(library, request, owner)
    library.mark_started(job)
    job.seconds, job.notes = 1.25, ("A note.",)
    seeds = job.request.seeds
    job.pictures = library.save_results(
        job, [picture(seed=s) for s in seeds], [trace(s) if traced else None for s in seeds]
    )
    job.state = "done"
    return job


def on_disk(library: Library) -> dict[str, list[str]]:
    return {name: sorted(os.listdir(library.folder / name)) for name in ("pictures", "traces", "inputs")}


INPAINT = Inpaint("a cat", picture(12, 10), picture(12, 10, 1).convert("L"), "a dog", count=2, steps=3, seed=5)
UPSCALE = SuperResolve(picture(6, 5), 4, "", 0.1, count=2, seed=2**32 - 1)
PAINT = TextToImage(
    "a red apple", "blur", "glossy", count=3, guidance=7.25, sampler="unipc", seed=9, randomize_style=True
)


# ---- saved is loaded ----


@pytest.mark.parametrize("request_", [PAINT, INPAINT, UPSCALE], ids=lambda r: r.task)
def test_a_job_that_waits_outlives_the_process(library, reopened, request_):
    job = submitted(library, request_, order=2.5)
    (again,) = reopened(library).load_unfinished()
    assert again.request == request_
    assert (again.id, again.owner, again.created, again.order) == (job.id, ME, job.created, 2.5)
    assert (again.state, again.pictures, again.error) == ("queued", (), None)


def killed(library: Library) -> Path:
    """What a sudden end of the process leaves."""
    library._db.close()
    library._folder_lock.release()
    return library.folder


def test_a_job_that_kills_every_process_is_not_taken_up_for_ever(library, opened):
    guilty, waiting = submitted(library, INPAINT), submitted(library, order=1.0)
    for times in range(1, MAX_CRASHES):
        library.mark_started(guilty)
        library = opened(killed(library))
        again, other = library.load_unfinished()
        assert (again.id, again.crashes, other.id, other.crashes) == (guilty.id, times, waiting.id, 0)
    library.mark_started(guilty)
    library = opened(killed(library))
    assert [job.id for job in library.load_unfinished()] == [waiting.id]
    record = library.job(ME, guilty.id)
    assert record.state == "failed" and "was killed 4 times while this job was under way" in record.error
    assert on_disk(library)["inputs"] == []


def test_an_end_in_good_order_is_no_crash(library, reopened, opened):
    job = submitted(library)
    library.mark_started(job)
    library = opened(killed(library))
    assert library.load_unfinished()[0].crashes == 1
    library.mark_started(job)
    assert reopened(library).load_unfinished()[0].crashes == 0


def test_a_library_of_the_first_form_is_brought_to_the_newest(library, reopened):
    job = submitted(library)
    with library._db.transaction() as db:
        db.execute("ALTER TABLE jobs DROP COLUMN begun")
        db.execute("PRAGMA user_version = 1")
    assert reopened(library).load_unfinished()[0].id == job.id


@pytest.mark.parametrize("request_", [PAINT, INPAINT, UPSCALE], ids=lambda r: r.task)
def test_a_kept_job_is_there_with_all_that_belongs_to_it(library, reopened, request_):
    job = done(library, request_)
    library = reopened(library)
    assert library.load_unfinished() == []
    kept = library.pictures(ME)
    assert kept == list(reversed(job.pictures)) and len(kept) == request_.count
    for index, one in enumerate(job.pictures):
        seed = request_.seeds[index]
        assert (one.index, one.seed, one.job_id, one.width, one.height) == (index, seed, job.id, 8, 8)
        assert one.has_trace and not one.favourite and library.picture(ME, one.id) == one
        assert one.settings == request_.settings() | {
            "seed": seed,
            "count": 1,
            "caption": request_.captions[index],
            "size": "8x8",
            "model": "Blob 64",
            "seconds": 1.25,
        }
        assert read_png(one.path) == one.settings
        with Image.open(one.path) as image:
            assert image.tobytes() == picture(seed=seed).tobytes()
        back = library.trace(ME, one.id)
        assert all(np.array_equal(a.x_t, b.x_t) for a, b in zip(back.steps, trace(seed).steps, strict=True))
        alone = library.request(ME, one.id)
        assert (alone.seed, alone.count, alone.pictures()) == (seed, 1, request_.pictures())
    record = library.job(ME, job.id)
    assert (record.state, record.ended, record.seconds, record.notes) == ("done", True, 1.25, ("A note.",))
    assert (record.caption, record.task, record.count) == (request_.caption, request_.task, request_.count)
    assert record.settings == request_.settings() and record.pictures == job.pictures
    assert record.step == record.steps == request_.steps
    assert library.recent_jobs(ME) == [record]


def test_a_job_that_ended_otherwise_stays_known_for_a_while(library, monkeypatch):
    for state, error in (("failed", "It did not fit."), ("cancelled", None)):
        job = submitted(library)
        job.state, job.error, job.notes = state, error, ("Why.",)
        library.mark_ended(job)
        library.mark_ended(job)
        record = library.job(ME, job.id)
        assert (record.state, record.error, record.notes, record.pictures) == (state, error, ("Why.",), ())
    assert [record.state for record in library.recent_jobs(ME)] == ["cancelled", "failed"]
    assert len(library.recent_jobs(ME, limit=1)) == 1
    assert library.load_unfinished() == []
    later = time.time() + store.FORGET_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    library.purge()
    assert library.recent_jobs(ME) == []


def test_text_of_any_kind_is_kept(library):
    prompt = "ein Äpfelchen 🍎 \0 'quoted' \"twice\" --; DROP TABLE jobs\n\u2028"
    waiting = submitted(library, prompt)
    assert library.load_unfinished()[0].request.prompt == prompt
    library.save_results(waiting, [picture()], [None])
    assert library.pictures(ME, search="äpfelchen 🍎")[0].settings["prompt"] == prompt


def test_jobs_come_back_in_the_order_of_their_places(library):
    jobs = [submitted(library, f"number {place}", order=place) for place in (3.0, 1.0, 2.0, 1.0)]
    jobs[0].order = 0.5
    library.update_order(jobs[0])
    assert [job.id for job in library.load_unfinished()] == [jobs[index].id for index in (0, 1, 3, 2)]


def test_keeping_again_changes_nothing(library):
    job = done(library, PAINT)
    before = on_disk(library)
    assert library.save_results(job, [picture(seed=99)] * 3, [None] * 3) == job.pictures
    assert on_disk(library) == before and len(library.pictures(ME)) == 3
    job.state = "failed"
    library.mark_ended(job)  # too late
    assert library.job(ME, job.id).state == "done"


def test_a_job_that_was_cancelled_is_not_kept(library):
    job = submitted(library)
    job.state = "cancelled"
    library.mark_ended(job)
    for unknown in (job, Job(TextToImage("never submitted"), ME)):
        with pytest.raises(JobRejected, match="their job has ended already"):
            library.save_results(unknown, [picture()], [trace()])
    assert on_disk(library)["pictures"] == [] and library.pictures(ME) == []


def test_a_crash_while_keeping_leaves_files_that_the_next_run_writes_again(library, reopened, monkeypatch):
    class Crash(BaseException):
        pass

    def crash(*arguments):
        raise Crash

    job = submitted(library, PAINT)
    with monkeypatch.context() as patch:
        patch.setattr(library, "_write_done", crash)
        patch.setattr(library, "_remove_files", lambda *arguments: None)  # a dead process tidies nothing
        with pytest.raises(Crash):
            library.save_results(job, [picture()] * 3, [trace()] * 3)
    (library.folder / "pictures" / ".abc.part").write_bytes(b"half")
    assert len(on_disk(library)["pictures"]) == 4 and library.pictures(ME) == []
    library = reopened(library)
    (again,) = library.load_unfinished()
    kept = library.save_results(again, [picture()] * 3, [trace()] * 3)
    assert on_disk(library)["pictures"] == sorted(f"{one.id}.png" for one in kept)
    assert on_disk(library)["traces"] == sorted(f"{one.id}.safetensors" for one in kept)


def test_a_job_cancelled_after_such_a_crash_leaves_nothing(library, reopened, monkeypatch):
    job = submitted(library, INPAINT)
    with monkeypatch.context() as patch:
        patch.setattr(library, "_remove_files", lambda *arguments: None)
        patch.setattr(library, "_write_done", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            library.save_results(job, [picture()] * 2, [trace()] * 2)
    library = reopened(library)
    job.state = "cancelled"
    library.mark_ended(job)
    assert on_disk(library) == {"pictures": [], "traces": [], "inputs": []}


def test_what_is_no_ones_is_swept_but_never_a_picture(library, reopened):
    """Pictures of an earlier studio, or of a library.sqlite that was lost, are not ours to remove."""
    job = done(library)
    for name in ("pictures/old.png", "traces/old.safetensors", "inputs/old.png", "inputs/.x.part", ".y.part"):
        (library.folder / name).write_bytes(b"x")
    library = reopened(library)
    (id,) = [one.id for one in job.pictures]
    assert on_disk(library) == {
        "pictures": sorted([f"{id}.png", "old.png"]),
        "traces": [f"{id}.safetensors"],
        "inputs": [],
    }
    assert not (library.folder / ".y.part").exists()


def test_secrets_are_made_once_and_for_their_owner_alone(library, reopened):
    secret, key = library.secret(), library.key()
    assert len(secret) >= 32 and len(key) >= 32 and secret != key
    assert all((library.folder / name).stat().st_mode & 0o077 == 0 for name in ("secret", "key"))
    library = reopened(library)
    assert (library.secret(), library.key()) == (secret, key)


def test_ids_tell_nothing_of_one_another(library, opened, tmp_path):
    job = done(library, PAINT)
    ids = [one.id for one in job.pictures]
    assert len({id[:4] for id in ids}) == 3 and all(len(id) == 22 and job.id not in id for id in ids)
    other = opened(tmp_path / "other")
    library.close()
    other.add_job(job)
    assert not set(ids) & {one.id for one in other.save_results(job, [picture()] * 3, [None] * 3)}


# ---- pictures that jobs begin with ----


def test_inputs_are_there_once_and_as_long_as_they_are_needed(library, monkeypatch):
    first, second = submitted(library, INPAINT), submitted(library, INPAINT, YOU)
    assert len(on_disk(library)["inputs"]) == 2  # picture and mask
    first.state = "cancelled"
    library.mark_ended(first)
    assert len(on_disk(library)["inputs"]) == 2
    kept = library.save_results(second, [picture()] * 2, [None] * 2)
    library.delete(YOU, [one.id for one in kept])
    library.purge()
    assert len(on_disk(library)["inputs"]) == 2  # the deletion may be undone
    later = time.time() + store.UNDO_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    library.purge()
    assert on_disk(library) == {"pictures": [], "traces": [], "inputs": []}
    assert library.job(YOU, second.id) is None  # the prompt is forgotten with its pictures


def test_a_job_whose_picture_is_gone_fails_with_a_sentence(library, reopened):
    lost, fine = submitted(library, INPAINT), submitted(library, PAINT)
    next((library.folder / "inputs").glob("*.png")).unlink()
    library = reopened(library)
    assert [job.id for job in library.load_unfinished()] == [fine.id]
    record = library.job(ME, lost.id)
    assert record.state == "failed"
    assert record.error == "The job could not be taken up again. A picture it began with is gone."


def test_a_picture_whose_input_is_gone_says_so(library):
    job = done(library, INPAINT)
    next((library.folder / "inputs").glob("*.png")).write_bytes(b"no picture")
    with pytest.raises(JobRejected, match="What this picture was made from cannot be read any more."):
        library.request(ME, job.pictures[0].id)


def test_jobs_submitted_and_cancelled_at_once_keep_their_inputs(library):
    """Threads that begin with the same picture, while others that do so end."""
    problems: list[BaseException] = []

    def come_and_go(number: int) -> None:
        try:
            for _ in range(8):
                job = submitted(library, UPSCALE, f"user:{number}")
                assert (library.folder / "inputs").joinpath(name).exists()
                job.state = "cancelled"
                library.mark_ended(job)
        except BaseException as problem:
            problems.append(problem)

    first = submitted(library, UPSCALE)
    (name,) = on_disk(library)["inputs"]
    first.state = "cancelled"
    library.mark_ended(first)
    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [] and on_disk(library)["inputs"] == []


# ---- owners ----


def test_nothing_is_read_or_changed_for_another(library):
    mine, yours = done(library, INPAINT), done(library, "a boat", YOU)
    waiting = submitted(library, "a house")
    (first, second), (theirs,) = mine.pictures, yours.pictures
    before = (library.pictures(ME), library.usage(ME), library.recent_jobs(ME), library.days(ME))
    assert library.pictures(YOU) == [theirs] and library.pictures("user:nobody") == []
    for id in (first.id, second.id):
        assert library.picture(YOU, id) is None
        assert library.trace(YOU, id) is None
        assert library.request(YOU, id) is None
        assert library.favourite(YOU, id, True) is False
        assert library.pictures(YOU, before=id) == []
    assert library.delete(YOU, [first.id, second.id]) == 0
    assert library.job(YOU, mine.id) is None and library.job(YOU, waiting.id) is None
    assert [record.id for record in library.recent_jobs(YOU)] == [yours.id]
    assert library.usage("user:nobody")[0] == 0 and library.days("user:nobody") == []
    with pytest.raises(JobRejected):
        library.save_results(Job(waiting.request, YOU, id=waiting.id), [picture()], [None])
    assert (library.pictures(ME), library.usage(ME), library.recent_jobs(ME), library.days(ME)) == before
    library.delete(ME, [first.id])
    assert library.undo_delete(YOU, [first.id]) == 0 and library.picture(ME, first.id) is None


# ---- searching ----


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", {"a Red Apple", "100% cat_face", 'it\'s a "cat"', "CAFÉ au lait", "ﬁne Straße"}),
        ("apple red", {"a Red Apple"}),
        ("  RED   ", {"a Red Apple"}),
        ("red boat", set()),
        ("%", {"100% cat_face"}),
        ("_", {"100% cat_face"}),
        ("'", {'it\'s a "cat"'}),
        ('"cat"', {'it\'s a "cat"'}),
        ("cat", {"100% cat_face", 'it\'s a "cat"'}),
        ("café", {"CAFÉ au lait"}),
        ("cafe\u0301", {"CAFÉ au lait"}),
        ("FINE STRASSE", {"ﬁne Straße"}),
        ("\\", set()),
        ("\ud800", set()),
        ("a " * 5000, {"a Red Apple", "100% cat_face", 'it\'s a "cat"', "CAFÉ au lait", "ﬁne Straße"}),
    ],
)
def test_search_looks_for_all_words_in_any_order(library, search, found):
    for prompt in ("a Red Apple", "100% cat_face", 'it\'s a "cat"', "CAFÉ au lait", "ﬁne Straße"):
        done(library, prompt, traced=False)
    assert {one.settings["prompt"] for one in library.pictures(ME, search=search)} == found


def test_filters_narrow_together(library):
    for request in (PAINT, INPAINT, UPSCALE):
        done(library, request, traced=False)
    loved = library.pictures(ME, task="inpaint")[0]
    assert library.favourite(ME, loved.id, True) and library.picture(ME, loved.id).favourite
    assert [one.id for one in library.pictures(ME, favourites=True)] == [loved.id]
    assert {one.settings["task"] for one in library.pictures(ME, task="text-to-image")} == {"text-to-image"}
    assert len(library.pictures(ME, task="inpaint", search="cat")) == 2
    assert library.pictures(ME, task="inpaint", search="apple") == []
    assert library.pictures(ME, task="dance") == []
    assert library.favourite(ME, loved.id, False) and library.pictures(ME, favourites=True) == []


def test_pages_of_pictures_follow_each_other(library):
    for number in range(7):
        done(library, TextToImage("a cat", count=2, seed=number), traced=False)
    everything, pages, before = library.pictures(ME), [], None
    while page := library.pictures(ME, limit=4, before=before):
        assert len(page) <= 4
        pages += page
        before = page[-1].id
    assert pages == everything and len(everything) == 14
    assert library.pictures(ME, limit=-5) == everything[:1]
    assert library.pictures(ME, before="no such picture") == []


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_days_are_local_even_where_the_clock_is_set(library, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        moments = [
            datetime(2026, 3, 7, 23, 59),
            datetime(2026, 3, 8, 0, 0),  # 23 hours in New York
            datetime(2026, 3, 8, 23, 59),
            datetime(2026, 3, 9, 0, 0),
            datetime(2026, 11, 1, 1, 30),  # 25 hours there
            datetime(2026, 11, 1, 23, 30),
        ]
        for moment in moments:
            monkeypatch.setattr(time, "time", moment.timestamp)
            done(library, f"at {moment}", traced=False)
        counts = [("2026-11-01", 2), ("2026-03-09", 1), ("2026-03-08", 2), ("2026-03-07", 1)]
        assert library.days(ME) == counts
        for day, count in counts:
            assert len(library.pictures(ME, day=day)) == count
        assert library.pictures(ME, day="2026-03-10") == []
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("day", ["", "yesterday", "2026-02-30", "9999-12-31", "2026-03-08'; --"])
def test_a_day_that_is_none_is_refused(library, day):
    with pytest.raises(ValueError, match="The day must be one like 2026-11-21; it was"):
        library.pictures(ME, day=day)


# ---- deleting ----


def test_a_deleted_picture_is_hidden_and_can_come_back(library):
    job = done(library, PAINT)
    gone, stays, _ = job.pictures
    everything, files = library.pictures(ME), on_disk(library)
    assert library.delete(ME, [gone.id, gone.id, "no such picture"]) == 1
    assert library.delete(ME, [gone.id]) == 0
    assert gone.id not in {one.id for one in library.pictures(ME)} and len(library.pictures(ME)) == 2
    assert library.picture(ME, gone.id) is None and library.trace(ME, gone.id) is None
    assert library.favourite(ME, gone.id, True) is False
    assert library.job(ME, job.id).pictures == job.pictures[1:]
    assert library.days(ME)[0][1] == 2
    library.purge()
    assert on_disk(library) == files
    assert library.undo_delete(ME, [gone.id, stays.id]) == 1
    assert library.pictures(ME) == everything


def test_what_was_deleted_long_enough_ago_is_gone(library, reopened, monkeypatch):
    first, second = done(library, "a cat").pictures[0], done(library, "a boat").pictures[0]
    library.delete(ME, [first.id])
    later = time.time() + store.UNDO_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    assert library.undo_delete(ME, [first.id]) == 0  # even if nobody has looked since
    library = reopened(library)
    assert on_disk(library)["pictures"] == [f"{second.id}.png"]
    assert on_disk(library)["traces"] == [f"{second.id}.safetensors"]
    assert [record.caption for record in library.recent_jobs(ME)] == ["a boat"]
    library.close()


# ---- quotas ----


def test_an_owner_without_room_is_refused_and_loses_nothing(opened, tmp_path):
    library = opened(tmp_path, owner_quota_bytes=200_000)
    done(library, traced=False)
    waiting = submitted(library)
    with pytest.raises(JobRejected, match=r"Your pictures take up 0\.0 of 0\.2 MB, .*; please delete some first\.$"):
        submitted(library)  # for what waits may need the room
    submitted(library, owner=YOU)
    library.save_results(waiting, [picture()], [None])
    assert len(library.pictures(ME)) == 2
    submitted(library)


def test_deleting_makes_room_and_inputs_count(opened, tmp_path):
    request = SuperResolve(picture(100, 100), 2)
    library = opened(tmp_path, owner_quota_bytes=300_000)
    job = submitted(library, request)
    kept = library.save_results(job, [picture(200, 200)], [None])
    used, quota = library.usage(ME)
    files = sum(path.stat().st_size for name in ("pictures", "inputs") for path in (tmp_path / name).iterdir())
    assert (used, quota) == (files, 300_000) and used > 150_000
    with pytest.raises(JobRejected):
        submitted(library, request)
    library.delete(ME, [kept[0].id])
    assert library.usage(ME)[0] == 0
    submitted(library, request)


def test_what_a_job_begins_with_and_its_words_count_before_it_is_taken(opened, tmp_path):
    see_through = Inpaint("", picture(300, 300).convert("RGBA"), Image.new("L", (300, 300), 255))
    library = opened(tmp_path, owner_quota_bytes=700_000)
    with pytest.raises(JobRejected, match="delete some first"):
        submitted(library, see_through)  # 360 kB of results, as many that it begins with
    assert on_disk(library)["inputs"] == [] and library.load_unfinished() == []
    job = submitted(library, TextToImage("🍎" * 10_000, "🍐" * 10_000))
    library.save_results(job, [picture()], [None])
    assert 400_000 < library.usage(ME)[0] < 700_000  # the words stand in the file
    with pytest.raises(JobRejected, match="delete some first"):
        submitted(library, TextToImage("🍎" * 10_000))


def test_who_cannot_delete_loses_the_oldest_to_what_is_asked_now(opened, tmp_path):
    library = opened(tmp_path, owner_quota_bytes=250_000)
    kept = []
    for number in range(4):
        job = submitted(library, owner="call:1")
        kept += library.save_results(job, [picture(150, 150, number)], [None])  # 68 kB
    assert [p.id for p in library.pictures("call:1")] == [p.id for p in kept[:0:-1]]
    assert library.usage("call:1")[0] < 250_000
    with pytest.raises(JobRejected, match="delete some first"):
        submitted(library, TextToImage("a cat", count=9), owner="call:1")  # more than there is for anyone


def test_the_last_of_the_disk_is_left_alone(library, monkeypatch):
    waiting = submitted(library)
    free = journal.KEPT_FREE + 150_000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free, total=10**12))
    with pytest.raises(JobRejected, match="disk is nearly full"):
        submitted(library, owner=YOU)  # what waits has a part of it
    library.save_results(waiting, [picture()], [None])
    submitted(library, owner=YOU)


def test_what_programs_left_that_cannot_come_back_goes_after_a_week(library, monkeypatch):
    mine, passing = done(library).pictures[0], done(library, owner="call:1").pictures[0]
    library.purge()
    assert library.picture("call:1", passing.id)
    later = time.time() + store.FORGET_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    library.purge()
    assert library.picture(ME, mine.id) and on_disk(library)["pictures"] == [f"{mine.id}.png"]


def test_what_is_deleted_does_not_fill_the_disk_for_its_ten_minutes(opened, tmp_path):
    library = opened(tmp_path, owner_quota_bytes=250_000)
    for number in range(4):
        job = submitted(library)
        (kept,) = library.save_results(job, [picture(150, 150, number)], [None])  # 68 kB
        library.delete(ME, [kept.id])
    library.purge()
    assert len(os.listdir(tmp_path / "pictures")) == 3
    assert library.undo_delete(ME, [kept.id]) == 1


def test_the_oldest_traces_go_first_and_those_of_favourites_last(opened, tmp_path):
    size = len(trace().to_bytes())
    library = opened(tmp_path, trace_quota_bytes=3 * size + size // 2)
    jobs = [done(library, f"number {number}") for number in range(3)]
    ids = [job.pictures[0].id for job in jobs]
    library.favourite(ME, ids[0], True)
    ids += [done(library, f"number {number}", YOU).pictures[0].id for number in (3, 4)]

    def traced() -> list[int]:
        owners = (ME, ME, ME, YOU, YOU)
        assert [library.picture(o, id).has_trace for o, id in zip(owners, ids, strict=True)] == [
            library.trace(o, id) is not None for o, id in zip(owners, ids, strict=True)
        ]
        return [number for number, (o, id) in enumerate(zip(owners, ids, strict=True)) if library.trace(o, id)]

    assert traced() == [0, 3, 4] and len(os.listdir(tmp_path / "traces")) == 3
    gone = tmp_path / "traces" / f"{ids[1]}.safetensors"
    gone.write_bytes(trace().to_bytes())  # as where the process was killed before it was removed
    library.close()
    library = opened(tmp_path)
    assert traced() == [0, 3, 4] and not gone.exists()
    assert len(os.listdir(tmp_path / "pictures")) == 5


def test_a_trace_that_is_lost_or_broken_is_none(library):
    one, two = done(library, TextToImage("a cat", count=2)).pictures
    (library.folder / "traces" / f"{one.id}.safetensors").unlink()
    (library.folder / "traces" / f"{two.id}.safetensors").write_bytes(b"torn")
    assert library.trace(ME, one.id) is None and library.trace(ME, two.id) is None


# ---- a disk that will not ----

REASONS = [
    (errno.ENOSPC, "the disk is full"),
    (errno.EROFS, "the data folder cannot be written to"),
    (errno.EIO, "Input/output error"),
]


@pytest.mark.parametrize(("code", "reason"), REASONS)
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_disk_that_fails_is_said_and_leaves_nothing_torn(library, monkeypatch, code, reason, call, nth):
    def failing(*arguments, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) >= nth:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    job, real = submitted(library, PAINT), getattr(os, call)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(JobRejected, match=f"^The pictures could not be kept: {reason}.$"):
            library.save_results(job, [picture()] * 3, [None] * 3)
    assert on_disk(library) == {"pictures": [], "traces": [], "inputs": []}
    assert library.pictures(ME) == [] and [job.id for job in library.load_unfinished()] == [job.id]
    assert len(library.save_results(job, [picture()] * 3, [None] * 3)) == 3  # later it may do


@pytest.mark.parametrize(("code", "reason"), REASONS)
def test_a_job_that_cannot_be_written_down_is_not_taken(library, monkeypatch, code, reason):
    def failing(*arguments):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(JobRejected, match=f"^The job could not be taken: {reason}.$"):
            submitted(library, INPAINT)
    assert library.load_unfinished() == [] and on_disk(library)["inputs"] == []
    submitted(library, INPAINT)


def test_a_trace_that_cannot_be_written_loses_no_picture(library, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(library._files, "write_trace", lambda *arguments: os.fsync(-1))
        (kept,) = done(library).pictures
    assert not kept.has_trace and library.trace(ME, kept.id) is None and Path(kept.path).exists()


FULL = """
import resource, sys
from studio.engine.job import Job, JobRejected
from studio.engine.requests import TextToImage
from studio.library.store import Library
from tests.library.test_store import ME, picture, submitted

library = Library(sys.argv[1])
job, (soft, hard) = submitted(library), resource.getrlimit(resource.RLIMIT_FSIZE)

def refused(call, *arguments):
    try:
        call(*arguments)
    except JobRejected as problem:
        print(problem)
    else:
        print("NOT REFUSED")

taken = 0
resource.setrlimit(resource.RLIMIT_FSIZE, ((library.folder / "library.sqlite-wal").stat().st_size + 50_000, hard))
refused(library.save_results, job, [picture(500, 500)], [None])
try:
    for taken in range(1000):
        submitted(library)
except JobRejected as problem:
    print(problem)
print(len(library.pictures(ME)), len(library.load_unfinished()) == taken + 1, taken > 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
submitted(library)
library.save_results(job, [picture(200, 200)], [None])
library.close()
library = Library(sys.argv[1])
print(len(library.pictures(ME)), len(library.load_unfinished()) == taken + 1)
"""


def test_files_that_cannot_grow_are_said_and_later_it_goes_on(tmp_path):
    """A limit on the size of files stands for a full disk: it meets the pictures and SQLite's log alike."""
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    kept, taken, *rest = done.stdout.splitlines()
    assert kept == "The pictures could not be kept: the disk is full."
    assert taken.startswith("The job could not be taken: the disk ")
    assert rest == ["0 True True", "1 True"]


def test_a_full_disk_has_room_left_to_delete_from_it(library, reopened, monkeypatch):
    (kept,) = done(library).pictures
    library.purge()
    reserve = library.folder / "reserve"
    assert reserve.stat().st_size == 1_000_000
    usage = type(shutil.disk_usage(library.folder))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 4096))
    assert library.delete(ME, [kept.id]) == 1 and not reserve.exists()
    library = reopened(library)
    assert not reserve.exists()
    monkeypatch.undo()
    library.purge()
    assert reserve.stat().st_size == 1_000_000


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            JobRejected, match=rf"^The library in {folder} could not be opened: .* cannot be written to\.$"
        ):
            Library(folder)


def test_a_folder_in_use_is_refused_until_it_is_free(library, reopened):
    with pytest.raises(
        JobRejected, match="^Another studio is working in the data folder .*data; give this one another"
    ):
        Library(library.folder)
    library = reopened(library)


def test_a_database_that_is_none_is_said_and_left_alone(tmp_path):
    (tmp_path / "library.sqlite").write_bytes(b"not a database, " * 100)
    for _ in range(2):  # the folder is not held after the first
        with pytest.raises(JobRejected, match="could not be opened: the file library.sqlite is damaged.$"):
            Library(tmp_path)
    assert (tmp_path / "library.sqlite").read_bytes().startswith(b"not a database")


def test_a_library_of_a_newer_studio_is_not_touched(library):
    library.close()
    with sqlite3.connect(library.folder / "library.sqlite") as db:
        db.execute("PRAGMA user_version = 1000")
    db.close()
    with pytest.raises(JobRejected, match="was written by a newer Diffusion Studio"):
        Library(library.folder)


def test_a_library_in_use_elsewhere_is_said(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    library = opened(tmp_path)
    job = submitted(library)
    other = sqlite3.connect(tmp_path / "library.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JobRejected, match="^The job could not be taken: the library is in use elsewhere.$"):
        submitted(library)
    with pytest.raises(JobRejected, match="^The pictures could not be kept: the library is in use elsewhere.$"):
        library.save_results(job, [picture()], [trace()])
    job.state = "cancelled"
    library.mark_ended(job)  # nobody is there to be told
    library.update_order(job)
    assert library.pictures(ME) == [] and on_disk(library)["pictures"] == []
    other.execute("ROLLBACK")
    other.close()
    assert len(library.save_results(library.load_unfinished()[0], [picture()], [trace()])) == 1


@pytest.mark.parametrize("problem", [PermissionError(errno.EACCES, "no"), OSError(errno.EROFS, "no")])
def test_a_folder_that_became_read_only_can_still_be_looked_at(library, monkeypatch, problem):
    (kept,) = done(library).pictures
    library._db._connection.execute("PRAGMA query_only = ON")

    def refuse(*arguments, **options):
        raise problem

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    for request in (PAINT, INPAINT):
        with pytest.raises(JobRejected, match="^The job could not be taken: the data folder cannot be written to.$"):
            submitted(library, request)
    with pytest.raises(JobRejected, match="^The pictures could not be deleted: the data folder cannot be written to.$"):
        library.delete(ME, [kept.id])
    assert library.pictures(ME) == [kept] and library.trace(ME, kept.id)


# ---- many at once ----


def test_many_threads_lose_nothing(library):
    """Jobs come, are kept, searched, marked and deleted from many threads at once."""
    problems: list[BaseException] = []

    def live(number: int) -> None:
        owner = f"user:{number % 4}"
        try:
            for turn in range(6):
                job = submitted(library, TextToImage(f"number {number} {turn}", count=2), owner)
                one, two = library.save_results(job, [picture()] * 2, [None] * 2)
                assert {one.id, two.id} <= {found.id for found in library.pictures(owner, search=f"{number} {turn}")}
                assert library.favourite(owner, one.id, True)
                assert library.delete(owner, [two.id]) == 1
                library.usage(owner), library.days(owner), library.recent_jobs(owner), library.purge()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    kept = [one for number in range(4) for one in library.pictures(f"user:{number}")]
    assert len(kept) == 48 and all(one.favourite and Path(one.path).exists() for one in kept)
    assert library.load_unfinished() == []
