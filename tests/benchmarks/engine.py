"""Measure the overhead and the throughput of the engine, with the bundled weights.

    python -m tests.benchmarks.engine [--model assets/model] [--repeats 9] [--only overhead throughput ...]

Run it on an idle machine. Ratios compare measurements of one run that follow each other.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from studio.engine.engine import Engine
from studio.engine.job import Job
from studio.engine.requests import Inpaint, Request, SuperResolve, TextToImage
from studio.engine.resolved import ResolvedRequest
from studio.engine.scheduling.limits import LineLimits
from studio.library.store import Library
from studio.models.families.studio import StudioBackend, load_backend
from studio.models.loader import reserve_torch_threads
from tests.benchmarks.machine import heading, seconds, spread, table
from tests.fakes import MemoryJournal, resolve, single_model
from tests.soak.mixed import PROMPTS, random_picture

OWNER = "benchmark"
LONG_STEPS, SHORT_STEPS, LONG_JOBS, SHORT_JOBS = 50, 4, 16, 20


class Call(NamedTuple):
    """One network call of an engine."""

    start: float
    end: float
    rows: tuple[Any, ...]


class RecordingBackend:
    """A backend that records its calls."""

    def __init__(self, backend: StudioBackend) -> None:
        self._backend = backend
        self.started_at = 0.0
        self.calls: list[Call] = []
        self.prepared: list[tuple[ResolvedRequest, Sequence[Any]]] = []
        self.prepare_seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def prepare(self, resolved: ResolvedRequest) -> Sequence[Any]:
        start = time.perf_counter()
        self.started_at = self.started_at or start
        rows = self._backend.prepare(resolved)
        self.prepare_seconds += time.perf_counter() - start
        self.prepared.append((resolved, rows))
        return rows

    def denoise_step(self, rows: Sequence[Any]) -> None:
        start = time.perf_counter()
        self._backend.denoise_step(rows)
        self.calls.append(Call(start, time.perf_counter(), tuple(rows)))


def mixed(draw: random.Random, number: int) -> list[Request]:
    """Return random requests of all tasks, with the page's default settings."""
    requests: list[Request] = []
    for _ in range(number):
        prompt, seed = draw.choice(PROMPTS), draw.randrange(2**32)
        image = random_picture(draw, (48, 48))
        kind = draw.choice((TextToImage, TextToImage, Inpaint, SuperResolve))
        if kind is TextToImage:
            requests.append(TextToImage(prompt, seed=seed))
        elif kind is Inpaint:
            mask = Image.new("L", image.size)
            mask.paste(255, (12, 12, 36, 36))
            requests.append(Inpaint(prompt, image, mask, seed=seed))
        else:
            requests.append(SuperResolve(image, seed=seed))
    return requests


class WaitingJournal:
    """A journal that can be waited for until jobs have ended."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal
        self._ended: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def add_job(self, job: Job) -> None:
        self._ended[job.id].clear()
        self._journal.add_job(job)

    def save_results(self, job: Job, *results: Any) -> Any:
        pictures = self._journal.save_results(job, *results)
        self._ended[job.id].set()
        return pictures

    def mark_ended(self, job: Job) -> None:
        self._journal.mark_ended(job)
        self._ended[job.id].set()

    def wait(self, ids: Sequence[str]) -> None:
        for job_id in ids:
            self._ended[job_id].wait()


@contextmanager
def running(backend: Any, *, disk: bool = True, **options: Any) -> Iterator[Engine]:
    """Run an engine with a large queue, its pictures saved on the disk or in memory."""
    with tempfile.TemporaryDirectory() as folder:
        journal = WaitingJournal(Library(Path(folder)).journal if disk else MemoryJournal())
        models = single_model(lambda: backend)
        models.claim_thread = reserve_torch_threads
        engine = Engine(
            models,
            journal,
            resolve=resolve,
            limits=LineLimits(jobs=1000, owner_jobs=1000, owner_seconds=1e9),
            **options,
        ).start()
        engine.wait_until_ready()
        engine.waiting_journal = journal  # type: ignore[attr-defined]
        yield engine
        engine.shutdown(None)


def run(engine: Engine, requests: Sequence[Request]) -> None:
    """Submit all requests at once and wait until their pictures are saved."""
    engine.waiting_journal.wait([engine.submit(request, OWNER) for request in requests])  # type: ignore[attr-defined]


def ratio(values: Sequence[float]) -> str:
    return spread(values, digits=3)


# ---- overhead ----


def replay(backend: StudioBackend, recording: RecordingBackend) -> None:
    """Repeat the calls of an engine in a bare loop, with the same rows in each."""
    place = {id(row): (j, i) for j, (_, rows) in enumerate(recording.prepared) for i, row in enumerate(rows)}
    plan = [[place[id(row)] for row in call.rows] for call in recording.calls]

    jobs = [backend.prepare(resolved) for resolved, _ in recording.prepared]
    for call in plan:
        backend.pipeline.denoise_call([jobs[j][i] for j, i in call])
    for rows in jobs:
        for row in rows:
            backend.decode(row)


def in_a_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread of its own that has torch's threads, as an engine does."""
    thread = threading.Thread(target=lambda: (reserve_torch_threads(), work()))
    thread.start()
    thread.join()


def overhead(backend: StudioBackend, repeats: int) -> str:
    """Measure the engine's time over that of a bare loop of the same calls, without traces and previews."""
    draw, lines = random.Random(1), []
    for number in (1, 4, 16):
        ratios, outside = [], []
        for repeat in range(repeats + 1):
            requests = [TextToImage("a red apple", seed=draw.randrange(2**32)) for _ in range(number)]
            recording = RecordingBackend(backend)
            with running(recording, disk=False, traces=False) as engine:
                engines = seconds(lambda e=engine, r=requests: run(e, r))
            bare = seconds(lambda r=recording: in_a_thread(lambda: replay(backend, r)))
            if repeat:
                ratios.append(engines / bare)
                work = recording.prepare_seconds + sum(call.end - call.start for call in recording.calls)
                outside.append(1 - work / (recording.calls[-1].end - recording.started_at))
        lines.append((number, ratio(ratios), spread(outside, 0.01, 2)))
    head = ("text-to-image jobs", "engine over bare loop", "of the loop's time, neither calls nor preparing, %")
    return table(head, lines)


def paired(
    backend: StudioBackend,
    requests: Callable[[], Sequence[Request]],
    repeats: int,
    options_pair: Sequence[dict[str, Any]],
) -> list[float]:
    """Return the time with the second options over that with the first, alternating. `followed`: follow every job."""
    ratios = []
    for repeat in range(repeats + 1):
        batch, taken = requests(), []
        for options in options_pair if repeat % 2 else reversed(options_pair):
            options = dict(options)
            followed = options.pop("followed", False)
            with running(backend, **options) as engine:
                start = time.perf_counter()
                ids = [engine.submit(request, OWNER) for request in batch]
                threads = [threading.Thread(target=lambda i=i, e=engine: [*e.follow(i, OWNER)]) for i in ids]
                for thread in threads if followed else ():
                    thread.start()
                engine.waiting_journal.wait(ids)  # type: ignore[attr-defined]
                taken.append(time.perf_counter() - start)
                for thread in threads if followed else ():
                    thread.join()
        if repeat:
            first, second = taken if repeat % 2 else reversed(taken)
            ratios.append(second / first)
    return ratios


def extras(backend: StudioBackend, repeats: int) -> str:
    """Measure the time that traces and previews add, with pictures and traces saved on the disk."""
    draw, lines = random.Random(2), []
    plain: dict[str, Any] = {"traces": False}
    for number in (1, 16):
        for name, other in (("traces", {"traces": True}), ("previews, someone follows each job", {"followed": True})):
            pair = [plain, {**plain, **other}]
            ratios = paired(backend, lambda n=number: mixed(draw, n), repeats, pair)
            lines.append((name, number, ratio(ratios)))
    return table(("with", "jobs of mixed tasks", "time over that without"), lines)


# ---- gains ----


def throughput(backend: StudioBackend, repeats: int) -> str:
    """Compare users who submit one job each at once with the same jobs one after the other."""
    draw, lines = random.Random(3), []
    for users in (1, 4, 16, 64):
        ratios, rates = [], []
        for repeat in range(max(2, repeats if users <= 16 else repeats // 3) + 1):
            batch = mixed(draw, users)
            taken = {}
            for together in (True, False) if repeat % 2 else (False, True):
                with running(backend) as engine:
                    run(engine, mixed(draw, 2))  # warm
                    start = time.perf_counter()
                    for part in [batch] if together else [[request] for request in batch]:
                        run(engine, part)
                    taken[together] = time.perf_counter() - start
            if repeat:
                ratios.append(taken[False] / taken[True])
                rates.append(users / taken[True])
        lines.append((users, spread(rates), ratio(ratios)))
    return table(("users, mixed tasks", "jobs a second", "throughput over one at a time"), lines)


def crowd(engine: Engine) -> list[str]:
    """Submit long jobs, and return their ids once all run."""
    requests = [TextToImage("a cat", steps=LONG_STEPS, seed=seed) for seed in range(LONG_JOBS)]
    ids = [engine.submit(request, OWNER) for request in requests]
    while not all(engine.view(job_id, OWNER).step > 1 for job_id in ids):
        time.sleep(0.005)
    return ids


def in_a_crowd(backend: StudioBackend, repeats: int) -> str:
    """Measure short jobs that are submitted one after another, at random moments, while long ones run."""
    draw, alone, crowded, ratios = random.Random(4), [], [], []

    def short() -> Request:
        return TextToImage("a red apple", steps=SHORT_STEPS, seed=draw.randrange(2**32))

    for _ in range(repeats):
        with running(backend) as engine:
            run(engine, [short() for _ in range(4)])  # warm
            mine = [seconds(lambda e=engine: run(e, [short()])) for _ in range(5)]
            long = crowd(engine)
            theirs = []
            for _ in range(SHORT_JOBS):
                taken = seconds(lambda e=engine: run(e, [short()]))
                if any(engine.view(job_id, OWNER).ended for job_id in long):
                    break
                theirs.append(taken)
                time.sleep(draw.uniform(0, 0.05))
            for job_id in long:
                engine.cancel(job_id, OWNER)
        alone += mine
        crowded += theirs
        ratios += [taken / statistics.median(mine) for taken in theirs]
    p95 = statistics.quantiles(ratios, n=20)[-1]
    name = f"{SHORT_STEPS}-step jobs behind {LONG_JOBS} of {LONG_STEPS} steps"
    head = ("", "s alone", "s in the crowd", "jobs", "over alone, median", "p95")
    figures = (name, spread(alone), spread(crowded), len(ratios), f"{statistics.median(ratios):.2f}", f"{p95:.2f}")
    return table(head, [figures])


def cancelling(backend: StudioBackend, repeats: int) -> str:
    """Measure the time from `cancel` to the end of the last call in which the job has a row."""
    draw, answers, leaves, beyond = random.Random(5), [], [], []
    for _ in range(repeats):
        recording = RecordingBackend(backend)
        with running(recording, disk=False) as engine:
            ids, moments = crowd(engine), {}
            for number in draw.sample(range(LONG_JOBS), 4):
                time.sleep(draw.uniform(0.0, 0.1))
                moments[number] = time.perf_counter()
                answers.append(seconds(lambda e=engine, i=ids[number]: e.cancel(i, OWNER)))
            calls = len(recording.calls)
            while len(recording.calls) < calls + 4:  # so that no call is missed in which the job still has rows
                time.sleep(0.005)
        for number, moment in moments.items():
            rows = {id(row) for resolved, rows in recording.prepared if resolved.request.seed == number for row in rows}
            last = [call for call in recording.calls if rows & {id(row) for row in call.rows}][-1]
            leaves.append(max(last.end - moment, 0.0))
            beyond.append(max(last.end - moment - (last.end - last.start), 0.0))
    head = ("", "ms, median (least to most)")
    lines = [
        ("`cancel` answers after", spread(answers, 1e-3, 1)),
        ("the job's rows have left the calls after", spread(leaves, 1e-3, 1)),
        ("of that, beyond one call", spread(beyond, 1e-3, 1)),
    ]
    return table(head, lines)


PARTS = {
    "overhead": ("Overhead", overhead),
    "extras": ("Traces and previews", extras),
    "throughput": ("Throughput", throughput),
    "crowd": ("In a crowd", in_a_crowd),
    "cancel": ("Cancel", cancelling),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="folder of the pipeline")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=9, help="of each measurement")
    parser.add_argument("--threads", type=int, help="threads of torch; default: its own choice")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(heading())
    backend = load_backend(args.model, args.device)
    print(f"{torch.get_num_threads()} threads, on {backend.device}, float32, {args.repeats} times each.", end=" ")
    print("Medians (least to most).\n")
    for name in args.only:
        title, measure = PARTS[name]
        print(f"### {title}\n\n{(measure.__doc__ or '').strip()}\n\n{measure(backend, args.repeats)}", flush=True)


if __name__ == "__main__":
    main()
