"""The queue of one owner, as HTML: what runs, what waits and where, with what can be done about it.

Pure functions from views of jobs to markup; every text from outside is escaped here. A click on a button says its
data-act and the id of its job (page.js).
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from html import escape

from studio.engine.job import JobView
from studio.services.naming import TASK_NAMES
from studio.ui.components.formatting import format_progress

SETTLING = 1.5  # seconds: a lone job that has waited less is about to start, and is no news
TITLE = 120  # characters of a prompt


def queue_panel(jobs: Sequence[JobView], shown: Set[str], *, loading: bool = False) -> str:
    """jobs: the owner's that have not ended, by place.  shown: the ids of those on the stages.

    It asks to be seen while there is more under way than the stages tell; else it is there when it is called for.
    """
    running = [job for job in jobs if job.state == "running"]
    waiting = [job for job in jobs if job.state == "queued"]
    rows = "".join(_row(job, job.id in shown) for job in running)
    rows += "".join(
        _row(job, job.id in shown, first=index == 0, last=index == len(waiting) - 1, alone=len(waiting) == 1)
        for index, job in enumerate(waiting)
    )
    counts = ((running, "running"), (waiting, "waiting"))
    summary = ", ".join(f"{len(group)} {word}" for group, word in counts if group) or "empty"
    if loading and jobs:
        summary += "; the model is loading"
    sight = "busy" if any(_is_news(job, shown, loading) for job in jobs) else "quiet"
    empty = '<p class="none">Nothing of yours is under way. Generate as often as you like: what cannot start at once '
    empty += "waits here, and goes on when you leave the page.</p>"
    return (
        f'<section class="tray" data-sight="{sight}" aria-label="Queue">'
        f'<div class="head"><h2>Queue</h2><p role="status">{summary}</p>'
        '<button type="button" class="fold" data-tray="fold" aria-label="Show or hide the queue" title="Hide"></button>'
        f"</div>{f'<ol>{rows}</ol>' if rows else empty}</section>"
    )


def _is_news(job: JobView, shown: Set[str], loading: bool) -> bool:
    """Whether the stage does not tell it."""
    if job.id not in shown:
        return True
    return job.state == "queued" and not loading and (job.ahead > 0 or time.time() - job.created > SETTLING)


def _row(job: JobView, shown: bool, *, first: bool = True, last: bool = True, alone: bool = True) -> str:
    title = escape(job.caption if len(job.caption) <= TITLE else job.caption[: TITLE - 1] + "…") or "No prompt"
    kind = "" if job.task == "text-to-image" else f"<span>{TASK_NAMES.get(job.task, escape(job.task))}</span> "
    count = f" <span>× {job.count}</span>" if job.count > 1 else ""
    share = round(100 * job.share)
    bar = f'<progress max="100" value="{share}" aria-label="Progress"></progress>' if job.state == "running" else ""
    moves = ""
    if job.state == "queued" and not alone:
        moves = _button("up", job, "Earlier", title, off=first) + _button("down", job, "Later", title, off=last)
    what = f"{kind}{title}{count}"
    what = (  # also of what is shown, which may be in another tab
        f'<button type="button" class="what" data-act="show" data-job="{escape(job.id)}" title="Show: {title}">'
        f"{what}</button>"
    )
    return (
        f'<li data-state="{job.state}"{" aria-current=true" if shown else ""}>{what}'
        f'<p class="how">{escape(format_progress(job))}</p>'
        f'<p class="do">{moves}{_button("cancel", job, "Cancel", title)}</p>{bar}</li>'
    )


def _button(act: str, job: JobView, name: str, title: str, *, off: bool = False) -> str:
    return (
        f'<button type="button" data-act="{act}" data-job="{escape(job.id)}" title="{name}" '
        f'aria-label="{name}: {title}"{" disabled" if off else ""}></button>'
    )
