"""What stands large on the stage: a job as it goes, or a picture; and which stream of a page may write there.

A page watches one thing at a time, named "job:ID", "picture:ID" or "example:NUMBER". Leaving a job does not stop it.
Knows the engine's views of jobs and the library; knows nothing of Gradio.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from studio.engine.job import JobView
from studio.services.comparison import original_path, outside_notes
from studio.services.context import AppContext
from studio.ui.components import result as show
from studio.ui.components.formatting import format_progress
from studio.ui.components.result import ImageCard

FRAME_SECONDS = 0.12  # between two pictures of a job under way: what a browser can show without falling behind
SESSIONS = 4096
_numbers = itertools.count(time.time_ns())  # a page that outlives this process has older ones


def make_view_token(kind: str, id: object) -> str:
    """What a page is to show next. Each is a new one, so that the same job can be asked for again."""
    return f"{kind}:{id}#{next(_numbers)}"


def parse_view_token(ticket: str | None) -> tuple[str, str]:
    """Kind and id of what a page shows; two empty strings for nothing."""
    kind, _, id = (ticket or "").partition("#")[0].partition(":")
    return kind, id


def token_number(ticket: str | None) -> int:
    """The greater, the newer."""
    number = (ticket or "").rpartition("#")[2]
    return int(number) if number.isdigit() else 0


class LatestPerSession:
    """Knows the newest of what each page has asked for, in whatever order that arrives; the rest is out of date."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: OrderedDict[str, float] = OrderedDict()  # number, by session

    def enter(self, session: str | None, number: float) -> Callable[[], bool]:
        """Takes in what a page asks for, of a number that grows. What is returned tells whether it is the newest."""
        session = session or ""
        with self._lock:
            self._newest[session] = max(number, self._newest.pop(session, number))
            while len(self._newest) > SESSIONS:
                self._newest.popitem(last=False)
        return lambda: self._newest.get(session) == number


def view_frames(studio: AppContext, owner: str, ticket: str, examples: Sequence[ImageCard]) -> Iterator[str]:
    """The stage as HTML: once for a picture, again and again for a job until it ends. Nothing for what is not there."""
    kind, id = parse_view_token(ticket)
    if kind == "job":
        yield from _job_frames(studio, owner, id)
    elif kind == "picture" and (picture := studio.library.get_picture(owner, id)):
        shown = ImageCard.of(picture, original_path(studio, owner, picture))
        yield show.result_html([shown], show.done_label(shown, notes=outside_notes(studio, owner, [picture])))
    elif kind == "example" and id.isdigit() and int(id) < len(examples):
        yield example_html(examples[int(id)])


def example_html(example: ImageCard, notes: Sequence[str] = ()) -> str:
    return show.result_html([example], show.done_label(example, heading="Example", notes=notes), kind="example")


def finished_html(studio: AppContext, owner: str, job: JobView) -> str:
    """A job that is done, in all its pictures that are still there."""
    pictures = [ImageCard.of(picture, original_path(studio, owner, picture)) for picture in job.pictures]
    notes = [*outside_notes(studio, owner, job.pictures), *studio.notes(job)]
    return show.result_html(pictures, show.done_label(pictures[0], notes=notes, count=job.count))


def _job_frames(studio: AppContext, owner: str, id: str) -> Iterator[str]:
    try:
        views = studio.engine.follow(id, owner)
    except KeyError:  # it ended in another process's life, or long ago
        record = studio.library.get_job(owner, id)
        if record and record.ended and (record.pictures or record.state != "done"):
            yield _frame(studio, owner, record)
        return
    shown = 0.0
    for view in views:
        now = time.monotonic()
        if view.state == "running" and view.previews and now - shown < FRAME_SECONDS:
            continue
        shown = now
        yield _frame(studio, owner, view)
    if not view.ended:
        text = "The studio is being started again. This goes on by itself as soon as it is back."
        yield show.result_html(_previews(view), show.waiting_label(_asked(view), text), kind="waiting")


def _frame(studio: AppContext, owner: str, view: JobView) -> str:
    if view.state == "done" and not view.saved:
        return show.result_html(_previews(view), show.sketch_label(_asked(view), view.seconds), kind="sketch")
    if view.state == "done":
        return finished_html(studio, owner, view)
    if view.state == "failed":
        return show.result_html(_previews(view), show.failed_label(_asked(view), view.error or ""), kind="stopped")
    if view.state == "cancelled":
        return show.result_html(
            _previews(view), show.stopped_label(_asked(view), view.step, view.steps), kind="stopped"
        )
    if view.state == "running" and view.previews:
        label = show.running_label(_asked(view), round(100 * view.share), format_progress(view))
        return show.result_html(_previews(view), label, kind="running")
    if studio.engine.status.phase == "loading":
        text = "The model is loading. Your picture starts by itself as soon as it is there."
    else:
        text = f"{format_progress(view)}."
    label = show.waiting_label(_asked(view), text, round(100 * view.share) if view.share else None)
    return show.result_html(_previews(view), label, kind="waiting")


def _asked(view: JobView) -> dict[str, str]:
    return {"caption": view.caption, "task": view.task}


def _previews(view: JobView) -> list[ImageCard]:
    settings = _asked(view)
    if not view.previews:
        return [ImageCard(show.noise(), settings)] * view.count
    return [ImageCard(show.data_uri(preview), settings) for preview in view.previews]
