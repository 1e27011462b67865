import random
import threading

import pytest
from PIL import Image

from studio.engine import job_table
from studio.engine.checks import InvalidRequest
from studio.engine.engine import MAX_JOB_SECONDS, TOO_LARGE, Engine
from studio.engine.job import Job, JobRejected, StoredJob
from studio.engine.recorder import MAX_TOTAL_BYTES
from studio.engine.requests import Denoise, Inpaint, SuperResolve, TextToImage
from tests.engine.conftest import done, eventually
from tests.fakes import FakeBackend, MemoryJournal, resolve

PICTURE = Image.new("RGB", (48, 32), "teal")
MASK = Image.new("L", (48, 32), 255)
LONG = TextToImage("a long one", steps=1000)


def kept(journal: MemoryJournal, job_id: str) -> list[bytes]:
    """The pixels of the pictures that were kept for a job."""
    return [journal.images[picture.id].tobytes() for picture in journal.entries[job_id].pictures]


def states(engine: Engine, ids: list[str], owner: str = "me") -> list[str]:
    return [engine.view(job_id, owner).state for job_id in ids]


# ---- a job's way ----


def test_a_job_ends_in_its_pictures(start):
    sampler, journal = FakeBackend(), MemoryJournal()
    view = done(start(sampler, journal), TextToImage("a red apple", count=3, steps=5, seed=7))
    assert view.state == "done" and view.step == view.steps == 5 and view.error is None and view.notes == ()
    assert [(picture.seed, picture.width, picture.height) for picture in view.pictures] == [
        (seed, 64, 64) for seed in (7, 8, 9)
    ]
    assert view.pictures == journal.entries[view.id].pictures and view.seconds > 0
    assert sampler.calls == [3] * 5  # all pictures share each network call


def test_a_sketch_is_shown_and_not_kept(start):
    journal = MemoryJournal()
    engine = start(FakeBackend(), journal)
    asked = TextToImage("a red apple", steps=4, seed=7)
    sketch = engine.submit(asked, "me", save=False)
    eventually(lambda: states(engine, [sketch]) == ["done"])
    for _ in range(2):  # those who come late, and again, see it too
        *_, view = engine.follow(sketch, "me")
        assert view.state == "done" and not view.saved and view.pictures == () and view.seconds > 0
        assert len(view.previews) == 1
    assert not journal.entries and not journal.images
    picture = done(engine, asked)
    assert picture.saved and [view.previews[0].tobytes()] == kept(journal, picture.id)  # the same, kept
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate), journal)
    ids = [engine.submit(TextToImage("another", steps=4), "me", save=False) for _ in range(2)]
    assert not engine.move(ids[1], "me", "down") and engine.cancel(ids[1], "me")
    assert list(journal.entries) == [picture.id]


def test_tasks_with_different_steps_and_guidance_share_calls(start):
    gate = threading.Semaphore(0)
    sampler = FakeBackend(gate=gate)
    engine = start(sampler)
    requests = [
        TextToImage("a cat", steps=6),
        Inpaint("a dog", PICTURE, MASK, steps=4, sampler="ddim"),
        SuperResolve(PICTURE, 4, prompt="a cow", steps=3),
    ]
    ids = [engine.submit(request, "me") for request in requests]
    gate.release(100)
    eventually(lambda: set(states(engine, ids)) == {"done"})
    assert any(len({caption for caption, _ in call}) == 3 for call in sampler.served)
    sizes = [(view.pictures[0].width, view.pictures[0].height) for view in (engine.view(i, "me") for i in ids)]
    assert sizes == [(64, 64), (48, 32), (192, 128)]


def test_a_picture_depends_on_its_request_alone(start):
    requests = [TextToImage("a cat", steps=steps, seed=seed, count=2) for steps, seed in ((3, 1), (9, 5), (20, 6))]
    requests.append(SuperResolve(PICTURE, seed=3, steps=7))

    def pixels(view, journal):
        return [journal.images[p.id].tobytes() for p in view.pictures], [
            journal.traces[p.id].to_bytes() for p in view.pictures
        ]

    alone = []
    for request in requests:
        journal = MemoryJournal()
        alone.append(pixels(done(start(FakeBackend(grows=True), journal), request), journal))
    assert alone[1][0][1] == alone[2][0][0] != alone[1][0][0]  # one seed, whatever the number of the picture
    gate, journal = threading.Semaphore(0), MemoryJournal()
    engine = start(FakeBackend(grows=True, gate=gate), journal)
    left_over = engine.submit(LONG, "me")
    ids = [engine.submit(request, "me") for request in requests]
    gate.release(8)
    eventually(lambda: engine.view(left_over, "me").step >= 2)
    engine.cancel(left_over, "me")
    gate.release(1000)
    eventually(lambda: set(states(engine, ids)) == {"done"})
    assert [pixels(engine.view(job_id, "me"), journal) for job_id in ids] == alone


def test_the_model_is_waited_for(start):
    gate = threading.Event()
    engine = Engine(lambda: gate.wait() and FakeBackend(), MemoryJournal(), resolve=resolve).start()
    views = engine.follow(engine.submit(TextToImage("a cat"), "me"), "me")
    assert next(views).state == "queued" and engine.status.phase == "loading" and engine.status.queued == 1
    assert not engine.wait_until_ready(0.01) and engine.backend is None
    gate.set()
    *_, last = views
    assert last.state == "done" and engine.wait_until_ready(60) and engine.backend.device == "cpu"
    eventually(lambda: engine.status.phase == "idle")
    assert engine.shutdown(60)


def test_notes_say_what_was_not_read(start):
    engine = start(FakeBackend(limit=20))
    (note,) = done(engine, TextToImage("", steps=1)).notes
    assert "empty" in note
    assert done(engine, SuperResolve(PICTURE, steps=1)).notes == ()
    (note,) = done(engine, TextToImage("a cat on a very long prompt", steps=1)).notes
    assert note == "The prompt is longer than the model reads. It did not read: “prompt”."
    (note,) = done(engine, TextToImage("x" * 10_000, steps=1)).notes
    assert "9,860 characters more" in note and len(note) < 300


# ---- what those who follow see ----


def test_steps_rise_and_previews_are_for_those_who_follow(start, monkeypatch):
    monkeypatch.setattr(job_table, "PREVIEW_SECONDS", 0.0)
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate))
    job_id = engine.submit(TextToImage("a cat", steps=20, count=2), "me")
    views = []
    for view in engine.follow(job_id, "me"):
        views.append(view)
        gate.release()
    steps = [view.step for view in views if view.state == "running"]
    assert steps == sorted(steps) and len(set(steps)) > 5
    assert len(views[-2].previews) == 2 and views[-2].previews[0].size == (64, 64)
    assert views[-1].state == "done" and views[-1].previews == () and len(views[-1].pictures) == 2


def test_a_step_of_many_calls_is_stopped_within_one_and_others_go_between(start):
    """A large picture is seen by the network part by part: it keeps nobody waiting for its whole step."""
    gate = threading.Semaphore(0)
    sampler = FakeBackend(calls_per_step=50, gate=gate)
    engine = start(sampler)
    large = engine.submit(SuperResolve(Image.new("RGB", (8, 8)), 2, steps=2), "me")
    gate.release(10)
    eventually(lambda: len(sampler.calls) == 10)
    view = engine.view(large, "me")
    assert view.state == "running" and view.step == 0 and 0.08 <= view.share <= 0.1
    small = engine.submit(TextToImage("a cat", steps=3), "you")
    gate.release(9)  # three steps among those of the large one
    eventually(lambda: engine.view(small, "you").state == "done")
    assert engine.view(large, "me").share < 0.2
    assert engine.cancel(large, "me")
    called = len(sampler.calls)
    gate.release(50)
    assert done(engine, TextToImage("a dog", steps=1)).state == "done"
    assert len(sampler.calls) <= called + 3


def test_a_step_of_many_calls_is_recorded_once(start):
    journal = MemoryJournal()
    engine = start(FakeBackend(calls_per_step=5), journal)
    view = done(engine, SuperResolve(Image.new("RGB", (8, 8)), 2, steps=3))
    (trace,) = journal.traces.values()
    assert view.share == 1 and view.step == 3 and len(trace.steps) == 3


def test_nobody_follows_so_no_preview_is_made(start, monkeypatch):
    monkeypatch.setattr(job_table, "preview_picture", lambda prediction: pytest.fail("a preview was made"))
    sampler = FakeBackend(gate=threading.Semaphore(0))
    engine = start(sampler)
    job_id = engine.submit(TextToImage("a cat", steps=20), "me")
    sampler.gate.release(10)
    eventually(lambda: engine.view(job_id, "me").step == 10)
    assert engine.view(job_id, "me").previews == () == engine.jobs("me")[0].previews
    sampler.gate.release(10)
    eventually(lambda: engine.view(job_id, "me").state == "done")


def test_many_may_follow_and_leaving_does_not_stop_the_job(start):
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate))
    job_id = engine.submit(TextToImage("a cat", steps=50), "me")
    ends = []
    threads = [threading.Thread(target=lambda: ends.append([*engine.follow(job_id, "me")][-1].state)) for _ in range(4)]
    for thread in threads:
        thread.start()
    leaves = engine.follow(job_id, "me")
    next(leaves)
    gate.release(5)
    leaves.close()
    gate.release(45)
    for thread in threads:
        thread.join(60)
    assert ends == ["done"] * 4
    assert [view.state for view in engine.follow(job_id, "me")] == ["done"]  # later: its last view, once
    assert engine._table.find(job_id, "me").followers == 0


def test_jobs_are_seen_by_their_owner_alone(start):
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate))
    job_id = engine.submit(LONG, "me")
    assert engine.view(job_id, "you") is None and engine.jobs("you") == []
    assert not engine.cancel(job_id, "you") and not engine.move(job_id, "you", "first")
    for wrong in ((job_id, "you"), ("nothing", "me")):
        with pytest.raises(KeyError):
            engine.follow(*wrong)
    assert len(job_id) >= 20 and [view.id for view in engine.jobs("me")] == [job_id]


def test_estimates_come_from_what_was_measured(start):
    sampler = FakeBackend(delay=0.001)
    engine = start(sampler)
    done(engine, TextToImage("a cat", steps=20))
    sampler.gate = threading.Semaphore(0)
    first, second = (engine.submit(TextToImage("a dog", steps=steps), "me") for steps in (200, 1000))
    eventually(lambda: sampler.gate.release() or states(engine, [first, second]) == ["running"] * 2)
    short, long = (engine.view(job_id, "me").eta_seconds for job_id in (first, second))
    assert 0 < short < long


# ---- who goes first ----


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
    gate.release(300)
    eventually(lambda: len(sampler.calls) == 509)
    steps = [engine.view(job_id, "me").step for job_id in long]
    assert max(steps) - min(steps) <= 2  # and the long ones go on side by side


def test_jobs_start_in_line_and_owners_move_their_own(start):
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
    started = [caption for ((caption, _),) in engine.backend.served[3:]]
    assert "".join(started) == "cxayb"


def test_a_moved_job_stands_there_after_a_restart(start):
    journal, gate = MemoryJournal(), threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate), journal, max_active=1)
    running, *ids = [engine.submit(TextToImage(name, steps=1), "me") for name in "rabc"]
    eventually(lambda: engine.view(running, "me").state == "running")
    engine.move(ids[2], "me", "first")
    assert [job.id for job in journal.load_unfinished()] == [running, ids[2], ids[0], ids[1]]


def test_the_line_is_bounded(start):
    engine = start(FakeBackend(gate=threading.Semaphore(0)), max_active=1, max_queued=5, max_queued_per_owner=3)
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


def test_large_pictures_in_line_are_bounded(start, monkeypatch):
    monkeypatch.setattr(job_table, "MAX_QUEUED_BYTES", 10_000)
    engine = start(FakeBackend(gate=threading.Semaphore(0)), max_active=1)
    running = engine.submit(LONG, "me")
    eventually(lambda: engine.view(running, "me").state == "running")
    for _ in range(3):
        engine.submit(SuperResolve(PICTURE), "me")
    with pytest.raises(JobRejected, match="too many large pictures"):
        engine.submit(SuperResolve(PICTURE), "you")
    engine.submit(LONG, "you")


def test_large_jobs_run_after_one_another_however_many_may_run(start, monkeypatch):
    large = SuperResolve(PICTURE, 4, steps=40)
    monkeypatch.setattr(job_table, "MAX_RUNNING_PIXELS", 2 * resolve(large).pixels)
    monkeypatch.setattr(job_table, "SMALL_PIXELS", resolve(large).pixels - 1)
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate))
    ids = [engine.submit(request, "me") for request in (large, large, large, LONG)]  # small ones do not wait for them

    def as_expected() -> bool:
        gate.release()  # one call: the engine may have begun it before the last of them came
        return states(engine, ids) == ["running", "running", "queued", "running"]

    eventually(as_expected)
    gate.release(10_000)
    eventually(lambda: set(states(engine, ids)) == {"done"})
    monkeypatch.setattr(job_table, "MAX_RUNNING_PIXELS", 1)  # what is too large for company runs alone
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


def test_cancel_takes_a_job_out_of_the_line(start):
    journal = MemoryJournal()
    engine = start(FakeBackend(gate=threading.Semaphore(0)), journal, max_active=1)
    first, second = engine.submit(LONG, "me"), engine.submit(LONG, "me")
    eventually(lambda: engine.view(first, "me").state == "running")
    assert engine.cancel(second, "me") and engine.view(second, "me").state == "cancelled"
    assert journal.entries[second].state == "cancelled" and [view.id for view in engine.jobs("me")] == [first]
    assert not engine.cancel(second, "me") and not engine.cancel("nothing", "me")
    assert [view.state for view in engine.follow(second, "me")] == ["cancelled"]


def test_cancel_ends_a_run_within_a_step_and_shows_how_far_it_came(start):
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
    eventually(lambda: engine._budget.left == MAX_TOTAL_BYTES)
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


def test_what_is_being_kept_cannot_be_cancelled(start):
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


def test_no_more_is_taken_in_than_the_keeper_can_keep(start, monkeypatch):
    monkeypatch.setattr(job_table, "MAX_SAVING", 2)

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


# ---- what goes wrong ----


def test_calls_that_do_not_fit_are_halved(start):
    gate, journal = threading.Semaphore(0), MemoryJournal()
    sampler = FakeBackend(fits=5, gate=gate)
    engine = start(sampler, journal)
    ids = [engine.submit(TextToImage("a cat", steps=40, seed=i), "me") for i in range(8)]
    gate.release(2000)
    eventually(lambda: set(states(engine, ids)) == {"done"})
    assert max(sampler.calls) == 2  # 4 network rows of 5; three pictures would be 6
    alone = done(start(FakeBackend(), other := MemoryJournal()), TextToImage("a cat", steps=40, seed=3))
    assert kept(journal, ids[3]) == kept(other, alone.id)


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
    assert kept(journal, ids[2]) == kept(other, alone.id)
    assert done(engine, TextToImage("a cow")).state == "done"
    eventually(lambda: engine._budget.left == MAX_TOTAL_BYTES)


def test_a_row_torn_in_a_call_is_tried_again_alone(start):
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
    pick = engine._batcher.pick
    monkeypatch.setattr(engine._batcher, "pick", lambda: 1 / 0)
    view = done(engine, TextToImage("a cat"))
    assert view.state == "failed" and view.error == "The job failed: ZeroDivisionError: division by zero."
    monkeypatch.setattr(engine._batcher, "pick", pick)
    assert done(engine, TextToImage("a cat")).state == "done"


def test_a_model_that_cannot_be_loaded_is_said_to_those_who_wait_and_who_come():
    gate, journal = threading.Event(), MemoryJournal()

    def load():
        gate.wait()
        raise RuntimeError("The model folder x does not exist.")

    engine = Engine(load, journal, resolve=resolve).start()
    job_id = engine.submit(TextToImage("a cat"), "me")
    views = engine.follow(job_id, "me")
    assert next(views).state == "queued"
    gate.set()
    *_, last = views
    assert last.state == "failed" and last.error == "The model folder x does not exist."
    assert engine.status.phase == "failed" and engine.status.problem == last.error
    assert not engine.wait_until_ready(60)
    with pytest.raises(JobRejected, match="does not exist"):
        engine.submit(TextToImage("a cat"), "me")
    assert engine.shutdown(60)
    assert [job.id for job in journal.load_unfinished()] == [job_id]  # another start may have more luck


def test_a_job_that_is_not_written_down_is_not_taken(start):
    journal = MemoryJournal()
    engine = start(FakeBackend(), journal)
    journal.refuses = "Your pictures take up 1 GB already: delete some."
    with pytest.raises(JobRejected, match="take up 1 GB"):
        engine.submit(TextToImage("a cat"), "me")
    journal.add_job = lambda job: 1 / 0
    with pytest.raises(JobRejected, match="could not be stored .ZeroDivisionError"):
        engine.submit(TextToImage("a cat"), "me")
    assert engine.jobs("me") == [] and engine.status.phase in ("loading", "idle") and not engine._table._jobs


def test_pictures_that_are_not_kept_are_shown_and_can_be_made_again(start):
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
    eventually(lambda: engine._budget.left == MAX_TOTAL_BYTES)


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


# ---- stopping and going on ----


def test_what_is_unfinished_at_a_shutdown_is_taken_up_again_once(start):
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
    assert kept(journal, ids[1]) == kept(other, alone.id)


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


def test_what_comes_while_the_unfinished_is_taken_up_runs_once(start):
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
    assert sum(engine.backend.calls) == 2 and journal.saves[job_id] == 1


def test_an_engine_may_be_shut_down_before_it_has_begun():
    assert Engine(FakeBackend, MemoryJournal(), resolve=resolve).shutdown(1)


def test_jobs_that_ended_are_forgotten_after_a_while(start, monkeypatch):
    monkeypatch.setattr(job_table, "MAX_ENDED", 3)
    engine = start()
    ids = [done(engine, TextToImage("a cat", steps=1)).id for _ in range(5)]
    assert [engine.view(job_id, "me") is None for job_id in ids] == [True, True, False, False, False]
    monkeypatch.setattr(job_table, "MAX_ENDED_BYTES", 5_000)  # one such picture, not two
    ids = [done(engine, SuperResolve(PICTURE, steps=1)).id for _ in range(3)]
    assert [engine.view(job_id, "me") is None for job_id in ids] == [True, True, False]


# ---- traces ----


def test_every_picture_has_its_trace(start):
    journal = MemoryJournal()
    engine = start(FakeBackend(), journal)
    view = done(engine, TextToImage("a cat", steps=7, count=2, seed=3))
    assert [picture.has_trace for picture in view.pictures] == [True, True]
    traces = [journal.traces[picture.id] for picture in view.pictures]
    assert [(trace.seed, trace.num_steps, len(trace.steps)) for trace in traces] == [(3, 7, 7), (4, 7, 7)]
    eventually(lambda: engine._budget.left == MAX_TOTAL_BYTES)
    assert not done(start(FakeBackend(), traces=False), TextToImage("a cat")).pictures[0].has_trace


# ---- all at once ----


def test_many_threads_submit_follow_cancel_and_move(start):
    sampler, journal = FakeBackend(sample_size=8, grows=True, fits=20), MemoryJournal()
    engine = start(sampler, journal, max_active=6, max_queued_per_owner=1000)
    expected: dict[str, tuple[str, TextToImage, bool]] = {}  # job id -> owner, request, whether it was cancelled
    problems = []

    def use(owner: str) -> None:
        draw = random.Random(owner)
        try:
            for turn in range(15):
                request = TextToImage(f"{owner} {turn}", steps=draw.randint(1, 12), count=draw.randint(1, 3))
                job_id = engine.submit(request, owner)
                views = engine.follow(job_id, owner)
                cancelled = draw.random() < 0.3 and engine.cancel(job_id, owner)
                expected[job_id] = owner, request, cancelled
                if engine.jobs(owner) and draw.random() < 0.5:
                    engine.move(job_id, owner, draw.choice(["first", "last", "up", "down"]))
                if draw.random() < 0.5:
                    *_, last = views
                    assert last.caption == resolve(request).caption
                    assert last.state == ("cancelled" if cancelled else "done")
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=use, args=[f"owner {i}"]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == [] and len(expected) == 8 * 15
    eventually(lambda: engine.status.phase == "idle")
    for job_id, (owner, request, cancelled) in expected.items():
        entry = journal.entries[job_id]
        assert (entry.owner, entry.request) == (owner, request)
        assert entry.state == ("cancelled" if cancelled else "done") and journal.saves[job_id] == (not cancelled)
        seeds = [picture.seed for picture in entry.pictures]
        assert cancelled or tuple(seeds) == resolve(request).seeds
    eventually(lambda: engine._budget.left == MAX_TOTAL_BYTES)
    assert engine._batcher.slots == [] and engine._table._running == []
