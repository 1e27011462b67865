"""Several models under one budget of memory: who starts, what is loaded, and what is evicted for it."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from studio.engine.checks import InvalidRequest
from studio.engine.engine import Engine
from studio.engine.requests import Request, TextToImage
from studio.engine.resolved import ResolvedRequest
from studio.engine.runner import TOO_LARGE
from studio.engine.trace import TraceModel
from studio.models import cache
from studio.models.cache import ModelCache
from studio.models.formats import ModelError
from tests.engine.conftest import done, eventually, saved_pixels, states
from tests.fakes import CAPABILITIES, FakeBackend, MemoryJournal

SIDES = {"a": 16, "b": 24, "c": 32, "small": 8}  # px of each model's pictures


def resolve(request: Request) -> ResolvedRequest:
    """Resolve a request whose model ids are joined by "+": the main model and a refiner."""
    model_ids = tuple((request.model_id or "a").split("+"))
    if not set(model_ids) <= SIDES.keys():
        raise InvalidRequest(f"The model must be one of {', '.join(SIDES)}; it was {request.model_id}.")
    resolved = CAPABILITIES.resolve(replace(request, model_id=""))
    return replace(resolved, request=request, model_id=model_ids[0], model_ids=model_ids)


class Models(ModelCache):
    """Fake models of given sizes.

    calls, loads: permits for network calls and for loading, where they are limited. broken: models that do not load.
    history: ids in the order in which they were loaded. most: the largest sum of sizes at the end of a load.
    """

    def __init__(self, *, budget: int = 10, sizes: dict[str, int] | None = None, limited: bool = False) -> None:
        self.sizes = sizes or {"a": 6, "b": 6, "c": 6, "small": 2}
        self.calls = threading.Semaphore(0) if limited else None
        self.loads: threading.Semaphore | None = None
        self.broken: dict[str, Exception] = {}
        self.history: list[str] = []
        self.most = 0
        super().__init__("a", self._open, size=self.sizes.__getitem__, budget=lambda: budget)

    def _open(self, model_id: str) -> FakeBackend:
        if self.loads:
            self.loads.acquire()
        if model_id in self.broken:
            raise self.broken[model_id]
        self.history.append(model_id)
        self.most = max(self.most, self.bytes + self.sizes[model_id])
        return FakeBackend(sample_size=SIDES[model_id], gate=self.calls, trace_model=TraceModel(id=model_id))


@pytest.fixture(autouse=True)
def nothing_to_free(monkeypatch) -> None:
    """Fake models leave no memory; looking for it takes long where torch is imported."""
    monkeypatch.setattr(cache, "_free_memory", lambda: None)


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Return a function that starts engines over models, and waits for the default one."""
    started: list[tuple[Engine, Models]] = []

    def start(models: Models, journal: MemoryJournal | None = None, **options: object) -> Engine:
        engine = Engine(models, journal or MemoryJournal(), resolve=resolve, **options).start()
        started.append((engine, models))
        assert engine.wait_until_ready(60)
        return engine

    yield start
    for engine, models in started:
        for permits in (models.calls, models.loads):
            if permits:
                permits.release(100_000)
        assert engine.shutdown(60)


def job(model_id: str, steps: int = 3, seed: int = 0) -> TextToImage:
    return TextToImage("a cat", steps=steps, seed=seed, model_id=model_id)


def started(engine: Engine, ids: list[str]) -> set[str]:
    return {job_id for job_id, state in zip(ids, states(engine, ids), strict=True) if state != "queued"}


# ---- sharing ----


def test_jobs_of_two_models_run_side_by_side_and_give_the_same_pictures_as_alone(start):
    requests = [job(model_id, steps=4, seed=seed) for seed in range(3) for model_id in ("a", "small")]
    alone = []
    for request in requests:
        journal = MemoryJournal()
        alone.append(saved_pixels(journal, done(start(Models(), journal), request).id))
    journal, models = MemoryJournal(), Models(limited=True)
    engine = start(models, journal)
    ids = [engine.submit(request, "me") for request in requests]
    for _ in range(4):  # the loop may have begun a call before it saw them all
        models.calls.release()
        time.sleep(0.01)
    eventually(lambda: set(states(engine, ids)) == {"running"})
    models.calls.release(1000)
    eventually(lambda: set(states(engine, ids)) == {"done"})
    assert [saved_pixels(journal, job_id) for job_id in ids] == alone
    assert models.history == ["a", "small"]


def test_a_job_that_needs_two_models_has_both_loaded_and_in_use(start):
    models = Models(limited=True)
    engine = start(models, patience=0)
    ids = [engine.submit(job("small+a"), "me"), engine.submit(job("b"), "me")]
    eventually(lambda: started(engine, ids) == {ids[0]})
    assert set(engine.loaded) == {"a", "small"}
    models.calls.release(1000)
    eventually(lambda: set(states(engine, ids)) == {"done"})
    assert set(engine.loaded) == {"small", "b"}


# ---- whose turn it is ----


@pytest.mark.parametrize(("patience", "second"), [(0.0, "b"), (1000.0, "a")])
def test_loaded_models_go_first_but_not_forever(start, patience, second):
    models = Models(limited=True)
    engine = start(models, patience=patience)
    first = engine.submit(job("a", steps=50), "me")
    eventually(lambda: states(engine, [first]) == ["running"])
    waiting = [engine.submit(job(model_id), "me") for model_id in ("b", "a")]
    after = waiting[["b", "a"].index(second)]
    models.calls.release()  # a turn of the loop
    if second == "a":
        eventually(lambda: started(engine, waiting) == {after})
    else:
        time.sleep(0.02)
        models.calls.release()
        assert started(engine, waiting) == set()
    models.calls.release(1000)
    eventually(lambda: set(states(engine, waiting)) == {"done"})
    assert models.history == (["a", "b", "a"] if second == "b" else ["a", "b"])


def test_a_model_that_waits_does_not_keep_those_waiting_that_fit_beside_it(start):
    models = Models(limited=True)
    engine = start(models, patience=0)
    assert engine.submit(job("small", steps=1), "me")
    models.calls.release()
    eventually(lambda: not engine.jobs("me"))
    ids = [engine.submit(job("a", steps=50), "me")]
    eventually(lambda: states(engine, ids) == ["running"])
    ids += [engine.submit(job(model_id), "me") for model_id in ("b", "small", "a")]

    def small_runs() -> bool:
        models.calls.release()
        return started(engine, ids[1:]) == {ids[2]}

    eventually(small_runs)
    models.calls.release(1000)
    eventually(lambda: set(states(engine, ids)) == {"done"})


def test_others_go_on_while_a_model_is_loaded_and_its_job_can_be_cancelled(start):
    models = Models()
    engine = start(models)
    models.loads = threading.Semaphore(0)
    waiting = engine.submit(job("small"), "me")
    eventually(lambda: engine.status.loading == "small")
    assert engine.status.phase == "loading" and done(engine, job("a")).state == "done"
    assert engine.cancel(waiting, "me") and states(engine, [waiting]) == ["cancelled"]
    again = engine.submit(job("small"), "me")
    models.loads.release()
    eventually(lambda: states(engine, [again]) == ["done"])
    assert models.history == ["a", "small"] and engine.status.loading == "" and engine.status.phase == "idle"


# ---- memory ----


def test_memory_stays_within_its_budget_whatever_is_asked(start):
    draw = random.Random(0)
    models = Models(budget=10, sizes={"a": 4, "b": 5, "c": 6, "small": 3})
    engine = start(models, patience=0.001)
    names = ["a", "b", "c", "small", "a+small", "b+a", "c+small"]
    ids = [engine.submit(job(draw.choice(names), seed=i), "me") for i in range(25)]
    eventually(lambda: set(states(engine, ids)) == {"done"})
    assert models.most <= 10 and models.bytes <= 10 and set(models.history) == SIDES.keys()


def test_twenty_switches(start):
    models = Models()
    engine = start(models)
    for number in range(20):
        assert done(engine, job("ba"[number % 2])).state == "done"
        assert len(engine.loaded) == 1
    assert models.history == ["a", *["b", "a"] * 10] and models.most == 6


def test_the_least_recently_used_model_is_evicted(start):
    models = Models(sizes={"a": 4, "b": 4, "c": 4, "small": 1})
    engine = start(models)
    for model_id in ("b", "a", "c"):
        assert done(engine, job(model_id)).state == "done"
    assert engine.loaded == ("a", "c")


def test_a_model_in_use_is_not_evicted(start):
    """Neither while rows live, nor while a page has borrowed it."""
    models = Models(limited=True)
    engine = start(models, patience=0)
    running = engine.submit(job("a", steps=1), "me")
    eventually(lambda: states(engine, [running]) == ["running"])
    waiting = engine.submit(job("b"), "me")
    with engine.borrow("a") as backend, engine.borrow("b") as missing:
        assert backend is engine.backend() and missing is None
        models.calls.release(1000)
        eventually(lambda: states(engine, [running]) == ["done"])
        time.sleep(0.02)
        assert states(engine, [waiting]) == ["queued"] and engine.loaded == ("a",)
    eventually(lambda: states(engine, [waiting]) == ["done"])
    assert engine.loaded == ("b",) and engine.backend() is None


def test_an_ended_job_keeps_no_model_in_memory(start):
    models = Models()
    engine = start(models)
    view = done(engine, job("a"))
    eventually(lambda: engine.status.phase == "idle")
    active = engine._table.find(view.id, "me")
    assert active.backend is None and active.slots == []


def test_a_model_larger_than_the_budget_is_refused_and_evicts_nothing(start):
    models = Models(sizes={"a": 6, "b": 11, "c": 6, "small": 2})
    engine = start(models)
    view = done(engine, job("b"))
    assert view.state == "failed" and "The model b takes" in view.error and "--memory" in view.error
    assert engine.loaded == ("a",) and done(engine, job("a")).state == "done"


def test_a_picture_that_does_not_fit_is_tried_with_settings_that_need_less_memory(start):
    models, journal = Models(), MemoryJournal()
    engine = start(models, journal)
    backend = engine.backend()
    backend.fits, backend.milder = 0, [("The VAE decodes in tiles.", 1), ("Weights wait in main memory.", 2)]
    view = done(engine, job("a"))
    assert view.state == "done"
    assert view.notes == ("The VAE decodes in tiles.", "Weights wait in main memory.")
    assert journal.entries[view.id].notes == view.notes
    backend.fits = 1
    assert done(engine, job("a")).error == TOO_LARGE


def test_what_happened_to_a_row_is_told_to_its_owner(start):
    engine, prepare = start(Models()), None
    backend = engine.backend()
    prepare = backend.prepare

    def with_notes(resolved: ResolvedRequest) -> list:
        rows = prepare(resolved)
        for row in rows:
            row.notes = ("The VAE was run in float32.",)
        return rows

    backend.prepare = with_notes
    assert done(engine, replace(job("a"), count=2)).notes == ("The VAE was run in float32.",)


# ---- failures ----


def test_a_failed_load_fails_the_models_jobs_and_nothing_else(start):
    models, journal = Models(limited=True), MemoryJournal()
    models.broken["b"] = ModelError("The file b.safetensors is cut short.")
    engine = start(models, journal)
    running = engine.submit(job("small"), "me")
    eventually(lambda: states(engine, [running]) == ["running"])
    failing = [engine.submit(job("b"), "me") for _ in range(2)]
    models.calls.release()  # the loop turns
    eventually(lambda: states(engine, failing) == ["failed"] * 2)
    assert {engine.view(job_id, "me").error for job_id in failing} == {"The file b.safetensors is cut short."}
    models.calls.release(1000)
    eventually(lambda: states(engine, [running]) == ["done"])
    assert engine.status.problem == "" and done(engine, job("a")).state == "done"
    eventually(lambda: {journal.entries[job_id].state for job_id in failing} == {"failed"})
    del models.broken["b"]
    assert done(engine, job("b")).state == "done"


def test_the_engine_works_without_its_default_model():
    models = Models()
    models.broken["a"] = RuntimeError()
    engine = Engine(models, MemoryJournal(), resolve=resolve).start()
    assert not engine.wait_until_ready(60) and engine.status.phase == "failed"
    assert engine.status.problem == "The model was not loaded: RuntimeError."
    assert done(engine, job("b")).state == "done" and engine.status.phase == "idle"
    del models.broken["a"]
    assert done(engine, job("a")).state == "done" and engine.status.problem == ""
    assert engine.shutdown(60)


def test_unfinished_jobs_of_a_model_that_is_gone_are_refused_and_stay_readable(start):
    journal = MemoryJournal()
    models = Models(limited=True)
    engine = start(models, journal)
    ids = [engine.submit(job("a", steps=500), "me"), engine.submit(job("small", steps=500), "me")]
    models.calls.release(3)
    models.calls.release(100_000)
    assert engine.shutdown(60)
    gone = journal.entries[ids[1]]
    gone.request, gone.state = replace(gone.request, model_id="gone"), "queued"
    engine = start(Models(), journal)
    eventually(lambda: not engine.jobs("me"))
    assert gone.state == "failed" and gone.error.startswith("The job could not be restarted. The model must be one of")
    assert gone.request.settings()["model_id"] == "gone" and gone.request.settings()["steps"] == 500
    assert journal.entries[ids[0]].state == "done"


# ---- time ----


def test_expected_seconds_count_the_time_until_the_model_is_loaded(start):
    models = Models()
    engine = start(models)
    models.loads = threading.Semaphore(0)
    waiting = engine.submit(job("b"), "me")
    eventually(lambda: engine.status.loading == "b")
    time.sleep(0.05)
    models.loads.release()
    eventually(lambda: states(engine, [waiting]) == ["done"])
    models.loads = None
    loaded = engine.resolve(job("b")).seconds
    assert done(engine, job("a")).state == "done"  # evicts b
    assert engine.resolve(job("b")).seconds >= loaded + 0.05
