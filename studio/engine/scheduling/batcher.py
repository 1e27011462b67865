"""Choose the rows of each network call: which go next, and how many at once, from how long calls took so far."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from studio.engine.backend import Row
from studio.engine.recorder import TraceRecorder
from studio.engine.scheduling.served import ServedSeconds

MAX_STRETCH = 2.5  # a call may take about this many times as long as one of its leading row alone
LONGEST_WAIT_EVERY = 4  # calls after which the row that has waited longest leads one, not the least served row
EXPLORE_EVERY = 32  # calls of a key after which one may be half as large again, to measure how long that takes
MAX_CALL_ROWS = 64  # network rows of a call, so that it is over soon; a row that takes more goes alone
GROW_EVERY = 100  # calls of a key after which a limit set by memory is raised by a quarter
MAX_KNOWN_SIZES = 48  # numbers of rows for which the time of a key's calls is remembered
NEW_WEIGHT = 0.2  # of a new measurement over the older ones of as many rows


@dataclass(eq=False, slots=True)
class Slot:
    """A row in the batcher, and how often it was served.

    step, progress, key and rows are read from the row by `refresh`, because the row computes them.
    """

    row: Row
    owner: Any  # the job that the row belongs to
    age: int  # an earlier slot has a smaller number
    recorder: TraceRecorder | None = None
    party: Hashable = None  # among which the calls' time is shared evenly
    calls: int = 0
    last_call: int = 0  # number of the last call that served it
    step: int = 0
    progress: float = 0.0
    key: Hashable = None  # of its next call
    rows: int = 1  # network rows that it takes in its next call

    def refresh(self) -> None:
        """Read what the row needs next."""
        self.step, self.progress = self.row.step, self.row.progress
        if not self.row.finished:
            self.key, self.rows = self.row.call_key, self.row.call_rows


class Batcher:
    """The rows in progress, and the order in which they are served. Used by one thread."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self._times: dict[Hashable, CallTimes] = {}
        self._served = ServedSeconds()
        self._calls = self._added = 0

    def add(self, row: Row, owner: Any, recorder: TraceRecorder | None = None, *, party: Hashable = None) -> Slot:
        """Add a row that is to be served from now on."""
        self._added += 1
        self._served.enter(party, (slot.party for slot in self.slots))
        slot = Slot(row, owner, self._added, recorder, party, last_call=self._calls)
        slot.refresh()
        self.slots.append(slot)
        return slot

    def pick(self) -> list[Slot]:
        """Return the slots of the next call: the least served one, and others of its key while the call stays short.

        The least served slot is one of the party that has had the least time.

        Every few calls the slot that has waited longest leads instead, so that no row waits forever behind newcomers.
        The leading slot decides the key, so no key waits forever either.
        """
        self._calls += 1
        by_service = sorted(self.slots, key=self._service)
        lead = by_service[0]
        if self._calls % LONGEST_WAIT_EVERY == 0:
            for slot in by_service:
                if (slot.last_call, slot.age) < (lead.last_call, lead.age):
                    lead = slot
        others: list[Slot] = []
        rows_alone, is_shared = lead.rows, False
        for slot in by_service:
            is_shared |= slot.owner is not lead.owner
            if slot.key == lead.key and slot is not lead:
                others.append(slot)
                rows_alone += slot.rows
        if is_shared:  # a call with all pictures of a single job keeps nobody waiting
            rows_alone = lead.rows
        max_rows = min(self.call_times(lead.key).max_rows(rows_alone), MAX_CALL_ROWS)
        picked, rows = [lead], lead.rows
        for slot in others:
            if rows + slot.rows <= max_rows:
                picked.append(slot)
                rows += slot.rows
        return picked

    def mark_served(self, slot: Slot, seconds: float) -> None:
        """Note that a call advanced the slot's row, and its share of the call's time.

        Remove the slot if the row is finished.
        """
        self._served.add(slot.party, seconds)
        slot.calls += 1
        slot.last_call = self._calls
        slot.refresh()
        if slot.row.finished:
            self.slots.remove(slot)

    def _service(self, slot: Slot) -> tuple[float, int, int]:
        return self._served[slot.party], slot.calls, slot.age

    def remove(self, owner: Any) -> None:
        """Remove all slots of a job."""
        self.slots = [slot for slot in self.slots if slot.owner is not owner]

    def call_times(self, key: Hashable) -> CallTimes:
        """Return the measured times of the calls with this key."""
        if key not in self._times:
            self._times[key] = CallTimes()
        return self._times[key]


class CallTimes:
    """The measured times of calls with one key: a + b n seconds for n network rows."""

    def __init__(self) -> None:
        self._seconds: dict[int, float | None] = {}  # by rows; None after the first call, which only warms up
        self._calls = 0
        self._memory_rows: float | None = None  # rows that fit into memory, once a call did not
        self._fit = (0.0, 0.0)  # a, b

    def max_rows(self, rows_alone: int) -> int:
        """Return how many rows a call may have whose leading rows alone are `rows_alone`."""
        known_sizes = largest = 0
        for rows, seconds in self._seconds.items():
            if seconds is not None:
                known_sizes += 1
                largest = max(largest, rows)
        # Times of calls more than twice as large cannot be predicted.
        limit: float = 2 * largest if known_sizes else max(self._seconds, default=0)
        if known_sizes > 1:
            a, b = self._fit
            allowed = (MAX_STRETCH * (a + b * rows_alone) - a) / b if b > 0 else limit
            if self._calls % EXPLORE_EVERY == 0:
                allowed = 1.5 * allowed + 1
            limit = min(limit, allowed)
        limit = max(limit, rows_alone)
        return int(limit if self._memory_rows is None else min(limit, self._memory_rows))

    def add(self, rows: int, seconds: float) -> None:
        """Add the time of a call of so many network rows."""
        self._calls += 1
        if self._memory_rows is not None and self._calls % GROW_EVERY == 0:
            self._memory_rows += max(1.0, self._memory_rows / 4)
        if rows not in self._seconds:
            if len(self._seconds) >= MAX_KNOWN_SIZES:
                del self._seconds[next(iter(self._seconds))]
            self._seconds[rows] = None
            return
        known = self._seconds[rows]
        if known is None:
            self._seconds[rows] = seconds
        else:
            self._seconds[rows] = known + NEW_WEIGHT * (min(seconds, 3 * known) - known)  # outliers count for less
        self._fit = fit_line(self._seconds)

    def halve(self, rows: int) -> None:
        """Note that a call of so many rows did not fit into memory: the next ones have half as many."""
        self._calls += 1
        self._memory_rows = max(1.0, rows // 2)


def fit_line(points: Mapping[int, float | None]) -> tuple[float, float]:
    """Return a and b, both 0 or more, with the least sum of ((a + b n - t) / t)^2 over points n: t; t None is no point.

    Weighted least squares with weights 1 / t^2.
    """
    w = wn = wt = wnn = wnt = 0.0  # sums of the weights, of weight times n, t, n n, n t
    for n, t in points.items():
        if t is None:
            continue
        weight = 1 / max(t, 1e-9) ** 2
        w += weight
        wn += weight * n
        wt += weight * t
        wnn += weight * n * n
        wnt += weight * n * t
    variance = wnn - wn * wn / w
    b = (wnt - wn * wt / w) / variance if variance > 1e-9 * wnn else 0.0
    if b <= 0:
        return wt / w, 0.0
    a = (wt - b * wn) / w
    return (a, b) if a >= 0 else (0.0, wnt / wnn)
