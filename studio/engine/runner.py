"""The loop's turns: start jobs, begin to load models, make network calls."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from studio.engine.active_job import ActiveJob
from studio.engine.backend import Backend, Row, is_out_of_memory
from studio.engine.checks import describe_exception
from studio.engine.job_table import JobTable
from studio.engine.recorder import ByteBudget, TraceRecorder
from studio.engine.result_writer import ResultWriter
from studio.engine.scheduling.batcher import Batcher, Slot
from studio.engine.scheduling.model_loader import ModelLoader

log = logging.getLogger(__name__)

PREPARE_SECONDS = 0.02  # between two calls, jobs are prepared for about this long, at least one
TOO_LARGE = "There is not enough memory for a picture of this job. Choose a smaller size."


class Runner:
    """Runs the jobs of the table, one network call at a time. Used by one thread.

    traces: whether runs are recorded.
    """

    def __init__(self, table: JobTable, loader: ModelLoader, writer: ResultWriter, *, traces: bool) -> None:
        self._table, self._loader, self._writer, self._traces = table, loader, writer, traces
        self._batcher = Batcher()
        self._budget = ByteBudget()

    def turn(self) -> bool:
        """Release ended jobs, start queued ones, begin to load models, make one network call.

        Wait if there is nothing to do. Return False if the engine stops.
        """
        if not self._table.wait_for_work():
            return False
        for active in self._table.take_ended():
            self._release(active)
        deadline = time.perf_counter() + PREPARE_SECONDS
        while (active := self._table.start_next()) is not None:
            self._writer.queue_start(active)
            self._prepare(active)
            if time.perf_counter() > deadline:
                break
        if load := self._table.next_load():
            self._loader.start(*load)
        if self._batcher.slots:
            self._call(self._batcher.pick())
        return True

    def fail_running(self, problem: Exception) -> None:
        """Fail all running jobs."""
        for active in self._table.running():
            self._fail(active, problem)

    def _prepare(self, active: ActiveJob) -> None:
        """Make the rows of a job that starts."""
        job, backend, slots = active.job, active.backend, list[Slot]()
        assert backend is not None
        try:
            for row in self._prepare_rows(active, backend):
                recorder = TraceRecorder(row, self._budget, backend.trace_model) if self._traces and job.saved else None
                slots.append(self._batcher.add(row, active, recorder, party=job.party))
            self._table.set_slots(active, slots)
            self._table.add_notes(active, job.resolved.notes(backend.truncated))
        except Exception as problem:  # one bad job must not end the engine
            self._fail(active, problem)
        if job.ended:  # cancelled meanwhile
            self._release(active)

    def _prepare_rows(self, active: ActiveJob, backend: Backend) -> Sequence[Row]:
        while True:
            try:
                return backend.prepare(active.job.resolved)
            except Exception as problem:
                if not (is_out_of_memory(problem) and self._reduce_memory(active)):
                    raise

    def _reduce_memory(self, active: ActiveJob) -> bool:
        """Let a job's model use less memory, and tell its owner. Return False if it cannot."""
        assert active.backend is not None
        sentence = active.backend.reduce_memory()
        if sentence is None:
            return False
        log.info("%s: %s", active.job.resolved.model_id, sentence)
        self._table.add_notes(active, [sentence])
        return True

    def _call(self, slots: list[Slot]) -> None:
        """Make one network call.

        Out of memory with several rows: later calls get half as many. With one row: its model uses less memory from now
        on, where it can. Another error with several rows: call each row alone, so that only the job at fault fails.
        With one row: its job fails.
        """
        backend = slots[0].owner.backend
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
            if not (is_out_of_memory(problem) and self._reduce_memory(slots[0].owner)):
                self._fail(slots[0].owner, problem)
        elif is_out_of_memory(problem):
            log.info("%d network rows of %s do not fit into memory", network_rows, key)
            self._batcher.call_times(key).halve(network_rows)
        else:
            for slot, progress in stuck.items():
                while slot.row.progress <= progress and not slot.owner.job.ended:
                    self._call([slot])

    def _advance(self, slots: list[Slot], seconds_per_row: float) -> None:
        """Note that a call advanced these slots: record their steps, and pass finished jobs on."""
        seconds: list[float] = []
        for slot in slots:
            seconds.append(seconds_per_row * slot.rows)
            step = slot.step
            self._batcher.mark_served(slot, seconds[-1])
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
