"""Run the jobs of a caller: a caller that leaves ends its jobs.

The guard says who calls, by `scope["state"]["caller"]`. A request that has not passed it is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from studio.engine.job import JobView
from studio.engine.requests import Request
from studio.services.context import AppContext

GONE_SECONDS = 0.25  # between two looks at whether the caller is still there


class JobFailed(RuntimeError):
    """A job that ended without pictures. Its text is one sentence."""


class UnknownCaller(RuntimeError):
    """A request that no guard has let in. Its text is one sentence."""


@dataclass(frozen=True)
class Caller:
    """Who sends a request.

    owner: whose library and queue the jobs go to.
    address: for limits and fairness; "" if unknown.
    """

    owner: str
    address: str


def caller_of(connection: HTTPConnection) -> Caller:
    """Return who sends a request. Raises UnknownCaller."""
    caller = connection.scope.get("state", {}).get("caller")
    if caller is None:
        raise UnknownCaller("The studio does not know who sends this request.")
    return caller


async def run_job(
    context: AppContext, request: Request, caller: Caller, is_gone: Callable[[], Awaitable[bool]]
) -> JobView | None:
    """Submit a request and return its job, which is done; None if the caller has left, which cancels the job.

    Raises InvalidRequest, JobRejected, JobFailed.
    """
    job_id = await submit(context, request, caller)

    async def last_view() -> JobView | None:
        last = None
        async with aclosing(watch(context, job_id, caller)) as views:
            async for view in views:
                last = view
        return last

    task = asyncio.create_task(last_view())
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=GONE_SECONDS)
            if not task.done() and await is_gone():
                return None
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def submit(context: AppContext, request: Request, caller: Caller) -> str:
    """Queue a job and return its id. Raises InvalidRequest, JobRejected."""
    return await asyncio.to_thread(context.engine.submit, request, caller.owner, address=caller.address)


async def watch(context: AppContext, job_id: str, caller: Caller) -> AsyncGenerator[JobView]:
    """Yield the views of a job; the last one is done. To close it early cancels the job. Raises JobFailed."""
    views, has_ended = context.engine.follow_async(job_id, caller.owner), False
    try:
        async with aclosing(views):
            async for view in views:
                has_ended = view.ended
                if has_ended and view.state != "done":
                    raise JobFailed(view.error or "The job was cancelled.")
                yield view
        if not has_ended:
            raise JobFailed("The studio was stopped before the pictures were done.")
    finally:
        if not has_ended:
            context.engine.cancel(job_id, caller.owner)
