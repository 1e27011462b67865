"""A server in its own process and a browser that may talk to nobody else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120  # seconds: a machine may be busy with a training run
BROWSER = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
).split()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(*command: str, port: int, end: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """Runs a program until its page answers, and tells it to end afterwards; gives the page's address."""
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


def serving_fake(folder: Path, *options: str, port: int | None = None):
    port = port or free_port()
    return serving("-m", "tests.ui.serve_fake", str(folder), str(port), *options, port=port)


@pytest.fixture(scope="session")
def studio_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="session")
def studio_url(studio_folder) -> Iterator[str]:
    with serving_fake(studio_folder) as url:
        yield url


@pytest.fixture(scope="session")
def narrow_url(tmp_path_factory) -> Iterator[str]:
    """A studio where one job runs at a time. Whoever uses it leaves nothing under way."""
    with serving_fake(tmp_path_factory.mktemp("narrow"), "--active", "1") as url:
        yield url


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as driver:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        chromium = driver.chromium.launch(executable_path=program, args=BROWSER)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Opens a page at an address; the test fails if it asks another host for anything or a script fails."""
    contexts, strangers, errors = [], [], []

    def open_(url: str, width: int = 1280, height: int = 860, context=None, **options):
        """A visitor's first page, or one more of the visitor whose `context` this is."""
        if context is None:
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        own = (url.partition("#")[0], "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or strangers.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#prompt textarea")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert strangers == [] and errors == []


DONE = ".stage[data-kind=done]"


def generate(page, prompt: str | None = None) -> None:
    """Presses Generate and waits for the picture."""
    if prompt is not None:
        page.fill("#prompt textarea", prompt)
    page.eval_on_selector(".stage", "stage => { stage.dataset.kind = 'old'; }")
    page.click("#generate")
    page.wait_for_selector(DONE)
    page.wait_for_selector("#stop:disabled")


def start(page, prompt: str, steps: int) -> None:
    """Presses Generate and waits until the job is under way, here or in line."""
    set_steps(page, steps)
    page.fill("#prompt textarea", prompt)
    page.click("#generate")
    page.wait_for_selector(f".stage:is([data-kind=running], [data-kind=waiting]) .title:text-is('{prompt}')")


def set_steps(page, steps: int | str) -> None:
    if not page.is_visible("#steps"):
        page.click("[data-fold]")
    page.fill("#steps input", str(steps))


def open_tab(page, name: str) -> None:
    page.click(f"role=tab[name='{name}']")
