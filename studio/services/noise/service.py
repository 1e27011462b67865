"""What the noise tab and its endpoints ask for, answered by the lab, the engine and the library.

The lab is imported when it is first needed, since importing torch takes seconds.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from studio.engine.engine import Engine
from studio.engine.job import JobRejected, JobView
from studio.engine.requests import TextToImage
from studio.imaging.animation import ANIMATION_TYPES, encode_animation
from studio.imaging.modes import flatten_alpha, normalize_image
from studio.library.store import Library
from studio.models.samplers import SAMPLER_LABELS
from studio.services.lru_store import LRUStore
from studio.services.noise.data_uris import file_to_uri, image_from_uri
from studio.services.noise.messages import picture_message, problem_message, progress_message, view_message
from studio.services.noise.params import (
    AnimationParams,
    CloudParams,
    CompareParams,
    ForwardParams,
    InspectParams,
    NoisedParams,
    ParamsT,
    RunParams,
    TrainParams,
    read_params,
)
from studio.services.noise.runs import OpenRun

ASSETS = Path(__file__).resolve().parents[3] / "assets"
FIRST_VIEW, EXAMPLE_RUN = ASSETS / "noise.json", ASSETS / "noise-run.json"
MAX_TRAININGS = 16  # kept, so that they can continue
MAX_OPEN_RUNS = 32  # kept, so that the network can be inspected in them
LOADING_SECONDS = 120.0
FORWARD_SIDE = 512  # px of the longer side of a library picture in the view Forward
MAX_ANIMATION_PIXELS = 40_000_000  # of all frames together
REFERENCE_STEPS = 100  # of the converged run that a compared run is measured against


class NoiseService:
    """Answers the noise tab and the noise endpoints. Answers are plain JSON. Thread-safe.

    Methods of the tab's scripts take an object of JSON and answer {"problem": sentence} where it is wrong.
    """

    def __init__(self, engine: Engine, library: Library, examples: Path) -> None:
        self.engine, self.library, self.examples = engine, library, examples
        self._trainings, self._open_runs = LRUStore(MAX_TRAININGS), LRUStore(MAX_OPEN_RUNS)
        self._inspector: tuple[Any, Any] | None = None  # the model's pipeline, and one for inspection over its weights
        self._inspection_lock = threading.Lock()

    def wait_for_model(self) -> None:
        """Wait for the model. It imports torch and diffusers, which no second thread may import at the same time."""
        self.engine.wait_until_ready(LOADING_SECONDS)

    @property
    def scheduler_config(self) -> Mapping[str, Any] | None:
        """The config of the model's scheduler; None until the model is loaded."""
        return getattr(getattr(self._pipeline, "scheduler", None), "config", None)

    @property
    def _pipeline(self) -> Any | None:
        return getattr(self.engine.backend(), "pipeline", None)

    # ---- for the scripts, as `server.<name>(params)` ----

    def first_view(self, params: object) -> dict[str, Any]:
        """Return the shipped forward and 2D views, which need no torch."""
        return _read_shipped(FIRST_VIEW)

    def example_run(self, params: object) -> dict[str, Any]:
        """Return the shipped run."""
        return _read_shipped(EXAMPLE_RUN)

    def forward(self, params: object) -> dict[str, Any]:
        """Return a picture, its noise and all schedules. See `ForwardParams`."""
        return _answer(self._forward, ForwardParams, params)

    def plane_start(self, params: object) -> dict[str, Any]:
        """Return points to learn, and the key of their training. See `CloudParams`."""
        return _answer(self._plane_start, CloudParams, params)

    def plane_train(self, params: object) -> dict[str, Any]:
        """Train, and return where the points go now. See `TrainParams`."""
        return _answer(self._plane_train, TrainParams, params)

    def inspect(self, params: object) -> dict[str, Any]:
        """Return what the network did in a stage of an open run. See `InspectParams`."""
        return _answer(self._inspect, InspectParams, params)

    def animate(self, params: object) -> dict[str, Any]:
        """Return an animation as a data URI. See `AnimationParams`."""
        return _answer(self._animate, AnimationParams, params)

    def _forward(self, params: ForwardParams) -> dict[str, Any]:
        self.wait_for_model()
        from studio.lab.views.forward import forward_view

        if isinstance(params.picture, str):
            image = image_from_uri(params.picture)
        else:
            examples = sorted(self.examples.glob("*.png"))
            if not examples:
                raise ValueError("The examples are missing.")
            image = Image.open(examples[params.picture % len(examples)])
        return forward_view(image, params.size, params.seed, params.standardize, self.scheduler_config)

    def _plane_start(self, params: CloudParams) -> dict[str, Any]:
        self.wait_for_model()
        from studio.lab.point_model import PointModel
        from studio.lab.views.plane import parse_cloud, plane_view

        model = PointModel(parse_cloud(params.shape, params.text, params.strokes))
        return {"key": self._trainings.put((model, threading.Lock())), "plane": plane_view(model)}

    def _plane_train(self, params: TrainParams) -> dict[str, Any]:
        self.wait_for_model()
        from studio.lab.point_model import GuidanceTarget
        from studio.lab.views.plane import flow_view

        training = self._trainings.get(params.key)
        if training is None:
            raise ValueError("This training is no longer kept. Please start it again.")
        model, lock = training
        target = GuidanceTarget(params.label, params.away, params.guidance)
        with lock:
            for _ in model.train(params.seconds):
                pass
            return flow_view(model, target)

    def _inspect(self, params: InspectParams) -> dict[str, Any]:
        self.wait_for_model()
        from studio.lab.views.inspection import inspection_view

        run = self._open_runs.get(params.key)
        if run is None:
            raise ValueError("This run is no longer kept. Please open it again.")
        last = len(run.trace.stages) - 1
        if params.stage > last:
            raise ValueError(f"The stage must be a whole number from 0 to {last}; it was {params.stage}.")
        with self._inspection_lock:
            pipeline = self._inspection_pipeline()
            if pipeline is None:
                raise ValueError("The network of this model cannot be inspected.")
            return inspection_view(pipeline, run.caption, run.trace, params.stage, denoised=run.is_denoised)

    def _inspection_pipeline(self) -> Any | None:
        from studio.lab.attention import inspection_pipeline

        pipeline = self._pipeline
        if pipeline is None:
            return None
        if self._inspector is None or self._inspector[0] is not pipeline:
            self._inspector = (pipeline, inspection_pipeline(pipeline))
        return self._inspector[1]

    def _animate(self, params: AnimationParams) -> dict[str, Any]:
        frames, pixels = [], 0
        for uri in params.frames:
            frames.append(flatten_alpha(image_from_uri(uri)))
            pixels += frames[-1].width * frames[-1].height
            if pixels > MAX_ANIMATION_PIXELS:
                raise ValueError("The pictures of this animation are too large.")
        return {
            "file": file_to_uri(encode_animation(frames, params.kind, params.seconds), ANIMATION_TYPES[params.kind])
        }

    # ---- for programs ----

    def noised_picture(self, image: Image.Image, params: NoisedParams) -> tuple[Image.Image, dict[str, Any]]:
        """Return a picture with noise, and its numbers. Raises ValueError."""
        self.wait_for_model()
        from studio.lab.views.forward import forward_numbers

        return forward_numbers(
            image,
            params.t,
            params.schedule,
            size=params.size,
            seed=params.seed,
            standardize=params.standardize,
            config=self.scheduler_config,
        )

    # ---- for an owner: messages to the tab ----

    def run(self, params: object, owner: str) -> Iterator[str]:
        """Run once: yield messages of its progress, then its trace or a problem. See `RunParams`."""
        try:
            request, view = read_params(RunParams, params).request(), None
            for view in self.engine.follow(self.engine.submit(request, owner), owner):
                yield progress_message("reverse", view.step, view.steps)
            message = self._reverse_message(self._finished_run(view, owner))
        except (JobRejected, ValueError) as problem:
            message = problem_message("reverse", str(problem))
        yield message

    def compare(self, params: object, owner: str) -> Iterator[str]:
        """Run two to four runs and a reference for each: yield messages of their progress, then the comparison.

        A reference has the same noise, words and guidance, and many steps. All runs share network calls. See
        `CompareParams`.
        """
        jobs: list[str] = []
        try:
            runs = read_params(CompareParams, params).run_params()
            requests = [run.request() for run in runs]
            references = [replace(request, steps=REFERENCE_STEPS, sampler="studio") for request in requests]
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

    def _compare_view(
        self,
        labels: list[str],
        requests: list[TextToImage],
        references: list[TextToImage],
        finished: dict[TextToImage, OpenRun],
    ) -> dict[str, Any]:
        self.wait_for_model()
        from studio.diffusion.composition import parse_layout
        from studio.lab.views.compare import ComparedRun, compare_view

        compared = []
        for label, request, reference in zip(labels, requests, references, strict=True):
            run = finished[request]
            layout = parse_layout(run.caption, 16)
            compared.append(
                ComparedRun(
                    label,
                    run.trace.stages[0],
                    finished[reference].trace.stages[0].x0[-1],
                    request.sampler,
                    run.picture_id,
                    tiles=len(layout.corners) if layout else 1,
                    passes=run.passes,
                )
            )
        return compare_view(compared, self.scheduler_config) | {"converged": REFERENCE_STEPS}

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
            return self._reverse_message(OpenRun.from_settings(trace, picture.settings, picture_id, from_words))
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

    def reverse_stages(self, run: OpenRun) -> list[dict[str, Any]]:
        """Return the stages of a run, step by step. Raises ValueError."""
        self.wait_for_model()
        from studio.lab.views.reverse import reverse_view

        return reverse_view(run.trace, run.sampler, self.scheduler_config)

    def _reverse_message(self, run: OpenRun) -> str:
        view = {
            "key": self._open_runs.put(run),
            "picture": run.picture_id,
            "params": run.params,
            "emphasized": run.emphasizes_style,
            "caption": run.caption,
            "sampler": SAMPLER_LABELS[run.sampler],
            "stages": self.reverse_stages(run),
        }
        return view_message("reverse", view)


def _answer(method: Callable[[ParamsT], dict[str, Any]], kind: type[ParamsT], data: object) -> dict[str, Any]:
    try:
        return method(read_params(kind, data))
    except (ValueError, OSError) as problem:
        return {"problem": str(problem)}


def _read_shipped(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {"problem": "The example is missing."}
