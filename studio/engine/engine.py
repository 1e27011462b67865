"""The engine: one loop over the pictures of many jobs, one network call at a time. Jobs join and leave at every step.

Three threads. The loop starts jobs and makes the calls. The model loader loads models. The result writer decodes and
saves. Pages call from threads of their own, and meet all of them in the job table.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

from studio.engine.active_job import ActiveJob
from studio.engine.backend import Backend, Models
from studio.engine.checks import InvalidRequest, describe_exception, format_hours
from studio.engine.following import follow, follow_async
from studio.engine.job import Job, JobRejected, JobView, Journal
from studio.engine.job_table import JobTable
from studio.engine.requests import Request
from studio.engine.resolved import Resolve, ResolvedRequest
from studio.engine.result_writer import ResultWriter
from studio.engine.runner import Runner
from studio.engine.scheduling.job_queue import Direction, JobQueue
from studio.engine.scheduling.limits import DEFAULT_LIMITS, MAX_JOB_SECONDS, LineLimits
from studio.engine.scheduling.model_loader import ModelLoader

log = logging.getLogger(__name__)

ACCELERATOR_SPEEDUP = 50.0  # of a GPU over two CPU cores, until times are measured
MAX_PASSED_OVER_SECONDS = 20.0  # for which later jobs may start before one whose model is not loaded


@dataclass(frozen=True)
class Status:
    """What the engine does now.

    phase: "loading" while a model is loaded and no job runs; "failed" where no model is loaded.
    problem: why the default model was not loaded.
    loading: id of the model that is being loaded, "" if none is.
    """

    phase: Literal["loading", "idle", "running", "failed"]
    problem: str = ""
    running: int = 0
    queued: int = 0
    loading: str = ""


class Engine:
    """Runs jobs on models, several of which may be loaded. The default model is loaded at the start.

    A model that cannot be loaded fails the queued jobs that need it, with the text of the exception. A later job tries
    again.

    models: what can be loaded, within its own limits.
    journal: outlives the process; its unfinished jobs run again.
    resolve: checks a request against its model and derives its values; called once per job.
    max_active: jobs that share the network calls.
    limits: of the work in line; more is rejected.
    traces: whether runs are recorded.
    patience: seconds for which later jobs may start before one whose model is not loaded.
    """

    def __init__(
        self,
        models: Models,
        journal: Journal,
        *,
        resolve: Resolve,
        max_active: int = 24,
        limits: LineLimits = DEFAULT_LIMITS,
        traces: bool = True,
        patience: float = MAX_PASSED_OVER_SECONDS,
    ) -> None:
        self._models, self._journal, self._resolve = models, journal, resolve
        self._ready = threading.Event()  # the default model was loaded, or failed to load
        self._loader = ModelLoader(models, self._fail_model, self._models_changed)
        queue = JobQueue(models, max_active, patience)
        self._table = JobTable(models, self._loader, queue, limits)
        self._writer = ResultWriter(journal, self._table)
        self._runner = Runner(self._table, self._loader, self._writer, traces=traces)
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    # ---- for pages and programs ----

    def start(self) -> Engine:
        """Start both threads."""
        self._thread.start()
        self._writer.thread.start()
        return self

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Wait until the default model is loaded or failed to load, for at most `timeout` seconds.

        Return whether it is loaded.
        """
        self._ready.wait(timeout)
        return self.backend() is not None

    def backend(self, model_id: str = "") -> Backend | None:
        """Return a loaded model, None if it is not loaded. "" is the default model."""
        return self._models.get(model_id or self._models.default_id)

    def borrow(self, model_id: str = "") -> AbstractContextManager[Backend | None]:
        """Return a context that gives a loaded model and keeps it loaded; None if it is not loaded."""
        return self._loader.borrow(model_id or self._models.default_id)

    @property
    def loaded(self) -> Sequence[str]:
        """The ids of the loaded models."""
        return self._models.loaded

    @property
    def status(self) -> Status:
        (running, queued), loading = self._table.counts(), self._loader.loading
        problem = self._loader.problems.get(self._models.default_id, "")
        phase = "running" if running or queued else "idle"
        if not running and (loading or not self._ready.is_set()):
            phase = "loading"
        elif problem and not self.loaded:
            phase = "failed"
        return Status(phase, problem, running, queued, loading)

    def resolve(self, request: Request) -> ResolvedRequest:
        """Check a request against its model and the time limit, and derive its values.

        Its `seconds` are estimated from measured times where there are any, and include the time until its models are
        loaded where that was measured. Raises InvalidRequest.
        """
        resolved = self._resolve(request)
        if self._has_accelerator:
            resolved = replace(resolved, seconds=resolved.seconds / ACCELERATOR_SPEEDUP)
        similar, expected = self._table.estimate_seconds(resolved)
        if similar > MAX_JOB_SECONDS:
            raise InvalidRequest(
                f"This would take about {format_hours(similar)}, and a job may take {format_hours(MAX_JOB_SECONDS)}: "
                "choose fewer steps, guidance 1, another sampler than Heun, or a smaller picture."
            )
        return replace(resolved, seconds=expected + sum(map(self._loader.seconds, resolved.model_ids)))

    @property
    def _has_accelerator(self) -> bool:
        """Whether the loaded models compute on another device than the CPU."""
        devices = [backend.device for backend in map(self.backend, self.loaded) if backend is not None]
        return bool(devices) and "cpu" not in devices

    def submit(self, request: Request, owner: str, *, address: str = "", save: bool = True) -> str:
        """Queue a job and return its id. By then the job is in the journal.

        address: of an owner who is not signed in; "" if it is unknown or loopback. Turns go round addresses too.
        save: False writes nothing to the journal; only the views of those who follow the job hold its pictures.
        Raises InvalidRequest, JobRejected.
        """
        active = self._table.reserve(self.resolve(request), owner, address, save)
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
        return follow(self._table, self._find(job_id, owner))

    def follow_async(self, job_id: str, owner: str) -> AsyncGenerator[JobView]:
        """Yield what `follow` yields, in the running event loop; no thread waits. Raises KeyError at the call."""
        return follow_async(self._table, self._find(job_id, owner))

    def _find(self, job_id: str, owner: str) -> ActiveJob:
        active = self._table.find(job_id, owner)
        if active is None:
            raise KeyError(job_id)
        return active

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
        is_loaded = self._loader.join(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        self._table.release_followers()
        return is_loaded and not self._thread.is_alive() and not self._writer.thread.is_alive()

    # ---- the loop ----

    def _work(self) -> None:
        self._restore_jobs()
        try:
            self._models.claim_thread()
        except Exception:  # loading a model will fail too, and say so
            log.exception("the engine's thread could not be prepared")
        self._loader.start([self._models.default_id], set())
        is_working = True
        while is_working:
            try:
                is_working = self._runner.turn()
            except Exception as problem:  # a fault of the engine or of a row: later jobs must not wait forever
                self._runner.fail_running(problem)

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

    def _fail_model(self, model_id: str, problem: str) -> None:
        """Fail the queued jobs that need a model that was not loaded."""
        for active in self._table.fail_queued(model_id, problem):
            self._writer.queue_end(active)

    def _models_changed(self) -> None:
        if not self._loader.is_busy:
            self._ready.set()
        self._table.models_changed()
