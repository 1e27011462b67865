"""Many sessions at once over HTTP, some of which drop their connection: python -m tests.soak.load.

Each session calls /text_to_image of a server with the fake sampler, one job after another. Every prompt is a mark that
its pictures must bear. 30 % of the calls are dropped in the middle, as by a browser that is closed. At the end: nobody
got another's pictures, every job that was taken has ended with its pictures, none is there twice, and the server's
memory has stayed where it was half way.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, mean

import httpx
from gradio_client import Client

from studio.library.metadata import read_png_settings
from tests.serving import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0  # seconds: the machine may be busy
TIMEOUT = httpx.Timeout(PATIENCE)


@dataclass
class Seen:
    """What the sessions saw, by mark: the prompt of a call."""

    asked: dict[str, int] = field(default_factory=dict)  # with the number of pictures
    received: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of calls that were waited for


def session(url: str, number: int, jobs: int, drops: float, seen: Seen, folder: Path) -> None:
    """One client: `jobs` calls, each with its own mark."""
    draw = random.Random(number)
    client = Client(url, download_files=str(folder), verbose=False, httpx_kwargs={"timeout": TIMEOUT})
    try:
        for turn in range(jobs):
            asked = {
                "prompt": f"session {number} turn {turn}",
                "count": draw.randint(1, 3),
                "steps": draw.randint(1, 8),
                "seed": draw.randrange(2**32),
            }
            seen.asked[asked["prompt"]] = asked["count"]
            if draw.random() < drops:
                drop(client, asked, draw.random() ** 2)
                seen.dropped.append(asked["prompt"])
            else:
                receive(client, asked, seen)
    except Exception as problem:
        seen.problems.append(f"session {number}: {type(problem).__name__}: {problem}")
    finally:
        client.close()


def receive(client: Client, asked: dict, seen: Seen) -> None:
    start = time.perf_counter()
    files, info = client.predict(**asked, api_name="/text_to_image")
    seen.seconds.append(time.perf_counter() - start)
    seen.received.append(asked["prompt"])
    found = [read_png_settings(file) or {} for file in files]
    seeds = [(asked["seed"] + index) % 2**32 for index in range(asked["count"])]
    if [settings.get("prompt") for settings in found] != [asked["prompt"]] * asked["count"]:
        seen.problems.append(f"{asked['prompt']} got {[settings.get('prompt') for settings in found]}")
    if [settings.get("seed") for settings in found] != seeds or info["seeds"] != seeds:
        seen.problems.append(f"{asked['prompt']} got other seeds")


def drop(client: Client, asked: dict, seconds: float) -> None:
    """Makes the same call beside the client and closes the connection after a moment.

    All of a client's come from one session: Gradio keeps the state of every session it has seen, up to the capacity
    that it was launched with, so that with new ones its memory would grow whatever the studio does.
    """
    endpoint = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/text_to_image"]
    call = {
        "data": [asked.get(one["parameter_name"], one["parameter_default"]) for one in endpoint["parameters"]],
        "fn_index": client._infer_fn_index("/text_to_image", None),
        "session_hash": f"{client.session_hash}-dropped",
    }
    with httpx.Client(timeout=TIMEOUT) as http:
        http.post(client.sse_data_url, json=call).raise_for_status()
        deadline = time.monotonic() + seconds
        with http.stream("GET", client.sse_url, params={"session_hash": call["session_hash"]}) as stream:
            for _ in stream.iter_lines():
                if time.monotonic() > deadline:
                    break


def load(url: str, data: Path, sessions: int, jobs: int, drops: float) -> Seen:
    """Runs the sessions against a server whose data folder is `data`, and waits until all its jobs have ended."""
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        threads = [
            threading.Thread(target=session, args=(url, number, jobs, drops, seen, Path(folder)))
            for number in range(sessions)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    deadline = time.monotonic() + PATIENCE
    while any(state == "queued" for state, *_ in jobs_of(data)):
        assert time.monotonic() < deadline, "some jobs do not end"
        time.sleep(0.1)
    return seen


def jobs_of(data: Path) -> list[tuple[str, str, int, int]]:
    """State, prompt, pictures asked for, pictures kept: of every job in the library."""
    db = sqlite3.connect(f"file:{data / 'library.sqlite'}?mode=ro", uri=True, timeout=PATIENCE)
    try:
        return db.execute(
            "SELECT state, json_extract(settings, '$.prompt'), json_extract(settings, '$.count'), "
            "(SELECT COUNT(*) FROM pictures WHERE job = jobs.number AND "
            "json_extract(pictures.settings, '$.prompt') = json_extract(jobs.settings, '$.prompt')) FROM jobs"
        ).fetchall()
    finally:
        db.close()


def check(seen: Seen, data: Path) -> None:
    """Raises AssertionError if anything was lost, done twice, or delivered to another."""
    assert seen.problems == [], seen.problems
    rows = [row for row in jobs_of(data) if row[1] in seen.asked]
    times = Counter(mark for _, mark, _, _ in rows)
    assert [mark for mark, count in times.items() if count > 1] == [], "some jobs are there twice"
    assert [mark for mark in seen.received if mark not in times] == [], "jobs were answered that are not there"
    assert [row for row in rows if row[0] != "done" or row[2] != row[3]] == [], "some jobs did not end with pictures"
    assert len(seen.received) + len(seen.dropped) == len(seen.asked)


# ---- by hand ----


@contextmanager
def server(folder: Path, delay: float) -> Iterator[tuple[str, int]]:
    """The fake server in a process of its own: its address and its process id."""
    port = free_port()
    command = [sys.executable, "-m", "tests.serve_fake", str(folder), str(port), "--delay", str(delay)]
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        while True:
            with suppress(OSError), urllib.request.urlopen(url, timeout=5):
                break
            assert program.poll() is None and time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.1)
        yield url, program.pid
    finally:
        program.terminate()
        program.wait(60)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def watch(pid: int, data: Path, samples: list[tuple[int, int]], stop: threading.Event) -> None:
    """Notes how many jobs have ended, and the server's memory."""
    while not stop.wait(0.5):
        with suppress(OSError, sqlite3.Error):
            samples.append((sum(state != "queued" for state, *_ in jobs_of(data)), resident(pid)))


def course(samples: list[tuple[int, int]]) -> str:
    """The memory in MB at each tenth of the jobs."""
    last = max(ended for ended, _ in samples)
    tenths = [[held for ended, held in samples if n * last <= 10 * ended <= (n + 1) * last] for n in range(10)]
    return " ".join(f"{mean(tenth) / 1e6:.0f}" for tenth in tenths if tenth)


def growth(samples: list[tuple[int, int]]) -> float:
    """By what part the memory grew over the last half of the jobs, along the straight line that fits it best."""
    last = max(ended for ended, _ in samples)
    half = [sample for sample in samples if 2 * sample[0] >= last]
    if len({ended for ended, _ in half}) < 2:
        return 0.0
    line = linear_regression(*zip(*half, strict=True))
    return line.slope * (last / 2) / (line.intercept + line.slope * last / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=20, help="of each session")
    parser.add_argument("--drops", type=float, default=0.3, help="the part of calls whose connection is dropped")
    parser.add_argument("--delay", type=float, default=0.005, help="seconds of a network call")
    options = parser.parse_args()
    samples: list[tuple[int, int]] = []
    with tempfile.TemporaryDirectory() as folder, server(Path(folder), options.delay) as (url, pid):
        data, stop = Path(folder) / "data", threading.Event()
        watcher = threading.Thread(target=watch, args=(pid, data, samples, stop))
        watcher.start()
        start = time.perf_counter()
        seen = load(url, data, options.sessions, options.jobs, options.drops)
        seconds = time.perf_counter() - start
        time.sleep(2)
        stop.set()
        watcher.join()
        check(seen, data)
        there = len(jobs_of(data))
    slowest = sorted(seen.seconds)[int(0.95 * len(seen.seconds))]
    print(
        f"{options.sessions} sessions x {options.jobs} jobs in {seconds:.0f} s: {len(seen.received)} received, "
        f"{len(seen.dropped)} dropped, {there} taken, 0 lost, 0 twice, 0 delivered to another; 95 % of the answers "
        f"within {slowest:.1f} s; memory in MB by tenths of the jobs {course(samples)}, over the last half "
        f"{growth(samples):+.1%}"
    )
    assert growth(samples) <= 0.02, "the server's memory grows"


if __name__ == "__main__":
    main()
