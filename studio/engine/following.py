"""Follow a job: yield its newest view whenever it changes, in a thread or in an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from studio.engine.active_job import ActiveJob, preview_picture
from studio.engine.job import JobView

QUEUE_SECONDS = 0.5  # after which followers of a queued job see its place again


@dataclass(frozen=True)
class Look:
    """A job as a follower sees it at one moment.

    version: rises with each change.
    predictions: its previews, not yet converted.
    is_last: nothing changes any more.
    """

    view: JobView
    version: int
    predictions: Sequence[Any]
    is_last: bool

    @property
    def shown(self) -> tuple[object, ...]:
        """What must differ from the last look for it to be shown."""
        eta = None if self.view.eta_seconds is None else round(self.view.eta_seconds)
        return self.version, self.view.state, self.view.ahead, eta

    @property
    def seconds(self) -> float | None:
        """Seconds after which to look again, though nothing has called."""
        return QUEUE_SECONDS if self.view.state == "queued" else None

    def with_previews(self) -> JobView:
        """Return the view with its previews as pictures."""
        return replace(self.view, previews=tuple(map(preview_picture, self.predictions)))


class Table(Protocol):
    """The part of the job table that followers use."""

    def following(self, active: ActiveJob, wake: Callable[[], None]) -> AbstractContextManager[None]: ...

    def look(self, active: ActiveJob) -> Look: ...


def follow(table: Table, active: ActiveJob) -> Iterator[JobView]:
    """Yield the newest view whenever it changes, until the job has ended or the engine has stopped."""
    changed, shown = threading.Event(), None
    with table.following(active, changed.set):
        while True:
            changed.clear()
            look = table.look(active)
            if look.shown != shown:
                shown = look.shown
                yield look.with_previews()
            if look.is_last:
                return
            changed.wait(look.seconds)


async def follow_async(table: Table, active: ActiveJob) -> AsyncGenerator[JobView]:
    """Yield what `follow` yields, in the running event loop. Waiting takes no thread."""
    loop, changed, shown = asyncio.get_running_loop(), asyncio.Event(), None

    def wake() -> None:
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(changed.set)

    with table.following(active, wake):
        while True:
            changed.clear()
            look = table.look(active)
            if look.shown != shown:
                shown = look.shown
                yield await asyncio.to_thread(look.with_previews) if look.predictions else look.view
            if look.is_last:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), look.seconds)
