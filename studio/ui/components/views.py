"""What a tab shows large: a job as it runs, a picture or an example; and which stream of a page may write there.

A tab shows one thing at a time, named by a view token: "job:ID", "picture:ID" or "example:NUMBER", and a number.
Showing something else does not stop a job.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from studio.engine.job import JobView, Picture
from studio.library.store import JobRecord
from studio.services.comparison import original_path, outside_notes
from studio.services.context import AppContext
from studio.ui.components.examples import noise_uri
from studio.ui.components.formatting import format_progress
from studio.ui.components.image_card import ImageCard, data_uri
from studio.ui.components.label import (
    done_label,
    failed_label,
    live_label,
    running_label,
    stopped_label,
    waiting_label,
)
from studio.ui.components.result import result_html

FRAME_SECONDS = 0.12  # between two previews: faster ones would pile up in the browser
MAX_SESSIONS = 4096
_numbers = itertools.count(time.time_ns())  # pages may outlive the process: their tokens have smaller numbers


def make_view_token(kind: str, item_id: object) -> str:
    """Return a new token. The same job can be shown again, since each token has a number of its own."""
    return f"{kind}:{item_id}#{next(_numbers)}"


def parse_view_token(token: str | None) -> tuple[str, str]:
    """Return the kind and the id in a token; two empty strings for none."""
    kind, _, item_id = (token or "").partition("#")[0].partition(":")
    return kind, item_id


def token_number(token: str | None) -> int:
    """Return the number of a token. Newer tokens have greater ones."""
    number = (token or "").rpartition("#")[2]
    return int(number) if number.isdigit() else 0


class LatestPerSession:
    """Remembers the newest request of each session, in whatever order requests arrive. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: OrderedDict[str, float] = OrderedDict()  # number by session

    def enter(self, session: str | None, number: float) -> Callable[[], bool]:
        """Record a request and return a function that tells whether it still is the newest.

        number: greater for newer requests.
        """
        session = session or ""
        with self._lock:
            self._newest[session] = max(number, self._newest.pop(session, number))
            while len(self._newest) > MAX_SESSIONS:
                self._newest.popitem(last=False)
        return lambda: self._newest.get(session) == number


def view_frames(context: AppContext, owner: str, token: str, examples: Sequence[ImageCard]) -> Iterator[str]:
    """Yield the HTML of a view: once for a picture, repeatedly for a job until it ends, never for what is gone."""
    kind, item_id = parse_view_token(token)
    if kind == "job":
        yield from _job_frames(context, owner, item_id)
    elif kind == "picture" and (picture := context.library.get_picture(owner, item_id)):
        yield _pictures_html(context, owner, [picture], outside_notes(context, owner, [picture]), count=1)
    elif kind == "example" and item_id.isdigit() and int(item_id) < len(examples):
        yield example_html(examples[int(item_id)])


def example_html(example: ImageCard, notes: Sequence[str] = ()) -> str:
    """Return the view of a shipped picture."""
    return result_html([example], done_label(example, heading="Example", notes=notes), kind="example")


def finished_html(context: AppContext, owner: str, job: JobView | JobRecord) -> str:
    """Return the view of a finished job with the pictures that are left of it."""
    notes = [*outside_notes(context, owner, job.pictures), *context.notes(job)]
    return _pictures_html(context, owner, job.pictures, notes, job.count)


def _pictures_html(
    context: AppContext, owner: str, pictures: Sequence[Picture], notes: Sequence[str], count: int
) -> str:
    cards = [ImageCard.of(picture, original_path(context, owner, picture)) for picture in pictures]
    return result_html(cards, done_label(cards[0], notes=notes, count=count))


def _job_frames(context: AppContext, owner: str, job_id: str) -> Iterator[str]:
    try:
        views = context.engine.follow(job_id, owner)
    except KeyError:  # it ended before this process started, or long ago
        record = context.library.get_job(owner, job_id)
        if record and record.ended and (record.pictures or record.state != "done"):
            yield _job_html(context, owner, record)
        return
    shown_at = 0.0
    view: JobView | None = None
    for view in views:
        now = time.monotonic()
        if view.state == "running" and view.previews and now - shown_at < FRAME_SECONDS:
            continue
        shown_at = now
        yield _job_html(context, owner, view)
    if view is not None and not view.ended:
        text = "The studio is restarting. The job continues by itself afterwards."
        yield result_html(_preview_cards(view), waiting_label(_settings(view), text), kind="waiting")


def _job_html(context: AppContext, owner: str, view: JobView | JobRecord) -> str:
    """Return the view of a job in its present state."""
    settings, cards = _settings(view) | {"model": _model_name(context, view)}, _preview_cards(view)
    if view.state == "done" and view.saved:
        return finished_html(context, owner, view)
    if view.state == "done":
        return result_html(cards, live_label(settings, view.seconds), kind="sketch")
    if view.state == "failed":
        return result_html(cards, failed_label(settings, view.error or ""), kind="stopped")
    if view.state == "cancelled":
        return result_html(cards, stopped_label(settings, view.step, view.steps), kind="stopped")
    if view.state == "running" and view.previews:
        return result_html(cards, running_label(settings, view.share, format_progress(view)), kind="running")
    if isinstance(view, JobView) and waits_for_model(context, view):
        text = "The model is loading. Your picture starts by itself afterwards."
    else:
        text = f"{format_progress(view)}."
    return result_html(cards, waiting_label(settings, text, view.share or None), kind="waiting")


def waits_for_model(context: AppContext, view: JobView) -> bool:
    """Return whether a job waits until one of its models is loaded."""
    status = context.engine.status
    if view.state != "queued" or view.resolved is None:
        return False
    return status.loading in view.resolved.model_ids or (status.phase == "loading" and not status.loading)


def _model_name(context: AppContext, view: JobView | JobRecord) -> str:
    """Return the name of the model that runs a job; "" where there is only one."""
    resolved = view.resolved if isinstance(view, JobView) else None
    return resolved.model_name if resolved is not None and len(context.catalog.entries) > 1 else ""


def _settings(view: JobView | JobRecord) -> dict[str, str]:
    return {"caption": view.caption, "task": view.task}


def _preview_cards(view: JobView | JobRecord) -> list[ImageCard]:
    settings = _settings(view)
    sources = [data_uri(preview) for preview in view.previews] or [noise_uri()] * view.count
    return [ImageCard(source, settings) for source in sources]
