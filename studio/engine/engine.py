"""The engine: one loop over the pictures of many jobs, one network call at a time. Jobs join and leave at every step.

Two threads. The loop loads the backend, starts jobs and makes the calls. The result writer decodes and saves. Pages
call from threads of their own, and meet both in the job table.
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
from studio.engine.job import Job, JobRejected, JobView, Journal
from studio.engine.job_table import Direction, JobTable
from studio.engine.recorder import ByteBudget, TraceRecorder
from studio.engine.requests import Request, TextToImage
from studio.engine.resolved import Resolve, ResolvedRequest
from studio.engine.result_writer import ResultWriter, describe_exception

log = logging.getLogger(__name__)

PREPARE_SECONDS = 0.02  # between two calls, jobs are prepared for about this long, at least one
MAX_JOB_SECONDS = 3600.0  # of a job alone
MAX_QUOTE = 120  # characters of a prompt's end in a note
TOO_LARGE = "There is not enough memory for a picture of this job. Choose a smaller size."


@dataclass(frozen=True)
class Status:
    """What the engine does now."""

    phase: Literal["loading", "idle", "running", "failed"]
    problem: str = ""  # why loading failed
    running: int = 0
    queued: int = 0


class Engine:
    """Runs jobs on the backend that `load` returns.

    load: called once, in the engine's thread, after `start()`: it may take its time. If it raises, the text of its
        exception becomes the error of every job.
    journal: outlives the process; its unfinished jobs run again.
    resolve: checks a request against its model and derives its values; called once per job.
    max_active: jobs that share the network calls.
    max_queued, max_queued_per_owner: queued jobs; more are rejected.
    traces: whether runs are recorded.
    """

    def __init__(
        self,
        load: Callable[[], Backend],
        journal: Journal,
        *,
        resolve: Resolve,
        max_active: int = 24,
        max_queued: int = 256,
        max_queued_per_owner: int = 64,
        traces: bool = True,
    ) -> None:
        self.backend: Backend | None = None  # until it is loaded
        self._load, self._journal, self._resolve, self._traces = load, journal, resolve, traces
        self._loading_ended = threading.Event()  # loaded, or failed
        self._problem = ""
        self._table = JobTable(max_active, max_queued, max_queued_per_owner)
        self._writer = ResultWriter(journal, self._table)
        self._batcher = Batcher()  # used by the loop alone
        self._budget = ByteBudget()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    # ---- for pages and programs ----

    def start(self) -> Engine:
        """Start both threads."""
        self._thread.start()
        self._writer.thread.start()
        return self

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Wait until the backend is loaded or failed to load, for at most `timeout` seconds. Return if it is loaded."""
        self._loading_ended.wait(timeout)
        return self.backend is not None

    @property
    def status(self) -> Status:
        if self._problem:
            return Status("failed", self._problem)
        running, queued = self._table.counts()
        phase = "loading" if self.backend is None else "running" if running or queued else "idle"
        return Status(phase, running=running, queued=queued)

    def resolve(self, request: Request) -> ResolvedRequest:
        """Check a request against its model and the time limit, and derive its values.

        Its `seconds` are estimated from measured times where there are any. Raises InvalidRequest.
        """
        resolved = self._resolve(request)
        similar, expected = self._table.estimate_seconds(resolved)
        if similar > MAX_JOB_SECONDS:
            raise InvalidRequest(
                f"This would take about {_format_hours(similar)}, and a job may take {_format_hours(MAX_JOB_SECONDS)}: "
                "choose fewer steps, guidance 1, another sampler than Heun, or a smaller picture."
            )
        return replace(resolved, seconds=expected)

    def submit(self, request: Request, owner: str, *, save: bool = True) -> str:
        """Queue a job and return its id. By then the job is in the journal.

        save: False writes nothing to the journal; only the views of those who follow the job hold its pictures.
        Raises InvalidRequest, JobRejected.
        """
        active = self._table.reserve(self.resolve(request), owner, save)
        try:
            if save:
                self._journal.add_job(active.job)
        except BaseException as problem:
            self._table.discard(active)
            if isinstance(problem, JobRejected) or not isinstance(problem, Exception):
                raise
            log.exception("a job was not stored")
            raise JobRejected(f"The job could not be stored ({describe_exception(problem)}).") from problem
        self._table.enqueue(active)
        return active.job.id

    def view(self, job_id: str, owner: str) -> JobView | None:
        """Return the owner's job as it is now; None if there is none, or it ended a while ago."""
        active = self._table.find(job_id, owner)
        return None if active is None else self._table.view(active)

    def jobs(self, owner: str) -> list[JobView]:
        """Return the owner's queued and running jobs, in their order."""
        return self._table.unfinished(owner)

    def follow(self, job_id: str, owner: str) -> Iterator[JobView]:
        """Yield the newest view of the owner's job whenever it changes; the last one has ended.

        Any number may follow. A slow follower misses steps, never the end. To stop following does not stop the job.
        Without an ended view the iterator stops only when the engine shuts down. Raises KeyError if there is no such
        job of the owner.
        """
        active = self._table.find(job_id, owner)
        if active is None:
            raise KeyError(job_id)
        return self._table.follow(active)

    def cancel(self, job_id: str, owner: str) -> bool:
        """Cancel the owner's job within one step. Return False if it has ended, or all its steps are taken."""
        active = self._table.find(job_id, owner)
        if active is None or not self._table.cancel(active):
            return False
        self._writer.write_end(active)
        return True

    def move(self, job_id: str, owner: str, direction: Direction) -> bool:
        """Move a queued job among the owner's others, so that no other owner waits longer. Return whether it moved."""
        active = self._table.find(job_id, owner)
        moved = self._table.move(active, direction) if active else []
        for job in moved:
            self._writer.write_order(job)
        return bool(moved)

    def shutdown(self, timeout: float | None = 10.0) -> bool:
        """Stop after the present call and save what is finished. Other jobs stay unfinished in the journal.

        Return whether that took at most `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._table.stop()
        for thread in (self._thread, self._writer.thread):
            if thread is self._writer.thread:
                self._writer.stop()
            if thread.ident is not None:
                thread.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        self._table.release_followers()
        return not self._thread.is_alive() and not self._writer.thread.is_alive()

    # ---- the loop ----

    def _work(self) -> None:
        self._restore_jobs()
        backend = self._load_backend()
        is_working = backend is not None
        while backend is not None and is_working:
            try:
                is_working = self._turn(backend)
            except Exception as problem:  # a fault of the engine or of a row: later jobs must not wait forever
                for active in self._table.running():
                    self._fail(active, problem)

    def _restore_jobs(self) -> None:
        """Queue the unfinished jobs of the journal again."""
        jobs: list[Job] = []
        try:
            for stored in self._journal.load_unfinished():
                try:
                    jobs.append(stored.resume(self._resolve(stored.request)))
                except InvalidRequest as problem:
                    self._journal.mark_refused(stored, f"The job could not be restarted. {problem}")
        except Exception:  # the studio works without them
            log.exception("the unfinished jobs could not be read")
        self._table.restore(jobs)

    def _load_backend(self) -> Backend | None:
        """Load the backend. Return None if that fails."""
        try:
            self.backend = self._writer.backend = self._load()
        except Exception as problem:  # whatever is wrong with a model must not end the page
            log.warning("the model was not loaded", exc_info=problem)
            self._problem = str(problem) or f"The model was not loaded: {describe_exception(problem)}."
            self._table.close(self._problem)
        self._loading_ended.set()
        return self.backend

    def _turn(self, backend: Backend) -> bool:
        """Release ended jobs, start queued ones, make one network call. Wait if there is nothing to do. False: stop."""
        if not self._table.wait_for_work():
            return False
        for active in self._table.take_ended():
            self._release(active)
        deadline = time.perf_counter() + PREPARE_SECONDS
        while (active := self._table.start_next()) is not None:
            self._writer.queue_start(active)
            self._prepare(backend, active)
            if time.perf_counter() > deadline:
                break
        if self._batcher.slots:
            self._call(backend, self._batcher.pick())
        return True

    def _prepare(self, backend: Backend, active: ActiveJob) -> None:
        """Make the rows of a job that starts."""
        job, slots = active.job, list[Slot]()
        try:
            for row in backend.prepare(job.resolved):
                recorder = None
                if self._traces and job.saved:
                    recorder = TraceRecorder(row, self._budget, backend.trace_model)
                slots.append(self._batcher.add(row, active, recorder))
            self._table.set_slots(active, slots, _notes(backend, job.resolved))
        except Exception as problem:  # one bad job must not end the engine
            self._fail(active, problem)
        if job.ended:  # cancelled meanwhile
            self._release(active)

    def _call(self, backend: Backend, slots: list[Slot]) -> None:
        """Make one network call.

        Out of memory with several rows: later calls get half as many. Another error with several rows: call each row
        alone, so that only the job at fault fails. With one row: its job fails.
        """
        key, network_rows, rows = slots[0].key, 0, list[Row]()
        for slot in slots:
            network_rows += slot.rows
            rows.append(slot.row)
        problem: Exception | None = None
        start = time.perf_counter()
        try:
            backend.denoise_step(rows)
        except Exception as raised:
            if not is_out_of_memory(raised):
                log.warning("a call for %d pictures failed", len(slots), exc_info=True)
            problem = raised.with_traceback(None)  # its frames hold memory that the next call may need
        seconds = time.perf_counter() - start
        advanced, stuck = list[Slot](), dict[Slot, float]()
        for slot in slots:
            if slot.row.progress > slot.progress:
                advanced.append(slot)
            else:
                stuck[slot] = slot.progress
        self._advance(advanced, seconds / network_rows)
        for slot in stuck:
            slot.refresh()  # a failed call may have discarded the finished part of a step
        if problem is None:
            self._batcher.call_times(key).add(network_rows, seconds)
        elif len(slots) == 1:
            self._fail(slots[0].owner, problem)
        elif is_out_of_memory(problem):
            log.info("%d network rows of %s do not fit into memory", network_rows, key)
            self._batcher.call_times(key).halve(network_rows)
        else:
            for slot, progress in stuck.items():
                while slot.row.progress <= progress and not slot.owner.job.ended:
                    self._call(backend, [slot])

    def _advance(self, slots: list[Slot], seconds_per_row: float) -> None:
        """Note that a call advanced these slots: record their steps, and pass finished jobs on."""
        seconds: list[float] = []
        for slot in slots:
            seconds.append(seconds_per_row * slot.rows)
            step = slot.step
            self._batcher.mark_served(slot)
            if slot.recorder and slot.step != step:
                try:
                    slot.recorder.record()
                except Exception:  # memory may be full: the picture is worth more than its trace
                    log.warning("a run is no longer recorded", exc_info=True)
                    slot.recorder.close()
        for active in self._table.advance(slots, seconds):
            self._writer.queue_results(active)

    def _fail(self, active: ActiveJob, problem: Exception) -> None:
        log.error("a job failed", exc_info=problem)
        error = TOO_LARGE if is_out_of_memory(problem) else f"The job failed: {describe_exception(problem)}."
        if self._table.end(active, "failed", error):
            self._writer.queue_end(active)
        self._release(active)

    def _release(self, active: ActiveJob) -> None:
        """Remove the slots of a job that has ended."""
        self._batcher.remove(active)
        for slot in self._table.release_slots(active):
            if slot.recorder:
                slot.recorder.close()


def _notes(backend: Backend, resolved: ResolvedRequest) -> tuple[str, ...]:
    """Return sentences about what the model does not read of a request."""
    notes: list[str] = []
    if not resolved.caption and isinstance(resolved.request, TextToImage):
        notes.append("The prompt was empty, so the model chose what to paint.")
    for name, text in (("prompt", resolved.captions[0]), ("negative prompt", resolved.request.negative_prompt)):
        if unread := backend.truncated(text).strip():
            notes.append(f"The {name} is longer than the model reads. It did not read: “{_shorten(unread)}”.")
    return tuple(notes)


def _shorten(text: str) -> str:
    """Return both ends of a long text, with the number of characters between them."""
    if len(text) <= MAX_QUOTE:
        return text
    start, end = text[: MAX_QUOTE // 2].rstrip(), text[-MAX_QUOTE // 2 :].lstrip()
    return f"{start} … ({len(text) - len(start) - len(end):,} characters more) … {end}"


def _format_hours(seconds: float) -> str:
    """Return a duration of a minute or more as "3 hours"."""
    minutes = max(round(seconds / 60), 1)
    number, unit = (minutes, "minute") if minutes < 60 else (round(minutes / 60), "hour")
    return f"{number:,} {unit}{'s' if number > 1 else ''}"
