"""Studios to call over HTTP: in a process of their own, or in this one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.ui.harness import Studio

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120  # seconds: a machine may be busy with a training run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(*command: str, port: int, end: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """Run a program until its page answers, and signal it to end afterwards; give the page's address."""
    url = f"http://127.0.0.1:{port}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("STUDIO_", "GRADIO_", "SPACE_"))}
    environment["no_proxy"] = environment["NO_PROXY"] = "127.0.0.1"
    program = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if program.poll() is not None:
                raise RuntimeError(f"the server ended with {program.returncode}")
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("the server did not answer in time")
        yield url
    finally:
        if program.poll() is None:
            program.send_signal(end)
            assert program.wait(PATIENCE) == 0


def serving_fake(folder: Path, *options: str, port: int | None = None, end: signal.Signals = signal.SIGTERM):
    """A studio over the fake backend in a process of its own."""
    port = port or free_port()
    return serving("-m", "tests.serve_fake", str(folder), str(port), *options, port=port, end=end)


@contextlib.contextmanager
def launched(studio: Studio, auth: Sequence[tuple[str, str]] | None = None) -> Iterator[Served]:
    """Serve a page from this process, as `studio.server.serve` does; give its address."""
    from studio.server import serve_options

    options = serve_options(studio.context) | {"auth": auth}
    where = {"server_name": "127.0.0.1", "server_port": free_port()}
    studio.call(studio.page.launch, **where, prevent_thread_lock=True, **options)
    try:
        yield served(studio, studio.page.local_url.rstrip("/"))
    finally:
        studio.page.close(verbose=False)


class Served(str):
    """The address of a page that this process serves; `studio` is what stands behind it."""

    studio: Studio


def served(studio: Studio, url: str) -> Served:
    address = Served(url)
    address.studio = studio
    return address
