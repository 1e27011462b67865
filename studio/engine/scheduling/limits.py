"""How much work may be in line: of all, of one owner, and of one address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from studio.engine.active_job import ActiveJob
from studio.engine.checks import format_hours
from studio.engine.job import JobRejected
from studio.engine.resolved import ResolvedRequest

MAX_JOB_SECONDS = 3600.0  # of a job alone


@dataclass(frozen=True)
class LineLimits:
    """Limits of the jobs that are queued, and of the work that is not done. The owner's are per address too.

    jobs, owner_jobs: queued jobs.
    bytes, owner_bytes: of the pictures in their requests.
    owner_seconds: of network calls that the unfinished jobs of an owner still need.
    address_seconds: the same of an address, whose owners are not signed in.
    """

    jobs: int = 1024
    owner_jobs: int = 64
    bytes: int = 512_000_000
    owner_bytes: int = 192_000_000
    owner_seconds: float = 24 * MAX_JOB_SECONDS
    address_seconds: float = MAX_JOB_SECONDS


DEFAULT_LIMITS = LineLimits()


@dataclass
class _Work:
    """The work of an owner, an address, or all."""

    jobs: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def add(self, active: ActiveJob) -> None:
        self.seconds += active.job.resolved.seconds * (1 - active.job.share)
        if active.job.state == "queued":
            self.jobs += 1
            self.bytes += active.input_bytes


def check_line(
    jobs: Iterable[ActiveJob], resolved: ResolvedRequest, owner: str, address: str, limits: LineLimits
) -> None:
    """Raise JobRejected if a new job would go beyond the limits. jobs: all others. address: "" has no limits."""
    total, own, near = _Work(), _Work(), _Work()
    for active in jobs:
        if active.job.ended:
            continue
        total.add(active)
        if active.job.owner == owner:
            own.add(active)
        if address and active.job.address == address:
            near.add(active)
    has_pictures = bool(resolved.request.pictures())
    if total.jobs >= limits.jobs:
        raise JobRejected(f"{total.jobs} jobs are in the queue already: please try again in a moment.")
    if total.bytes > limits.bytes and has_pictures:
        raise JobRejected("The jobs in the queue hold too many large pictures already: please try again in a moment.")
    for work, some_jobs, the_jobs, max_seconds in (
        (own, "of your jobs", "Your jobs", limits.owner_seconds),
        (near, "jobs from your address", "The jobs from your address", limits.address_seconds),
    ):
        if work.jobs >= limits.owner_jobs:
            raise JobRejected(
                f"{work.jobs} {some_jobs} are in the queue already: please wait until some of them are done."
            )
        if work.bytes > limits.owner_bytes and has_pictures:
            raise JobRejected(
                f"{the_jobs} in the queue hold too many large pictures already: please wait until some of them are "
                "done."
            )
        seconds = work.seconds + resolved.seconds
        if work.seconds and seconds > max_seconds:
            raise JobRejected(
                f"{the_jobs} would take about {format_hours(seconds)} with this one, and may take "
                f"{format_hours(max_seconds)} at a time: please wait until some of them are done."
            )
