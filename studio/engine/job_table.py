"""The thread-safe table of jobs: queued, running and lately ended ones, and the followers that watch them.

One lock guards the table and its jobs. It is held for moments only, and never while a caller's code runs.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from studio.engine.active_job import ActiveJob, preview_picture
from studio.engine.batcher import Slot
from studio.engine.estimates import QueueEstimates, RequestTimes
from studio.engine.job import Job, JobRejected, JobView, State
from studio.engine.resolved import ResolvedRequest

PREVIEW_SECONDS = 0.08  # between two previews of a running job, at least
QUEUE_SECONDS = 0.5  # after which followers of a queued job see its place again
MAX_SAVING = 16  # jobs that wait to be saved; with more, no job starts
MAX_QUEUED_BYTES = 512_000_000  # of pictures in queued requests
MAX_RUNNING_PIXELS = 32_000_000  # of results of running and unsaved jobs, each of about 80 bytes of memory
SMALL_PIXELS = 1_000_000  # a job of no more pixels always fits
SUSPECT_CRASHES = 2  # after so many crashes a job runs alone, so that the next crash tells whether it is the cause
MAX_ENDED = 256  # ended jobs that stay in the table
MAX_ENDED_BYTES = 64_000_000  # of pictures in their requests

Direction = Literal["up", "down", "first", "last"]


class JobTable:
    """All jobs of the engine.

    max_active: jobs that run at once.
    max_queued, max_queued_per_owner: queued jobs; more are rejected.
    """

    def __init__(self, max_active: int, max_queued: int, max_queued_per_owner: int) -> None:
        self._max_active, self._max_queued, self._max_queued_per_owner = max_active, max_queued, max_queued_per_owner
        # Reentrant: the garbage collector may close a forgotten follower wherever this thread is.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # the engine's loop waits for it
        self._jobs: dict[str, ActiveJob] = {}
        self._queue: list[ActiveJob] = []  # by order
        self._running: list[ActiveJob] = []
        self._saving = 0
        self._suspect: ActiveJob | None = None  # runs alone
        self._ended: deque[ActiveJob] = deque()
        self._last_order = 0.0
        self._problem = ""  # why no job can run any more
        self._stopping = self._stopped = False
        self._times = RequestTimes()
        self._estimates = QueueEstimates(self._times)

    # ---- submitting ----

    def reserve(self, resolved: ResolvedRequest, owner: str, saved: bool = True) -> ActiveJob:
        """Return a new job, which nobody sees before it is enqueued. Raises JobRejected."""
        with self._lock:
            if self._problem:
                raise JobRejected(self._problem)
            if self._stopping:
                raise JobRejected("The studio is being shut down: please try again in a moment.")
            queued = own = input_bytes = 0
            for active in self._jobs.values():
                if active.job.state == "queued":
                    queued += 1
                    own += active.job.owner == owner
                    input_bytes += active.input_bytes
            if queued >= self._max_queued:
                raise JobRejected(f"{queued} jobs are in the queue already: please try again in a moment.")
            if own >= self._max_queued_per_owner:
                raise JobRejected(
                    f"{own} of your jobs are in the queue already: please wait until some of them are done."
                )
            if input_bytes > MAX_QUEUED_BYTES and resolved.request.pictures():
                raise JobRejected(
                    "The jobs in the queue hold too many large pictures already: please try again in a moment."
                )
            self._last_order = max(time.time(), self._last_order + 1e-5)
            return self._add(Job(resolved, owner, order=self._last_order, saved=saved))

    def discard(self, active: ActiveJob) -> None:
        """Remove a reserved job that could not be stored."""
        with self._lock:
            del self._jobs[active.job.id]

    def enqueue(self, active: ActiveJob) -> None:
        """Queue a job that is stored, and show it to its owner."""
        with self._lock:
            active.is_visible = True
            insort(self._queue, active, key=_order)
            self._estimates.invalidate()
            if self._problem:
                self.close(self._problem)
            self._work.notify_all()

    def restore(self, jobs: Sequence[Job]) -> None:
        """Queue jobs again that another process left unfinished, in their old order."""
        with self._lock:
            for job in jobs:
                self._last_order = max(self._last_order, job.order)
                if job.id not in self._jobs:  # else this process has just submitted it
                    active = self._add(job)
                    active.resumed = True
                    self.enqueue(active)

    def close(self, problem: str) -> None:
        """Fail all queued jobs, and reject new ones. The journal keeps the queued ones for another process."""
        with self._lock:
            self._problem = problem
            queue, self._queue = self._queue, []
            for active in queue:
                self.end(active, "failed", problem)

    def _add(self, job: Job) -> ActiveJob:
        active = self._jobs[job.id] = ActiveJob(job, threading.Condition(self._lock))
        return active

    # ---- running ----

    def wait_for_work(self) -> bool:
        """Wait until a job runs or can start. Return False if the engine stops."""
        with self._lock:
            while not self._stopping and not self._running and self._next_job() is None:
                self._work.wait()
            return not self._stopping

    def running(self) -> list[ActiveJob]:
        """Return the jobs whose pictures are not finished."""
        with self._lock:
            return list(self._running)

    def take_ended(self) -> list[ActiveJob]:
        """Return the jobs that ended while they ran, each once."""
        with self._lock:
            ended, running = list[ActiveJob](), list[ActiveJob]()
            for active in self._running:
                (ended if active.job.ended else running).append(active)
            self._running = running
            return ended

    def start_next(self) -> ActiveJob | None:
        """Start the first queued job that there is room for. Return None if there is none."""
        with self._lock:
            active = None if self._stopping else self._next_job()
            if active is None:
                return None
            self._queue.remove(active)
            self._suspect = active if active.job.crashes >= SUSPECT_CRASHES else None
            active.job.state, active.started_at = "running", time.perf_counter()
            self._running.append(active)
            active.notify()
            return active

    def set_slots(self, active: ActiveJob, slots: list[Slot], notes: tuple[str, ...]) -> None:
        """Set the slots of a started job."""
        with self._lock:
            active.slots, active.pictures_left, active.total_steps = slots, len(slots), 0
            for slot in slots:
                active.total_steps += slot.row.num_steps
            active.job.notes, active.job.steps = notes, slots[0].row.num_steps

    def advance(self, slots: Sequence[Slot], seconds: Sequence[float]) -> list[ActiveJob]:
        """Note the progress of slots, and the seconds that each took. Return the jobs that it finished."""
        now, finished = time.perf_counter(), list[ActiveJob]()
        with self._lock:
            advanced: dict[ActiveJob, None] = {}
            for slot, slot_seconds in zip(slots, seconds, strict=True):
                slot.owner.seconds += slot_seconds
                slot.owner.pictures_left -= slot.row.finished
                advanced[slot.owner] = None
            for active in advanced:
                if active.job.ended:  # cancelled during the call
                    continue
                active.update_progress()
                if active.pictures_left == 0:
                    active.is_saving = True
                    self._running.remove(active)
                    self._saving += 1
                    finished.append(active)
                elif active.followers and now - active.last_notified >= PREVIEW_SECONDS:
                    active.last_notified = now
                    active.notify()
        return finished

    def end(self, active: ActiveJob, state: State, error: str | None = None) -> bool:
        """End a job, unless it has ended. Return whether it did. The engine's loop releases its slots later."""
        with self._lock:
            if active.job.ended:
                return False
            if active.is_saving:
                self._saving -= 1
                if state == "done":
                    self._times.add(active.job.resolved, active.seconds)
            if state != "done":
                active.final_previews = active.predictions() if active.followers else ()
            elif active.job.saved:
                active.final_previews = ()
            active.job.state, active.job.error = state, error
            self._estimates.invalidate()
            self._ended.append(active)
            self._forget_ended()
            active.notify()
            self._work.notify_all()
            return True

    def release_slots(self, active: ActiveJob) -> list[Slot]:
        """Take the slots from a job that has ended."""
        with self._lock:
            slots, active.slots = active.slots, []
            return slots

    def _next_job(self) -> ActiveJob | None:
        """Return the job to start now. A large job is passed over while there is no room for it, a small one never."""
        if not self._queue or (self._suspect is not None and not self._suspect.job.ended):
            return None
        if self._queue[0].job.crashes >= SUSPECT_CRASHES:
            return None if self._running or self._saving else self._queue[0]
        if len(self._running) >= self._max_active or self._saving >= MAX_SAVING:
            return None
        used = 0
        for active in self._jobs.values():
            if active.job.state == "running":
                used += active.job.resolved.pixels
        room = max(MAX_RUNNING_PIXELS - used, SMALL_PIXELS) if used else math.inf
        for active in self._queue:
            if active.job.resolved.pixels <= room and active.job.crashes < SUSPECT_CRASHES:
                return active
        return None

    def _forget_ended(self) -> None:
        """Forget the jobs that ended first, beyond the limits."""
        total = 0
        for active in self._ended:
            total += active.input_bytes
        while len(self._ended) > MAX_ENDED or (len(self._ended) > 1 and total > MAX_ENDED_BYTES):
            forgotten = self._ended.popleft()
            total -= forgotten.input_bytes
            del self._jobs[forgotten.job.id]

    # ---- stopping ----

    def stop(self) -> None:
        """Start no more jobs."""
        with self._lock:
            self._stopping = True
            self._work.notify_all()

    def release_followers(self) -> None:
        """Let all followers go: nothing changes any more."""
        with self._lock:
            self._stopping = self._stopped = True
            for active in self._jobs.values():
                active.notify()

    # ---- for owners ----

    def counts(self) -> tuple[int, int]:
        """Return how many jobs run, unsaved ones included, and how many are queued."""
        with self._lock:
            return len(self._running) + self._saving, len(self._queue)

    def estimate_seconds(self, resolved: ResolvedRequest) -> tuple[float, float]:
        """Return the seconds of a request alone: by similar requests or its model, and by the most similar measured."""
        with self._lock:
            similar = self._times.similar(resolved) or resolved.seconds
            return similar, self._times.expected(resolved) or resolved.seconds

    def find(self, job_id: str, owner: str) -> ActiveJob | None:
        """Return the owner's job with this id."""
        with self._lock:
            active = self._jobs.get(job_id)
            return active if active is not None and active.job.owner == owner and active.is_visible else None

    def view(self, active: ActiveJob) -> JobView:
        """Return the present view of a job, without previews."""
        with self._lock:
            if active.job.ended:
                return JobView.of(active.job)
            ahead = bisect_left(self._queue, _order(active), key=_order) if active.job.state == "queued" else 0
            seconds = self._estimates.seconds_until_done(active, self._running, self._queue)
            return JobView.of(active.job, ahead, seconds)

    def unfinished(self, owner: str) -> list[JobView]:
        """Return the owner's queued and running jobs, in their order."""
        with self._lock:
            own = [active for active in self._jobs.values() if active.job.owner == owner and active.is_visible]
            return [self.view(active) for active in sorted(own, key=_order) if not active.job.ended]

    def follow(self, active: ActiveJob) -> Iterator[JobView]:
        """Yield the newest view whenever it changes, until the job has ended or the engine has stopped."""
        with self._lock:
            active.followers += 1
        try:
            version, shown = -1, None
            while True:
                with self._lock:
                    if active.version == version and not active.job.ended and not self._stopped:
                        active.changed.wait(QUEUE_SECONDS if active.job.state == "queued" else None)
                    version, stopped = active.version, self._stopped
                    view, predictions = self.view(active), active.predictions()
                eta = None if view.eta_seconds is None else round(view.eta_seconds)
                if (version, view.state, view.ahead, eta) != shown:
                    shown = version, view.state, view.ahead, eta
                    yield replace(view, previews=tuple(preview_picture(prediction) for prediction in predictions))
                if view.ended or stopped:
                    return
        finally:
            with self._lock:
                active.followers -= 1
                if active.followers == 0 and active.job.saved:
                    active.final_previews = ()

    def cancel(self, active: ActiveJob) -> bool:
        """Cancel a job. Return False if it has ended or all its steps are taken."""
        with self._lock:
            if active.is_saving:
                return False
            if active.job.state == "queued":
                self._queue.remove(active)
            return self.end(active, "cancelled")

    def move(self, active: ActiveJob, direction: Direction) -> list[Job]:
        """Move a job among its owner's queued jobs, by exchanging their orders. Return the jobs that moved."""
        with self._lock:
            own = [other for other in self._queue if other.job.owner == active.job.owner]
            if active not in own:
                return []
            orders, at = [_order(other) for other in own], own.index(active)
            target = {"up": max(at - 1, 0), "down": at + 1, "first": 0, "last": len(own)}[direction]
            own.insert(target, own.pop(at))
            moved: list[Job] = []
            for other, order in zip(own, orders, strict=True):
                if _order(other) != order:
                    other.job.order = order
                    other.notify()
                    moved.append(other.job)
            self._queue.sort(key=_order)
            self._estimates.invalidate()
            return moved


def _order(active: ActiveJob) -> float:
    return active.job.order
