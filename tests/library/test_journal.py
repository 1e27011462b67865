"""Jobs and pictures on the disk: what is saved loads again, over restarts and crashes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.engine.job import Job, JobRejected
from studio.engine.requests import TextToImage
from studio.library import retention
from studio.library.journal import MAX_CRASHES
from studio.library.metadata import read_png_settings
from tests.fakes import CAPABILITIES, resolve
from tests.library.helpers import (
    INPAINT,
    ME,
    PAINT,
    UPSCALE,
    YOU,
    finish,
    kill,
    list_files,
    make_picture,
    make_trace,
    resume,
    submit,
)


def test_job_that_kills_every_process_fails_at_last(library, open_library):
    deadly, waiting = submit(library, INPAINT), submit(library, order=1.0)
    for times in range(1, MAX_CRASHES):
        library.journal.mark_started(deadly)
        library = open_library(kill(library))
        again, other = library.journal.load_unfinished()
        assert (again.id, again.crashes, other.id, other.crashes) == (deadly.id, times, waiting.id, 0)
    library.journal.mark_started(deadly)
    library = open_library(kill(library))
    assert [job.id for job in library.journal.load_unfinished()] == [waiting.id]
    record = library.get_job(ME, deadly.id)
    assert record.state == "failed" and "was killed 4 times while it ran this job" in record.error
    assert list_files(library)["inputs"] == []


def test_clean_exit_counts_no_crash(library, reopen, open_library):
    job = submit(library)
    library.journal.mark_started(job)
    library = open_library(kill(library))
    assert library.journal.load_unfinished()[0].crashes == 1
    library.journal.mark_started(job)
    assert reopen(library).journal.load_unfinished()[0].crashes == 0


@pytest.mark.parametrize("request_", [PAINT, INPAINT, UPSCALE], ids=lambda r: r.task)
def test_saved_job_loads_completely(library, reopen, request_):
    job = finish(library, request_)
    library = reopen(library)
    assert library.journal.load_unfinished() == []
    pictures = library.find_pictures(ME)
    assert pictures == list(reversed(job.pictures)) and len(pictures) == request_.count
    for index, saved in enumerate(job.pictures):
        seed = resolve(request_).seeds[index]
        assert (saved.index, saved.seed, saved.job_id, saved.width, saved.height) == (index, seed, job.id, 8, 8)
        assert saved.has_trace and not saved.favourite and library.get_picture(ME, saved.id) == saved
        assert saved.settings == request_.settings() | {
            "seed": seed,
            "count": 1,
            "caption": resolve(request_).captions[index],
            "size": "8x8",
            "model": CAPABILITIES.name,
            "seconds": 1.25,
        }
        assert read_png_settings(saved.path) == saved.settings
        with Image.open(saved.path) as image:
            assert image.tobytes() == make_picture(seed=seed).tobytes()
        back = library.load_trace(ME, saved.id)
        assert all(np.array_equal(a.x_t, b.x_t) for a, b in zip(back.steps, make_trace(seed).steps, strict=True))
        alone = library.load_request(ME, saved.id)
        assert (alone.seed, alone.count, alone.pictures()) == (seed, 1, request_.pictures())
    record = library.get_job(ME, job.id)
    assert (record.state, record.ended, record.seconds, record.notes) == ("done", True, 1.25, ("A note.",))
    assert (record.caption, record.task, record.count) == (resolve(request_).caption, request_.task, request_.count)
    assert record.settings == request_.settings() and record.pictures == job.pictures
    assert record.step == record.steps == request_.steps
    assert library.find_ended_jobs(ME) == [record]


def test_any_text_is_stored(library):
    prompt = "ein Äpfelchen 🍎 \0 'quoted' \"twice\" --; DROP TABLE jobs\n\u2028"
    waiting = submit(library, prompt)
    assert library.journal.load_unfinished()[0].request.prompt == prompt
    library.journal.save_results(waiting, [make_picture()], [None])
    assert library.find_pictures(ME, search="äpfelchen 🍎")[0].settings["prompt"] == prompt


def test_saving_again_changes_nothing(library):
    job = finish(library, PAINT)
    before = list_files(library)
    assert library.journal.save_results(job, [make_picture(seed=99)] * 3, [None] * 3) == job.pictures
    assert list_files(library) == before and len(library.find_pictures(ME)) == 3
    job.state = "failed"
    library.journal.mark_ended(job)  # it is done already
    assert library.get_job(ME, job.id).state == "done"


def test_cancelled_job_is_not_saved(library):
    job = submit(library)
    job.state = "cancelled"
    library.journal.mark_ended(job)
    for unknown in (job, Job(resolve(TextToImage("never submitted")), ME)):
        with pytest.raises(JobRejected, match="their job has ended already"):
            library.journal.save_results(unknown, [make_picture()], [make_trace()])
    assert list_files(library)["pictures"] == [] and library.find_pictures(ME) == []


def test_next_run_overwrites_the_files_of_a_crash(library, reopen, monkeypatch):
    class Crash(BaseException):
        pass

    def crash(*arguments):
        raise Crash

    job = submit(library, PAINT)
    with monkeypatch.context() as patch:
        patch.setattr(library.journal, "_mark_done", crash)
        patch.setattr(library.journal, "_remove_files", lambda *arguments: None)  # a killed process removes nothing
        with pytest.raises(Crash):
            library.journal.save_results(job, [make_picture()] * 3, [make_trace()] * 3)
    (library.folder / "pictures" / ".abc.part").write_bytes(b"half")
    assert len(list_files(library)["pictures"]) == 4 and library.find_pictures(ME) == []
    library = reopen(library)
    (again,) = resume(library)
    saved = library.journal.save_results(again, [make_picture()] * 3, [make_trace()] * 3)
    assert list_files(library)["pictures"] == sorted(f"{picture.id}.png" for picture in saved)
    assert list_files(library)["traces"] == sorted(f"{picture.id}.safetensors" for picture in saved)


def test_cancelling_removes_the_files_of_a_crash(library, reopen, monkeypatch):
    job = submit(library, INPAINT)
    with monkeypatch.context() as patch:
        patch.setattr(library.journal, "_remove_files", lambda *arguments: None)
        patch.setattr(library.journal, "_mark_done", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            library.journal.save_results(job, [make_picture()] * 2, [make_trace()] * 2)
    library = reopen(library)
    job.state = "cancelled"
    library.journal.mark_ended(job)
    assert list_files(library) == {"pictures": [], "traces": [], "inputs": []}


def test_ids_do_not_reveal_one_another(library, open_library, tmp_path):
    job = finish(library, PAINT)
    ids = [picture.id for picture in job.pictures]
    assert len({id[:4] for id in ids}) == 3 and all(len(id) == 22 and job.id not in id for id in ids)
    other = open_library(tmp_path / "other")
    library.close()
    other.journal.add_job(job)
    assert not set(ids) & {picture.id for picture in other.journal.save_results(job, [make_picture()] * 3, [None] * 3)}


def test_inputs_are_shared_and_stay_while_in_use(library, monkeypatch):
    first, second = submit(library, INPAINT), submit(library, INPAINT, YOU)
    assert len(list_files(library)["inputs"]) == 2  # picture and mask
    first.state = "cancelled"
    library.journal.mark_ended(first)
    assert len(list_files(library)["inputs"]) == 2
    saved = library.journal.save_results(second, [make_picture()] * 2, [None] * 2)
    library.delete(YOU, [picture.id for picture in saved])
    library.purge()
    assert len(list_files(library)["inputs"]) == 2  # the deletion may be undone
    later = time.time() + retention.UNDO_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    library.purge()
    assert list_files(library) == {"pictures": [], "traces": [], "inputs": []}
    assert library.get_job(YOU, second.id) is None  # the prompt is forgotten with its pictures


def test_job_with_a_missing_input_fails_with_a_sentence(library, reopen):
    lost, fine = submit(library, INPAINT), submit(library, PAINT)
    next((library.folder / "inputs").glob("*.png")).unlink()
    library = reopen(library)
    assert [job.id for job in library.journal.load_unfinished()] == [fine.id]
    record = library.get_job(ME, lost.id)
    assert record.state == "failed"
    assert record.error == "The job could not be restarted. An input picture is missing."


def test_concurrent_jobs_keep_their_shared_input(library):
    """Threads submit jobs with the same input, while others with this input end."""
    first = submit(library, UPSCALE)
    (name,) = list_files(library)["inputs"]
    first.state = "cancelled"
    library.journal.mark_ended(first)

    def submit_and_cancel(number: int) -> None:
        for _ in range(8):
            job = submit(library, UPSCALE, f"user:{number}")
            assert (library.folder / "inputs" / name).exists()
            job.state = "cancelled"
            library.journal.mark_ended(job)

    run_in_threads(submit_and_cancel, 6)
    assert list_files(library)["inputs"] == []


def test_many_threads_lose_nothing(library):
    """Jobs are submitted, saved, searched, marked and deleted from many threads at once."""

    def live(number: int) -> None:
        owner = f"user:{number % 4}"
        for turn in range(6):
            job = submit(library, TextToImage(f"number {number} {turn}", count=2), owner)
            first, second = library.journal.save_results(job, [make_picture()] * 2, [None] * 2)
            matches = library.find_pictures(owner, search=f"{number} {turn}")
            assert {first.id, second.id} <= {match.id for match in matches}
            assert library.set_favourite(owner, first.id, True)
            assert library.delete(owner, [second.id]) == 1
            library.get_usage(owner), library.count_days(owner), library.find_ended_jobs(owner), library.purge()

    run_in_threads(live, 8)
    pictures = [picture for number in range(4) for picture in library.find_pictures(f"user:{number}")]
    assert len(pictures) == 48 and all(picture.favourite and Path(picture.path).exists() for picture in pictures)
    assert library.journal.load_unfinished() == []


def run_in_threads(target: Callable[[int], None], count: int) -> None:
    with ThreadPoolExecutor(count) as pool:
        for _ in pool.map(target, range(count)):  # raises what a thread raised
            pass
