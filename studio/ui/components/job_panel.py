"""What every tab that paints has: a stage where one job or picture stands, Stop, and room for a sentence.

Each tab watches one thing at a time (see watching.py); leaving it, or the page, does not stop a job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.engine.job import JobView
from studio.services.context import AppContext
from studio.ui.components.parts import PRIVATE, QUICK, message_html
from studio.ui.components.result import ImageCard
from studio.ui.components.views import (
    LatestPerSession,
    finished_html,
    make_view_token,
    parse_view_token,
    token_number,
    view_frames,
)
from studio.ui.scripts import on_load

# Clicks on `data-pick` reach Python with the key of the selected picture.
CLICK_SCRIPT = on_load("result.js", "sendPicks(element, trigger)")


@dataclass(frozen=True)
class JobPanel:
    """The parts of a tab that shows jobs.

    tab: the id of its gr.Tab.  tasks: whose jobs it shows.  watched: what stands on the stage, a ticket of `watch`.
    examples: shipped pictures that can stand there.
    """

    studio: AppContext
    tab: str
    tasks: tuple[str, ...]
    watched: gr.Textbox
    stage: gr.HTML
    stop: gr.Button
    message: gr.HTML
    examples: Sequence[ImageCard]
    audience: LatestPerSession = field(default_factory=LatestPerSession)

    @property
    def greeting(self) -> list[Component]:
        """What `greet` changes."""
        return [self.watched, self.stage, self.stop, self.message]

    def greet(self, owner: str) -> dict[Component, Any]:
        """What an owner who opens the page finds: the newest job under way, else the newest that is done."""
        under_way = [job for job in self.studio.engine.jobs(owner) if job.task in self.tasks]
        if under_way:
            return self.show_job(max(under_way, key=lambda job: job.created).id)
        found: dict[Component, Any] = {}
        ended = [job for job in self.studio.library.find_ended_jobs(owner, 24) if job.task in self.tasks]
        if ended and ended[0].state == "failed":
            found[self.message] = message_html([ended[0].error or ""], "alert")
        if done := next((job for job in ended if job.pictures), None):
            found[self.stage] = finished_html(self.studio, owner, done)
        return found

    def show_job(self, id: str) -> dict[Component, Any]:
        return {self.watched: make_view_token("job", id), self.stop: gr.update(interactive=True)}

    def drop_sketch(self, session: str | None, owner: str, shown: str) -> None:
        """Cancels what is shown, if it is a job under way that would not be kept: it makes room for a newer one.
        Nobody is told that it was stopped."""
        job = self._job(owner, shown)
        if job is not None and not job.saved:
            self.audience.enter(session, token_number(make_view_token("job", job.id)))
            self.studio.engine.cancel(job.id, owner)

    def show(self, kind: str, id: object) -> dict[Component, Any]:
        """A picture or an example on the stage."""
        return {self.watched: make_view_token(kind, id), self.stop: gr.update(interactive=False)}

    def connect(self, token: gr.BrowserState) -> None:
        """Follows what is watched, and stops it."""
        studio = self.studio

        def stream(request: gr.Request, browser: str, shown: str) -> Iterator[Any]:
            owner, _ = studio.owners.of_page(request, browser)
            newest = self.audience.enter(request.session_hash, token_number(shown))
            for frame in view_frames(studio, owner, shown, self.examples):
                if not newest():
                    break
                yield frame
            # Gradio sends the last value of a stream once more at its end, when something newer may stand there.
            yield gr.skip()

        def settle(request: gr.Request, browser: str, shown: str) -> dict[Component, Any]:
            """Stop is there for as long as there is something to stop. What has come to its end is put on the stage
            once more: the browser may take what two streams have sent in the wrong order."""
            owner, _ = studio.owners.of_page(request, browser)
            job = self._job(owner, shown)
            if job is not None and not job.ended:
                return {self.stop: gr.update(interactive=True)}
            changed: dict[Component, Any] = {self.stop: gr.update(interactive=False)}
            for frame in view_frames(studio, owner, shown, self.examples):
                changed[self.stage] = frame
            return changed

        def cancel(request: gr.Request, browser: str, shown: str) -> None:
            kind, id = parse_view_token(shown)
            if kind == "job":
                studio.engine.cancel(id, studio.owners.of_page(request, browser)[0])

        self.watched.change(
            stream, [token, self.watched], [self.stage], concurrency_limit=None, trigger_mode="multiple", **PRIVATE
        ).then(settle, [token, self.watched], [self.stop, self.stage], trigger_mode="multiple", **QUICK)
        self.stop.click(cancel, [token, self.watched], None, **QUICK)

    def _job(self, owner: str, shown: str) -> JobView | None:
        kind, id = parse_view_token(shown)
        return self.studio.engine.view(id, owner) if kind == "job" else None
