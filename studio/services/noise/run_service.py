"""Runs of the noise tab: started, compared, and opened from the library. Answers are messages to the tab's scripts."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from studio.engine.engine import Engine
from studio.engine.job import JobRejected, JobView
from studio.engine.requests import TextToImage
from studio.imaging.modes import normalize_image
from studio.library.store import Library
from studio.models.capabilities import Capabilities
from studio.models.identify import STUDIO
from studio.models.samplers import SAMPLER_LABELS
from studio.services.lru_store import LRUStore
from studio.services.noise.data_uris import file_to_uri
from studio.services.noise.messages import picture_message, problem_message, progress_message, view_message
from studio.services.noise.models import NoiseModels
from studio.services.noise.params import CompareParams, RunParams, read_params
from studio.services.noise.runs import OpenRun

MAX_OPEN_RUNS = 32  # kept, so that the network can be inspected in them
MAX_OPEN_BYTES = 200_000_000  # of their traces; one of 50 guided steps at 1024 px has 32 MB
FORWARD_SIDE = 512  # px of the longer side of a library picture in the view Forward
REFERENCE_STEPS = 100  # of the converged run that a compared run is measured against
LATENT_REFERENCE_STEPS = 50  # the same of a latent model, whose steps are slow
REFERENCE_SAMPLERS = ("studio", "dpm++2m", "ddim")  # the first that a model has; without noise, so that it converges


class RunService:
    """Runs and opens runs for the owners of pictures. Thread-safe. capabilities_of: returns what a model can do."""

    def __init__(
        self, engine: Engine, library: Library, models: NoiseModels, capabilities_of: Callable[[str], Capabilities]
    ) -> None:
        self.engine, self.library, self._models = engine, library, models
        self.capabilities_of = capabilities_of
        self._open_runs = LRUStore(MAX_OPEN_RUNS, MAX_OPEN_BYTES)

    def opened(self, key: str, stage: int) -> OpenRun:
        """Return a run that was opened. Raises ValueError if it is not kept, or has no such stage."""
        run = self._open_runs.get(key)
        if run is None:
            raise ValueError("This run is no longer kept. Please open it again.")
        last = len(run.trace.stages) - 1
        if stage > last:
            raise ValueError(f"The stage must be a whole number from 0 to {last}; it was {stage}.")
        return run

    # ---- for an owner: messages to the tab ----

    def run(self, params: object, owner: str) -> Iterator[str]:
        """Run once: yield messages of its progress, then its trace or a problem. See `RunParams`."""
        try:
            request, view = read_params(RunParams, params).request(), None
            for view in self.engine.follow(self.engine.submit(request, owner), owner):
                yield progress_message("reverse", view.step, view.steps)
            message = self.message(self._finished_run(view, owner))
        except (JobRejected, ValueError) as problem:
            message = problem_message("reverse", str(problem))
        yield message

    def compare(self, params: object, owner: str) -> Iterator[str]:
        """Run two to four runs and a reference for each: yield messages of their progress, then the comparison.

        A reference has the same model, noise, words and guidance, and many steps. All runs of a model share network
        calls. See `CompareParams`.
        """
        jobs: list[str] = []
        try:
            runs = read_params(CompareParams, params).run_params()
            requests = [run.request() for run in runs]
            references = [self._reference(request) for request in requests]
            distinct = list(dict.fromkeys([*requests, *references]))
            for request in distinct:
                jobs.append(self.engine.submit(request, owner))
            finished: dict[TextToImage, OpenRun] = {}
            for request, job in zip(distinct, jobs, strict=True):
                yield progress_message("compare", len(finished), len(distinct))
                finished[request] = self._wait_for(job, owner)
            view = self._compare_view([run.label for run in runs], requests, references, finished)
        except (JobRejected, ValueError) as problem:
            for job in jobs:
                self.engine.cancel(job, owner)
            yield problem_message("compare", str(problem))
        else:
            yield view_message("compare", view)

    def _reference(self, request: TextToImage) -> TextToImage:
        """Return the request of the converged run of a request. Raises InvalidRequest."""
        capabilities = self.capabilities_of(request.model_id)
        steps = REFERENCE_STEPS if capabilities.family == STUDIO else LATENT_REFERENCE_STEPS
        sampler = next((each for each in REFERENCE_SAMPLERS if each in capabilities.samplers), request.sampler)
        return replace(request, steps=steps, sampler=sampler, spacing="")

    def _compare_view(
        self,
        labels: Sequence[str],
        requests: Sequence[TextToImage],
        references: Sequence[TextToImage],
        finished: dict[TextToImage, OpenRun],
    ) -> dict[str, Any]:
        self._models.wait()
        from studio.diffusion.composition import parse_layout
        from studio.lab.views.compare import ComparedRun, compare_view

        compared: list[ComparedRun] = []
        for label, request, reference in zip(labels, requests, references, strict=True):
            run = finished[request]
            layout = None if run.is_latent else parse_layout(run.caption, 16)
            compared.append(
                ComparedRun(
                    label,
                    run.trace.stages[0],
                    finished[reference].trace.stages[0].x0[-1],
                    run.trace.model,
                    request.sampler,
                    run.picture_id,
                    tiles=len(layout.corners) if layout else 1,
                    passes=run.passes,
                )
            )
        return compare_view(compared, self._models.scheduler_config()) | {
            "converged": references[0].steps,
            "latent": finished[requests[0]].is_latent,
        }

    def open(self, owner: str, picture_id: str) -> str:
        """Return the message that shows the trace of a library picture, or the reason why it cannot."""
        picture = self.library.get_picture(owner, picture_id)
        trace = self.library.load_trace(owner, picture_id) if picture else None
        if picture is None or trace is None:
            problem = "No trace was kept of how this picture was made."
            if picture and picture.has_trace:
                problem = "The trace of this picture cannot be read: its file is gone, damaged, or of another version."
            return problem_message("reverse", problem)
        from_words = not self.library.find_inputs(owner, picture_id)
        try:
            return self.message(OpenRun.from_settings(trace, picture.settings, picture_id, from_words))
        except ValueError as problem:
            return problem_message("reverse", f"This trace cannot be shown: {problem}.")

    def open_forward(self, owner: str, picture_id: str) -> str:
        """Return the message that opens a library picture in the view Forward."""
        picture = self.library.get_picture(owner, picture_id)
        try:
            with Image.open(picture.path if picture else "") as file:
                image = normalize_image(file)
        except OSError:
            return problem_message("reverse", "This picture does not exist any more.")
        image.thumbnail((FORWARD_SIDE, FORWARD_SIDE))
        png = io.BytesIO()
        image.save(png, "PNG")
        return picture_message(file_to_uri(png.getvalue(), "image/png"), picture_id)

    # ---- runs ----

    def run_and_wait(self, request: TextToImage, owner: str) -> OpenRun:
        """Return a run when it is finished. Raises JobRejected, ValueError."""
        return self._wait_for(self.engine.submit(request, owner), owner)

    def _wait_for(self, job: str, owner: str) -> OpenRun:
        views = list(self.engine.follow(job, owner))
        return self._finished_run(views[-1] if views else None, owner)

    def _finished_run(self, view: JobView | None, owner: str) -> OpenRun:
        """Return the run of a job's last view. Raises ValueError if the job failed or left no trace."""
        if view is None or view.state != "done" or view.resolved is None:
            raise ValueError((view and view.error) or "The run was cancelled.")
        picture = view.pictures[0]
        trace = self.library.load_trace(owner, picture.id)
        if trace is None:
            raise ValueError("No trace was kept: the picture is too large, or the space for traces is full.")
        settings = picture.settings | view.resolved.settings | {"caption": view.resolved.caption}
        run = OpenRun.from_settings(trace, settings, picture.id, from_words=True)
        return replace(run, passes=view.resolved.passes)

    def stages(self, run: OpenRun) -> list[dict[str, Any]]:
        """Return the stages of a run, step by step. Raises ValueError."""
        self._models.wait()
        from studio.lab.views.reverse import reverse_view

        return reverse_view(run.trace, run.sampler, self._models.scheduler_config(run.trace.model.id))

    def message(self, run: OpenRun) -> str:
        """Return the message that shows a run, and keep it open. Raises ValueError."""
        view = {
            "key": self._open_runs.put(run, run.trace.bytes),
            "picture": run.picture_id,
            "params": run.params,
            "emphasized": run.emphasizes_style,
            "caption": run.caption,
            "sampler": SAMPLER_LABELS[run.sampler],
            "model": run.trace.model.id,
            "stages": self.stages(run),
        }
        return view_message("reverse", view)
