"""The thread-safe table of jobs: queued, running and lately ended ones, and the followers that watch them.

One lock guards the table and its jobs. It is held for moments only, and never while a caller's code runs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from studio.engine.active_job import ActiveJob
from studio.engine.backend import Models
from studio.engine.following import Look
from studio.engine.job import Job, JobRejected, JobView, State
from studio.engine.resolved import ResolvedRequest
from studio.engine.scheduling.batcher import Slot
from studio.engine.scheduling.estimates import QueueEstimates, RequestTimes
from studio.engine.scheduling.job_queue import Direction, JobQueue
from studio.engine.scheduling.limits import LineLimits, check_line
from studio.engine.scheduling.model_loader import ModelLoader

PREVIEW_SECONDS = 0.08  # between two previews of a running job, at least
MAX_ENDED = 256  # ended jobs that stay in the table
MAX_ENDED_BYTES = 64_000_000  # of pictures in their requests


class JobTable:
    """All jobs of the engine.

    queue: the queued jobs, empty at first.
    limits: jobs beyond them are rejected.
    """

    def __init__(self, models: Models, loader: ModelLoader, queue: JobQueue, limits: LineLimits) -> None:
        self._models, self._loader, self._queue, self._limits = models, loader, queue, limits
        # Reentrant: the garbage collector may close a forgotten follower wherever this thread is.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # the engine's loop waits for it
        self._jobs: dict[str, ActiveJob] = {}
        self._running: list[ActiveJob] = []
        self._saving: list[ActiveJob] = []
        self._ended: deque[ActiveJob] = deque()
        self._last_order = 0.0
        self._stopping = self._stopped = False
        self._times = RequestTimes()
        self._estimates = QueueEstimates(self._times, loader.seconds)

    # ---- submitting ----

    def reserve(self, resolved: ResolvedRequest, owner: str, address: str, saved: bool = True) -> ActiveJob:
        """Return a new job, which nobody sees before it is enqueued. Raises JobRejected."""
        with self._lock:
            if self._stopping:
                raise JobRejected("The studio is being shut down: please try again in a moment.")
            check_line(self._jobs.values(), resolved, owner, address, self._limits)
            self._last_order = max(time.time(), self._last_order + 1e-5)
            return self._add(Job(resolved, owner, address, order=self._last_order, saved=saved))

    def discard(self, active: ActiveJob) -> None:
        """Remove a reserved job that could not be stored."""
        with self._lock:
            del self._jobs[active.job.id]

    def enqueue(self, active: ActiveJob) -> None:
        """Queue a job that is stored, and show it to its owner."""
        with self._lock:
            active.is_visible = True
            self._queue.add(active)
            self._estimates.invalidate()
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

    def _add(self, job: Job) -> ActiveJob:
        active = self._jobs[job.id] = ActiveJob(job)
        return active

    # ---- running ----

    def wait_for_work(self) -> bool:
        """Wait until a job runs or can start, or a model can be loaded. Return False if the engine stops."""
        with self._lock:
            while not (self._stopping or self._running or self._queue.next_start(self._busy()) or self.next_load()):
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
        """Start the next queued job, whose models are loaded. Return None if there is none."""
        with self._lock:
            active = None if self._stopping else self._queue.next_start(self._busy())
            if active is None:
                return None
            self._queue.start(active)
            active.job.state, active.started_at = "running", time.perf_counter()
            active.backend = self._models.use(active.job.resolved.model_ids)
            self._running.append(active)
            active.notify()
            return active

    def next_load(self) -> tuple[Sequence[str], set[str]] | None:
        """Return the ids of the models to load now, and of those in use; None if none is to be loaded."""
        with self._lock:
            if self._stopping or self._loader.is_busy:
                return None
            in_use = self._loader.borrowed
            for active in (*self._running, *self._saving):
                in_use.update(active.job.resolved.model_ids)
            waiting = self._queue.next_load(self._busy(), in_use)
            return None if waiting is None else (waiting.job.resolved.model_ids, in_use)

    def models_changed(self) -> None:
        """Look again for a job to start: a model was loaded, or is no longer in use."""
        with self._lock:
            self._estimates.invalidate()
            self._work.notify_all()

    def fail_queued(self, model_id: str, problem: str) -> list[ActiveJob]:
        """Fail the queued jobs that need a model. Return them."""
        with self._lock:
            failed = [active for active in self._queue.jobs if model_id in active.job.resolved.model_ids]
            for active in failed:
                self._queue.remove(active)
                self.end(active, "failed", problem)
            return failed

    def _busy(self) -> list[ActiveJob]:
        """Return the jobs that run or are being saved."""
        return [active for active in (*self._running, *self._saving) if not active.job.ended]

    def set_slots(self, active: ActiveJob, slots: list[Slot]) -> None:
        """Set the slots of a started job."""
        with self._lock:
            active.slots, active.pictures_left = slots, len(slots)
            active.job.steps = slots[0].row.num_steps

    def add_notes(self, active: ActiveJob, notes: Sequence[str]) -> None:
        """Add sentences for the job's owner, each once."""
        with self._lock:
            active.job.notes = tuple(dict.fromkeys((*active.job.notes, *notes)))

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
                    self._saving.append(active)
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
            if active.is_saving and state == "done":
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
        """Take the slots from a job that has ended. Its models are no longer in use."""
        with self._lock:
            slots, active.slots, active.backend = active.slots, [], None
            if active.is_saving:
                self._saving.remove(active)
            self._work.notify_all()
            return slots

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
            return len(self._running) + len(self._saving), len(self._queue.jobs)

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
            queued = self._queue.in_order(self._busy())
            ahead = queued.get(active, 0)
            seconds = self._estimates.seconds_until_done(active, self._running, queued)
            return JobView.of(active.job, ahead, seconds)

    def unfinished(self, owner: str) -> list[JobView]:
        """Return the owner's queued and running jobs, in their order."""
        with self._lock:
            own = [active for active in self._jobs.values() if active.job.owner == owner and active.is_visible]
            return [
                self.view(active) for active in sorted(own, key=lambda active: active.job.order) if not active.job.ended
            ]

    @contextmanager
    def following(self, active: ActiveJob, wake: Callable[[], None]) -> Generator[None]:
        """Call `wake`, from any thread, whenever a job may have a new view."""
        with self._lock:
            active.followers.append(wake)
        try:
            yield
        finally:
            with self._lock:
                active.followers.remove(wake)
                if not active.followers and active.job.saved:
                    active.final_previews = ()

    def look(self, active: ActiveJob) -> Look:
        """Return what a follower sees of a job now."""
        with self._lock:
            view = self.view(active)
            return Look(view, active.version, active.predictions(), is_last=view.ended or self._stopped)

    def cancel(self, active: ActiveJob) -> bool:
        """Cancel a job. Return False if it has ended or all its steps are taken."""
        with self._lock:
            if active.is_saving:
                return False
            if active.job.state == "queued":
                self._queue.remove(active)
            return self.end(active, "cancelled")

    def move(self, active: ActiveJob, direction: Direction) -> list[Job]:
        """Move a job among its owner's queued jobs. Return the jobs that moved."""
        with self._lock:
            moved = self._queue.move(active, direction)
            for other in moved:
                other.notify()
            self._estimates.invalidate()
            return [other.job for other in moved]
