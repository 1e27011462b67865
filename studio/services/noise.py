"""What the tab "Noise" and its endpoints ask for: of the lab, of the engine, and of the library.

Reads what arrives, and gives answers that the tab's scripts draw, as JSON; no arithmetic on tensors. The lab is
imported when it is first needed: importing torch takes seconds.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import secrets
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from studio.engine.job import JobRejected, JobView
from studio.engine.requests import MAX_SEED, Denoise, InvalidRequest, TextToImage
from studio.imaging.animation import ANIMATION_TYPES, encode_animation
from studio.imaging.files import open_image
from studio.imaging.modes import flatten_alpha, normalize_image
from studio.models.samplers import SAMPLER_LABELS
from studio.prompts.nouns import without_style
from studio.services.build_request import as_int, seed_or_random
from studio.services.lru_store import LRUStore

if TYPE_CHECKING:
    from studio.services.context import AppContext

ASSETS = Path(__file__).resolve().parents[2] / "assets"
FIRST, EXAMPLE_RUN = ASSETS / "noise.json", ASSETS / "noise-run.json"
MOST_TOYS = 16  # trainings in the plane that are kept to be taken up again
MOST_RUNS = 32  # runs on the page that the network can still be looked into
SLICE = 3.0  # seconds that one call may train
COMPARED = 4
LOADING_SECONDS = 120.0
FORWARD_SIDE = 512  # px of a larger picture's longer side on its way into noise
MOST_FRAMES, MOST_FRAME_PIXELS = 130, 40_000_000  # of an animation
CONVERGED = 100  # steps of the run that others are measured against


@dataclass(frozen=True)
class Run:
    """A trace on the page, and the words and the sampler of the run that left it."""

    trace: Any
    caption: str
    sampler: str
    picture: str = ""  # id of the picture that was kept
    asked: dict[str, Any] | None = None  # what makes the same run again; None where words alone do not
    denoised: bool = False  # whether it took the noise out of a picture
    emphasized: bool = False  # whether guidance emphasized the style


class NoiseService:
    """What the tab asks for. Answers are JSON; what cannot be done is {"problem": a sentence}."""

    def __init__(self, studio: AppContext) -> None:
        self.studio = studio
        self.toys, self.runs = LRUStore(MOST_TOYS), LRUStore(MOST_RUNS)
        self._listener: tuple[Any, Any] | None = None
        self._looking = threading.Lock()

    def await_imports(self) -> None:
        """Waits for the model, which is loaded while the page answers: threads that import torch and diffusers for the
        first time side by side find modules half made, and what they leave stays broken."""
        self.studio.engine.wait_until_ready(LOADING_SECONDS)

    # ---- asked by the scripts, `server.<name>(asked)` ----

    def first(self, asked: Any) -> Any:
        """The shipped forward and plane views, so that nothing waits for torch."""
        return _shipped(FIRST)

    def example_run(self, asked: Any) -> Any:
        return _shipped(EXAMPLE_RUN)

    def forward(self, asked: Any) -> Any:
        return _answer(self._forward, asked)

    def _forward(self, picture: Any, size: Any = 64, seed: Any = 0, standardize: Any = False) -> Any:
        self.await_imports()
        from studio.lab.views import forward_view

        if isinstance(picture, int):
            shipped = sorted(self.studio.examples.glob("*.png"))
            image = Image.open(shipped[picture % len(shipped)])
        else:
            image = picture_of(picture)
        return forward_view(image, size, checked_seed(seed), bool(standardize), self.config)

    def plane_start(self, asked: Any) -> Any:
        return _answer(self._plane_start, asked)

    def _plane_start(self, shape: Any, text: Any = "", strokes: Any = ()) -> Any:
        self.await_imports()
        from studio.lab.toy import PointModel
        from studio.lab.views import parse_cloud, plane_view

        toy = PointModel(parse_cloud(str(shape), str(text), strokes))
        return {"key": self.toys.put((toy, threading.Lock())), "plane": plane_view(toy)}

    def plane_train(self, asked: Any) -> Any:
        return _answer(self._plane_train, asked)

    def _plane_train(
        self, key: Any, seconds: Any = 0.0, label: Any = None, away: Any = None, guidance: Any = 1.0
    ) -> Any:
        """Trains for so long (0: not at all) and shows where the points go now."""
        self.await_imports()
        from studio.lab.toy import GuidanceTarget
        from studio.lab.views import flow_view

        held = self.toys.get(key)
        if held is None:
            raise ValueError("This training is no longer kept: begin it again.")
        aim = GuidanceTarget(label, away, _number("guidance", guidance))
        toy, lock = held
        with lock:
            for _ in toy.train(min(SLICE, max(0.0, _number("seconds", seconds)))):
                pass
            return flow_view(toy, aim)

    def look(self, asked: Any) -> Any:
        return _answer(self._look, asked)

    def _look(self, key: Any, stage: Any = 0) -> Any:
        self.await_imports()
        from studio.lab.views import inspection_view

        run = self.runs.get(key)
        if run is None:
            raise ValueError("This run is no longer kept: open it again.")
        if stage not in range(len(run.trace.stages)):
            raise ValueError(f"stage is {stage!r}; it must be from 0 to {len(run.trace.stages) - 1}")
        with self._looking:
            pipe = self._own_listener()
            if pipe is None:
                raise ValueError("This model's network cannot be looked into.")
            return inspection_view(pipe, run.caption, run.trace, stage, denoised=run.denoised)

    def animate(self, asked: Any) -> Any:
        return _answer(self._animate, asked)

    def _animate(self, frames: Any, kind: Any = "webp", seconds: Any = 6.0) -> Any:
        if not isinstance(frames, list) or len(frames) > MOST_FRAMES:
            raise ValueError(f"an animation may have {MOST_FRAMES} pictures at most")
        shown, room = [], MOST_FRAME_PIXELS
        for uri in frames:
            shown.append(flatten_alpha(picture_of(uri)))
            room -= shown[-1].width * shown[-1].height
            if room < 0:
                raise ValueError("The pictures of this animation are too large.")
        made = encode_animation(shown, kind, min(60.0, max(0.1, _number("seconds", seconds))))
        return {"file": f"data:{ANIMATION_TYPES[kind]};base64,{base64.b64encode(made).decode()}"}

    # ---- asked with an owner ----

    def run(self, asked: Any, owner: str) -> Iterator[str]:
        """One run here: letters of its progress, then its trace."""
        try:
            request = run_request(asked)
            run = yield from self.followed(self.studio.engine.submit(request, owner), request, owner, "reverse")
        except (InvalidRequest, JobRejected, ValueError) as problem:
            yield _letter("reverse", problem=str(problem))
            return
        yield self._reverse_letter(run)

    def compare(self, asked: Any, owner: str) -> Iterator[str]:
        """Two to four runs and, to measure each by, one of many steps from its own noise; letters of how many are done,
        then all of them. They share the network's calls."""
        self.await_imports()
        from studio.diffusion.composition import parse_layout
        from studio.lab.views import ComparedRun, compare_view

        jobs: list[str] = []
        try:
            wanted = asked.get("runs") if isinstance(asked, dict) else None
            if not isinstance(wanted, list) or not 2 <= len(wanted) <= COMPARED:
                raise ValueError(f"Compare 2 to {COMPARED} runs.")
            requests = [run_request(one) for one in wanted]
            converged = [replace(request, steps=CONVERGED, sampler="studio") for request in requests]
            every = list(dict.fromkeys([*requests, *converged]))  # what is asked for twice is made once
            jobs += [self.studio.engine.submit(request, owner) for request in every]
            runs: dict[TextToImage, Run] = {}
            for request, job in zip(every, jobs, strict=True):
                yield _letter("compare", progress=len(runs), of=len(every))
                runs[request] = outcome(self.followed(job, request, owner, "compare"))
            view = compare_view(
                [
                    ComparedRun(
                        str(one.get("label") or "")[:60],
                        runs[request].trace.stages[0],
                        runs[goal].trace.stages[0].x0[-1],
                        request.sampler,
                        runs[request].picture,
                        len(layout.corners) if (layout := parse_layout(runs[request].caption, 16)) else 1,
                        self.studio.engine.resolve(request).passes,
                    )
                    for one, request, goal in zip(wanted, requests, converged, strict=True)
                ],
                self.config,
            )
        except (InvalidRequest, JobRejected, ValueError) as problem:
            for job in jobs:  # nobody waits for the others any more
                self.studio.engine.cancel(job, owner)
            yield _letter("compare", problem=str(problem))
            return
        yield _letter("compare", view=view | {"converged": CONVERGED})

    def open(self, owner: str, picture_id: str) -> str:
        """The letter that shows the trace of a kept picture, or says why it cannot."""
        picture = self.studio.library.get_picture(owner, picture_id)
        trace = self.studio.library.load_trace(owner, picture_id) if picture else None
        if picture is None or trace is None:
            problem = "No trace was kept of how this picture was made."
            if picture and picture.has_trace:
                problem = "The trace of this picture cannot be read: its file is gone, damaged, or of another version."
            return _letter("reverse", problem=problem)
        began = self.studio.library.find_inputs(owner, picture_id)
        try:
            return self._reverse_letter(_run(trace, picture.settings, picture_id, from_words=not began))
        except ValueError as problem:
            return _letter("reverse", problem=f"This trace cannot be shown: {problem}.")

    def drown(self, owner: str, picture_id: str) -> str:
        """The letter that takes a kept picture into the view Forward."""
        picture = self.studio.library.get_picture(owner, picture_id)
        try:
            with Image.open(picture.path if picture else "") as image:
                shown = normalize_image(image)
        except OSError:
            return _letter("reverse", problem="This picture is not there any more.")
        shown.thumbnail((FORWARD_SIDE, FORWARD_SIDE))
        file = io.BytesIO()
        shown.save(file, "PNG")
        source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        return _letter("forward", source=source, picture=picture_id)

    def made(self, request: TextToImage, owner: str) -> Run:
        """A run, once it is done. Raises Refusal, ValueError."""
        return outcome(self.followed(self.studio.engine.submit(request, owner), request, owner, "reverse"))

    def followed(self, job: str, request: TextToImage, owner: str, kind: str) -> Generator[str, None, Run]:
        """Follows a job through the engine, with letters of its progress, to what it left. Raises ValueError."""
        view: JobView | None = None
        for view in self.studio.engine.follow(job, owner):
            yield _letter(kind, progress=view.step, of=view.steps)
        if view is None or view.state != "done":
            raise ValueError((view and view.error) or "The run was cancelled.")
        trace = self.studio.library.load_trace(owner, view.pictures[0].id)
        if trace is None:
            raise ValueError("No trace was kept of this run: the space for traces is full.")
        settings = view.pictures[0].settings | request.settings() | {"caption": view.resolved.caption}
        return _run(trace, settings, view.pictures[0].id, from_words=True)

    def _reverse_letter(self, run: Run) -> str:
        self.await_imports()
        from studio.lab.views import reverse_view

        stages = reverse_view(run.trace, run.sampler, self.config)
        key = self.runs.put(run)
        return _letter(
            "reverse",
            view={
                "key": key,
                "picture": run.picture,
                "asked": run.asked,
                "emphasized": run.emphasized,
                "caption": run.caption,
                "sampler": SAMPLER_LABELS[run.sampler],
                "stages": stages,
            },
        )

    def owner(self, request: gr.Request, token: Any) -> str:
        """token: the page's own; None where a program asks."""
        owners = self.studio.owners
        return owners.of_call(request) if token is None else owners.of_page(request, token)[0]

    @property
    def config(self) -> Any:
        """The model's own schedule; None until it is loaded: then the bundled model's."""
        pipe = getattr(self.studio.engine.backend, "pipeline", None)
        return getattr(getattr(pipe, "scheduler", None), "config", None)

    def _own_listener(self) -> Any | None:
        from studio.lab.attention import inspection_pipeline

        pipe = getattr(self.studio.engine.backend, "pipeline", None)
        if pipe is None:
            return None
        if self._listener is None or self._listener[0] is not pipe:
            self._listener = (pipe, inspection_pipeline(pipe))
        return self._listener[1]


# ---- reading what arrives ----


def _answer(function: Callable[..., Any], asked: Any) -> Any:
    try:
        return function(**(asked if isinstance(asked, dict) else {}))
    except TypeError as problem:
        if "argument" not in str(problem):
            raise
        return {"problem": "What was asked for was not understood."}
    except (ValueError, OSError) as problem:
        return {"problem": str(problem)}


def outcome(steps: Generator[str, None, Run]) -> Run:
    """What a generator comes to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def run_request(asked: Any) -> TextToImage:
    """Raises InvalidRequest."""
    asked = asked if isinstance(asked, dict) else {}
    return TextToImage(
        prompt=asked.get("prompt", ""),
        negative_prompt=asked.get("negative_prompt", ""),
        steps=as_int(asked.get("steps", 10)),
        guidance=asked.get("guidance", 3.0),
        sampler=asked.get("sampler", "studio"),
        seed=seed_or_random(asked.get("seed")),
        one_pass=bool(asked.get("one_pass", False)),
        style_emphasis=bool(asked.get("style_emphasis", False)),
    )


def _run(trace: Any, settings: dict[str, Any], picture: str, from_words: bool) -> Run:
    """settings: of the request and of the picture.  from_words: that nothing but these made it."""
    sampler = settings.get("sampler", "studio")
    caption, asked = str(settings.get("caption", "")), None
    if from_words and settings.get("task") == TextToImage.task and settings.get("resolution") is None:
        asked = {name: settings.get(name) for name in ("negative_prompt", "steps", "guidance", "sampler", "seed")}
        asked |= {"prompt": caption, **{name: bool(settings.get(name)) for name in ("one_pass", "style_emphasis")}}
    denoised = settings.get("task") == Denoise.task
    emphasized = settings.get("style_emphasis") is True and without_style(caption) != caption
    return Run(trace, caption, sampler if sampler in SAMPLER_LABELS else "studio", picture, asked, denoised, emphasized)


def checked_seed(value: Any) -> int:
    value = as_int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise ValueError(f"seed is {str(value)[:40]!r}; it must be a whole number from 0 to {MAX_SEED}")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {str(value)[:40]!r}; it must be a number")
    return float(value)


def picture_of(uri: Any) -> Image.Image:
    """The picture in a data URI, RGB or RGBA. Raises ValueError."""
    try:
        data = base64.b64decode(str(uri).partition(",")[2], validate=True)
    except binascii.Error as problem:
        raise ValueError("The picture did not arrive whole.") from problem
    return open_image(io.BytesIO(data), "The picture")[0]


def _letter(kind: str, **contents: Any) -> str:
    """What the scripts are told. Its number makes two letters of the same words different."""
    return json.dumps({"kind": kind, "number": secrets.token_hex(4), **contents})


def _shipped(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {"problem": "The example is missing."}
