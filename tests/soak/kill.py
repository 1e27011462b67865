"""Kill the studio at random moments while it writes; it must lose nothing: python -m tests.soak.kill --times 100.

A child process runs the engine over a library, with the fake backend, and is killed by SIGKILL; then the next one
starts. It reports its promises to the parent through a pipe: each job that `submit` accepted, each that `cancel`
cancelled. At the end every promise must be fulfilled. Then the same engine meets a full disk and a read-only folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from studio.engine.engine import Engine
from studio.engine.job import JobRejected
from studio.engine.requests import Inpaint, Request, SuperResolve, TextToImage
from studio.library.metadata import read_png_settings
from studio.library.store import Library
from tests.fakes import FakeBackend, resolve, single_model

OWNERS = [f"user:{number}" for number in range(4)]
PATIENCE = 600.0  # seconds, for the last child to end what is left
SIDE = 32  # px
KILLS = 10**6  # after so many a job is given up: here it is not the jobs that kill, and much faster than anywhere else


@dataclass
class Promises:
    """What the children have reported."""

    submitted: dict[str, tuple[str, int]] = field(default_factory=dict)  # id: owner, the request's number
    cancelled: set[str] = field(default_factory=set)
    restarts: list[float] = field(default_factory=list)  # seconds until the unfinished jobs were taken up

    def read(self, line: str) -> None:
        what, *words = line.split()
        if what == "restarted":
            self.restarts.append(float(words[0]))
        elif what == "submitted":
            self.submitted[words[0]] = (words[1], int(words[2]))
        elif what == "cancelled":
            self.cancelled.add(words[0])


def request(number: int) -> Request:
    """Return a request of any task that depends on the number alone. Its prompt holds the number."""
    draw = random.Random(number)
    settings = {"count": draw.randint(1, 4), "steps": draw.randint(1, 6), "seed": draw.randrange(2**32)}
    # Some share a picture, and with it the stored input.
    image = Image.fromarray(np.random.default_rng(number % 8).integers(0, 256, (24, 30, 3), dtype=np.uint8))
    kind = draw.choice(("paint", "paint", "inpaint", "enlarge"))
    if kind == "paint":
        return TextToImage(f"mark {number}", **settings)
    if kind == "inpaint":
        return Inpaint(f"mark {number}", image, image.convert("L"), **settings)
    return SuperResolve(image, 2, prompt=f"mark {number}", **settings)


def expected(request: Request) -> list[Image.Image]:
    """Return the pictures of a request that runs alone."""
    backend = FakeBackend(sample_size=SIDE)
    rows = backend.prepare(resolve(request))
    for row in rows:
        while not row.finished:
            backend.denoise_step([row])
    return [backend.decode(row) for row in rows]


def live(folder: Path, report: Callable[[str], None], seed: int) -> None:
    """Run a child: restart unfinished jobs, then submit and cancel jobs until it is killed."""
    draw, start = random.Random(seed), time.perf_counter()
    library = Library(folder, max_crashes=KILLS)
    engine = Engine(single_model(lambda: FakeBackend(sample_size=SIDE)), library.journal, resolve=resolve).start()
    engine.wait_until_ready()  # which comes after the unfinished jobs
    report(f"restarted {time.perf_counter() - start:.3f}")
    while True:
        owner, number = draw.choice(OWNERS), draw.randrange(10**9)
        if sum(len(engine.jobs(owner)) for owner in OWNERS) > 12:
            time.sleep(0.002)
            continue
        id = engine.submit(request(number), owner)
        report(f"submitted {id} {owner} {number}")
        if draw.random() < 0.15:
            time.sleep(draw.random() * 0.02)
            if engine.cancel(id, owner):
                report(f"cancelled {id}")


def kill_once(folder: Path, promises: Promises, draw: random.Random) -> None:
    """Start a child, and kill it after a moment."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # this process has threads of its own only after this
        try:
            os.close(read)
            live(folder, lambda line: os.write(write, f"{line}\n".encode()), draw.randrange(10**9))
        finally:
            os._exit(1)
    os.close(write)
    output, deadline = b"", time.monotonic() + PATIENCE
    kill_at = None  # when; counted from its first word, so that slow machines are killed in the middle, too
    while kill_at is None or time.monotonic() < kill_at:
        wait = 0.5 if kill_at is None else max(kill_at - time.monotonic(), 0)
        if select.select([read], [], [], wait)[0]:
            data = os.read(read, 65536)
            output += data
            if not data:
                raise AssertionError("a child ended by itself")
        if kill_at is None and output:
            kill_at = time.monotonic() + draw.random() ** 2
        if kill_at is None and draw.random() < 0.02:  # sometimes while it is still opening the library
            break
        if time.monotonic() > deadline:
            raise AssertionError("a child did not begin")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while data := os.read(read, 65536):
        output += data
    os.close(read)
    for line in output.decode().split("\n")[:-1]:  # the last may be cut short: then it promised nothing
        promises.read(line)


def check_whole(folder: Path, known: set[str]) -> int:
    """Open every new picture. Raise if one is torn. Return how many files there are."""
    files = sorted((folder / "pictures").glob("*.png"))
    for path in files:
        if path.name not in known:
            with Image.open(path) as image:
                image.load()
            known.add(path.name)
    return len(files)


def finish(folder: Path) -> float:
    """Run the jobs that are left. Return the seconds until they were queued."""
    start = time.perf_counter()
    library = Library(folder, max_crashes=KILLS)
    engine = Engine(single_model(lambda: FakeBackend(sample_size=SIDE)), library.journal, resolve=resolve).start()
    engine.wait_until_ready()
    seconds = time.perf_counter() - start
    deadline = time.monotonic() + PATIENCE
    while library.journal.load_unfinished():
        assert time.monotonic() < deadline, "the jobs that were left did not end"
        time.sleep(0.05)
    assert engine.shutdown(60)
    library.close()
    return seconds


def check_promises(folder: Path, promises: Promises) -> tuple[int, int]:
    """Check that every accepted job has ended once, with its pictures, and that nothing else is stored.

    Return how many jobs are done, and their pictures.
    """
    library, files, traces, done = Library(folder), set(), set(), set()
    assert library.journal.load_unfinished() == []
    for id, (owner, number) in promises.submitted.items():
        record, submitted = library.get_job(owner, id), request(number)
        assert record is not None, f"job {id} is lost"
        assert all(library.get_job(other, id) is None for other in OWNERS if other != owner)
        if id in promises.cancelled:
            assert (record.state, record.pictures) == ("cancelled", ()), f"{id} is {record.state}, though cancelled"
        # A cancelled job that could not say so any more has ended as well: killed before its promise was output.
        assert record.state in ("done", "cancelled"), f"job {id} is {record.state}: {record.error}"
        assert record.settings == submitted.settings()
        if record.state == "done":
            done.add(id)
            assert [picture.index for picture in record.pictures] == list(range(submitted.count))
            for picture, image in zip(record.pictures, expected(submitted), strict=True):
                assert f"mark {number}" in read_png_settings(picture.path)["prompt"]
                with Image.open(picture.path) as kept:
                    assert kept.tobytes() == image.tobytes(), f"{picture.path} is another picture"
    for owner in OWNERS:
        before = None
        while page := library.find_pictures(owner, before=before, limit=500):
            before = page[-1].id
            files |= {picture.id for picture in page}
            traces |= {picture.id for picture in page if library.load_trace(owner, picture.id)}
            assert all(picture.has_trace for picture in page)
            assert len(files) == len(traces)
    assert {path.stem for path in (folder / "pictures").iterdir()} == files, "files of no picture, or none of one"
    assert {path.stem for path in (folder / "traces").iterdir()} == traces
    library.close()
    return len(done), len(files)


def kill(folder: Path, times: int, seed: int) -> None:
    promises, draw, known = Promises(), random.Random(seed), set()
    for number in range(times):
        kill_once(folder, promises, draw)
        files = check_whole(folder, known)
        if sys.stdout.isatty():
            print(f"\r{number + 1} kills, {len(promises.submitted)} jobs, {files} pictures", end="", flush=True)
    promises.restarts.append(finish(folder))
    check_whole(folder, known)
    done, pictures = check_promises(folder, promises)
    print(
        f"\r{times} kills: {len(promises.submitted)} jobs taken, {len(promises.cancelled)} of them cancelled, none "
        f"lost; {pictures} pictures of {done} jobs, each once and none torn; the slowest restart took "
        f"{max(promises.restarts):.2f} s"
    )
    assert max(promises.restarts) < 10


# ---- a disk that will not ----


def ends(engine: Engine, submitted: Request, owner: str = OWNERS[0]) -> str:
    """Run a job and return its last state, with its sentence if there is one."""
    try:
        *_, last = engine.follow(engine.submit(submitted, owner), owner)
    except JobRejected as problem:
        return f"refused: {problem}"
    return last.state + (f": {last.error}" if last.error else "")


def check_sentence(what: str, says: str) -> None:
    assert what.endswith(".") and says in what and "Error" not in what, what


def full_disk(folder: Path, fill: Callable[[], None], empty: Callable[[], None]) -> None:
    """Jobs on a disk that is full are refused or fail with a sentence; when it has room again, all is well."""
    library = Library(folder)
    backend = FakeBackend(sample_size=256)  # pictures too large for what is left
    engine = Engine(single_model(lambda: backend), library.journal, resolve=resolve).start()
    submitted = TextToImage("before", count=4, steps=1)
    assert ends(engine, submitted) == "done"
    backend.gate = threading.Semaphore(0)
    running = engine.submit(submitted, OWNERS[0])
    fill()
    backend.gate.release(10**6)
    *_, last = engine.follow(running, OWNERS[0])
    check_sentence(f"{last.state}: {last.error}", "failed: The pictures could not be saved: the disk ")
    how = [f"{last.state}: {last.error}"]
    for number in range(20):
        how.append(ends(engine, TextToImage(f"number {number}", count=4, steps=1)))
        if how[-1] == "done":
            continue
        check_sentence(how[-1], "disk ")
    assert how[-1] != "done" and engine.status.phase in ("idle", "running")
    library.find_pictures(OWNERS[0])
    empty()
    assert ends(engine, submitted) == "done"
    assert engine.shutdown(60)
    library.close()
    print(f"full disk: {len(how) - how.count('done')} jobs got a sentence: {how[0]!r} ... {how[-1]!r}")


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path | None]:
    """A folder on a disk of its own; None where it may not be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        try:
            mounted = subprocess.run(mount, capture_output=True).returncode == 0
        except OSError:
            mounted = False
        try:
            yield Path(folder) if mounted else None
        finally:
            if mounted:
                subprocess.run(["umount", "-l", folder], check=True)


def limited_files(folder: Path) -> None:
    """A full disk where none may be mounted: files may not grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    full_disk(
        folder,
        fill=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard)),
        empty=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)),
    )


def mounted_disks() -> None:
    with small_disk(32) as disk:
        if disk is None:
            print("full disk, read-only disk: none can be mounted here")
            return
        filler = disk / "filler"

        def fill() -> None:
            with filler.open("wb", buffering=0) as file:
                with suppress(OSError):
                    while file.write(bytes(4096)):
                        pass

        full_disk(disk / "data", fill, filler.unlink)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for data in (disk / "data", disk / "new"):
            try:
                Library(data).close()
            except JobRejected as problem:
                check_sentence(str(problem), "cannot be written to")
                print(f"read-only disk: {problem}")
            else:
                raise AssertionError("a library opened on a read-only disk")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-mount", action="store_true", help="leave out the disks that must be mounted")
    options = parser.parse_args()
    logging.disable()  # what is meant to go wrong need not be told
    with tempfile.TemporaryDirectory() as folder:
        kill(Path(folder) / "killed", options.times, options.seed)
        limited_files(Path(folder) / "limited")
        if not options.no_mount:
            mounted_disks()


if __name__ == "__main__":
    main()
