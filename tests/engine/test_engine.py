"""A job from its submission to its pictures, what followers see of it, and its traces."""

import asyncio
import random
import threading

import pytest
from PIL import Image

from studio.engine import following, job_table
from studio.engine.engine import Engine
from studio.engine.recorder import MAX_TOTAL_BYTES
from studio.engine.requests import Inpaint, SuperResolve, TextToImage
from studio.engine.scheduling.limits import LineLimits
from tests.engine.conftest import LONG, MASK, PICTURE, done, eventually, saved_pixels, states
from tests.fakes import FakeBackend, MemoryJournal, resolve, single_model

# ---- jobs ----


def test_a_job_ends_in_its_pictures(start):
    sampler, journal = FakeBackend(), MemoryJournal()
    view = done(start(sampler, journal), TextToImage("a red apple", count=3, steps=5, seed=7))
    assert view.state == "done" and view.step == view.steps == 5 and view.error is None and view.notes == ()
    assert [(picture.seed, picture.width, picture.height) for picture in view.pictures] == [
        (seed, 64, 64) for seed in (7, 8, 9)
    ]
    assert view.pictures == journal.entries[view.id].pictures and view.seconds > 0
    assert sampler.calls == [3] * 5  # all pictures share each network call


def test_an_unsaved_job_is_shown_and_not_stored(start):
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
    assert picture.saved and [view.previews[0].tobytes()] == saved_pixels(journal, picture.id)  # the same, kept
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


def test_jobs_wait_until_the_model_is_loaded(start):
    gate = threading.Event()
    engine = Engine(single_model(lambda: gate.wait() and FakeBackend()), MemoryJournal(), resolve=resolve).start()
    views = engine.follow(engine.submit(TextToImage("a cat"), "me"), "me")
    assert next(views).state == "queued" and engine.status.phase == "loading" and engine.status.queued == 1
    assert not engine.wait_until_ready(0.01) and engine.backend() is None
    gate.set()
    *_, last = views
    assert last.state == "done" and engine.wait_until_ready(60) and engine.backend().device == "cpu"
    eventually(lambda: engine.status.phase == "idle")
    assert engine.shutdown(60)


def test_notes_quote_what_the_model_does_not_read(start):
    engine = start(FakeBackend(limit=20))
    (note,) = done(engine, TextToImage("", steps=1)).notes
    assert "empty" in note
    assert done(engine, SuperResolve(PICTURE, steps=1)).notes == ()
    (note,) = done(engine, TextToImage("a cat on a very long prompt", steps=1)).notes
    assert note == "The prompt is longer than the model reads. It did not read: “prompt”."
    (note,) = done(engine, TextToImage("x" * 10_000, steps=1)).notes
    assert "9,860 characters more" in note and len(note) < 300


# ---- followers ----


def test_steps_rise_and_followers_get_previews(start, monkeypatch):
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


def test_a_step_of_many_calls_is_cancelled_within_one_call_and_shares_its_time(start):
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


def test_no_preview_is_made_without_followers(start, monkeypatch):
    monkeypatch.setattr(following, "preview_picture", lambda prediction: pytest.fail("a preview was made"))
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
    assert engine._table.find(job_id, "me").followers == []


def test_followers_in_an_event_loop_see_the_same_and_take_no_thread(start):
    gate = threading.Semaphore(0)
    engine = start(FakeBackend(gate=gate))
    job_id = engine.submit(TextToImage("a cat", steps=20), "me")

    async def steps() -> list[int]:
        return [view.step async for view in engine.follow_async(job_id, "me")]

    async def follow() -> list[list[int]]:
        leaves = engine.follow_async(job_id, "me")
        await anext(leaves)
        tasks = [asyncio.create_task(steps()) for _ in range(50)]
        await asyncio.sleep(0)
        assert len(engine._table.find(job_id, "me").followers) == 51
        threads = threading.active_count()
        gate.release(20)
        await leaves.aclose()
        seen = await asyncio.gather(*tasks)
        assert threading.active_count() <= threads + 16  # those that convert previews, not one a follower
        return seen

    seen = asyncio.run(follow())
    assert len(seen) == 50 and all(steps == sorted(steps) and steps[-1] == 20 for steps in seen)
    assert engine._table.find(job_id, "me").followers == []
    with pytest.raises(KeyError):
        engine.follow_async(job_id, "you")


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


# ---- traces ----


def test_every_picture_has_its_trace(start):
    journal = MemoryJournal()
    engine = start(FakeBackend(), journal)
    view = done(engine, TextToImage("a cat", steps=7, count=2, seed=3))
    assert [picture.has_trace for picture in view.pictures] == [True, True]
    traces = [journal.traces[picture.id] for picture in view.pictures]
    assert [(trace.seed, trace.num_steps, len(trace.steps)) for trace in traces] == [(3, 7, 7), (4, 7, 7)]
    eventually(lambda: engine._runner._budget.left == MAX_TOTAL_BYTES)
    assert not done(start(FakeBackend(), traces=False), TextToImage("a cat")).pictures[0].has_trace


# ---- all at once ----


def test_many_threads_submit_follow_cancel_and_move(start):
    sampler, journal = FakeBackend(sample_size=8, grows=True, fits=20), MemoryJournal()
    engine = start(sampler, journal, max_active=6, limits=LineLimits(owner_jobs=1000, owner_seconds=1e9))
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
    eventually(lambda: engine._runner._budget.left == MAX_TOTAL_BYTES)
    assert engine._runner._batcher.slots == [] and engine._table._running == []
