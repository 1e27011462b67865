"""What is kept: finished jobs are decoded and written down on a thread of their own, so that no disk stalls the loop.

Knows a sampler's `decode`, a journal and the register of jobs; makes no network call.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial

from studio.engine.active_job import ActiveJob
from studio.engine.backend import Backend
from studio.engine.job import Job, JobRejected, Journal
from studio.engine.job_table import JobTable
from studio.engine.trace import Trace, TraceRecorder

log = logging.getLogger(__name__)


class ResultWriter:
    """Does what it is told in the order in which it is told. Journals that fail do not end it."""

    def __init__(self, journal: Journal, register: JobTable) -> None:
        self._journal, self._register = journal, register
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Orders the small writes about one job: nobody may call a job running after another has called it cancelled.
        self._writing = threading.Lock()
        self.thread = threading.Thread(target=self._work, name="keeper", daemon=True)

    # ---- at once, for whoever calls ----

    def write_end(self, run: ActiveJob) -> None:
        """The job was cancelled or has failed."""
        with self._writing:
            if run.job.saved:
                self._write(self._journal.mark_ended, run.job)

    def write_start(self, run: ActiveJob) -> None:
        with self._writing:
            if run.job.saved and run.job.state == "running":  # else its end is written down, or will be
                self._write(self._journal.mark_started, run.job)

    def write_move(self, job: Job) -> None:
        with self._writing:
            if job.saved:
                self._write(self._journal.update_order, job)

    # ---- later, in order ----

    def started(self, run: ActiveJob) -> None:
        """A job that was under way before is written down at once: it may be about to kill this process, too."""
        if run.again:
            self.write_start(run)
        else:
            self._tasks.put(partial(self.write_start, run))

    def failed(self, run: ActiveJob) -> None:
        self._tasks.put(partial(self.write_end, run))

    def finished(self, run: ActiveJob, sampler: Backend) -> None:
        self._tasks.put(partial(self._keep, run, sampler))

    def stop(self) -> None:
        """When all is done that it was told before."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def _keep(self, run: ActiveJob, sampler: Backend) -> None:
        """Decodes a finished job and keeps its pictures. Until that is durable, the job is running."""
        job, images, problem = run.job, [], ""
        try:
            images = [sampler.decode(seat.row) for seat in run.seats]
            job.seconds = time.perf_counter() - run.began
            if job.saved:
                job.pictures = tuple(
                    self._journal.save_results(job, images, [_trace(seat.recorder) for seat in run.seats])
                )
            else:
                run.last_seen = images
        except Exception as raised:  # a full disk, or whatever else: the engine goes on
            log.error("the pictures of a job were not kept", exc_info=raised)
            said = (
                str(raised)
                if isinstance(raised, JobRejected)
                else f"The pictures were not kept ({describe_exception(raised)})."
            )
            problem = f"{said} They can be made again: the same seed, {job.request.seed}, gives the same pictures."
        if problem:
            run.last_seen = images
            self._register.end(run, "failed", problem)
            self.write_end(run)
        else:
            self._register.end(run, "done")
        for seat in self._register.vacate(run):
            if seat.recorder:
                seat.recorder.close()

    def _write(self, write: Callable[[Job], None], job: Job) -> None:
        """Where this fails, a job may be taken up once more at the next start; nothing worse."""
        try:
            write(job)
        except Exception:
            log.exception("what became of a job was not written down")


def describe_exception(problem: BaseException) -> str:
    """An exception within a sentence."""
    text = " ".join(str(problem).split()).rstrip(".")
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__


def _trace(recorder: TraceRecorder | None) -> Trace | None:
    try:
        return recorder and recorder.trace()
    except Exception:  # the picture matters more
        log.warning("the trace of a run was not made", exc_info=True)
        return None
