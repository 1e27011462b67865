"""Failures of calls, models and journals; shutting down and going on."""

import threading

import pytest

from studio.engine import job_table
from studio.engine.engine import Engine
from studio.engine.job import Job, JobRejected, StoredJob
from studio.engine.recorder import MAX_TOTAL_BYTES
from studio.engine.requests import SuperResolve, TextToImage
from studio.engine.runner import TOO_LARGE
from tests.engine.conftest import PICTURE, done, eventually, saved_pixels, states
from tests.fakes import FakeBackend, MemoryJournal, resolve, single_model

# ---- failures ----


def test_calls_that_do_not_fit_are_halved(start):
    gate, journal = threading.Semaphore(0), MemoryJournal()
    sampler = FakeBackend(fits=5, gate=gate)
    engine = start(sampler, journal)
    ids = [engine.submit(TextToImage("a cat", steps=40, seed=i), "me") for i in range(8)]
    gate.release(2000)
    eventually(lambda: set(states(engine, ids)) == {"done"})
    assert max(sampler.calls) == 2  # 4 network rows of 5; three pictures would be 6
    alone = done(start(FakeBackend(), other := MemoryJournal()), TextToImage("a cat", steps=40, seed=3))
    assert saved_pixels(journal, ids[3]) == saved_pixels(other, alone.id)


def test_only_what_does_not_fit_alone_fails(start):
    sampler, journal = FakeBackend(fits=1), MemoryJournal()
    engine = start(sampler, journal)
    ids = [engine.submit(TextToImage("a cat", steps=5, guidance=g), "me") for g in (1, 3, 1, 2, 1)]
    eventually(lambda: all(engine.view(job_id, "me").ended for job_id in ids))
    assert states(engine, ids) == ["done", "failed", "done", "failed", "done"]
    assert engine.view(ids[1], "me").error == TOO_LARGE
    eventually(lambda: journal.entries[ids[1]].state == "failed")
    assert journal.entries[ids[1]].error == TOO_LARGE


@pytest.mark.parametrize("problem", ["unpreparable", "unsteppable", "undecodable"])
def test_only_the_job_at_fault_fails(start, problem):
    gate, journal = threading.Semaphore(0), MemoryJournal()
    engine = start(FakeBackend(gate=gate), journal)
    names = ("a cat", problem, "a dog", f"so {problem}")
    ids = [engine.submit(TextToImage(name, steps=5, count=2), "me") for name in names]
    gate.release(1000)
    eventually(lambda: all(engine.view(job_id, "me").ended for job_id in ids))
    assert states(engine, ids) == ["done", "failed", "done", "failed"]
    error = engine.view(ids[1], "me").error
    assert f"RuntimeError: this prompt is {problem}" in error and error.endswith(".")
    eventually(lambda: journal.entries[ids[3]].state == "failed")
    other = MemoryJournal()
    alone = done(start(FakeBackend(), other), TextToImage("a dog", steps=5, count=2))
    assert saved_pixels(journal, ids[2]) == saved_pixels(other, alone.id)
    assert done(engine, TextToImage("a cow")).state == "done"
    eventually(lambda: engine._runner._budget.left == MAX_TOTAL_BYTES)


def test_a_row_that_loses_its_partial_step_is_called_again_alone(start):
    """A fault may take from a row what it had of its step: then it has not come on."""
    gate = threading.Semaphore(0)
    sampler = FakeBackend(gate=gate, calls_per_step=3)
    whole = sampler.denoise_step

    def torn(rows):
        bad = [row for row in rows if row.request.prompt == "torn" and row.calls == 2]
        whole(rows if not bad else [row for row in rows if row not in bad])
        for row in bad:
            row.calls = 0
        if bad:
            raise RuntimeError("torn")

    sampler.denoise_step = torn
    engine = start(sampler)
    ids = [engine.submit(SuperResolve(PICTURE, prompt=name, steps=300), "me") for name in ("torn", "a cat")]
    gate.release(30)
    eventually(lambda: engine.view(ids[0], "me").ended)
    assert states(engine, ids) == ["failed", "running"]
    gate.release(10_000)
    eventually(lambda: states(engine, ids) == ["failed", "done"])


def test_a_fault_outside_of_the_calls_does_not_end_the_engine(start, monkeypatch):
    engine = start(FakeBackend())
    assert engine.wait_until_ready(60)
    pick = engine._runner._batcher.pick
    monkeypatch.setattr(engine._runner._batcher, "pick", lambda: 1 / 0)
    view = done(engine, TextToImage("a cat"))
    assert view.state == "failed" and view.error == "The job failed: ZeroDivisionError: division by zero."
    monkeypatch.setattr(engine._runner._batcher, "pick", pick)
    assert done(engine, TextToImage("a cat")).state == "done"


def test_a_model_that_cannot_be_loaded_fails_queued_and_new_jobs_with_a_sentence():
    gate, journal = threading.Event(), MemoryJournal()

    def load():
        gate.wait()
        raise RuntimeError("The model folder x does not exist.")

    engine = Engine(single_model(load), journal, resolve=resolve).start()
    job_id = engine.submit(TextToImage("a cat"), "me")
    views = engine.follow(job_id, "me")
    assert next(views).state == "queued"
    gate.set()
    *_, last = views
    assert last.state == "failed" and last.error == "The model folder x does not exist."
    assert engine.status.phase == "failed" and engine.status.problem == last.error
    assert not engine.wait_until_ready(60)
    assert done(engine, TextToImage("a dog")).error == last.error
    assert engine.shutdown(60)
    assert [entry.error for entry in journal.entries.values()] == [last.error] * 2


def test_a_job_that_is_not_stored_is_rejected(start):
    journal = MemoryJournal()
    engine = start(FakeBackend(), journal)
    journal.refuses = "Your pictures take up 1 GB already: delete some."
    with pytest.raises(JobRejected, match="take up 1 GB"):
        engine.submit(TextToImage("a cat"), "me")
    journal.add_job = lambda job: 1 / 0
    with pytest.raises(JobRejected, match="could not be stored .ZeroDivisionError"):
        engine.submit(TextToImage("a cat"), "me")
    assert engine.jobs("me") == [] and engine.status.phase in ("loading", "idle") and not engine._table._jobs


def test_pictures_that_are_not_saved_are_shown_and_can_be_made_again(start):
    journal = MemoryJournal()
    journal.full = "The disk is full."
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate), journal)
    views = engine.follow(engine.submit(TextToImage("a cat", steps=2, seed=5), "me"), "me")
    next(views)
    gate.release(2)
    *_, last = views
    assert last.state == "failed" and len(last.previews) == 1 and last.previews[0].size == (64, 64)
    assert last.error == ("The disk is full. They can be made again: the same seed, 5, gives the same pictures.")
    journal.full = ""
    gate.release(100)
    assert done(engine, TextToImage("a cat", steps=2, seed=5)).state == "done"
    eventually(lambda: engine._runner._budget.left == MAX_TOTAL_BYTES)


def test_a_journal_that_fails_does_not_end_the_engine(start):
    class BadJournal(MemoryJournal):
        def mark_started(self, job: Job) -> None:
            raise OSError("no")

        mark_ended = update_order = mark_started

        def load_unfinished(self) -> list[StoredJob]:
            raise OSError("no")

    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate), BadJournal(), max_active=1)
    first, second, third = (engine.submit(TextToImage(name, steps=2), "me") for name in "abc")
    eventually(lambda: engine.view(first, "me").state == "running")
    assert engine.move(third, "me", "first") and engine.cancel(first, "me")
    gate.release(100)
    eventually(lambda: states(engine, [first, second, third]) == ["cancelled", "done", "done"])


# ---- shutting down and going on ----


def test_jobs_unfinished_at_a_shutdown_run_once_after_the_next_start(start):
    journal, gate = MemoryJournal(), threading.Semaphore(0)
    sampler = FakeBackend(gate=gate)
    engine = start(sampler, journal, max_active=2)
    requests = [TextToImage("a cat", steps=steps, seed=steps) for steps in (2, 30, 20, 10)]
    ids = [engine.submit(request, "me") for request in requests]
    gate.release(8)
    eventually(lambda: engine.view(ids[0], "me").state == "done" and sampler.begun == 9)
    views = engine.follow(ids[1], "me")
    assert next(views).state == "running"
    ender = threading.Thread(target=lambda: engine.shutdown(60))
    ender.start()
    eventually(lambda: engine._table._stopping)
    with pytest.raises(JobRejected, match="shut down"):
        engine.submit(requests[0], "me")
    gate.release()  # the call under way
    ender.join(60)
    assert [view.state for view in views][-1:] in ([], ["running"])  # those who follow are let go
    assert len(sampler.calls) == 9 and [job.id for job in journal.load_unfinished()] == ids[1:]

    again = start(FakeBackend(), journal, max_active=2)
    eventually(lambda: {entry.state for entry in journal.entries.values()} == {"done"})
    assert set(journal.saves.values()) == {1} and again.view(ids[0], "me") is None
    assert [*again.follow(ids[1], "me")][-1].state == "done" and again.view(ids[1], "you") is None
    other = MemoryJournal()
    alone = done(start(FakeBackend(), other), requests[1])
    assert saved_pixels(journal, ids[1]) == saved_pixels(other, alone.id)


def test_a_job_that_may_have_killed_the_process_runs_alone(start):
    """So that the next crash tells whether it did."""
    journal, gate = MemoryJournal(), threading.Semaphore(0)
    for name in ("a", "b", "c", "d"):
        journal.add_job(Job(resolve(TextToImage(name, steps=2)), "me", order=float(ord(name))))
    for entry, crashes in zip(journal.entries.values(), (0, 2, 3, 1), strict=True):
        entry.crashes = crashes
    sampler = FakeBackend(gate=gate)
    engine = start(sampler, journal)
    gate.release(100)
    eventually(lambda: not engine.jobs("me"))
    assert [sorted({caption for caption, _ in call}) for call in sampler.served] == [[c] for c in "aabbccdd"]
    assert {entry.state for entry in journal.entries.values()} == {"done"}


def test_a_job_submitted_while_unfinished_jobs_are_restored_runs_once(start):
    """A job that is submitted before the engine has asked for the unfinished ones is among them."""

    class LateJournal(MemoryJournal):
        ask = threading.Event()

        def load_unfinished(self) -> list[StoredJob]:
            assert self.ask.wait(60)
            return super().load_unfinished()

    journal = LateJournal()
    engine = start(FakeBackend(), journal)
    job_id = engine.submit(TextToImage("a cat", steps=2), "me")
    journal.ask.set()
    eventually(lambda: engine.view(job_id, "me").state == "done")
    eventually(lambda: engine.status.phase == "idle")
    assert sum(engine.backend().calls) == 2 and journal.saves[job_id] == 1


def test_an_engine_may_be_shut_down_before_it_starts():
    assert Engine(single_model(FakeBackend), MemoryJournal(), resolve=resolve).shutdown(1)


def test_jobs_that_ended_are_forgotten_after_a_while(start, monkeypatch):
    monkeypatch.setattr(job_table, "MAX_ENDED", 3)
    engine = start()
    ids = [done(engine, TextToImage("a cat", steps=1)).id for _ in range(5)]
    assert [engine.view(job_id, "me") is None for job_id in ids] == [True, True, False, False, False]
    monkeypatch.setattr(job_table, "MAX_ENDED_BYTES", 5_000)  # one such picture, not two
    ids = [done(engine, SuperResolve(PICTURE, steps=1)).id for _ in range(3)]
    assert [engine.view(job_id, "me") is None for job_id in ids] == [True, True, False]
