"""A job's life under random submits, cancels, moves, crashes and restarts: what the engine promises whatever happens.

The engine is driven without its threads, a turn of the loop and a task of the keeper at a time, so that a crash can
come between any two of them, or in the midst of a write. A crash leaves nothing but what the journal holds.
"""

from __future__ import annotations

import functools
from contextlib import suppress

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from studio.engine.engine import Engine
from studio.engine.job import Job, JobRejected
from studio.engine.requests import TextToImage
from studio.engine.scheduling.limits import LineLimits
from tests.fakes import FakeBackend, MemoryJournal, resolve, single_model

OWNERS = ("ann", "bob", "eve")
SIZE = 4
PATIENCE = 10_000  # turns in which everything must come to its end


class Crash(BaseException):
    """The process is killed here."""


class CrashingJournal(MemoryJournal):
    """Crashes on demand, right before or right after a write has become durable."""

    def __init__(self) -> None:
        super().__init__()
        self.crash: str | None = None  # "before" or "after" the next write

    def _write(self, write, *args):
        crash, self.crash = self.crash, None
        if crash == "before":
            raise Crash
        result = write(*args)
        if crash == "after":
            raise Crash
        return result

    def add_job(self, job: Job) -> None:
        self._write(super().add_job, job)

    def mark_started(self, job: Job) -> None:
        self._write(super().mark_started, job)

    def mark_ended(self, job: Job) -> None:
        self._write(super().mark_ended, job)

    def update_order(self, job: Job) -> None:
        self._write(super().update_order, job)

    def save_results(self, job: Job, images, traces):
        assert self.entries[job.id].state != "done", "a job was run to its end twice"
        return self._write(super().save_results, job, images, traces)


@functools.cache
def painted(request: TextToImage) -> tuple[bytes, ...]:
    """What a request gives where nothing ever happens."""
    sampler = FakeBackend(sample_size=SIZE)
    rows = sampler.prepare(resolve(request))
    while not rows[0].finished:
        sampler.denoise_step(rows)
    return tuple(sampler.decode(row).tobytes() for row in rows)


requests = st.builds(
    TextToImage,
    prompt=st.sampled_from(["a cat", "a dog"]),
    steps=st.integers(1, 4),
    count=st.integers(1, 2),
    seed=st.integers(0, 3),
    guidance=st.sampled_from([1.0, 3.0]),
)


class Life(RuleBasedStateMachine):
    """The model: who was told what. The journal, which outlives every crash, is held against it."""

    @initialize(fits=st.sampled_from([None, 2, 4]), active=st.integers(1, 4))
    def begin(self, fits: int | None, active: int) -> None:
        self.fits, self.active = fits, active
        self.journal = CrashingJournal()
        self.taken: dict[str, tuple[str, TextToImage]] = {}  # job id -> owner and request, where the owner got the id
        self.cancelled: set[str] = set()
        self.boot()

    def boot(self) -> None:
        """A new process."""
        sampler = FakeBackend(sample_size=SIZE, fits=self.fits)
        self.engine = Engine(
            single_model(lambda: sampler),
            self.journal,
            resolve=resolve,
            max_active=self.active,
            limits=LineLimits(jobs=12, owner_jobs=8),
        )
        self.engine._restore_jobs()
        self.engine._models.load(self.engine._models.default_id)

    def turn(self) -> bool:
        """A turn of the loop, unless it would wait for something to do."""
        table = self.engine._table
        return bool(table._running or table._queue.next_start(table._busy())) and self.engine._runner.turn()

    def keep(self) -> bool:
        """A task of the keeper."""
        tasks = self.engine._writer._tasks
        if not tasks.empty():
            run, active = tasks.get()
            run(active)
            return True
        return False

    @rule(owner=st.sampled_from(OWNERS), request=requests)
    def submit(self, owner: str, request: TextToImage) -> None:
        try:
            job_id = self.engine.submit(request, owner)
        except JobRejected:
            assert len(self.journal.load_unfinished()) >= 8
        else:
            self.taken[job_id] = owner, request
            assert self.engine.view(job_id, owner).state == "queued"

    @rule(turns=st.integers(1, 6))
    def run(self, turns: int) -> None:
        for _ in range(turns):
            self.turn()

    @rule(tasks=st.integers(1, 6))
    def write(self, tasks: int) -> None:
        for _ in range(tasks):
            self.keep()

    def some(self, number: int) -> tuple[str, str] | None:
        """A job that was taken, and its owner."""
        ids = list(self.taken)
        return (ids[number % len(ids)], self.taken[ids[number % len(ids)]][0]) if ids else None

    @rule(number=st.integers(0, 50), by=st.none() | st.sampled_from(OWNERS))
    def cancel(self, number: int, by: str | None) -> None:
        if job := self.some(number):
            job_id, owner = job
            if self.engine.cancel(job_id, by or owner):
                assert by in (None, owner)
                self.cancelled.add(job_id)
                assert self.engine.view(job_id, owner).state == "cancelled"

    @rule(number=st.integers(0, 50), to=st.sampled_from(["up", "down", "first", "last"]))
    def move(self, number: int, to: str) -> None:
        if job := self.some(number):
            before = {owner: [view.id for view in self.engine.jobs(owner)] for owner in OWNERS}
            self.engine.move(job[0], job[1], to)
            after = {owner: [view.id for view in self.engine.jobs(owner)] for owner in OWNERS}
            for owner in OWNERS:
                assert sorted(after[owner]) == sorted(before[owner])
                assert owner == job[1] or after[owner] == before[owner]

    @rule()
    def crash(self) -> None:
        self.boot()

    @rule(when=st.sampled_from(["before", "after"]), do=st.sampled_from(["submit", "cancel", "move", "keep"]))
    def crash_in_a_write(self, when: str, do: str) -> None:
        self.journal.crash = when
        try:
            if do == "submit":
                with suppress(JobRejected):  # the line may be full
                    self.engine.submit(TextToImage("a cow", steps=2), "ann")
            elif do == "keep":
                while self.keep() or self.turn():
                    pass
            elif job := self.some(len(self.journal.entries)):
                self.engine.cancel(*job) if do == "cancel" else self.engine.move(*job, "first")
        except Crash:
            self.boot()
        self.journal.crash = None

    @rule()
    def restart(self) -> None:
        """In good order: what is finished is still kept."""
        self.engine._table.stop()
        assert not self.engine._runner.turn()
        while self.keep():
            pass
        self.engine._table.release_followers()
        self.boot()

    @invariant()
    def nothing_is_lost_or_done_twice_or_anothers(self) -> None:
        for job_id, (owner, request) in self.taken.items():
            entry = self.journal.entries[job_id]
            assert (entry.owner, entry.request) == (owner, request)
            assert self.journal.saves[job_id] == (entry.state == "done")
            for other in OWNERS:
                view = self.engine.view(job_id, other)
                assert view is None or other == owner
            view = self.engine.view(job_id, owner)
            assert view is not None or entry.state in ("done", "cancelled")
            if job_id in self.cancelled:
                assert entry.state == "cancelled" and not entry.pictures
            if entry.state == "done":
                images = tuple(self.journal.images[picture.id].tobytes() for picture in entry.pictures)
                assert images == painted(request)
                assert [picture.seed for picture in entry.pictures] == list(resolve(request).seeds)
        left = self.journal.load_unfinished()
        for owner in OWNERS:
            seen = {view.id for view in self.engine.jobs(owner)}
            ended = {job_id for job_id in self.taken if (v := self.engine.view(job_id, owner)) and v.ended}
            assert {job.id for job in left if job.owner == owner} - ended <= seen
            assert all(self.journal.entries[job_id].owner == owner for job_id in seen)

    def teardown(self) -> None:
        """Left alone, everything comes to its end, what a crash left without an owner who knows of it as well."""
        if not hasattr(self, "engine"):
            return
        for _ in range(PATIENCE):
            if not (self.turn() or self.keep()):
                break
        self.nothing_is_lost_or_done_twice_or_anothers()
        assert {entry.state for entry in self.journal.entries.values()} <= {"done", "cancelled"}
        assert {job_id for job_id in self.taken if self.journal.entries[job_id].state == "cancelled"} >= self.cancelled
        assert self.engine._runner._budget.left == type(self.engine._runner._budget)().left


TestLife = Life.TestCase
TestLife.settings = hypothesis.settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
