"""Estimates of time: how long a request takes, and when each job of the queue is done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

from studio.engine.active_job import ActiveJob
from studio.engine.resolved import ResolvedRequest

NEW_WEIGHT = 0.2  # of a new measurement over the older ones
SMALL_PIXELS = 4096  # pictures of no more pixels count as one size
REFRESH_SECONDS = 0.5  # age up to which estimates of the queue are reused


class RequestTimes:
    """Measured seconds per network row, by model, task and octave of picture size."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], dict[int, float]] = {}

    def add(self, resolved: ResolvedRequest, seconds: float) -> None:
        """Add the seconds of network calls that a finished request took."""
        per_row, octave = seconds / max(resolved.rows, 1), _octave(resolved)
        by_octave = self._seconds.setdefault((resolved.model_id, resolved.request.task), {})
        known = by_octave.get(octave, per_row)
        by_octave[octave] = known + NEW_WEIGHT * (per_row - known)

    def similar(self, resolved: ResolvedRequest) -> float | None:
        """Return the seconds of a request from those of its task and about its size; None if there are none."""
        by_octave = self._seconds.get((resolved.model_id, resolved.request.task), {})
        octave, total, count = _octave(resolved), 0.0, 0
        for other, per_row in by_octave.items():
            if abs(other - octave) <= 1:
                total += per_row
                count += 1
        return total / count * resolved.rows if count else None

    def expected(self, resolved: ResolvedRequest) -> float | None:
        """Return the seconds of a request from the most similar ones; None if nothing was measured.

        Without measurements of its task those of the model's other tasks count.
        """
        by_octave = self._seconds.get((resolved.model_id, resolved.request.task))
        if by_octave:
            octave = _octave(resolved)
            nearest = next(iter(by_octave))
            for other in by_octave:
                if abs(other - octave) < abs(nearest - octave):
                    nearest = other
            return by_octave[nearest] * resolved.rows
        known = [
            per_row
            for (model_id, _), times in self._seconds.items()
            for per_row in times.values()
            if model_id == resolved.model_id
        ]
        return sum(known) / len(known) * resolved.rows if known else None


class QueueEstimates:
    """When each unfinished job is done. Computed for all jobs at once, and reused for REFRESH_SECONDS.

    load_seconds: how long it takes until a model is loaded, by its id.
    """

    def __init__(self, times: RequestTimes, load_seconds: Callable[[str], float]) -> None:
        self._times, self._load_seconds = times, load_seconds
        self._done_in: dict[str, float] = {}  # job id -> seconds until it is done, as of `_computed`
        self._computed = -math.inf

    def invalidate(self) -> None:
        """Compute again at the next question: the queue has changed."""
        self._computed = -math.inf

    def seconds_until_done(
        self, active: ActiveJob, running: Sequence[ActiveJob], queued: Iterable[ActiveJob]
    ) -> float | None:
        """Return the seconds until a job is done; None until anything was measured."""
        now = time.monotonic()
        if not self._done_in or now - self._computed >= REFRESH_SECONDS:
            self._done_in, self._computed = self._compute(running, queued), now
        seconds = self._done_in.get(active.job.id)
        return None if seconds is None else max(seconds - (now - self._computed), 0.0)

    def _compute(self, running: Sequence[ActiveJob], queued: Iterable[ActiveJob]) -> dict[str, float]:
        """Return the seconds until each job is done, by id.

        Running jobs share the calls evenly, so a job waits for another one only as long as it needs itself. A queued
        job waits for all jobs before it, and for its models.
        """
        needs: dict[ActiveJob, float | None] = {}
        for active in (*running, *queued):
            if share := active.job.share:
                needs[active] = active.seconds / share * (1 - share)
            else:
                needs[active] = self._times.expected(active.job.resolved)
        if all(seconds is None for seconds in needs.values()):
            return {}
        seconds_left: dict[ActiveJob, float] = {}
        for active, seconds in needs.items():
            seconds_left[active] = active.job.resolved.seconds if seconds is None else seconds
        running_seconds = [seconds_left[active] for active in running]
        done_in: dict[str, float] = {}
        for active in running:
            done_in[active.job.id] = sum(min(other, seconds_left[active]) for other in running_seconds)
        total, counted = sum(running_seconds), set[str]()
        for active in queued:
            for model_id in active.job.resolved.model_ids:
                if model_id not in counted:
                    total += self._load_seconds(model_id)
                    counted.add(model_id)
            total += seconds_left[active]
            done_in[active.job.id] = total
        return done_in


def _octave(resolved: ResolvedRequest) -> int:
    """Return the size of one picture as a power of two: 0 up to SMALL_PIXELS, then 1 more each time they double."""
    return round(math.log2(max(1.0, resolved.pixels / resolved.request.count / SMALL_PIXELS)))
