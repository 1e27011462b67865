"""Time from `python app.py` to the page and to the first picture, and peak memory.

    python -m tests.benchmarks.start [--repeats 3]

Each repeat starts a new server process; the first may also read cold files. Linux only: memory comes from /proc.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from gradio_client import Client

from tests.benchmarks.machine import heading, table

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a red apple"
TIMEOUT = 180  # s for the page, and for each picture


@dataclass(frozen=True)
class Start:
    """One cold start: seconds since the command, and bytes of peak resident memory."""

    page: float
    first_picture: float
    second_picture: float  # since its own request, warm
    peak_one: int  # after these two
    peak_nine: int  # after nine pictures at once


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_page(address: str, server: subprocess.Popen) -> None:
    """Return once the page answers with 200. Raises RuntimeError if the server ends or takes too long."""
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)
    raise RuntimeError(f"no page within {TIMEOUT} s")


def peak_memory(process: int) -> int:
    """Return the bytes of peak resident memory of a process. The server has no child processes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc does not hold the peak memory of the process")


def measure(options: list[str]) -> Start:
    """Start the studio, request pictures through its API, and stop it."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "app.py", "--port", str(port), "--data-dir", data, *options]
        start = time.monotonic()
        server = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        try:
            wait_for_page(address, server)
            page = time.monotonic() - start
            client = Client(address, verbose=False, download_files=downloads)

            def request_pictures(count: int) -> None:
                files, _ = client.predict(prompt=PROMPT, count=count, seed=1, api_name="/text_to_image")
                assert len(files) == count

            request_pictures(1)
            first = time.monotonic() - start
            second_start = time.monotonic()
            request_pictures(1)
            second = time.monotonic() - second_start
            peak_one = peak_memory(server.pid)
            request_pictures(9)
            return Start(page, first, second, peak_one, peak_memory(server.pid))
        finally:
            server.terminate()
            server.wait(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="number of cold starts")
    parser.add_argument("options", nargs="*", help="more options for app.py, after --")
    args = parser.parse_args()
    print(heading())
    starts = [measure(args.options) for _ in range(args.repeats)]
    rows = [
        (
            number + 1,
            f"{start.page:.1f}",
            f"{start.first_picture:.1f}",
            f"{start.second_picture:.2f}",
            f"{start.peak_one / 1e9:.2f}",
            f"{start.peak_nine / 1e9:.2f}",
        )
        for number, start in enumerate(starts)
    ]
    head = (
        "start",
        "page, s",
        "first picture, s",
        "second picture, s",
        "peak memory, GB",
        "peak memory after 9 at once, GB",
    )
    print(table(head, rows))


if __name__ == "__main__":
    main()
