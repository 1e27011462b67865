"""Decode and save finished jobs on a thread of its own, so that no disk delays the network calls."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from PIL import Image

from studio.engine.active_job import ActiveJob
from studio.engine.checks import describe_exception
from studio.engine.job import Job, JobRejected, Journal
from studio.engine.job_table import JobTable
from studio.engine.recorder import TraceRecorder
from studio.engine.trace import Trace

log = logging.getLogger(__name__)


class ResultWriter:
    """Run writes in first-in, first-out order. A journal that fails does not end it."""

    def __init__(self, journal: Journal, table: JobTable) -> None:
        self._journal, self._table = journal, table
        self._tasks: queue.SimpleQueue[tuple[Callable[[ActiveJob], None], ActiveJob] | None] = queue.SimpleQueue()
        # Orders the writes about one job: nobody may store that it runs after another has stored that it ended.
        self._writing = threading.Lock()
        self.thread = threading.Thread(target=self._work, name="result-writer", daemon=True)

    # ---- at once, on the caller's thread ----

    def write_start(self, active: ActiveJob) -> None:
        """Store that a job runs, unless it has ended."""
        with self._writing:
            if active.job.state == "running":
                self._write(self._journal.mark_started, active.job)

    def write_end(self, active: ActiveJob) -> None:
        """Store that a job was cancelled or failed."""
        with self._writing:
            self._write(self._journal.mark_ended, active.job)

    def write_order(self, job: Job) -> None:
        """Store the new order of a job."""
        with self._writing:
            self._write(self._journal.update_order, job)

    # ---- later, in order, on the writer's thread ----

    def queue_start(self, active: ActiveJob) -> None:
        """Store that a job runs: at once for a resumed job, since it may be about to kill this process too."""
        if active.resumed:
            self.write_start(active)
        else:
            self._tasks.put((self.write_start, active))

    def queue_end(self, active: ActiveJob) -> None:
        """Store that a job failed."""
        self._tasks.put((self.write_end, active))

    def queue_results(self, active: ActiveJob) -> None:
        """Decode and save the pictures of a finished job."""
        self._tasks.put((self._save, active))

    def stop(self) -> None:
        """Stop after all tasks that are queued now."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            run, active = task
            run(active)

    def _save(self, active: ActiveJob) -> None:
        """Decode a finished job and save its pictures. The job runs until they are durable."""
        job, images, problem = active.job, list[Image.Image](), ""
        try:
            assert active.backend is not None
            for slot in active.slots:
                images.append(active.backend.decode(slot.row))
                self._table.add_notes(active, slot.row.notes)
            job.seconds = time.perf_counter() - active.started_at
            if job.saved:
                traces: list[Trace | None] = []
                for slot in active.slots:
                    traces.append(_trace(slot.recorder))
                job.pictures = tuple(self._journal.save_results(job, images, traces))
            else:
                active.final_previews = images
        except Exception as raised:  # a full disk, for example: the engine goes on
            log.error("the pictures of a job were not saved", exc_info=raised)
            problem = str(raised)
            if not isinstance(raised, JobRejected):
                problem = f"The pictures were not saved ({describe_exception(raised)})."
            problem += f" They can be made again: the same seed, {job.request.seed}, gives the same pictures."
        if problem:
            active.final_previews = images
            self._table.end(active, "failed", problem)
            self.write_end(active)
        else:
            self._table.end(active, "done")
        for slot in self._table.release_slots(active):
            if slot.recorder:
                slot.recorder.close()

    def _write(self, write: Callable[[Job], None], job: Job) -> None:
        """Write about a job. Where this fails, the job may run once more after the next start; nothing worse."""
        if not job.saved:
            return
        try:
            write(job)
        except Exception:
            log.exception("the state of a job was not stored")


def _trace(recorder: TraceRecorder | None) -> Trace | None:
    try:
        return recorder.trace() if recorder else None
    except Exception:  # the picture is worth more than its trace
        log.warning("the trace of a run was not made", exc_info=True)
        return None
