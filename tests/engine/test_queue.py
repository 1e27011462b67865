"""The queue: order, fairness, limits and cancelling."""

import threading

import pytest
from PIL import Image

from studio.engine.checks import InvalidRequest
from studio.engine.job import JobRejected
from studio.engine.recorder import MAX_TOTAL_BYTES
from studio.engine.requests import Denoise, SuperResolve, TextToImage
from studio.engine.scheduling import job_queue
from studio.engine.scheduling.limits import MAX_JOB_SECONDS, LineLimits
from tests.engine.conftest import LONG, PICTURE, done, eventually, states
from tests.fakes import FakeBackend, MemoryJournal, resolve

# ---- order and limits ----


def test_a_short_job_behind_many_long_ones_is_served_first(start):
    gate = threading.Semaphore(0)
    sampler = FakeBackend(gate=gate)
    engine = start(sampler)
    long = [engine.submit(TextToImage(f"long {i}", steps=500, seed=i), "me") for i in range(16)]
    gate.release(200)
    eventually(lambda: len(sampler.calls) == 200)
    assert min(engine.view(job_id, "me").step for job_id in long) >= 3
    short = engine.submit(TextToImage("short", steps=4), "me")
    gate.release(9)  # the call under way, four of its own, and those that the longest wait leads
    eventually(lambda: engine.view(short, "me").state == "done")
    gate.release(200)  # fewer than the long ones need in any case
    eventually(lambda: len(sampler.calls) == 409)
    steps = [engine.view(job_id, "me").step for job_id in long]
    assert max(steps) - min(steps) <= 2  # and the long ones go on side by side


def test_jobs_start_in_order_and_owners_move_their_own(start):
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate), max_active=1)
    running = engine.submit(TextToImage("running", steps=3), "me")
    eventually(lambda: engine.view(running, "me").state == "running")
    a, x, b, y, c = (engine.submit(TextToImage(name, steps=1), "xy"[name in "xy"]) for name in "axbyc")
    assert [engine.view(i, "y").ahead for i in (x, y)] == [1, 3] and engine.status.queued == 5

    def order() -> str:
        views = sorted(engine.jobs("x") + engine.jobs("y"), key=lambda view: view.ahead)
        return "".join(view.caption for view in views)

    assert order() == "axbyc"
    assert engine.move(c, "x", "up") and order() == "axcyb"
    assert engine.move(b, "x", "first") and order() == "bxayc"
    assert engine.move(b, "x", "last") and order() == "axcyb"
    assert engine.move(a, "x", "down") and order() == "cxayb"
    assert not engine.move(c, "x", "up") and not engine.move(b, "x", "last") and not engine.move(running, "me", "up")
    assert order() == "cxayb"
    gate.release(3 + 5)
    eventually(lambda: engine.status.phase == "idle")
    started = [caption for ((caption, _),) in engine.backend().served[3:]]
    assert "".join(started) == "cxayb"


def test_turns_go_round_addresses_and_their_owners(start):
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate), max_active=1)
    running = engine.submit(TextToImage("running", steps=3), "me")
    eventually(lambda: engine.view(running, "me").state == "running")
    for number in range(6):  # one visitor with invented owners
        engine.submit(TextToImage(f"flood {number}", steps=1), f"owner {number}", address="192.0.2.1")
    for number in range(2):
        engine.submit(TextToImage(f"other {number}", steps=1), "other", address="192.0.2.2")
    engine.submit(TextToImage("at home", steps=1), "home")
    gate.release(3 + 9)
    eventually(lambda: engine.status.phase == "idle")
    started = [caption for ((caption, _),) in engine.backend().served[3:]]
    assert started == ["flood 0", "other 0", "at home", "flood 1", "other 1", *(f"flood {n}" for n in range(2, 6))]


def test_a_queued_job_is_not_passed_by_ever_new_addresses(start):
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate), max_active=1)
    engine.submit(TextToImage("running", steps=3), "x", address="192.0.2.1")
    eventually(lambda: engine.status.running == 1)
    waits = engine.submit(TextToImage("waits", steps=1), "x", address="192.0.2.1")
    gate.release(2)
    for number in range(20):
        engine.submit(TextToImage("new", steps=1), "y", address=f"198.51.100.{number}")
    assert engine.view(waits, "x").ahead == 20  # this address runs one now; the others do not
    gate.release(2)  # the running one ends, and one new job
    eventually(lambda: engine.view(waits, "x").ahead == 0)
    for number in range(20):
        engine.submit(TextToImage("new", steps=1), "y", address=f"203.0.113.{number}")
    assert engine.view(waits, "x").ahead == 0


def test_a_newcomer_starts_though_one_address_runs_all_jobs_that_may_run(start):
    engine = start(FakeBackend(gate=(gate := threading.Semaphore(0))), max_active=4)
    flood = [engine.submit(LONG, f"owner {n}", address="192.0.2.1") for n in range(6)]
    eventually(lambda: gate.release() or engine.status.running == 4)
    other = engine.submit(LONG, "other", address="192.0.2.2")
    eventually(lambda: gate.release() or engine.view(other, "other").state == "running")
    assert [engine.view(job, f"owner {n}").state for n, job in enumerate(flood)].count("queued") == 2


def test_the_work_of_an_address_is_limited_in_seconds(start):
    limits = LineLimits(address_seconds=2.5 * resolve(LONG).seconds)
    engine = start(FakeBackend(gate=threading.Semaphore(0)), limits=limits)
    for number in range(2):
        engine.submit(LONG, f"owner {number}", address="192.0.2.1")
    with pytest.raises(JobRejected, match=r"^The jobs from your address would take about .* at a time: please wait"):
        engine.submit(LONG, "a new owner", address="192.0.2.1")
    for address in ("192.0.2.2", "", "", ""):  # without an address, each owner counts alone
        engine.submit(LONG, "another", address=address)


def test_a_moved_job_keeps_its_order_after_a_restart(start):
    journal, gate = MemoryJournal(), threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate), journal, max_active=1)
    running, *ids = [engine.submit(TextToImage(name, steps=1), "me") for name in "rabc"]
    eventually(lambda: engine.view(running, "me").state == "running")
    engine.move(ids[2], "me", "first")
    assert [job.id for job in journal.load_unfinished()] == [running, ids[2], ids[0], ids[1]]


def test_the_queue_is_bounded(start):
    engine = start(FakeBackend(gate=threading.Semaphore(0)), max_active=1, limits=LineLimits(jobs=5, owner_jobs=3))
    running = engine.submit(LONG, "me")
    eventually(lambda: engine.view(running, "me").state == "running")
    for _ in range(3):
        engine.submit(LONG, "me")
    with pytest.raises(JobRejected, match=r"^3 of your jobs are in the queue already"):
        engine.submit(LONG, "me")
    for _ in range(2):
        engine.submit(LONG, "you")
    with pytest.raises(JobRejected, match=r"^5 jobs are in the queue already"):
        engine.submit(LONG, "them")
    engine.cancel(engine.jobs("me")[-1].id, "me")
    assert engine.submit(LONG, "them")


def test_large_pictures_in_the_queue_are_bounded(start):
    limits = LineLimits(bytes=10_000)
    engine = start(FakeBackend(gate=threading.Semaphore(0)), max_active=1, limits=limits)
    running = engine.submit(LONG, "me")
    eventually(lambda: engine.view(running, "me").state == "running")
    for _ in range(3):
        engine.submit(SuperResolve(PICTURE), "me")
    with pytest.raises(JobRejected, match="too many large pictures"):
        engine.submit(SuperResolve(PICTURE), "you")
    engine.submit(LONG, "you")


def test_large_jobs_run_after_one_another_however_many_may_run(start, monkeypatch):
    large = SuperResolve(PICTURE, 4, steps=40)
    monkeypatch.setattr(job_queue, "MAX_RUNNING_PIXELS", 2 * resolve(large).pixels)
    monkeypatch.setattr(job_queue, "SMALL_PIXELS", resolve(large).pixels - 1)
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate))
    ids = [engine.submit(request, "me") for request in (large, large, large, LONG)]  # small ones do not wait for them

    def as_expected() -> bool:
        gate.release()  # one call: the engine may have begun it before the last of them came
        return states(engine, ids) == ["running", "running", "queued", "running"]

    eventually(as_expected)
    gate.release(10_000)
    eventually(lambda: set(states(engine, ids)) == {"done"})
    monkeypatch.setattr(job_queue, "MAX_RUNNING_PIXELS", 1)  # what is too large for company runs alone
    assert done(engine, large).state == "done"


def test_a_job_may_take_an_hour(start):
    engine = start()
    for request in (
        SuperResolve(Image.new("1", (900, 900)), 4, steps=1000, guidance=2.0, sampler="heun"),
        Denoise(Image.new("1", (900, 900)), method="run", steps=1000),
    ):
        with pytest.raises(
            InvalidRequest, match=r"take about \d+ hours, and a job may take 1 hour: choose fewer steps"
        ):
            engine.submit(request, "me")
    most = TextToImage("a cat, flat style", count=9, steps=1000, sampler="heun", style_emphasis=True, resolution=512)
    assert engine.resolve(most).seconds < MAX_JOB_SECONDS
    assert engine.resolve(SuperResolve(Image.new("1", (1000, 1000)), 4)).seconds < MAX_JOB_SECONDS


# ---- cancel ----


def test_cancel_removes_a_job_from_the_queue(start):
    journal = MemoryJournal()
    engine = start(FakeBackend(gate=threading.Semaphore(0)), journal, max_active=1)
    first, second = engine.submit(LONG, "me"), engine.submit(LONG, "me")
    eventually(lambda: engine.view(first, "me").state == "running")
    assert engine.cancel(second, "me") and engine.view(second, "me").state == "cancelled"
    assert journal.entries[second].state == "cancelled" and [view.id for view in engine.jobs("me")] == [first]
    assert not engine.cancel(second, "me") and not engine.cancel("nothing", "me")
    assert [view.state for view in engine.follow(second, "me")] == ["cancelled"]


def test_cancel_ends_a_job_within_a_step_and_shows_its_last_preview(start):
    gate, journal = threading.Semaphore(0), MemoryJournal()
    sampler = FakeBackend(gate=gate)
    engine = start(sampler, journal)
    job_id = engine.submit(LONG, "me")
    views = engine.follow(job_id, "me")
    gate.release(3)
    assert next(view for view in views if view.step).previews
    eventually(lambda: len(sampler.calls) == 3)
    assert engine.cancel(job_id, "me")
    *_, last = views  # does not wait for the call under way
    assert last.state == "cancelled" and last.step in (2, 3) and len(last.previews) == 1 and last.pictures == ()
    gate.release(50)
    eventually(lambda: engine.status.phase == "idle")
    assert len(sampler.calls) <= 4 and journal.entries[job_id].state == "cancelled"
    eventually(lambda: engine._runner._budget.left == MAX_TOTAL_BYTES)
    assert done(engine, TextToImage("a dog", steps=2)).pictures  # and the engine goes on


def test_cancel_while_a_job_is_prepared(start):
    sampler, entered, leave = FakeBackend(), threading.Event(), threading.Event()
    prepare = sampler.prepare
    sampler.prepare = lambda resolved: (entered.set(), leave.wait(60), prepare(resolved))[2]
    engine = start(sampler)
    job_id = engine.submit(LONG, "me")
    assert entered.wait(60) and engine.cancel(job_id, "me")
    leave.set()
    eventually(lambda: engine.status.phase == "idle")
    assert sampler.calls == [] and engine.view(job_id, "me").state == "cancelled"


def test_a_job_that_is_being_saved_cannot_be_cancelled(start):
    class SlowJournal(MemoryJournal):
        entered, leave = threading.Event(), threading.Event()

        def save_results(self, *args):
            self.entered.set()
            assert self.leave.wait(60)
            return super().save_results(*args)

    journal = SlowJournal()
    engine = start(FakeBackend(), journal)
    job_id = engine.submit(TextToImage("a cat", steps=2), "me")
    assert journal.entered.wait(60)
    assert engine.view(job_id, "me").state == "running" and engine.status.phase == "running"
    assert not engine.cancel(job_id, "me")
    journal.leave.set()
    assert [*engine.follow(job_id, "me")][-1].state == "done" and journal.saves[job_id] == 1


def test_no_job_starts_while_too_many_wait_to_be_saved(start, monkeypatch):
    monkeypatch.setattr(job_queue, "MAX_SAVING", 2)

    class SlowJournal(MemoryJournal):
        gate = threading.Semaphore(0)

        def save_results(self, *args):
            self.gate.acquire()
            return super().save_results(*args)

    journal = SlowJournal()
    engine = start(FakeBackend(), journal, max_active=2)
    ids = [engine.submit(TextToImage("a cat", steps=1, seed=i), "me") for i in range(12)]
    eventually(lambda: states(engine, ids).count("running") >= 2 and not engine._table._running)
    assert states(engine, ids).count("running") <= 3  # one more may have been on its way
    journal.gate.release(12)
    eventually(lambda: set(states(engine, ids)) == {"done"})


def test_unmeasured_times_are_those_of_the_device(start):
    def seconds(backend: FakeBackend) -> float:
        engine = start(backend)
        assert engine.wait_until_ready(10)
        return engine.resolve(TextToImage("a cat", steps=100)).seconds

    assert seconds(FakeBackend(device="cuda:0")) < seconds(FakeBackend()) / 10
