"""What every tab that paints has: the view of a job or a picture, a Stop button, and a place for messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gradio as gr
from gradio.components import Component

from studio.engine.job import JobView
from studio.services.context import AppContext
from studio.ui.components.image_card import ImageCard
from studio.ui.components.parts import PRIVATE, QUICK, message_html
from studio.ui.components.send_to import SendTarget
from studio.ui.components.views import (
    LatestPerSession,
    finished_html,
    make_view_token,
    parse_view_token,
    token_number,
    view_frames,
)
from studio.ui.events import Events, Updates
from studio.ui.scripts import on_load

# Clicks on `data-pick` reach Python with the key of the selected picture.
CLICK_SCRIPT = on_load("result.js", "sendPicks(element, trigger)")
RECENT_JOBS = 24  # among which a tab looks for its latest picture


class JobTab(Protocol):
    """A tab that paints, as the rest of the page sees it."""

    @property
    def panel(self) -> JobPanel: ...

    @property
    def target(self) -> SendTarget:
        """Where pictures are sent to open in this tab."""
        ...

    @property
    def restored_outputs(self) -> list[Component]:
        """What `restore_view` may change."""
        ...

    def restore_view(self, owner: str) -> Updates:
        """Return what an owner who opens the page finds in this tab."""
        ...


@dataclass(frozen=True)
class JobPanel:
    """The parts of a tab that shows jobs. The tab shows one thing at a time, named by the token in `view_token`.

    tab: the id of its gr.Tab.  tasks: the tasks of its jobs.  result: where a job or a picture is shown.
    examples: the shipped pictures that can be shown.
    """

    context: AppContext
    token: gr.BrowserState
    tab: str
    tasks: tuple[str, ...]
    view_token: gr.Textbox
    result: gr.HTML
    stop: gr.Button
    message: gr.HTML
    examples: Sequence[ImageCard]
    latest: LatestPerSession = field(default_factory=LatestPerSession)

    @property
    def events(self) -> Events:
        """Connects the tab's events; a refusal is shown in `message`."""
        return Events(self.context, self.token, self.message, lambda sentence: message_html([sentence], role="alert"))

    @property
    def view_outputs(self) -> list[Component]:
        """What `show_job` and `show` change, and `message`."""
        return [self.view_token, self.stop, self.message]

    @property
    def restored_outputs(self) -> list[Component]:
        """What `restore_view` may change."""
        return [self.view_token, self.result, self.stop, self.message]

    def restore_view(self, owner: str) -> Updates:
        """Show the owner's newest unfinished job, else the newest one that is done."""
        unfinished = [job for job in self.context.engine.jobs(owner) if job.task in self.tasks]
        if unfinished:
            return self.show_job(max(unfinished, key=lambda job: job.created).id)
        updates: Updates = {}
        ended = [job for job in self.context.library.find_ended_jobs(owner, RECENT_JOBS) if job.task in self.tasks]
        if ended and ended[0].state == "failed":
            updates[self.message] = message_html([ended[0].error or ""], "alert")
        if done := next((job for job in ended if job.pictures), None):
            updates[self.result] = finished_html(self.context, owner, done)
        return updates

    def show_job(self, job_id: str) -> Updates:
        """Follow a job."""
        return {self.view_token: make_view_token("job", job_id), self.stop: gr.update(interactive=True)}

    def show(self, kind: str, item_id: object) -> Updates:
        """Show a picture or an example."""
        return {self.view_token: make_view_token(kind, item_id), self.stop: gr.update(interactive=False)}

    def drop_live_job(self, session: str | None, owner: str, view_token: str) -> None:
        """Cancel the job that is shown if it would not be kept. Its stream ends without showing that it stopped."""
        job = self._job(owner, view_token)
        if job is not None and not job.saved:
            self.latest.enter(session, token_number(make_view_token("job", job.id)))
            self.context.engine.cancel(job.id, owner)

    def connect(self) -> None:
        """Follow what the view token names, and stop it when asked."""
        inputs = [self.token, self.view_token]
        self.view_token.change(
            self._stream, inputs, [self.result], concurrency_limit=None, trigger_mode="multiple", **PRIVATE
        ).then(self._settle, inputs, [self.stop, self.result], trigger_mode="multiple", **QUICK)
        self.stop.click(self._cancel, inputs, None, **QUICK)

    def _stream(self, request: gr.Request, token: str, view_token: str) -> Iterator[Any]:
        owner, _ = self.context.owners.of_page(request, token)
        is_latest = self.latest.enter(request.session_hash, token_number(view_token))
        for frame in view_frames(self.context, owner, view_token, self.examples):
            if not is_latest():
                break
            yield frame
        # Gradio sends the last value of a stream again at its end, when something newer may be shown.
        yield gr.skip()

    def _settle(self, request: gr.Request, token: str, view_token: str) -> Updates:
        """Disable Stop once the job has ended, and show its end again.

        The browser may apply the messages of two streams in the wrong order.
        """
        owner, _ = self.context.owners.of_page(request, token)
        job = self._job(owner, view_token)
        if job is not None and not job.ended:
            return {self.stop: gr.update(interactive=True)}
        updates: Updates = {self.stop: gr.update(interactive=False)}
        for frame in view_frames(self.context, owner, view_token, self.examples):
            updates[self.result] = frame
        return updates

    def _cancel(self, request: gr.Request, token: str, view_token: str) -> None:
        kind, job_id = parse_view_token(view_token)
        if kind == "job":
            owner, _ = self.context.owners.of_page(request, token)
            self.context.engine.cancel(job_id, owner)

    def _job(self, owner: str, view_token: str) -> JobView | None:
        kind, job_id = parse_view_token(view_token)
        return self.context.engine.view(job_id, owner) if kind == "job" else None
