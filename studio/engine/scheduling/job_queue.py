"""The queued jobs in their order, and which of them starts next when jobs need different models."""

from __future__ import annotations

import math
import time
from bisect import insort
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Literal

from studio.engine.active_job import ActiveJob
from studio.engine.backend import Models
from studio.engine.scheduling.turns import in_turns, owner_of, party_of

MAX_SAVING = 16  # jobs that wait to be saved; with more, no job starts
MAX_RUNNING_PIXELS = 32_000_000  # of results of running and unsaved jobs, each of about 80 bytes of memory
SMALL_PIXELS = 1_000_000  # a job of no more pixels always fits
NEWCOMERS_SHARE = 0.5  # of the jobs and of the pixels that may run, for parties of which none runs when all is taken
SUSPECT_CRASHES = 2  # after so many crashes a job runs alone, so that the next crash tells whether it is the cause

Direction = Literal["up", "down", "first", "last"]


class JobQueue:
    """Queued jobs. Turns go round their parties, but those start first whose models are loaded.

    The job table's lock guards it.

    max_active: jobs that run at once. With NEWCOMERS_SHARE more, nobody waits for one party's long jobs to end.
    patience: seconds for which later jobs may start before one that waits for its model. After that only those start
        that leave room for its model, until it is loaded.

    busy: in all methods the jobs that run or are being saved.
    """

    def __init__(self, models: Models, max_active: int, patience: float) -> None:
        self._models, self._max_active, self._patience = models, max_active, patience
        self.jobs: list[ActiveJob] = []  # in the order of their owners, which is not that of the turns
        self._turns: dict[ActiveJob, int] | None = None  # queued jobs in the order in which they start, numbered
        self._last_turns: dict[Hashable, int] = {}  # of the parties and owners in the queue, and of the last to start
        self._started = 0
        self._turns_of: list[ActiveJob] = []  # the busy jobs for which `_turns` was computed

    # ---- order ----

    def add(self, active: ActiveJob) -> None:
        """Add a job."""
        insort(self.jobs, active, key=_order)
        for key in (owner_of(active), party_of(active)):  # who comes now does not pass those who have waited longer
            self._last_turns.setdefault(key, self._started)
        self._turns = None

    def remove(self, active: ActiveJob) -> None:
        """Remove a job."""
        self.jobs.remove(active)
        self._turns = None

    def start(self, active: ActiveJob) -> None:
        """Remove a job that starts, and note the turn."""
        self.remove(active)
        waiting = {group(other) for other in self.jobs for group in (owner_of, party_of)}
        self._last_turns = {key: turn for key, turn in self._last_turns.items() if key in waiting}
        self._started += 1
        self._last_turns |= {owner_of(active): self._started, party_of(active): self._started}

    def in_order(self, busy: Sequence[ActiveJob]) -> Mapping[ActiveJob, int]:
        """Return the jobs in the order in which they start, each with the number of jobs before it."""
        if self._turns is None or self._turns_of != busy:
            self._turns = {active: number for number, active in enumerate(in_turns(self.jobs, busy, self._last_turns))}
            self._turns_of = list(busy)
        return self._turns

    def move(self, active: ActiveJob, direction: Direction) -> list[ActiveJob]:
        """Move a job among its owner's, by exchanging their orders. Return the jobs that moved."""
        own = [other for other in self.jobs if other.job.owner == active.job.owner]
        if active not in own:
            return []
        orders, at = [_order(other) for other in own], own.index(active)
        target = {"up": max(at - 1, 0), "down": at + 1, "first": 0, "last": len(own)}[direction]
        own.insert(target, own.pop(at))
        moved: list[ActiveJob] = []
        for other, order in zip(own, orders, strict=True):
            if _order(other) != order:
                other.job.order = order
                moved.append(other)
        self.jobs.sort(key=_order)
        self._turns = None
        return moved

    # ---- which is next ----

    def next_start(self, busy: Sequence[ActiveJob]) -> ActiveJob | None:
        """Return the job to start now, whose models are loaded; None if there is none."""
        for active in self._allowed(busy):
            if self._is_loaded(active):
                return active
        return None

    def next_load(self, busy: Sequence[ActiveJob], in_use: Collection[str]) -> ActiveJob | None:
        """Return the job whose models are to be loaded now; None if there is none, or if others go first.

        in_use: models that cannot be evicted.
        """
        for active in self._allowed(busy):
            model_ids = active.job.resolved.model_ids
            if self._is_loaded(active) or not self._models.fits(model_ids, in_use):
                continue
            is_free = self._models.fits(model_ids, self._models.loaded)  # nothing is evicted for it
            if is_free or self._is_impatient(active) or self.next_start(busy) is None:
                return active
        return None

    def _is_loaded(self, active: ActiveJob) -> bool:
        return set(active.job.resolved.model_ids) <= set(self._models.loaded)

    def _is_impatient(self, active: ActiveJob) -> bool:
        return time.perf_counter() - active.waits_since > self._patience

    def _allowed(self, busy: Sequence[ActiveJob]) -> Iterator[ActiveJob]:
        """Yield the jobs that there is room for, but none that delays the first job that waits for its model."""
        waiting: ActiveJob | None = None
        for active in self._with_room(busy):
            if waiting is not None and self._delays(active, waiting, busy):
                continue
            if waiting is None and not self._is_loaded(active):
                waiting = active
                waiting.waits_since = min(waiting.waits_since, time.perf_counter())
            yield active

    def _delays(self, active: ActiveJob, waiting: ActiveJob, busy: Sequence[ActiveJob]) -> bool:
        """Return whether a job would keep a model in use that must go for one that has waited long enough."""
        if not self._is_impatient(waiting):
            return False
        turn = waiting.waits_since + self._patience
        kept = set(active.job.resolved.model_ids)
        for other in busy:
            if other.started_at > turn:
                kept.update(other.job.resolved.model_ids)
        return not self._models.fits(waiting.job.resolved.model_ids, kept)

    def _with_room(self, busy: Sequence[ActiveJob]) -> Iterator[ActiveJob]:
        """Yield the jobs that may start. A large job is passed over while there is no room for it, a small one never.

        Yields nothing while a suspect of crashes runs; a suspect at the head of the queue waits until nothing runs.
        """
        saving = pixels = 0
        parties = set[str]()
        for active in busy:
            saving += active.is_saving
            pixels += active.job.resolved.pixels
            parties.add(active.job.party)
            if active.job.crashes >= SUSPECT_CRASHES:
                return
        in_order = self.in_order(busy)
        first = next(iter(in_order), None)
        if first is None or saving >= MAX_SAVING:
            return
        if first.job.crashes >= SUSPECT_CRASHES:
            if not busy:
                yield first
            return
        for active in in_order:
            share = 1.0 if active.job.party in parties else 1.0 + NEWCOMERS_SHARE
            if len(busy) - saving >= int(share * self._max_active) or active.job.crashes >= SUSPECT_CRASHES:
                continue
            room = max(share * MAX_RUNNING_PIXELS - pixels, SMALL_PIXELS) if pixels else math.inf
            if active.job.resolved.pixels <= room:
                yield active


def _order(active: ActiveJob) -> float:
    return active.job.order
