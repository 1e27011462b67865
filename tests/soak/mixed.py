"""Does a picture depend on its request alone? python -m tests.soak.mixed --requests 200

Random requests of all tasks, with random steps, guidance, seeds and samplers, go through the engine with the bundled
weights: one at a time, then all at once in random order with others among them that are cancelled on the way. Each
picture must be the same both times, and the same as the plain pipeline call gives, to within 1 of 255 in every pixel.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from studio.diffusion.guidance import STYLE_EMPHASIS
from studio.diffusion.pipelines import (
    StudioDenoisePipeline,
    StudioInpaintPipeline,
    StudioTextToImagePipeline,
    StudioUpscalePipeline,
)
from studio.diffusion.schedulers.samplers import make_sampler
from studio.engine.engine import Engine
from studio.engine.requests import AREAS, MAX_SEED, Denoise, Inpaint, Request, SuperResolve, TextToImage
from studio.engine.scheduling.limits import LineLimits
from studio.models.families.studio import StudioBackend, load_backend
from studio.models.samplers import STUDIO_SAMPLERS
from tests.benchmarks.machine import heading, table
from tests.fakes import MemoryJournal, resolve, single_model

PROMPTS = ("a red apple", "a cat face, noto style", "a blue butterfly on a yellow background", "two owls", "", "a boat")
PIPELINES = {
    TextToImage: StudioTextToImagePipeline,
    Inpaint: StudioInpaintPipeline,
    SuperResolve: StudioUpscalePipeline,
    Denoise: StudioDenoisePipeline,
}
WITHIN = 1  # of 255
OWNER = "soak"
Pictures = list[Image.Image]


def random_picture(draw: random.Random, sides: tuple[int, int]) -> Image.Image:
    """Return a picture of a few shapes, of random size."""

    def colour() -> tuple[int, ...]:
        return tuple(draw.randrange(256) for _ in range(3))

    size = draw.randint(*sides), draw.randint(*sides)
    picture = Image.new("RGB", size, colour())
    brush = ImageDraw.Draw(picture)
    for _ in range(4):
        corners = sorted(draw.randrange(size[0]) for _ in "ab"), sorted(draw.randrange(size[1]) for _ in "ab")
        box = corners[0][0], corners[1][0], corners[0][1], corners[1][1]
        draw.choice((brush.ellipse, brush.rectangle))(box, fill=colour())
    return picture


def random_request(draw: random.Random, most_steps: int = 24) -> Request:
    """Return a request of any task, with settings of their whole range up to guidance 10 and 128 px."""
    settings: dict[str, Any] = {
        "prompt": draw.choice(PROMPTS),
        "negative_prompt": draw.choice(("", "", "a dog", "blurry")),
        "count": draw.choice((1, 1, 1, 2, 3)),
        "steps": draw.randint(1, most_steps),
        "guidance": draw.choice((0.0, 1.0, 1.0, 3.0, 10.0, round(draw.uniform(0, 10), 2))),
        "sampler": draw.choice(STUDIO_SAMPLERS),
        "seed": draw.choice((0, MAX_SEED, draw.randrange(MAX_SEED))),
    }
    task = draw.choice((TextToImage, TextToImage, TextToImage, Inpaint, SuperResolve, Denoise))
    if task is TextToImage:
        settings |= {"style": draw.choice(("any", "glossy")), "background": draw.choice(("any", "blue"))}
        settings |= {"resolution": draw.choice((None, 64, 128)), "one_pass": draw.random() < 0.5}
        settings["style_emphasis"] = draw.random() < 0.5
        if draw.random() < 0.3:
            settings |= {"image": random_picture(draw, (20, 100)), "strength": round(draw.uniform(0.1, 1), 2)}
        return TextToImage(**settings)
    if task is Denoise:
        del settings["sampler"]
        method, sigma = draw.choice(("mean", "run")), draw.choice((None, 0.5, 25.0, 100.0))
        return Denoise(random_picture(draw, (8, 100)), sigma, method, **settings)
    if task is SuperResolve:
        level = draw.choice((0.0, 0.05, 0.3))
        return SuperResolve(random_picture(draw, (8, 40)), draw.choice((2, 4)), noise_level=level, **settings)
    image = random_picture(draw, (20, 100))
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((2, 2, image.width - 5, image.height - 5), fill=255)
    settings |= {"area": draw.choice(tuple(AREAS)), "invert": draw.random() < 0.2, "grow": draw.randint(-2, 9)}
    return Inpaint(image=image, mask=mask, feather=draw.choice((0, 0, 4)), **settings)


def plain(backend: StudioBackend, request: Request) -> Pictures:
    """Return the pictures of the pipeline call that a diffusers user makes."""
    resolved = resolve(request)
    components = backend.pipeline.components
    config = components["scheduler"].config
    components = {**components, "scheduler": make_sampler(request.sampler, config)}
    options: dict[str, Any] = {
        "negative_prompt": request.negative_prompt or None,
        "num_inference_steps": request.steps,
        "guidance_scale": float(request.guidance),
        "generator": [torch.Generator().manual_seed(seed) for seed in resolved.seeds],
    }
    pipe = PIPELINES[type(request)](**components)
    pipe.set_progress_bar_config(disable=True)
    if isinstance(request, TextToImage):
        options |= {"size": request.resolution, "one_pass": request.one_pass}
        options |= {"style_emphasis": STYLE_EMPHASIS} if request.style_emphasis else {}
        options |= {} if request.image is None else {"image": request.image, "strength": request.strength}
        return pipe(resolved.caption, num_images_per_prompt=request.count, **options).images
    if isinstance(request, Inpaint):
        options |= {"whole_picture": request.area == "whole", "invert": request.invert}
        options |= {"grow": request.grow, "feather": request.feather, "num_images_per_prompt": request.count}
        return pipe(resolved.caption, request.image, request.mask, **options).images
    images, prompts = [request.image] * request.count, [resolved.caption] * request.count
    if isinstance(request, Denoise):
        options["num_inference_steps"] = 1 if request.method == "mean" else request.steps
        return pipe(images, request.sigma, prompts, **options).images
    return pipe(images, request.scale, prompts, noise_level=request.noise_level, **options).images


def through_engine(
    backend: StudioBackend, requests: Sequence[Request], *, together: bool, draw: random.Random
) -> list[Pictures]:
    """Return the pictures of each request; `together`: at once, in random order, with others that are cancelled."""
    journal = MemoryJournal()
    engine = Engine(
        single_model(lambda: backend),
        journal,
        resolve=resolve,
        limits=LineLimits(jobs=10_000, owner_jobs=10_000, owner_seconds=1e9),
    ).start()
    ids: dict[int, str] = {}
    try:
        if together:
            to_cancel = []
            for number in draw.sample(range(len(requests)), len(requests)):
                ids[number] = engine.submit(requests[number], OWNER)
                if number % 4 == 0:
                    to_cancel.append(engine.submit(random_request(draw), OWNER))
            for job_id in to_cancel:  # at any step
                for view in engine.follow(job_id, OWNER):
                    if view.state == "running" and view.step >= min(draw.randint(0, 4), view.steps - 1):
                        engine.cancel(job_id, OWNER)
                        break
        else:
            for number, request in enumerate(requests):
                ids[number] = engine.submit(request, OWNER)
                wait(engine, ids[number])
        for job_id in ids.values():
            wait(engine, job_id)
    finally:
        engine.shutdown(600)
    entries = [journal.entries[ids[number]] for number in range(len(requests))]
    for entry in entries:
        if entry.state != "done":
            raise RuntimeError(f"{entry.request} has {entry.state}: {entry.error}")
    return [[journal.images[picture.id] for picture in entry.pictures] for entry in entries]


def wait(engine: Engine, job_id: str) -> None:
    """Wait until a job has ended. The engine forgets jobs that ended a while ago."""
    with suppress(KeyError):
        for _ in engine.follow(job_id, OWNER):
            pass


def difference(left: Sequence[Image.Image], right: Sequence[Image.Image]) -> int:
    """Return the largest difference of all pixels, of 255."""
    pairs = [(np.asarray(a, dtype=int), np.asarray(b, dtype=int)) for a, b in zip(left, right, strict=True)]
    return max(int(abs(a - b).max()) for a, b in pairs)


class CountingBackend:
    """A backend that counts what shares a call."""

    def __init__(self, backend: StudioBackend) -> None:
        self._backend = backend
        self.pictures = Counter[int]()  # by number in a call
        self.mixed = 0  # calls with more than one task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def denoise_step(self, rows: Sequence[Any]) -> None:
        self.pictures[len(rows)] += 1
        self.mixed += len({row.stage_info.task for row in rows}) > 1
        self._backend.denoise_step(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="folder of the pipeline")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--steps", type=int, default=24, help="at most, of a request")
    parser.add_argument("--seed", type=int, default=0, help="of the requests")
    args = parser.parse_args()
    print(heading())
    backend = load_backend(args.model)
    draw = random.Random(args.seed)
    requests = [random_request(draw, args.steps) for _ in range(args.requests)]
    seconds, counted = [], CountingBackend(backend)
    for make_pictures in (
        lambda: through_engine(backend, requests, together=False, draw=draw),
        lambda: through_engine(counted, requests, together=True, draw=draw),
        lambda: [plain(backend, request) for request in requests],
    ):
        start = time.perf_counter()
        seconds.append((make_pictures(), time.perf_counter() - start))
    (alone, first), (mixed, second), (called, third) = seconds
    rows = []
    for name, other in (("in company, others cancelled", mixed), ("plain pipeline call", called)):
        off = [difference(a, b) for a, b in zip(alone, other, strict=True)]
        rows.append((name, max(off), sum(value > 0 for value in off), sum(value > WITHIN for value in off)))
        for request, value in zip(requests, off, strict=True):
            if value > WITHIN:
                print(f"{value} of 255 off: {request}\n")
    pictures = sum(len(made) for made in alone)
    calls = sum(counted.pictures.values())
    mean = sum(n * times for n, times in counted.pictures.items()) / calls
    tasks = ", ".join(f"{number} {task}" for task, number in Counter(request.task for request in requests).items())
    print(f"{len(requests)} requests ({tasks}), {pictures} pictures, on {backend.device}, float32.\n")
    head = ("against the engine, one request at a time", "largest difference, of 255", "requests that differ", "by > 1")
    print(table(head, rows))
    print(
        f"Alone {first:.0f} s, in company {second:.0f} s ({mean:.1f} pictures a call in the mean, {counted.mixed} of "
        f"{calls} calls with more than one task), plain calls {third:.0f} s."
    )
    return int(any(row[3] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
