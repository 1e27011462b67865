"""The queue of one owner as HTML: running and waiting jobs, with buttons to move, show and cancel them.

A button sends its `data-act` and the id of its job (actions.js).
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set

from studio.engine.job import JobView
from studio.engine.requests import TextToImage
from studio.services.naming import TASK_NAMES
from studio.ui.components.formatting import format_progress, shorten
from studio.ui.components.templates import render

START_SECONDS = 1.5  # a lone job that has waited less than this is about to start
MAX_TITLE = 120  # characters of a prompt


def queue_html(jobs: Sequence[JobView], shown_ids: Set[str], *, loading: str = "", names_models: bool = False) -> str:
    """Return the queue panel. It opens by itself where the tabs do not show all there is to know.

    jobs: the owner's unfinished jobs, in their order.  shown_ids: the jobs that the tabs show.
    loading: the name of the model that is loading, "" for none.  names_models: whether each job names its model.
    """
    running = [job for job in jobs if job.state == "running"]
    waiting = [job for job in jobs if job.state == "queued"]
    counts = ((running, "running"), (waiting, "waiting"))
    summary = ", ".join(f"{len(group)} {word}" for group, word in counts if group) or "empty"
    if loading and jobs:
        summary += f"; {loading} is loading"
    opens = any(_is_news(job, shown_ids, bool(loading)) for job in jobs)
    entries = [_entry(job, job.id in shown_ids, names_models) for job in running]
    for job in waiting:
        moves = (
            [] if len(waiting) == 1 else [("up", "Earlier", job is waiting[0]), ("down", "Later", job is waiting[-1])]
        )
        entries.append(_entry(job, job.id in shown_ids, names_models, moves))
    return render("queue_panel.html", entries=entries, summary=summary, sight="busy" if opens else "quiet")


def _is_news(job: JobView, shown_ids: Set[str], is_loading: bool) -> bool:
    """Return whether the queue tells something about a job that no tab shows."""
    if job.id not in shown_ids:
        return True
    has_waited = job.ahead > 0 or time.time() - job.created > START_SECONDS
    return job.state == "queued" and not is_loading and has_waited


def _entry(
    job: JobView, is_shown: bool, names_model: bool, moves: Sequence[tuple[str, str, bool]] = ()
) -> dict[str, object]:
    """Return what the template needs of a job. moves: action, name and whether it is disabled."""
    return {
        "job": job,
        "title": shorten(job.caption, MAX_TITLE) or "No prompt",
        "task": "" if job.task == TextToImage.task else TASK_NAMES.get(job.task, job.task),
        "model": job.resolved.model_name if names_model and job.resolved else "",
        "is_shown": is_shown,
        "progress": format_progress(job),
        "buttons": [*moves, ("cancel", "Cancel", False)],
    }
