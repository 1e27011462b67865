"""Who runs when: one thread loads the pipeline, then does one run at a time in the order they came.

Knows requests and the sampler protocol (`prepare`, `denoise_step`, `decode`, `truncated`); knows nothing of
Gradio, of files, or of a particular network. The surface is submit, stream and stop, by run id.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

from studio.engine.requests import TextToImage

log = logging.getLogger(__name__)

MAX_WAITING = 64  # runs in line; more are refused
PREVIEW_SECONDS = 0.08  # previews are made at most this often


class EngineError(RuntimeError):
    """The engine cannot do a run; its text is one sentence for the person who asked."""


@dataclass(frozen=True)
class Progress:
    """Where a run is. `previews` are the x0-predictions, one a picture, and empty before the first step."""

    phase: Literal["loading", "waiting", "running"]
    step: int = 0
    steps: int = 0
    previews: tuple[Image.Image, ...] = ()
    ahead: int = 0  # runs before this one in line


@dataclass(frozen=True)
class Result:
    """What a run gave. A stopped run has no images; its last `previews` show how far it came."""

    images: tuple[Image.Image, ...]
    seeds: tuple[int, ...]
    seconds: float  # from the first network call to the decoded picture, without waiting
    notes: tuple[str, ...] = ()
    stopped: bool = False
    step: int = 0
    steps: int = 0
    previews: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Status:
    phase: Literal["loading", "idle", "running", "failed"]
    problem: str = ""  # why loading failed
    waiting: int = 0  # runs in line behind the running one


@dataclass(eq=False)
class _Run:
    request: TextToImage
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    stop: threading.Event = field(default_factory=threading.Event)
    latest: Progress | None = None
    outcome: Result | EngineError | None = None


class Engine:
    """Runs requests on the pipeline that `load` returns.

    `load` is called once, in the engine's own thread, after `start()`: it may take its time and import what
    it likes. If it raises, the text of its exception is what every run is answered with.
    """

    def __init__(self, load: Callable[[], Any]):
        self._load = load
        self._changed = threading.Condition()  # guards everything below
        self._waiting: deque[_Run] = deque()
        self._runs: dict[str, _Run] = {}
        self._current: _Run | None = None
        self._ready = False
        self._problem = ""
        self.pipeline: Any = None  # set once loaded
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> Engine:
        self._thread.start()
        return self

    @property
    def status(self) -> Status:
        with self._changed:
            if self._problem:
                return Status("failed", problem=self._problem)
            if not self._ready:
                return Status("loading", waiting=len(self._waiting))
            return Status("running" if self._current else "idle", waiting=len(self._waiting))

    def submit(self, request: TextToImage) -> str:
        """Puts a request in line and returns its run id. Raises EngineError if the engine cannot take it."""
        with self._changed:
            if self._problem:
                raise EngineError(self._problem)
            if len(self._waiting) >= MAX_WAITING:
                raise EngineError(f"{MAX_WAITING} runs are in line already; please try again in a moment.")
            run = _Run(request)
            self._runs[run.id] = run
            self._waiting.append(run)
            self._changed.notify_all()
            return run.id

    def stream(self, run_id: str) -> Iterator[Progress | Result]:
        """The run as it goes: always the newest Progress, at the end one Result. Raises EngineError.

        A reader who is slow misses steps, never the Result. Closing the iterator stops the run.
        """
        run = self._runs[run_id]
        try:
            seen = None
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: run.outcome or self._progress(run) != seen)  # noqa: B023
                    outcome, seen = run.outcome, self._progress(run)
                if outcome is None:
                    yield seen
                elif isinstance(outcome, Result):
                    yield outcome
                    return
                else:
                    raise outcome
        finally:
            self.stop(run_id)
            self._runs.pop(run_id, None)

    def stop(self, run_id: str | None) -> None:
        """Ends a run within one step, or takes it out of the line. Unknown ids are runs that have ended."""
        with self._changed:
            run = self._runs.get(run_id)
            if run is None:
                return
            run.stop.set()
            if run in self._waiting:
                self._waiting.remove(run)
                run.outcome = Result((), tuple(run.request.seeds), 0.0, stopped=True, steps=run.request.steps)
            self._changed.notify_all()

    def run(self, request: TextToImage) -> Iterator[Progress | Result]:
        """submit and stream in one."""
        return self.stream(self.submit(request))

    def _progress(self, run: _Run) -> Progress:
        if run.latest:
            return run.latest
        if not self._ready:
            return Progress("loading", steps=run.request.steps)
        ahead = (self._waiting.index(run) if run in self._waiting else 0) + (self._current not in (None, run))
        return Progress("waiting", steps=run.request.steps, ahead=ahead)

    def _work(self) -> None:
        try:
            self.pipeline = self._load()
        except Exception as problem:  # whatever is wrong with a model folder must not end the page
            log.warning("the model was not loaded", exc_info=problem)
            with self._changed:
                self._problem = str(problem) or f"The model was not loaded: {type(problem).__name__}."
                for run in self._waiting:
                    run.outcome = EngineError(self._problem)
                self._waiting.clear()
                self._changed.notify_all()
            return
        with self._changed:
            self._ready = True
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                run = self._current = self._waiting.popleft()
                self._changed.notify_all()
            try:
                outcome: Result | EngineError = self._paint(run)
            except Exception as problem:  # one bad run must not end the engine
                log.exception("a run failed")
                outcome = EngineError(f"The run failed: {type(problem).__name__}: {problem}")
            with self._changed:
                run.outcome, self._current = outcome, None
                self._changed.notify_all()

    def _paint(self, run: _Run) -> Result:
        request, pipe = run.request, self.pipeline
        start, previewed = time.perf_counter(), 0.0
        rows = pipe.prepare(
            [request.caption] * request.count,
            [request.negative_prompt] * request.count if request.negative_prompt else None,
            num_inference_steps=request.steps,
            guidance_scale=float(request.guidance),
            seeds=request.seeds,
            sampler=request.sampler,
        )
        self._tell(run, Progress("running", 0, rows[0].num_steps))
        while not all(row.finished for row in rows) and not run.stop.is_set():
            pipe.denoise_step(rows)
            if time.perf_counter() - previewed >= PREVIEW_SECONDS:
                self._tell(run, Progress("running", rows[0].step, rows[0].num_steps, _previews(rows)))
                previewed = time.perf_counter()
        stopped = not all(row.finished for row in rows)
        images = () if stopped else tuple(pipe.decode(row) for row in rows)
        return Result(
            images,
            tuple(request.seeds),
            time.perf_counter() - start,
            tuple(self._notes(request)),
            stopped,
            rows[0].step,
            rows[0].num_steps,
            _previews(rows),
        )

    def _notes(self, request: TextToImage) -> Iterator[str]:
        if not request.caption:
            yield "The prompt was empty, so the model painted whatever it liked."
        for name, text in (("prompt", request.caption), ("negative prompt", request.negative_prompt)):
            if cut := self.pipeline.truncated(text).strip():
                yield f"The {name} is longer than the model reads. It did not read: “{_shortened(cut)}”."

    def _tell(self, run: _Run, progress: Progress) -> None:
        with self._changed:
            run.latest = progress
            self._changed.notify_all()


def _previews(rows: list) -> tuple[Image.Image, ...]:
    return tuple(_picture(row.pred_original_sample) for row in rows if row.pred_original_sample is not None)


def _picture(values: Any) -> Image.Image:
    """A (3, H, W) tensor or array in [-1, 1] as an RGB picture."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu()
    levels = np.clip((np.asarray(values, dtype=np.float32) + 1.0) * 127.5, 0.0, 255.0).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))


def _shortened(text: str, most: int = 120) -> str:
    """Both ends of a long text, with how many characters lie between."""
    if len(text) <= most:
        return text
    start, end = text[: most // 2].rstrip(), text[-most // 2 :].lstrip()
    return f"{start} … ({len(text) - len(start) - len(end):,} characters more) … {end}"
