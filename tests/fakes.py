"""For tests: a backend that paints coloured blobs without a network, and a journal without a disk."""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from studio.engine.backend import Backend
from studio.engine.job import Job, JobRejected, Picture, State, StoredJob
from studio.engine.requests import Inpaint, Request, SuperResolve
from studio.engine.resolved import ResolvedRequest
from studio.engine.trace import Trace, TraceModel
from studio.models.cache import ModelCache
from studio.models.catalog import Catalog
from studio.models.families.studio import read_capabilities
from studio.models.resolver import ModelResolver

MODEL = Path(__file__).resolve().parents[1] / "assets" / "model"
CAPABILITIES = read_capabilities(MODEL)  # of the bundled model
MODELS = ModelResolver(Catalog(MODEL))
resolve = CAPABILITIES.resolve

COLOURS = {
    "white": "#f4f4f2",
    "black": "#222226",
    "red": "#d94a42",
    "green": "#46a060",
    "blue": "#3a78d6",
    "yellow": "#f2c230",
    "pink": "#ec8ca8",
    "purple": "#965cc4",
    "orange": "#ee8a34",
    "gray": "#9b9b98",
}
CONCEPTS = {
    "Food & Drink": """
        apple avocado banana bacon bread burrito candy carrot cheese cherries coconut cookie
        croissant doughnut egg grapes hamburger hot_dog ice_cream lemon melon mushroom pancakes
        peach pear pineapple pizza popcorn pretzel strawberry sushi taco tomato watermelon
    """,
    "Animals & Nature": """
        bear bee bird butterfly cactus camel cat chicken cow crab dog dolphin duck elephant fish
        fox frog giraffe hedgehog horse koala ladybug lion monkey mouse octopus owl panda
        penguin pig rabbit rose shark snail sunflower tiger tree tulip turtle whale
    """,
    "Travel & Places": """
        airplane ambulance bicycle boat bridge bus candle house lighthouse mountain post_office
        rocket sailboat taxi tent tractor train volcano
    """,
    "Objects": """
        balloon bell boots book camera clock crown diamond drum eraser gift guitar hammer key
        lamp magnet mirror_ball pencil phone pushpin robot scissors shell shoe trophy trumpet
        umbrella violin
    """,
    "Smileys & Emotion": """
        angry_face crying_face ghost grinning_face heart kiss_mark skull sleeping_face
        winking_face
    """,
}


@dataclass(frozen=True)
class FakeRecord:
    """`StepRecord` with arrays."""

    x_t: np.ndarray
    pred_original_sample: np.ndarray
    guidance_difference: np.ndarray | None
    timestep: float
    alpha: float
    sigma: float
    guidance_scale: float


@dataclass
class FakeRow:
    """A picture that is denoised by a deterministic sampler of order 1."""

    resolved: ResolvedRequest
    seed: int
    num_steps: int
    noise: np.ndarray  # (3, H, W)
    target: np.ndarray  # (3, H, W) in [-1, 1]
    sample: np.ndarray  # (3, H, W), x_t
    grows_at: int | None = None  # step at which the picture doubles its size
    step: int = 0
    record: FakeRecord | None = None
    calls_per_step: int = 1
    calls: int = 0  # of the present step
    model_id: str = ""
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        return self.step >= self.num_steps

    @property
    def progress(self) -> float:
        return (self.step + self.calls / self.calls_per_step) / self.num_steps

    @property
    def request(self) -> Request:
        return self.resolved.request

    def preview(self) -> np.ndarray | None:
        return self.record and self.record.pred_original_sample

    @property
    def call_key(self) -> tuple[str, tuple[int, ...]]:
        return self.model_id, self.sample.shape[1:]

    @property
    def stage_info(self) -> None:
        return None

    @property
    def call_rows(self) -> int:
        return 1 if self.request.guidance == 1 else 2

    def level(self, step: int) -> tuple[float, float]:
        """Return alpha and sigma before a step; after the last one there is no noise."""
        angle = (1 - step / self.num_steps) * math.pi / 2
        return math.cos(angle) if step else 0.0, math.sin(angle)

    def take_call(self) -> None:
        self.calls += 1
        if self.calls == self.calls_per_step:
            self.calls = 0
            self.take_step()

    def take_step(self) -> None:
        (alpha, sigma), (next_alpha, next_sigma) = self.level(self.step), self.level(self.step + 1)
        clean = (self.step + 1) / self.num_steps
        x0 = clean * self.target + (1 - clean) * (self.target.mean() + 0.3 * self.noise)
        x0 = x0.clip(-1, 1).astype(np.float32)
        difference = None if self.request.guidance == 1 else self.noise * np.float32(0.1)
        time = 999.0 * (1 - self.step / self.num_steps)
        self.record = FakeRecord(self.sample, x0, difference, time, alpha, sigma, float(self.request.guidance))
        eps = (self.sample - np.float32(alpha) * x0) / np.float32(sigma)
        self.sample = np.float32(next_alpha) * x0 + np.float32(next_sigma) * eps
        self.step += 1
        if self.step == self.grows_at:
            self.noise, self.target, self.sample = (
                array.repeat(2, axis=1).repeat(2, axis=2) for array in (self.noise, self.target, self.sample)
            )


@dataclass
class FakeBackend:
    """The `Backend` protocol without a network, for all tasks.

    A prompt that contains "unpreparable", "unsteppable" or "undecodable" makes that method raise.
    """

    delay: float = 0.0  # seconds per call
    delay_per_row: float = 0.0  # additional seconds per network row
    sample_size: int = 64
    limit: int = 300  # characters that it reads
    fits: int | None = None  # network rows that fit into memory
    grows: bool = False  # pictures double their size half way
    calls_per_step: int = 1  # of super-resolution
    gate: threading.Semaphore | None = None  # each call waits for a permit
    device: str = "cpu"
    trace_model: TraceModel = field(default_factory=TraceModel)
    milder: list[tuple[str, int]] = field(default_factory=list)  # sentences of `reduce_memory`, and `fits` after it
    begun: int = 0  # network calls, with the one that waits at the gate
    calls: list[int] = field(default_factory=list)  # pictures in each network call
    served: list[tuple[tuple[str, int], ...]] = field(default_factory=list)  # (caption, seed) of these pictures

    def prepare(self, resolved: ResolvedRequest) -> list[FakeRow]:
        request = resolved.request
        self._raise_if(request, "unpreparable")
        rows = []
        for index, seed in enumerate(resolved.seeds):
            noise = np.random.default_rng(seed).standard_normal((3, self.sample_size, self.sample_size), np.float32)
            grows_at = request.steps // 2 if self.grows and request.steps > 1 else None
            target = self._target(request, resolved.captions[index], seed)
            rows.append(FakeRow(resolved, seed, request.steps, noise, target, noise, grows_at))
            rows[-1].model_id = self.trace_model.id
            if isinstance(request, SuperResolve):
                rows[-1].calls_per_step = self.calls_per_step
        return rows

    def denoise_step(self, rows: Sequence[FakeRow]) -> None:
        self.begun += 1
        if self.gate:
            self.gate.acquire()
        network_rows = sum(row.call_rows for row in rows)
        assert {row.model_id for row in rows} == {self.trace_model.id}
        assert len({row.call_key for row in rows}) == 1 and not any(row.finished for row in rows)
        if self.fits is not None and network_rows > self.fits:
            raise MemoryError
        for row in rows:
            self._raise_if(row.request, "unsteppable")
        time.sleep(self.delay + self.delay_per_row * network_rows)
        self.calls.append(len(rows))
        self.served.append(tuple((row.resolved.caption, row.seed) for row in rows))
        for row in rows:
            row.take_call()

    def decode(self, row: FakeRow) -> Image.Image:
        self._raise_if(row.request, "undecodable")
        assert row.finished
        small = Image.fromarray(((row.sample.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0))
        if isinstance(row.request, SuperResolve):
            return small.resize(row.request.output_size)
        if isinstance(row.request, Inpaint):
            return Image.composite(small.resize(row.request.image.size), row.request.image, row.request.mask)
        return small

    def truncated(self, text: str) -> str:
        return text[self.limit :]

    def reduce_memory(self) -> str | None:
        if not self.milder:
            return None
        sentence, self.fits = self.milder.pop(0)
        return sentence

    def _target(self, request: Request, caption: str, seed: int) -> np.ndarray:
        if isinstance(request, SuperResolve):
            small = request.image.convert("RGB").resize((self.sample_size, self.sample_size))
            return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1
        return blob(caption, seed, self.sample_size)

    def _raise_if(self, request: Request, word: str) -> None:
        if word in request.prompt:
            raise RuntimeError(f"this prompt is {word}")


def single_model(load: Callable[[], Backend], model_id: str = CAPABILITIES.model_id) -> ModelCache:
    """Models of which there is one. load: called in the model loader's thread."""
    return ModelCache(model_id, lambda _: load(), size=lambda _: 0, budget=lambda: 0)


@dataclass
class _Entry:
    """A job as a journal stores it."""

    request: Request
    owner: str
    created: float
    order: float
    state: State = "queued"
    error: str | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    pictures: tuple[Picture, ...] = ()
    crashes: int = 0


class MemoryJournal:
    """A journal in memory: it outlives the engine that writes to it, as a disk outlives a process.

    refuses, full: while they are set, sentences with which `add_job` and `save_results` reject jobs.
    saves: how often pictures were saved for a job.
    images, traces: what was saved, by picture id.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.entries: dict[str, _Entry] = {}
        self.saves: Counter[str] = Counter()
        self.images: dict[str, Image.Image] = {}
        self.traces: dict[str, Trace | None] = {}
        self.refuses = ""
        self.full = ""

    def add_job(self, job: Job) -> None:
        with self._lock:
            if self.refuses:
                raise JobRejected(self.refuses)
            assert job.id not in self.entries
            self.entries[job.id] = _Entry(job.request, job.owner, job.created, job.order)

    def mark_started(self, job: Job) -> None:
        with self._lock:
            self.entries[job.id].state = "running"

    def save_results(
        self, job: Job, images: Sequence[Image.Image], traces: Sequence[Trace | None]
    ) -> tuple[Picture, ...]:
        with self._lock:
            entry = self.entries[job.id]
            if entry.state == "done":
                return entry.pictures
            if self.full:
                raise JobRejected(self.full)
            pictures = []
            for index, (image, trace) in enumerate(zip(images, traces, strict=True)):
                picture = Picture(
                    id=secrets.token_urlsafe(16),
                    job_id=job.id,
                    index=index,
                    seed=job.resolved.seeds[index],
                    path=f"/nowhere/{job.id}-{index}.png",
                    settings=job.resolved.settings,
                    width=image.width,
                    height=image.height,
                    created=time.time(),
                    has_trace=trace is not None,
                )
                self.images[picture.id], self.traces[picture.id] = image, trace
                pictures.append(picture)
            entry.state, entry.pictures = "done", tuple(pictures)
            entry.notes, entry.seconds = job.notes, job.seconds
            self.saves[job.id] += 1
            return entry.pictures

    def mark_ended(self, job: Job) -> None:
        with self._lock:
            entry = self.entries[job.id]
            assert entry.state in ("queued", "running") and job.state in ("cancelled", "failed")
            entry.state, entry.error = job.state, job.error

    def mark_refused(self, stored: StoredJob, error: str) -> None:
        with self._lock:
            entry = self.entries[stored.id]
            entry.state, entry.error = "failed", error

    def update_order(self, job: Job) -> None:
        with self._lock:
            self.entries[job.id].order = job.order

    def load_unfinished(self) -> list[StoredJob]:
        with self._lock:
            left = [(k, e) for k, e in self.entries.items() if e.state in ("queued", "running")]
        left.sort(key=lambda pair: pair[1].order)
        return [StoredJob(k, e.owner, e.request, e.created, e.order, e.crashes) for k, e in left]


def blob(prompt: str, seed: int, size: int) -> np.ndarray:
    """Return a blob in the first colour of the prompt, on the colour before "background": (3, size, size)."""
    words = prompt.lower().replace(",", " ").split()
    named = [word for word in words if word in COLOURS]
    background = words[words.index("background") - 1] if "background" in words[1:] else "white"
    draw_on = Image.new("RGB", (size * 4, size * 4), COLOURS.get(background, "#f4f4f2"))
    draw, unit = ImageDraw.Draw(draw_on), size * 4 / 64
    generator = np.random.default_rng([seed, sum(map(ord, prompt))])
    colour = COLOURS[named[0]] if named else list(COLOURS.values())[2 + int(generator.integers(7))]
    x, y, r = (32 + generator.integers(-4, 5)) * unit, (34 + generator.integers(-4, 5)) * unit, 20 * unit
    draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    draw.ellipse((x - 0.7 * r, y - 0.75 * r, x - 0.1 * r, y - 0.3 * r), fill="#ffffff")
    draw.rectangle((x - unit, y - 1.4 * r, x + unit, y - 0.8 * r), fill="#5b4030")
    small = draw_on.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1


def write_model_folder(folder: Path, *, thumbnails: bool = True) -> Path:
    """Write what the page reads of a model folder without loading it: card, vocabulary, thumbnails, sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("# Blob 64\n", "utf-8")
    (folder / "unet").mkdir(exist_ok=True)
    (folder / "unet" / "config.json").write_text('{"sample_size": 64}', "utf-8")
    things = [(name.replace("_", " "), group) for group, names in CONCEPTS.items() for name in names.split()]
    vocabulary = {
        "concepts": [{"name": name, "category": group} for name, group in things],
        "styles": ["noto", "twemoji", "flat", "glossy"],
        "backgrounds": list(COLOURS),
    }
    vocabulary["concepts"][0]["synonyms"] = ["fruit"]
    if thumbnails:
        sheet = Image.new("RGB", (32 * 16, 32 * -(-len(things) // 16)), "white")
        for index, (name, _) in enumerate(things):
            values = (blob(name, index, 32) + 1) * 127.5
            tile = Image.fromarray(values.round().astype(np.uint8).transpose(1, 2, 0))
            sheet.paste(tile, (32 * (index % 16), 32 * (index // 16)))
        sheet.save(folder / "thumbnails.png")
        vocabulary["thumbnails"] = {"file": "thumbnails.png", "tile": 32}
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary), "utf-8")
    return folder
