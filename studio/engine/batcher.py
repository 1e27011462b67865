"""Which rows go next, how many of them at once, and how long a job will take: from how long calls took so far.

Knows rows, network calls and seconds; knows nothing of threads, owners or journals: each object is one thread's, or
its user's lock is around it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from studio.engine.backend import Row
from studio.engine.resolved import ResolvedRequest
from studio.engine.trace import TraceRecorder

STRETCH = 2.5  # a call may take about this many times as long as that of its leading row alone
LONGEST_WAIT_EVERY = 4  # every so many calls are led by the row that has waited longest, not by the least served one
EXPLORE_EVERY = 32  # every so many calls of a shape may be half as large again, to learn how long that takes
MOST_ROWS = 64  # network rows of a call, so that it is soon over; a row that takes as many goes by itself
GROW_EVERY = 100  # calls of a shape after which a limit that memory has set is raised by a quarter
MOST_KNOWN = 48  # numbers of rows for which a shape's seconds are remembered
SMALL_PIXELS = 4096  # pictures of no more pixels count as of one size
FORGET = 0.2  # weight of a new measurement over the older ones of as many rows


@dataclass(eq=False, slots=True)
class Slot:
    """A row that takes part, and how it was served so far."""

    row: Row
    run: Any  # whom it belongs to
    age: int  # a seat that came earlier has a smaller number
    recorder: TraceRecorder | None = None
    calls: int = 0
    last: int = 0  # number of the call that it was last served in
    step: int = 0  # the row's, as far as it was taken note of
    progress: float = 0.0
    key: Hashable = None  # of its next call
    need: int = 1  # network rows that it takes in that call

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Take note of what the row wants next; the row itself computes it each time that it is asked."""
        self.step, self.progress = self.row.step, self.row.progress
        if not self.row.finished:
            self.key, self.need = self.row.call_key, self.row.call_rows


class Batcher:
    """The seats that are taken, in the order in which they go."""

    def __init__(self) -> None:
        self.seats: list[Slot] = []
        self._paces: dict[Hashable, CallTimes] = {}
        self._calls = self._taken_in = 0

    def take_in(self, row: Row, run: Any, recorder: TraceRecorder | None = None) -> Slot:
        """A seat for a row that is to be served from now on."""
        self._taken_in += 1
        seat = Slot(row, run, self._taken_in, recorder, last=self._calls)
        self.seats.append(seat)
        return seat

    def pick(self) -> list[Slot]:
        """The seats of the next call: the least served of all, and others of its shape while the call stays short.

        Now and then the one that has waited longest goes first instead: so nobody waits for ever behind a stream of
        newcomers. The seats that go first decide the shape, so no shape does either.
        """
        self._calls += 1
        if self._calls % LONGEST_WAIT_EVERY:
            lead = min(self.seats, key=_least_served)
        else:
            lead = min(self.seats, key=_longest_unserved)
        mates = [seat for seat in self.seats if seat.key == lead.key and seat is not lead]
        alone = lead.need
        if all(seat.run is lead.run for seat in self.seats):  # nobody else is kept waiting
            alone += sum(seat.need for seat in mates)
        most = min(self._pace(lead.key).most(alone), MOST_ROWS)
        picked, rows = [lead], lead.need
        for seat in sorted(mates, key=_least_served):
            if rows + seat.need <= most:
                picked.append(seat)
                rows += seat.need
        return picked

    def served(self, seat: Slot) -> None:
        """Its row came on in this call; that may have been its last."""
        seat.calls += 1
        seat.last = self._calls
        seat.look()
        if seat.row.finished:
            self.seats.remove(seat)

    def leave(self, run: Any) -> None:
        """All seats of this run are free."""
        self.seats = [seat for seat in self.seats if seat.run is not run]

    def measured(self, key: Hashable, rows: int, seconds: float) -> None:
        """A call of so many network rows took so long."""
        self._pace(key).measured(rows, seconds)

    def out_of_memory(self, key: Hashable, rows: int) -> None:
        """A call of so many network rows did not fit: the next ones have half as many."""
        self._pace(key).out_of_memory(rows)

    def _pace(self, key: Hashable) -> CallTimes:
        return self._paces.setdefault(key, CallTimes())


class CallTimes:
    """How long calls of one shape take: a + b n seconds for n network rows, and how many rows are not too many."""

    def __init__(self) -> None:
        self._seconds: dict[int, float | None] = {}  # by rows; None: once, and the first call only warms up
        self._calls = 0
        self._memory: float | None = None  # rows that fit into the memory, once a call did not
        self._fit = (0.0, 0.0)

    def most(self, alone: int) -> int:
        """Rows that a call may have in which those that lead take `alone`."""
        known = [rows for rows, seconds in self._seconds.items() if seconds is not None]
        most = 2 * max(known) if known else max(self._seconds, default=0)  # further than that is anyone's guess
        if len(known) > 1:
            a, b = self._fit
            allowed = (STRETCH * (a + b * alone) - a) / b if b > 0 else most
            if self._calls % EXPLORE_EVERY == 0:
                allowed = 1.5 * allowed + 1
            most = min(most, allowed)
        most = max(most, alone)
        return int(most if self._memory is None else min(most, self._memory))

    def measured(self, rows: int, seconds: float) -> None:
        self._calls += 1
        if self._memory is not None and self._calls % GROW_EVERY == 0:
            self._memory += max(1.0, self._memory / 4)
        if rows not in self._seconds:
            if len(self._seconds) >= MOST_KNOWN:
                del self._seconds[next(iter(self._seconds))]
            self._seconds[rows] = None
            return
        known = self._seconds[rows]
        if known is None:
            self._seconds[rows] = seconds
        else:
            self._seconds[rows] = known + FORGET * (min(seconds, 3 * known) - known)  # one hiccup teaches little
        self._fit = _line({n: t for n, t in self._seconds.items() if t is not None})

    def out_of_memory(self, rows: int) -> None:
        self._calls += 1
        self._memory = max(1.0, rows // 2)


class RequestCosts:
    """Seconds of the engine's time that a request takes, learned from those of its task and like size that are done."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[int, float]] = {}  # of a unit of `work`, by task and octave of size

    def learn(self, resolved: ResolvedRequest, seconds: float) -> None:
        new, octave = seconds / resolved.rows, _octave(resolved)
        of_task = self._seconds.setdefault(resolved.request.task, {})
        known = of_task.get(octave, new)
        of_task[octave] = known + FORGET * (new - known)

    def expected(self, resolved: ResolvedRequest) -> float | None:
        """Return the seconds that a request takes by itself; None while no task was measured."""
        of_task = self._seconds.get(resolved.request.task)
        if of_task:
            octave = _octave(resolved)
            return of_task[min(of_task, key=lambda other: abs(other - octave))] * resolved.rows
        known = [seconds for of_task in self._seconds.values() for seconds in of_task.values()]
        return sum(known) / len(known) * resolved.rows if known else None

    def measured(self, resolved: ResolvedRequest) -> float | None:
        """Return the seconds that such a request took: one of its task and about its size; None if none was."""
        of_task, octave = self._seconds.get(resolved.request.task, {}), _octave(resolved)
        near = [seconds for other, seconds in of_task.items() if abs(other - octave) <= 1]
        return sum(near) / len(near) * resolved.rows if near else None


def _octave(resolved: ResolvedRequest) -> int:
    """Return the size of one picture of a request: the logarithm of its pixels, 0 for up to SMALL_PIXELS."""
    return round(math.log2(max(1.0, resolved.pixels / resolved.request.count / SMALL_PIXELS)))


def _least_served(seat: Slot) -> tuple[int, int]:
    return seat.calls, seat.age


def _longest_unserved(seat: Slot) -> tuple[int, int]:
    return seat.last, seat.age


def _line(points: dict[int, float]) -> tuple[float, float]:
    """a and b, both 0 or more, with the least sum of ((a + b n - t) / t)^2 over points n: t."""
    weights = {n: 1 / max(t, 1e-9) ** 2 for n, t in points.items()}
    w = sum(weights.values())
    x = sum(weights[n] * n for n in points) / w
    y = sum(weights[n] * t for n, t in points.items()) / w
    variance = sum(weights[n] * (n - x) ** 2 for n in points)
    b = sum(weights[n] * (n - x) * (t - y) for n, t in points.items()) / variance if variance > 0 else 0.0
    if b <= 0:
        return y, 0.0
    if y - b * x < 0:
        return 0.0, sum(weights[n] * n * t for n, t in points.items()) / sum(weights[n] * n * n for n in points)
    return y - b * x, b
