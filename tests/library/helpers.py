"""Requests, pictures and short ways to submit and finish a job, for the library's tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from studio.engine.job import Job
from studio.engine.recorder import ByteBudget, TraceRecorder
from studio.engine.requests import Inpaint, Request, SuperResolve, TextToImage
from studio.engine.trace import Trace
from studio.library.store import Library
from tests.fakes import FakeBackend, resolve

ME, YOU = "user:me", "browser:you"


def make_picture(width: int = 8, height: int = 8, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def make_trace(seed: int = 0, side: int = 8) -> Trace:
    (row,) = FakeBackend(sample_size=side).prepare(resolve(TextToImage("a cat", steps=3, seed=seed)))
    recorder = TraceRecorder(row, ByteBudget())
    while not row.finished:
        row.take_step()
        recorder.record()
    return recorder.trace()


INPAINT = Inpaint(
    "a cat",
    make_picture(12, 10),
    make_picture(12, 10, 1).convert("L"),
    negative_prompt="a dog",
    count=2,
    steps=3,
    seed=5,
)
UPSCALE = SuperResolve(make_picture(6, 5), 4, prompt="", noise_level=0.1, count=2, seed=2**32 - 1)
PAINT = TextToImage(
    "a red apple",
    negative_prompt="blur",
    style="glossy",
    count=3,
    guidance=7.25,
    sampler="unipc",
    seed=9,
    randomize_style=True,
)


def submit(library: Library, request: Request | str = "a red apple", owner: str = ME, order: float = 0.0) -> Job:
    job = Job(resolve(TextToImage(request) if isinstance(request, str) else request), owner, order=order)
    library.journal.add_job(job)
    return job


def finish(library: Library, request: Request | str = "a red apple", owner: str = ME, traced: bool = True) -> Job:
    """Submit a job and save its pictures."""
    job = submit(library, request, owner)
    library.journal.mark_started(job)
    job.seconds, job.notes = 1.25, ("A note.",)
    seeds = job.resolved.seeds
    job.pictures = library.journal.save_results(
        job, [make_picture(seed=seed) for seed in seeds], [make_trace(seed) if traced else None for seed in seeds]
    )
    job.state = "done"
    return job


def resume(library: Library) -> list[Job]:
    """Return the unfinished jobs as an engine queues them again."""
    return [stored.resume(resolve(stored.request)) for stored in library.journal.load_unfinished()]


def kill(library: Library) -> Path:
    """Leave the folder as a process that is killed would."""
    library._storage.close()
    return library.folder


def list_files(library: Library) -> dict[str, list[str]]:
    return {name: sorted(os.listdir(library.folder / name)) for name in ("pictures", "traces", "inputs")}
