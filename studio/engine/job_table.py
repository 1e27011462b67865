"""Who is there: the jobs in line, under way and lately ended; what their owners see of them, and when they are woken.

Knows jobs, places and owners; makes no network call and writes nothing down. One lock guards all of it. It is held for
moments only, and by no method that hands out control.
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

from studio.engine.active_job import ActiveJob
from studio.engine.batcher import RequestCosts, Slot
from studio.engine.job import Job, JobRejected, JobView, State
from studio.engine.previews import preview_pictures
from studio.engine.resolved import ResolvedRequest

PREVIEW_SECONDS = 0.08  # those who follow a job are woken at most this often
LINE_SECONDS = 0.5  # how old an estimate may be, and how often those who wait in line are told
KEEPING = 16  # jobs that wait to be kept; more, and none are started
WAITING_BYTES = 512_000_000  # of pictures in the requests that wait
RUNNING_PIXELS = 32_000_000  # of the results of jobs that run, or wait to be kept: some 80 bytes of memory each,
SMALL_PIXELS = 1_000_000  # but for jobs of no more than these
SUSPECT = 2  # crashes after which a job runs alone, so that the next one tells whether it was at fault
ENDED = 256  # ended jobs that are still known, with at most ENDED_BYTES of pictures in their requests
ENDED_BYTES = 64_000_000

Direction = Literal["up", "down", "first", "last"]


class JobTable:
    """All jobs that the engine knows.

    active: jobs that run at once.  waiting, waiting_per_owner: jobs in line; more are refused.
    """

    def __init__(self, active: int, waiting: int, waiting_per_owner: int) -> None:
        self._most_active, self._most_waiting, self._most_per_owner = active, waiting, waiting_per_owner
        # An RLock: a follower that is forgotten may be collected, and leave, wherever its thread stands.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # the loop waits for this
        self._runs: dict[str, ActiveJob] = {}  # by job id
        self._waiting: list[ActiveJob] = []  # by place
        self._running: list[ActiveJob] = []
        self._keeping = 0
        self._suspect: ActiveJob | None = None  # runs alone
        self._ended: deque[ActiveJob] = deque()
        self._last_place = 0.0
        self._problem = ""  # why nothing is taken in any more
        self._stopping = self._stopped = False
        self._costs = RequestCosts()
        self._line: dict[str, float] = {}  # job id -> seconds until it is done, as of `_line_time`
        self._line_time = -LINE_SECONDS

    # ---- coming ----

    def reserve(self, resolved: ResolvedRequest, owner: str, saved: bool = True) -> ActiveJob:
        """A new job, not seen by anyone before it is enqueued. Raises Refusal."""
        with self._lock:
            if self._problem:
                raise JobRejected(self._problem)
            if self._stopping:
                raise JobRejected("The studio is being shut down: please try again in a moment.")
            queued = [run for run in self._runs.values() if run.job.state == "queued"]
            if len(queued) >= self._most_waiting:
                raise JobRejected(f"{len(queued)} jobs wait in line already: please try again in a moment.")
            own = sum(run.job.owner == owner for run in queued)
            if own >= self._most_per_owner:
                raise JobRejected(f"{own} of your jobs wait in line already: please wait until some of them are done.")
            if resolved.request.pictures() and sum(run.bytes for run in queued) > WAITING_BYTES:
                raise JobRejected(
                    "The jobs in line hold too many large pictures already: please try again in a moment."
                )
            self._last_place = max(time.time(), self._last_place + 1e-5)
            return self._know(Job(resolved, owner, order=self._last_place, saved=saved))

    def forget(self, run: ActiveJob) -> None:
        """A job that could not be written down never was."""
        with self._lock:
            del self._runs[run.job.id]

    def enqueue(self, run: ActiveJob) -> None:
        """The job is written down: it stands in line."""
        with self._lock:
            run.arrived = True
            insort(self._waiting, run, key=_place)
            self._line_time = -LINE_SECONDS
            if self._problem:
                self.refuse(self._problem)
            self._work.notify_all()

    def bring_back(self, jobs: Sequence[Job]) -> None:
        """Put jobs that another process left unfinished back into the queue, where they were."""
        with self._lock:
            for job in jobs:
                self._last_place = max(self._last_place, job.order)
                if job.id not in self._runs:  # else it came just now
                    run = self._know(job)
                    run.again = True
                    self.enqueue(run)

    def refuse(self, problem: str) -> None:
        """Nothing can be done with what is in line, now or later; the journal keeps it for another process."""
        with self._lock:
            self._problem = problem
            waiting, self._waiting = self._waiting, []
            for run in waiting:
                self.end(run, "failed", problem)

    def _know(self, job: Job) -> ActiveJob:
        run = self._runs[job.id] = ActiveJob(job, threading.Condition(self._lock))
        return run

    # ---- going through ----

    def wait_for_work(self) -> bool:
        """Returns when there is something to do; False if that is to stop."""
        with self._lock:
            self._work.wait_for(lambda: self._stopping or self._running or self._next() is not None)
            return not self._stopping

    def running(self) -> list[ActiveJob]:
        """The jobs whose pictures are not finished."""
        with self._lock:
            return list(self._running)

    def gone(self) -> list[ActiveJob]:
        """The jobs that have ended while they ran, once each."""
        with self._lock:
            gone = [run for run in self._running if run.job.ended]
            if gone:
                self._running = [run for run in self._running if not run.job.ended]
            return gone

    def start_next(self) -> ActiveJob | None:
        """The first job in line that there is room for, now running; None if there is none."""
        with self._lock:
            run = None if self._stopping else self._next()
            if run is None:
                return None
            self._waiting.remove(run)
            self._suspect = run if run.job.crashes >= SUSPECT else None
            run.job.state, run.began = "running", time.perf_counter()
            self._running.append(run)
            run.tell()
            return run

    def prepared(self, run: ActiveJob, seats: list[Slot], notes: tuple[str, ...]) -> None:
        with self._lock:
            run.seats, run.left = seats, len(seats)
            run.in_all = sum(seat.row.num_steps for seat in seats)
            run.job.notes, run.job.steps = notes, seats[0].row.num_steps

    def stepped(self, seats: Sequence[Slot], costs: Sequence[float]) -> list[ActiveJob]:
        """These rows came on, at so many seconds each. Returns the jobs that are finished by it."""
        now, finished = time.perf_counter(), []
        with self._lock:
            for seat, seconds in zip(seats, costs, strict=True):
                seat.run.spent += seconds
                seat.run.left -= seat.row.finished
            for run in dict.fromkeys(seat.run for seat in seats):
                if run.job.ended:  # cancelled during the call
                    continue
                run.job.step = min(seat.step for seat in run.seats)
                run.job.share = run.taken / run.in_all
                if run.left == 0:
                    run.keeping = True
                    self._running.remove(run)
                    self._keeping += 1
                    finished.append(run)
                elif run.followers and now - run.told >= PREVIEW_SECONDS:
                    run.told = now
                    run.tell()
        return finished

    def end(self, run: ActiveJob, state: State, error: str | None = None) -> bool:
        """Brings a job to its end, unless it has come to one before. The loop lets go of its seats in its next turn."""
        with self._lock:
            if run.job.ended:
                return False
            if run.keeping:
                self._keeping -= 1
                if state == "done":
                    self._costs.learn(run.job.resolved, run.spent)
            if state == "done":
                run.last_seen = () if run.job.saved else run.last_seen
            else:
                run.last_seen = run.predictions() if run.followers else ()
            run.job.state, run.job.error = state, error
            self._line_time = -LINE_SECONDS
            self._ended.append(run)
            while len(self._ended) > ENDED or (
                len(self._ended) > 1 and sum(ended.bytes for ended in self._ended) > ENDED_BYTES
            ):
                del self._runs[self._ended.popleft().job.id]
            run.tell()
            self._work.notify_all()
            return True

    def vacate(self, run: ActiveJob) -> list[Slot]:
        """Takes its seats from a job that has ended."""
        with self._lock:
            seats, run.seats = run.seats, []
            return seats

    def _next(self) -> ActiveJob | None:
        """The job to start now. Only large ones are passed over where there is no room: a small one fits always."""
        if not self._waiting or (self._suspect is not None and not self._suspect.job.ended):
            return None
        if self._waiting[0].job.crashes >= SUSPECT:
            return None if self._running or self._keeping else self._waiting[0]
        if len(self._running) >= self._most_active or self._keeping >= KEEPING:
            return None
        taken = sum(run.job.resolved.pixels for run in self._runs.values() if run.job.state == "running")
        room = RUNNING_PIXELS - taken if taken else math.inf
        fit = (run for run in self._waiting if run.job.resolved.pixels <= max(room, SMALL_PIXELS))
        return next((run for run in fit if run.job.crashes < SUSPECT), None)

    # ---- stopping ----

    def stop(self) -> None:
        """No more work is given out."""
        with self._lock:
            self._stopping = True
            self._work.notify_all()

    def stopped(self) -> None:
        """Nothing will change any more: those who follow are let go."""
        with self._lock:
            self._stopping = self._stopped = True
            for run in self._runs.values():
                run.tell()

    # ---- what owners see and do ----

    def counts(self) -> tuple[int, int]:
        """Jobs under way, and in line."""
        with self._lock:
            return len(self._running) + self._keeping, len(self._waiting)

    def expected_seconds(self, resolved: ResolvedRequest) -> float | None:
        """Return how long a request takes by itself, from the jobs that are done; None while none was measured."""
        with self._lock:
            return self._costs.expected(resolved)

    def measured_seconds(self, resolved: ResolvedRequest) -> float | None:
        """Return how long requests of this task and size took; None while none was measured."""
        with self._lock:
            return self._costs.measured(resolved)

    def find(self, job_id: str, owner: str) -> ActiveJob | None:
        """The owner's job of that id."""
        with self._lock:
            run = self._runs.get(job_id)
            return run if run is not None and run.job.owner == owner and run.arrived else None

    def view(self, run: ActiveJob) -> JobView:
        with self._lock:
            if run.job.ended:
                return JobView.of(run.job)
            now = time.monotonic()
            if not self._line or now - self._line_time >= LINE_SECONDS:
                self._line, self._line_time = self._estimates(), now
            seconds = self._line.get(run.job.id)
            ahead = bisect_left(self._waiting, _place(run), key=_place) if run.job.state == "queued" else 0
            return JobView.of(run.job, ahead, seconds and max(seconds - (now - self._line_time), 0.0))

    def unfinished(self, owner: str) -> list[JobView]:
        """The owner's jobs that are queued or running, by place."""
        with self._lock:
            runs = [r for r in self._runs.values() if r.job.owner == owner and r.arrived and not r.job.ended]
            return [self.view(run) for run in sorted(runs, key=_place)]

    def follow(self, run: ActiveJob) -> Iterator[JobView]:
        """The newest view whenever something changed; the last one has ended, or everything has stopped."""
        with self._lock:
            run.followers += 1
        try:
            version, shown = -1, None
            while True:
                with self._lock:
                    run.changed.wait_for(
                        lambda: run.version != version or run.job.ended or self._stopped,  # noqa: B023
                        timeout=LINE_SECONDS if run.job.state == "queued" else None,
                    )
                    version, stopped = run.version, self._stopped
                    view, predictions = self.view(run), run.predictions()
                seconds = view.eta_seconds and round(view.eta_seconds)
                if (version, view.state, view.ahead, seconds) != shown:
                    shown = version, view.state, view.ahead, seconds
                    yield replace(view, previews=preview_pictures(predictions))
                if view.ended or stopped:
                    return
        finally:
            with self._lock:
                run.followers -= 1
                if run.followers == 0 and run.job.saved:
                    run.last_seen = ()

    def cancel(self, run: ActiveJob) -> bool:
        """Whether there was something to cancel."""
        with self._lock:
            if run.keeping:
                return False
            if run.job.state == "queued":
                self._waiting.remove(run)
            return self.end(run, "cancelled")

    def move(self, run: ActiveJob, way: Direction) -> list[Job]:
        """The owner's waiting jobs exchange their places, so nobody else's wait changes. Returns those that moved."""
        with self._lock:
            own = [other for other in self._waiting if other.job.owner == run.job.owner]
            if run not in own:
                return []
            places, at = [_place(other) for other in own], own.index(run)
            target = {"up": max(at - 1, 0), "down": at + 1, "first": 0, "last": len(own)}[way]
            own.insert(target, own.pop(at))
            moved = [(other, place) for other, place in zip(own, places, strict=True) if _place(other) != place]
            for other, place in moved:
                other.job.order = place
                other.tell()
            self._waiting.sort(key=_place)
            self._line_time = -LINE_SECONDS
            return [other.job for other, _ in moved]

    def _estimates(self) -> dict[str, float]:
        """Seconds until each job is done, by id.

        Jobs that run share the calls evenly, so that one which needs less does not wait for all that another needs;
        one in line is taken to wait for all before it.
        """
        needs = {run: self._seconds_left(run) for run in (*self._running, *self._waiting)}
        known = [seconds for seconds in needs.values() if seconds is not None]
        if not known:
            return {}
        usual = sum(known) / len(known)
        needs = {run: usual if seconds is None else seconds for run, seconds in needs.items()}
        running = [needs[run] for run in self._running]
        line = {run.job.id: sum(min(other, needs[run]) for other in running) for run in self._running}
        total = sum(running)
        for run in self._waiting:
            total += needs[run]
            line[run.job.id] = total
        return line

    def _seconds_left(self, run: ActiveJob) -> float | None:
        if taken := run.taken:
            return run.spent / taken * (run.in_all - taken)
        return self._costs.expected(run.job.resolved)


def _place(run: ActiveJob) -> float:
    return run.job.order
