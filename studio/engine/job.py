"""A request's life: queued, running, done or cancelled or failed; what a page sees of it, and what is written down.

Knows no threads and no files: the engine moves jobs along, a journal remembers them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from PIL import Image

from studio.engine.requests import Request
from studio.engine.resolved import ResolvedRequest
from studio.engine.trace import Trace

State = Literal["queued", "running", "done", "cancelled", "failed"]
ENDED = ("done", "cancelled", "failed")


class JobRejected(RuntimeError):
    """A job that cannot be taken or kept; its text is one sentence for the person who asked."""


@dataclass(frozen=True)
class Picture:
    """A picture that is kept. Its id cannot be guessed."""

    id: str
    job_id: str
    index: int  # of the job's pictures, from 0
    seed: int
    path: str
    settings: dict[str, Any]
    width: int
    height: int
    created: float  # seconds since 1970
    favourite: bool = False
    has_trace: bool = False


@dataclass(eq=False)
class Job:
    """One request of one owner, and its progress. Only the engine may change it."""

    resolved: ResolvedRequest
    owner: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))  # 128 random bits
    state: State = "queued"
    created: float = field(default_factory=time.time)
    order: float = 0.0  # jobs start in the order of their places
    step: int = 0  # steps that all pictures have taken
    steps: int = 0  # steps in all; before the job runs, those asked for
    share: float = 0.0  # of all that is to be computed: what is done
    error: str | None = None  # one sentence, of a job that failed
    notes: tuple[str, ...] = ()  # what the person who asked should know
    seconds: float = 0.0  # from its start to the decoded pictures, without the wait in line
    pictures: tuple[Picture, ...] = ()  # of a job that is done
    crashes: int = 0  # processes that were killed while it was under way
    saved: bool = True  # else nothing of it is written down, and its pictures are in its views alone

    def __post_init__(self) -> None:
        self.steps = self.steps or self.request.steps

    @property
    def request(self) -> Request:
        return self.resolved.request

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class StoredJob:
    """A job as a journal holds it, that has not ended. Its request is not resolved yet."""

    id: str
    owner: str
    request: Request
    created: float
    order: float
    crashes: int = 0

    def resume(self, resolved: ResolvedRequest) -> Job:
        """Return the job as it is queued again, with its request resolved."""
        return Job(resolved, self.owner, self.id, created=self.created, order=self.order, crashes=self.crashes)


@dataclass(frozen=True)
class JobView:
    """A job as it was at one moment. `previews` are the predictions of x0, one a picture, for those who follow it; of a
    job that is done and not kept, its pictures."""

    id: str
    task: str
    caption: str
    count: int
    state: State
    step: int
    steps: int
    share: float  # of its computing that is done, 0 to 1
    ahead: int  # jobs that wait and will start before this one
    eta_seconds: float | None  # until it is done; None where nothing like it was measured yet
    previews: tuple[Image.Image, ...]
    created: float
    error: str | None
    notes: tuple[str, ...]
    seconds: float
    pictures: tuple[Picture, ...]
    resolved: ResolvedRequest | None  # None for a job that is read from the disk
    saved: bool = True

    @classmethod
    def of(
        cls, job: Job, ahead: int = 0, eta_seconds: float | None = None, previews: tuple[Image.Image, ...] = ()
    ) -> JobView:
        return cls(
            id=job.id,
            task=job.resolved.request.task,
            caption=job.resolved.caption,
            count=job.resolved.request.count,
            state=job.state,
            step=job.step,
            steps=job.steps,
            share=job.share,
            ahead=ahead,
            eta_seconds=eta_seconds,
            previews=previews,
            created=job.created,
            error=job.error,
            notes=job.notes,
            seconds=job.seconds,
            pictures=job.pictures,
            resolved=job.resolved,
            saved=job.saved,
        )

    @property
    def request(self) -> Request | None:
        return self.resolved.request if self.resolved else None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class Journal(Protocol):
    """Where jobs are written down so that they outlive the process. Its methods are called from several threads."""

    def add_job(self, job: Job) -> None:
        """The job is durable when this returns. Raises Refusal if it cannot be taken."""
        ...

    def mark_started(self, job: Job) -> None:
        """It is under way. If the process is killed now, `unfinished` counts one more of its `crashes`."""
        ...

    def save_results(
        self, job: Job, images: Sequence[Image.Image], traces: Sequence[Trace | None]
    ) -> tuple[Picture, ...]:
        """Keeps the pictures with their traces and marks the job done, all or nothing; again, it changes nothing.

        Raises Refusal if they cannot be kept.
        """
        ...

    def mark_ended(self, job: Job) -> None:
        """The job was cancelled or failed: see its `state` and `error`."""
        ...

    def update_order(self, job: Job) -> None:
        """Its `place` changed."""
        ...

    def load_unfinished(self) -> list[StoredJob]:
        """Return the jobs that have not ended, in their order."""
        ...

    def mark_refused(self, stored: StoredJob, error: str) -> None:
        """Mark a stored job failed that cannot be taken up again, with a sentence that says why."""
        ...
