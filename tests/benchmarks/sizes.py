"""Time of presets, inpainting and super-resolution through the engine, and memory for 16 megapixels.

    python -m tests.benchmarks.sizes [--model assets/model] [--repeats 5] [--without-large]

Seconds are the engine's own, from the first network call to the decoded picture, without page and disk. Each large
picture has its own process, whose peak memory is given; they take minutes. Run it on an otherwise idle machine. POSIX
only: memory comes from the process's resource usage.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw

from studio.engine.engine import Engine
from studio.engine.requests import Denoise, Inpaint, Request, SuperResolve, TextToImage
from studio.models.families.studio import PRESETS, load_backend
from studio.models.loader import reserve_torch_threads
from tests.benchmarks.machine import heading, spread, table
from tests.fakes import MemoryJournal, resolve, single_model

OWNER = "benchmark"
TARGETS = {"live": "0.1"}
GIGA = 1e9


def drawing(width: int, height: int) -> Image.Image:
    """Return a few shapes in flat colours."""
    picture = Image.new("RGB", (width, height), "#2d9f48")
    brush = ImageDraw.Draw(picture)
    brush.ellipse((width * 0.2, height * 0.2, width * 0.7, height * 0.8), fill="#f2c230")
    brush.rectangle((width * 0.5, height * 0.1, width * 0.9, height * 0.4), fill="#3a78d6")
    return picture


def hole(width: int, height: int) -> Image.Image:
    """Return a mask with a disc over an eighth of the picture."""
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).ellipse((width * 0.4, height * 0.3, width * 0.8, height * 0.7), fill=255)
    return mask


def inpaint(side: int, area: str = "painted") -> Inpaint:
    return Inpaint("a pizza", drawing(side, side), hole(side, side), area=area)


SINGLE, PAIR = "a cat, noto style, on a blue background", "an owl left of a cactus, noto style, on a blue background"
SMALL: dict[str, tuple[Callable[[], Request], str]] = {  # name: (request, target in s)
    **{f"{name}, 64 px": (partial(TextToImage, SINGLE, **p), TARGETS.get(name, "")) for name, p in PRESETS.items()},
    **{f"{name}, a pair": (partial(TextToImage, PAIR, **p), "") for name, p in PRESETS.items()},
    "inpaint 64 px": (lambda: inpaint(64), "0.6"),
    "inpaint 256 px, painted area": (lambda: inpaint(256), ""),
    "x4, 64 to 256 px, 4 evaluations": (lambda: SuperResolve(drawing(64, 64), 4, steps=4), "2"),
    "x4, 64 to 256 px, the page's default": (lambda: SuperResolve(drawing(64, 64), 4), ""),
    "x4, 128 to 512 px, 4 evaluations": (lambda: SuperResolve(drawing(128, 128), 4, steps=4), "9"),
    "x4, 128 to 512 px, the page's default": (lambda: SuperResolve(drawing(128, 128), 4), "9"),
    "text to image, 256 px": (lambda: TextToImage("a red apple", resolution=256), ""),
    "text to image, 512 px": (lambda: TextToImage("a red apple", resolution=512), "9"),
    "denoise, 256 px": (lambda: Denoise(drawing(256, 256), 25.0), ""),
}
LARGE: dict[str, Callable[[], Request]] = {
    "none": lambda: TextToImage("a red apple"),
    "inpaint 4000 x 4000, painted area": lambda: inpaint(4000),
    "inpaint 4000 x 4000, whole picture": lambda: inpaint(4000, "whole"),
    "x2, 2000 x 2000 to 4000 x 4000, 1 evaluation": lambda: SuperResolve(drawing(2000, 2000), 2, steps=1),
    "x4, 1000 x 1000 to 4000 x 4000, 2 evaluations": lambda: SuperResolve(drawing(1000, 1000), 4),
    "denoise, 4000 x 4000": lambda: Denoise(drawing(4000, 4000), 25.0),
}


def start_engine(model: Path) -> Engine:
    """Return a warm engine: it has generated a picture."""

    models = single_model(lambda: load_backend(model))
    models.claim_thread = reserve_torch_threads
    engine = Engine(models, MemoryJournal(), resolve=resolve).start()
    seconds(engine, TextToImage("a red apple"))
    return engine


def seconds(engine: Engine, request: Request) -> float:
    """Return the engine's seconds for one job. Raise RuntimeError if it fails."""
    *_, last = engine.follow(engine.submit(request, OWNER), OWNER)
    if last.state != "done":
        raise RuntimeError(f"{last.state}: {last.error}")
    return last.seconds


def measure_small(model: Path, repeats: int) -> str:
    """Return a table of the times of small pictures."""
    engine = start_engine(model)
    rows = []
    for name, (make_request, target) in SMALL.items():
        request = make_request()
        seconds(engine, request)  # warm-up
        times = [seconds(engine, request) for _ in range(repeats)]
        rows.append((name, spread(times), f"≤ {target}" if target else ""))
    engine.shutdown(60)
    return table(("request", "s, median (min to max)", "target, s"), rows)


def measure_large(model: Path, name: str) -> tuple[float, int]:
    """Return the seconds of a large picture, and the peak memory of this process in bytes."""
    engine = start_engine(model)
    spent = seconds(engine, LARGE[name]())
    engine.shutdown(60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return spent, peak * (1 if sys.platform == "darwin" else 1024)


def measure_all_large(model: Path) -> str:
    """Return a table of times and peak memory of large pictures, each in its own process."""
    rows, least = [], math.inf
    for name in LARGE:
        command = [sys.executable, "-m", "tests.benchmarks.sizes", "--model", str(model), "--one", name]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        spent, peak = map(float, process.stdout.split()[-2:])
        least = min(least, peak)
        rows.append((name, f"{spent:.1f}", f"{peak / GIGA:.2f}", f"{(peak - least) / GIGA:.2f}"))
    rows[0] = ("text to image, 64 px, for comparison", *rows[0][1:])
    return table(("16 megapixels", "s", "peak memory, GB", "peak memory over 64 px, GB"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="pipeline folder")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--without-large", action="store_true", help="leave out the pictures of 16 megapixels")
    parser.add_argument("--one", choices=tuple(LARGE), help="print seconds and bytes of this large picture only")
    args = parser.parse_args()
    if args.one:
        print(*measure_large(args.model, args.one))
        return
    print(heading())
    print(measure_small(args.model, args.repeats), flush=True)
    if not args.without_large:
        print(measure_all_large(args.model))


if __name__ == "__main__":
    main()
