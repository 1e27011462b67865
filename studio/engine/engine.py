"""Who runs when: one loop over the rows of many jobs, a network call at a time; jobs join and leave at every step.

Knows requests, jobs, the sampler protocol and a journal; knows nothing of Gradio, of files, or of a particular network.

Two threads. The loop loads the sampler, takes jobs in and makes the calls; the keeper (keeper.py) decodes and writes
down. Pages call from threads of their own and meet both in the register (register.py), whose lock nobody holds over a
call, a decode or a write.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from studio.engine.active_job import ActiveJob
from studio.engine.backend import Backend, Row, is_out_of_memory
from studio.engine.batcher import Batcher, Slot
from studio.engine.checks import InvalidRequest
from studio.engine.job import JobRejected, JobView, Journal
from studio.engine.job_table import Direction, JobTable
from studio.engine.requests import Request, TextToImage
from studio.engine.resolved import Resolve, ResolvedRequest
from studio.engine.result_writer import ResultWriter, describe_exception
from studio.engine.trace import ByteBudget, TraceRecorder

log = logging.getLogger(__name__)

PREPARE_SECONDS = 0.02  # jobs are prepared for about this long between two calls, one at least
MAX_JOB_SECONDS = 3600.0  # of a job by itself
TOO_LARGE = "A picture of this job does not fit into the memory, not even alone: ask for a smaller one."


@dataclass(frozen=True)
class Status:
    phase: Literal["loading", "idle", "running", "failed"]
    problem: str = ""  # why loading failed
    running: int = 0  # jobs under way
    waiting: int = 0  # jobs in line behind them


class Engine:
    """Runs jobs on the sampler that `load` returns.

    load: called once, in the engine's own thread, after `start()`: it may take its time and import what it likes. If
        it raises, the text of its exception is what every job is answered with.
    journal: outlives the process; the jobs that it knows as unfinished are taken up again.
    active: jobs that share the network calls.  waiting, waiting_per_owner: jobs in line; more are refused.
    traces: whether runs are recorded.
    """

    def __init__(
        self,
        load: Callable[[], Backend],
        journal: Journal,
        *,
        resolve: Resolve,
        active: int = 24,
        waiting: int = 256,
        waiting_per_owner: int = 64,
        traces: bool = True,
    ) -> None:
        self.backend: Backend | None = None  # until it is loaded
        self._load, self._journal, self._resolve, self._traces = load, journal, resolve, traces
        self._loaded = threading.Event()  # or failed to
        self._problem = ""
        self._register = JobTable(active, waiting, waiting_per_owner)
        self._keeper = ResultWriter(journal, self._register)
        self._schedule = Batcher()  # the loop's own
        self._budget = ByteBudget()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    # ---- for pages ----

    def start(self) -> Engine:
        self._thread.start()
        self._keeper.thread.start()
        return self

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Waits until the sampler is loaded, or could not be, for at most `timeout` seconds; whether it is."""
        self._loaded.wait(timeout)
        return self.backend is not None

    @property
    def status(self) -> Status:
        running, waiting = self._register.counts()
        if self._problem:
            return Status("failed", self._problem)
        phase = "loading" if self.backend is None else "running" if running or waiting else "idle"
        return Status(phase, running=running, waiting=waiting)

    def resolve(self, request: Request) -> ResolvedRequest:
        """Check a request against its model and the limits, and derive all its values; `seconds` as measured if known.

        Raises InvalidRequest.
        """
        resolved = self._resolve(request)
        like_it = self._register.measured_seconds(resolved) or resolved.seconds
        if like_it > MAX_JOB_SECONDS:
            raise InvalidRequest(
                f"This would take about {_duration(like_it)}, and a job may take {_duration(MAX_JOB_SECONDS)}: choose "
                "fewer steps, guidance 1, another sampler than Heun, or a smaller picture."
            )
        return replace(resolved, seconds=self._register.expected_seconds(resolved) or resolved.seconds)

    def submit(self, request: Request, owner: str, *, save: bool = True) -> str:
        """Queue a job and return its id; by then it is in the journal. Raises InvalidRequest, JobRejected.

        save: False for a sketch: nothing is written down, and its pictures are only in the views of those who follow.
        """
        run = self._register.reserve(self.resolve(request), owner, save)
        try:
            if save:
                self._journal.add_job(run.job)
        except BaseException as problem:
            self._register.forget(run)
            if isinstance(problem, JobRejected) or not isinstance(problem, Exception):
                raise
            log.exception("a job was not written down")
            raise JobRejected(f"The job could not be written down ({describe_exception(problem)}).") from problem
        self._register.enqueue(run)
        return run.job.id

    def view(self, job_id: str, owner: str) -> JobView | None:
        """The owner's job as it is now; None if there is none, or it ended a while ago."""
        run = self._register.find(job_id, owner)
        return run and self._register.view(run)

    def jobs(self, owner: str) -> list[JobView]:
        """The owner's jobs that are queued or running, by place."""
        return self._register.unfinished(owner)

    def follow(self, job_id: str, owner: str) -> Iterator[JobView]:
        """The owner's job as it goes: always the newest view, the last one in an end state.

        Any number may follow; who is slow misses steps, never the end. Leaving does not stop the job. It ends without
        an end state only where the engine is shut down. Raises KeyError for an unknown id or another's.
        """
        run = self._register.find(job_id, owner)
        if run is None:
            raise KeyError(job_id)
        return self._register.follow(run)

    def cancel(self, job_id: str, owner: str) -> bool:
        """Ends the owner's job within one step. False if it has ended, or all its steps are taken."""
        run = self._register.find(job_id, owner)
        if run is None or not self._register.cancel(run):
            return False
        self._keeper.write_end(run)
        return True

    def move(self, job_id: str, owner: str, to: Direction) -> bool:
        """Moves a waiting job among the owner's others, nobody else's wait changes; whether it moved."""
        run = self._register.find(job_id, owner)
        moved = self._register.move(run, to) if run else []
        for job in moved:
            self._keeper.write_move(job)
        return bool(moved)

    def shutdown(self, timeout: float | None = 10.0) -> bool:
        """Stops after the call under way and keeps what is finished; other jobs stay unfinished in the journal.

        Whether that took no more than `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._register.stop()
        for thread in (self._thread, self._keeper.thread):
            if thread is self._keeper.thread:
                self._keeper.stop()
            if thread.ident is not None:
                thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        self._register.stopped()
        return not self._thread.is_alive() and not self._keeper.thread.is_alive()

    # ---- the loop ----

    def _work(self) -> None:
        self._take_up()
        working = self._open()
        while working:
            try:
                working = self._turn()
            except Exception as problem:  # a fault of ours, or of a row's; those who come later shall not wait for ever
                for run in self._register.running():
                    self._fail(run, problem)

    def _take_up(self) -> None:
        try:
            stored_jobs = self._journal.load_unfinished()
        except Exception:  # the studio works without them
            log.exception("the unfinished jobs could not be read")
            return
        jobs = []
        for stored in stored_jobs:
            try:
                resolved = self._resolve(stored.request)
            except InvalidRequest as problem:
                self._journal.mark_refused(stored, f"The job could not be taken up again. {problem}")
                continue
            jobs.append(stored.resume(resolved))
        self._register.bring_back(jobs)

    def _open(self) -> bool:
        """Loads the sampler; whether that went well."""
        try:
            self.backend = self._load()
        except Exception as problem:  # whatever is wrong with a model folder must not end the page
            log.warning("the model was not loaded", exc_info=problem)
            self._problem = str(problem) or f"The model was not loaded: {describe_exception(problem)}."
            self._register.refuse(self._problem)
        self._loaded.set()
        return self.backend is not None

    def _turn(self) -> bool:
        """Lets jobs leave and join, and makes one network call; waits if there is nothing to do. False: no more."""
        if not self._register.wait_for_work():
            return False
        for run in self._register.gone():
            self._vacate(run)
        deadline = time.perf_counter() + PREPARE_SECONDS
        while (run := self._register.start_next()) is not None:
            self._keeper.started(run)
            self._prepare(run)
            if time.perf_counter() > deadline:
                break
        if self._schedule.seats:
            self._call(self._schedule.pick())
        return True

    def _prepare(self, run: ActiveJob) -> None:
        try:
            rows = self.backend.prepare(run.job.resolved)
            notes = tuple(self._notes(run.job.resolved))
            traced = self._traces and run.job.saved
            recorders = [TraceRecorder(row, self._budget) if traced else None for row in rows]
            seats = [self._schedule.take_in(row, run, recorder) for row, recorder in zip(rows, recorders, strict=True)]
            self._register.prepared(run, seats, notes)
        except Exception as problem:  # one bad job must not end the engine
            self._fail(run, problem)
        if run.job.ended:  # cancelled meanwhile
            self._vacate(run)

    def _call(self, seats: list[Slot]) -> None:
        """One network call. What goes wrong in company is tried again alone, so that only the job at fault fails."""
        key, rows = seats[0].key, sum(seat.need for seat in seats)
        start = time.perf_counter()
        problem = self._denoise([seat.row for seat in seats])
        seconds = time.perf_counter() - start
        stuck = {seat: seat.progress for seat in seats if seat.row.progress <= seat.progress}
        self._step([seat for seat in seats if seat not in stuck], seconds / rows)
        for seat in stuck:
            seat.look()  # a fault may have taken from it what it had of its step
        if problem is None:
            self._schedule.measured(key, rows, seconds)
        elif len(seats) == 1:
            self._fail(seats[0].run, problem)
        elif is_out_of_memory(problem):
            log.info("%d network rows of %s do not fit into the memory", rows, key)
            self._schedule.out_of_memory(key, rows)
        else:
            for seat, progress in stuck.items():
                while seat.row.progress <= progress and not seat.run.job.ended:
                    self._call([seat])

    def _denoise(self, rows: list[Row]) -> Exception | None:
        try:
            self.backend.denoise_step(rows)
        except Exception as problem:
            if not is_out_of_memory(problem):
                log.warning("a call for %d rows failed", len(rows), exc_info=True)
            return problem.with_traceback(None)  # its frames hold on to memory that the next call may need
        return None

    def _step(self, seats: list[Slot], seconds: float) -> None:
        """Takes note that these rows came on in a call that took so many seconds for each network row in it."""
        costs = [seconds * seat.need for seat in seats]
        for seat in seats:
            before = seat.step
            self._schedule.served(seat)
            if seat.recorder and seat.step != before:
                self._record(seat.recorder)
        for run in self._register.stepped(seats, costs):
            self._keeper.finished(run, self.backend)

    def _record(self, recorder: TraceRecorder) -> None:
        try:
            recorder.record()
        except Exception:  # the memory may be full: the picture matters more
            log.warning("a run is no longer recorded", exc_info=True)
            recorder.close()

    def _fail(self, run: ActiveJob, problem: Exception) -> None:
        log.error("a job failed", exc_info=problem)
        error = TOO_LARGE if is_out_of_memory(problem) else f"The job failed: {describe_exception(problem)}."
        if self._register.end(run, "failed", error):
            self._keeper.failed(run)
        self._vacate(run)

    def _vacate(self, run: ActiveJob) -> None:
        """Lets go of a job that has ended."""
        self._schedule.leave(run)
        for seat in self._register.vacate(run):
            if seat.recorder:
                seat.recorder.close()

    def _notes(self, resolved: ResolvedRequest) -> Iterator[str]:
        request = resolved.request
        if not resolved.caption and isinstance(request, TextToImage):
            yield "The prompt was empty, so the model painted whatever it liked."
        for name, text in (("prompt", resolved.captions[0]), ("negative prompt", request.negative_prompt)):
            if cut := self.backend.truncated(text).strip():
                yield f"The {name} is longer than the model reads. It did not read: “{_shortened(cut)}”."


def _duration(seconds: float) -> str:
    """Write a duration for people: "3 hours"."""
    minutes = max(round(seconds / 60), 1)
    number, unit = (minutes, "minute") if minutes < 60 else (round(minutes / 60), "hour")
    return f"{number:,} {unit}{'s' if number > 1 else ''}"


def _shortened(text: str, most: int = 120) -> str:
    """Both ends of a long text, with how many characters lie between."""
    if len(text) <= most:
        return text
    start, end = text[: most // 2].rstrip(), text[-most // 2 :].lstrip()
    return f"{start} … ({len(text) - len(start) - len(end):,} characters more) … {end}"
