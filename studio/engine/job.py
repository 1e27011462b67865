"""A job: one request of one owner on its way from the queue to its pictures, and the journal that outlives it."""

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
ENDED: tuple[State, ...] = ("done", "cancelled", "failed")


class JobRejected(RuntimeError):
    """A job that cannot be accepted or saved. Its text is one sentence for the person who submitted it."""


@dataclass(frozen=True)
class Picture:
    """A saved picture. Its id cannot be guessed."""

    id: str
    job_id: str
    index: int  # among the job's pictures, from 0
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
    """One request of one owner, and its progress. Only the engine changes it."""

    resolved: ResolvedRequest
    owner: str
    address: str = ""  # from which it was submitted; "" where that is unknown or does not count
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))  # 128 random bits
    state: State = "queued"
    created: float = field(default_factory=time.time)
    order: float = 0.0  # jobs start in ascending order
    step: int = 0  # steps that all pictures have taken
    steps: int = 0  # steps in all; until the job runs, as requested
    share: float = 0.0  # finished share of the network calls, 0 to 1
    error: str | None = None  # one sentence, of a failed job
    notes: tuple[str, ...] = ()  # sentences for the owner
    seconds: float = 0.0  # from the start to the decoded pictures
    pictures: tuple[Picture, ...] = ()  # of a job that is done
    crashes: int = 0  # processes that were killed while the job ran
    saved: bool = True  # False: nothing is written to the journal, and only the job's views hold its pictures

    def __post_init__(self) -> None:
        self.steps = self.steps or self.resolved.request.steps

    @property
    def request(self) -> Request:
        return self.resolved.request

    @property
    def party(self) -> str:
        """Who has a turn: the address, or the owner where there is none."""
        return self.address or self.owner

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class StoredJob:
    """A job of a journal that has not ended. Its request is not resolved yet."""

    id: str
    owner: str
    request: Request
    created: float
    order: float
    crashes: int = 0
    address: str = ""

    def resume(self, resolved: ResolvedRequest) -> Job:
        """Return the job as it is queued again."""
        return Job(
            resolved,
            self.owner,
            self.address,
            self.id,
            created=self.created,
            order=self.order,
            crashes=self.crashes,
        )


@dataclass(frozen=True)
class JobView:
    """A job at one moment.

    previews: the predicted pictures, one per picture, for those who follow the job; the finished pictures of a job
        that is done and not saved.
    resolved: None for a job that is read from the disk.
    """

    id: str
    task: str
    caption: str
    count: int
    state: State
    step: int
    steps: int
    share: float  # finished share of the network calls, 0 to 1
    ahead: int  # queued jobs that start before this one
    eta_seconds: float | None  # until the job is done; None until a job was measured
    previews: tuple[Image.Image, ...]
    created: float
    error: str | None
    notes: tuple[str, ...]
    seconds: float
    pictures: tuple[Picture, ...]
    resolved: ResolvedRequest | None
    saved: bool = True

    @classmethod
    def of(cls, job: Job, ahead: int = 0, eta_seconds: float | None = None) -> JobView:
        """Return the present view of a job, without previews."""
        resolved = job.resolved
        return cls(
            id=job.id,
            task=resolved.request.task,
            caption=resolved.caption,
            count=resolved.request.count,
            state=job.state,
            step=job.step,
            steps=job.steps,
            share=job.share,
            ahead=ahead,
            eta_seconds=eta_seconds,
            previews=(),
            created=job.created,
            error=job.error,
            notes=job.notes,
            seconds=job.seconds,
            pictures=job.pictures,
            resolved=resolved,
            saved=job.saved,
        )

    @property
    def request(self) -> Request | None:
        return self.resolved.request if self.resolved else None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class Journal(Protocol):
    """A store of jobs that outlives the process. Its methods are called from several threads."""

    def add_job(self, job: Job) -> None:
        """Store a job; it is durable when this returns. Raises JobRejected if it cannot be accepted."""
        ...

    def mark_started(self, job: Job) -> None:
        """Store that a job runs. If the process is killed now, `load_unfinished` counts one more of its crashes."""
        ...

    def save_results(
        self, job: Job, images: Sequence[Image.Image], traces: Sequence[Trace | None]
    ) -> tuple[Picture, ...]:
        """Save a job's pictures and traces and mark it done, all or nothing. A second call changes nothing.

        Raises JobRejected if they cannot be saved.
        """
        ...

    def mark_ended(self, job: Job) -> None:
        """Store that a job was cancelled or failed: see its `state` and `error`."""
        ...

    def update_order(self, job: Job) -> None:
        """Store the new `order` of a job."""
        ...

    def load_unfinished(self) -> list[StoredJob]:
        """Return the jobs that have not ended, in their order."""
        ...

    def mark_refused(self, stored: StoredJob, error: str) -> None:
        """Store that a job which has not ended failed, with a sentence: its model refuses the request now."""
        ...
