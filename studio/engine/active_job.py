"""A run: a job on its way through the engine, with what only the engine knows of it.

The register that knows the run guards it by its lock.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from studio.engine.batcher import Slot
from studio.engine.job import Job


@dataclass(eq=False)
class ActiveJob:
    """A job, and what the engine alone knows of it."""

    job: Job
    changed: threading.Condition  # of the register's lock: those who follow the job wait for this
    arrived: bool = False  # it is in the journal, and may be seen
    again: bool = False  # another process has left it unfinished
    keeping: bool = False  # all steps are taken: too late to cancel
    seats: list[Slot] = field(default_factory=list)
    began: float = 0.0
    spent: float = 0.0  # seconds of network calls, its share
    left: int = 0  # pictures that are not finished
    in_all: int = 1  # steps of all pictures together
    version: int = 0  # rises with whatever those who follow it should see
    told: float = 0.0
    followers: int = 0
    last_seen: Sequence[Any] = ()  # shown once it has no slots: predictions, or pictures that were not kept

    @cached_property
    def bytes(self) -> int:
        """Of the pictures in its request."""
        return sum(p.width * p.height * len(p.getbands()) for p in self.job.request.pictures().values())

    def tell(self) -> None:
        self.version += 1
        self.changed.notify_all()

    @property
    def taken(self) -> float:
        """Steps of all pictures together, so far."""
        return sum(seat.progress for seat in self.seats)

    def predictions(self) -> Sequence[Any]:
        """Return the prediction of each picture that has taken a step; at the end, what was kept of them."""
        if self.last_seen:
            return self.last_seen
        predictions = [seat.row.preview() for seat in self.seats]
        return [values for values in predictions if values is not None]
