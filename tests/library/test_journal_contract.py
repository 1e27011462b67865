"""What the `Journal` protocol promises, for every implementation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from studio.engine.job import Job, Journal
from studio.engine.requests import TextToImage
from studio.library.store import Library
from tests.fakes import MemoryJournal, resolve
from tests.library.helpers import INPAINT, ME, PAINT, UPSCALE, YOU, make_picture, make_trace

Reload = Callable[[], Journal]


@pytest.fixture(params=["disk", "memory"])
def reload(request, tmp_path) -> Iterator[Reload]:
    """Return the journal as the next process finds it."""
    if request.param == "memory":
        journal = MemoryJournal()
        yield lambda: journal
        return
    libraries = []

    def reload() -> Journal:
        if libraries:
            libraries[-1].close()
        libraries.append(Library(tmp_path))
        return libraries[-1].journal

    yield reload
    libraries[-1].close()


def add(journal: Journal, request=PAINT, owner: str = ME, order: float = 0.0) -> Job:
    job = Job(resolve(request), owner, order=order)
    journal.add_job(job)
    return job


def save(journal: Journal, job: Job):
    seeds = job.resolved.seeds
    return journal.save_results(job, [make_picture(seed=s) for s in seeds], [make_trace(s) for s in seeds])


@pytest.mark.parametrize("request_", [PAINT, INPAINT, UPSCALE], ids=lambda request: request.task)
@pytest.mark.parametrize("started", [False, True])
def test_unfinished_job_loads_as_a_new_object(reload, request_, started):
    journal = reload()
    job = add(journal, request_, order=2.5)
    if started:
        journal.mark_started(job)
    (loaded,) = reload().load_unfinished()
    assert loaded is not job and loaded.request == request_
    assert (loaded.id, loaded.owner, loaded.created, loaded.order) == (job.id, ME, job.created, 2.5)


def test_jobs_load_in_their_order_even_if_it_changes(reload):
    journal = reload()
    jobs = [add(journal, TextToImage(f"number {order}"), order=order) for order in (3.0, 1.0, 2.0, 1.0)]
    jobs[0].order = 0.5
    journal.update_order(jobs[0])
    assert [job.id for job in reload().load_unfinished()] == [jobs[index].id for index in (0, 1, 3, 2)]


@pytest.mark.parametrize("request_", [PAINT, INPAINT, UPSCALE], ids=lambda request: request.task)
def test_saved_job_is_finished_and_returns_its_pictures(reload, request_):
    journal, before = reload(), time.time()
    job = add(journal, request_)
    journal.mark_started(job)
    pictures = save(journal, job)
    assert reload().load_unfinished() == []
    assert [picture.index for picture in pictures] == list(range(request_.count))
    assert [picture.seed for picture in pictures] == list(resolve(request_).seeds)
    for picture in pictures:
        assert (picture.job_id, picture.width, picture.height, picture.has_trace) == (job.id, 8, 8, True)
        assert before <= picture.created <= time.time() and not picture.favourite
        assert picture.settings["task"] == request_.task and picture.settings["prompt"] == request_.prompt
    assert len({picture.id for picture in pictures if len(picture.id) >= 16}) == request_.count  # cannot be guessed


def test_saving_again_changes_nothing(reload):
    journal = reload()
    job = add(journal)
    pictures = save(journal, job)
    assert save(journal, job) == pictures
    assert save(reload(), job) == pictures


def test_a_picture_may_lack_a_trace(reload):
    journal = reload()
    pictures = journal.save_results(add(journal), [make_picture()] * 3, [make_trace(), None, make_trace()])
    assert [picture.has_trace for picture in pictures] == [True, False, True]


@pytest.mark.parametrize(("state", "error"), [("cancelled", None), ("failed", "It did not fit.")])
@pytest.mark.parametrize("started", [False, True])
def test_ended_job_does_not_load(reload, state, error, started):
    journal = reload()
    ended, waiting = add(journal, INPAINT), add(journal, INPAINT, YOU)
    if started:
        journal.mark_started(ended)
    ended.state, ended.error = state, error
    journal.mark_ended(ended)
    (loaded,) = reload().load_unfinished()
    assert loaded.id == waiting.id and loaded.request == INPAINT


def test_refused_job_does_not_load_again(reload):
    journal = reload()
    refused, waiting = add(journal, INPAINT), add(journal, INPAINT, YOU)
    (stored,) = [stored for stored in journal.load_unfinished() if stored.id == refused.id]
    journal.mark_refused(stored, "Its model is gone.")
    assert [stored.id for stored in reload().load_unfinished()] == [waiting.id]


def test_methods_may_be_called_from_several_threads(reload):
    journal = reload()

    def live(number: int) -> Job:
        saved, cancelled, left = (add(journal, TextToImage(f"{number}"), order=number) for _ in range(3))
        journal.mark_started(saved)
        assert len(save(journal, saved)) == 1
        cancelled.state = "cancelled"
        journal.mark_ended(cancelled)
        journal.update_order(left)
        return left

    with ThreadPoolExecutor(8) as pool:
        left = list(pool.map(live, range(16)))
    assert [job.id for job in reload().load_unfinished()] == [job.id for job in left]
