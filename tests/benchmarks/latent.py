"""Measure the engine with a latent model of random weights against the stock pipeline, and changes of model.

    python -m tests.benchmarks.latent [--repeats 5] [--steps 10] [--counts 1 4 16]
        [--only requests switches full-size]

The network has the layout of Stable Diffusion 1.5 with a tenth of its channels, and paints 256 x 256 px. "full-size"
has all channels (0.94 billion parameters, 3.8 GB on disk and twice that in memory), one request, and few steps.
Run it on an idle machine. Ratios compare measurements of one run that follow each other.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
from diffusers import StableDiffusionPipeline

from studio.engine.engine import Engine
from studio.engine.requests import TextToImage
from studio.models.cache import ModelCache
from studio.models.latent.backend import LatentBackend
from studio.models.loader import load_latent, reserve_torch_threads
from studio.models.placement import Placement
from tests.benchmarks.machine import heading, seconds, spread, table
from tests.fakes import MemoryJournal
from tests.models import tiny
from tests.models.latent.helpers import resolve

SIDE = 256
COUNTS = (1, 4, 16)
SWITCHES = 20
CPU = Placement(device="cpu", dtype="float32")
SMALL = {"unet": (32, 64, 128, 128), "vae": (16, 32, 64, 64), "text": 64}  # channels: a tenth of Stable Diffusion 1.5
FULL = {"unet": (320, 640, 1280, 1280), "vae": (128, 256, 512, 512), "text": 768}

stock: Any = None  # the stock pipeline, in the process that runs it


def save(channels: dict[str, Any], folder: Path) -> None:
    """Save a stock pipeline with random weights."""
    torch.manual_seed(0)
    words = tiny.tokenizer()
    unet = tiny.unet(
        sample_size=SIDE // 8,
        block_out_channels=channels["unet"],
        layers_per_block=2,
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        cross_attention_dim=channels["text"],
        attention_head_dim=8,
    )
    pipeline = StableDiffusionPipeline(
        vae=tiny.vae(*channels["vae"], layers_per_block=2),
        unet=unet,
        text_encoder=tiny.text_encoder(words, width=channels["text"]),
        tokenizer=words,
        scheduler=tiny.ddim(),
        **tiny.NO_CHECKER,
    )
    pipeline.save_pretrained(folder)


def cache_of(folders: dict[str, Path], budget: int) -> ModelCache:
    """Return models that load from folders; `budget` of them fit into memory."""

    def load(model_id: str) -> LatentBackend:
        return LatentBackend(load_latent(tiny.entry("sd15", folders[model_id]), CPU), lambda other: models.get(other))

    models = ModelCache(
        next(iter(folders)), load, size=lambda _: 1, budget=lambda: budget, claim_thread=reserve_torch_threads
    )
    return models


def request(seed: int, steps: int, model_id: str = "") -> TextToImage:
    return TextToImage("a red apple", sampler="ddim", steps=steps, guidance=5.0, seed=seed, model_id=model_id)


def run_jobs(engine: Engine, requests: list[TextToImage]) -> None:
    """Submit all requests at once and wait for their pictures."""
    jobs = [engine.submit(each, f"user {i}", save=False) for i, each in enumerate(requests)]
    for i, job in enumerate(jobs):
        *_, view = engine.follow(job, f"user {i}")
        if view.state != "done":
            raise RuntimeError(view.error)


def load_stock(folder: Path) -> None:
    """Load the stock pipeline, once in the process that runs it."""
    global stock
    stock = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    stock.set_progress_bar_config(disable=True)


def time_stock(requests: list[TextToImage]) -> float:
    """Return the seconds in which the stock pipeline runs the requests one after the other."""

    def run() -> None:
        for each in requests:
            stock(
                each.prompt,
                num_inference_steps=each.steps,
                guidance_scale=each.guidance,
                generator=torch.Generator().manual_seed(each.seed),
            )

    return seconds(run)


def other_process(
    initializer: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """Return a process beside this one, where only the engine computes.

    Threads of one process that compute with torch slow each other down, also when they take turns.
    """
    return ProcessPoolExecutor(1, get_context("spawn"), initializer, arguments)


def measure_requests(folder: Path, repeats: int, steps: int, counts: Sequence[int]) -> str:
    """Return the times of the engine and of the stock pipeline for several requests at once."""
    engine = Engine(
        cache_of({"model": folder}, 1), MemoryJournal(), resolve=partial(resolve, width=SIDE, height=SIDE)
    ).start()
    rows: list[tuple[object, ...]] = []
    with other_process(load_stock, (folder,)) as process:
        for count in counts:
            requests = [request(seed, steps, "model") for seed in range(count)]
            for _ in range(3):  # the engine measures how long calls of each size take
                run_jobs(engine, requests)
            process.submit(time_stock, requests[:1]).result()
            theirs: list[float] = []
            ours: list[float] = []
            for _ in range(repeats):
                theirs.append(process.submit(time_stock, requests).result())
                ours.append(seconds(partial(run_jobs, engine, requests)))
            ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
            medians = (f"{statistics.median(times):.2f}" for times in (theirs, ours))
            rows.append((count, *medians, spread(ratios)))
    engine.shutdown()
    head = ("requests at once", "stock, one after the other, s", "engine, s", "throughput over stock")
    return table(head, rows)


def measure_switches(folder: Path, steps: int) -> str:
    """Return what a change of model costs, and the memory after each, with room for one model."""
    engine = Engine(
        cache_of({"first": folder, "second": folder}, 1),
        MemoryJournal(),
        resolve=partial(resolve, width=SIDE, height=SIDE),
    ).start()
    process, same, other, memory = psutil.Process(), [], [], []
    run_jobs(engine, [request(0, steps, "first")])
    for number in range(SWITCHES):
        model_id = ("second", "first")[number % 2]
        other.append(seconds(partial(run_jobs, engine, [request(0, steps, model_id)])))
        same.append(seconds(partial(run_jobs, engine, [request(0, steps, model_id)])))
        gc.collect()
        memory.append(process.memory_info().rss / 2**20)
    engine.shutdown()
    added = statistics.median(other) - statistics.median(same)
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 2**20
    rows = [
        ("weights, MiB", f"{size:.0f}"),
        ("a job after a change, beyond one without, s", f"{added:.2f}"),
        ("memory after the first change, MiB", f"{memory[0]:.0f}"),
        (f"memory after change {SWITCHES}, MiB", f"{memory[-1]:.0f}"),
        ("largest in between over the first", f"{max(memory) / memory[0]:.3f}"),
    ]
    return table(("change of model", ""), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS, help="requests at once")
    parser.add_argument("--only", nargs="*", default=["requests", "switches"])
    options = parser.parse_args()
    print(heading(), flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        full_size = Path(place) / "full size"
        with other_process() as process:
            process.submit(save, SMALL, folder).result()
            if "full-size" in options.only:
                process.submit(save, FULL, full_size).result()
        if "requests" in options.only:
            print(measure_requests(folder, options.repeats, options.steps, options.counts), flush=True)
        if "switches" in options.only:
            print(measure_switches(folder, options.steps), flush=True)
        if "full-size" in options.only:
            print(measure_requests(full_size, options.repeats, options.steps, (1,)), flush=True)


if __name__ == "__main__":
    main()
