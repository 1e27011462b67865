"""A page in this process, with and without a browser; the browser may talk to nobody else."""

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from tests.ui.harness import Studio

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


# ---- servers ----


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
    return serving("-m", "tests.ui.serve_fake", str(folder), str(port), *options, port=port, end=end)


@contextlib.contextmanager
def launched(studio: Studio, auth: Sequence[tuple[str, str]] | None = None) -> Iterator[str]:
    """Serve a page from this process, as `studio.ui.page.serve` does; give its address."""
    from studio.ui.page import launch_options

    options = launch_options(studio.context) | {"auth": auth}
    where = {"server_name": "127.0.0.1", "server_port": free_port()}
    studio.call(studio.page.launch, **where, prevent_thread_lock=True, **options)
    try:
        yield studio.page.local_url.rstrip("/")
    finally:
        studio.page.close(verbose=False)


# ---- a page without a browser ----


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    """A page over the fake backend, without a browser."""
    from tests.fakes import FakeBackend
    from tests.ui.harness import fake_studio

    with fake_studio(tmp_path_factory.mktemp("studio"), FakeBackend) as studio:
        yield studio


@pytest.fixture
def page(studio):
    """The page as a new visitor opens it, without a browser."""
    return studio.open()


@pytest.fixture
def slow(studio) -> Iterator[None]:
    """Network calls that take a while, so that jobs are still under way when something else happens."""
    studio.context.engine.wait_until_ready()
    backend = studio.context.engine.backend
    backend.delay = 0.02
    yield
    backend.delay = 0.0


# ---- a browser ----


class Served(str):
    """The address of a served page; `studio` is what stands behind it, in this process."""

    studio: Studio

    @classmethod
    def at(cls, url: str, studio: Studio) -> Served:
        served = cls(url)
        served.studio = studio
        return served


@pytest.fixture(scope="session")
def studio_url(tmp_path_factory) -> Iterator[Served]:
    """A studio over a backend that takes as long for a call as the bundled model."""
    from tests.fakes import FakeBackend
    from tests.ui.harness import fake_studio

    with fake_studio(tmp_path_factory.mktemp("served"), lambda: FakeBackend(delay=0.03)) as studio:
        with launched(studio) as url:
            yield Served.at(url, studio)


@pytest.fixture(scope="session")
def narrow_url(tmp_path_factory) -> Iterator[Served]:
    """A studio where one job runs at a time. Whoever uses it leaves nothing running."""
    from tests.fakes import FakeBackend
    from tests.ui.harness import fake_studio

    with fake_studio(tmp_path_factory.mktemp("narrow"), lambda: FakeBackend(delay=0.03), max_active=1) as studio:
        with launched(studio) as url:
            yield Served.at(url, studio)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as driver:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        chromium = driver.chromium.launch(executable_path=program, args=BROWSER)
        yield chromium
        chromium.close()


class Visits:
    """What pages asked for and which scripts failed, for the test that is running."""

    def __init__(self) -> None:
        self.own: list[str] = []  # beginnings of the addresses that may be asked
        self.strangers: list[str] = []
        self.errors: list[str] = []

    def watch(self, page) -> None:
        page.set_default_timeout(1000 * PATIENCE)
        page.on("request", lambda request: self._request(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _request(self, url: str) -> None:
        if not url.startswith((*self.own, "data:", "blob:", "about:")):
            self.strangers.append(url)


@pytest.fixture(scope="session")
def visits() -> Visits:
    return Visits()


@pytest.fixture(scope="session")
def tabs(browser, visits):
    """Warm tabs, by the options of their context. In one, a page opens in a third of the time of a new tab."""
    found: dict = {}

    def get(**options):
        key = tuple(sorted(options.items()))
        if key not in found:
            found[key] = browser.new_context(**options).new_page()
            visits.watch(found[key])
        return found[key]

    yield get
    for tab in found.values():
        tab.context.close()


@pytest.fixture
def open_page(visits, tabs):
    """Open a page at an address; the test fails if it asks another host for anything or a script fails."""
    used, extra = [], []
    visits.own, visits.strangers, visits.errors = [], [], []

    def open_(url: str, width: int = 1280, height: int = 860, context=None, **options):
        """Open a new visitor's page, or one more page of the visitor whose `context` this is.

        A new visitor gets the tab of the one before, unless the options are others.
        """
        origin = "/".join(url.split("/")[:3])
        visits.own.append(origin)
        if context is not None:
            page = context.new_page()
            visits.watch(page)
            extra.append(page)
        else:
            page = tabs(**options)
            used.append(page)
            page.goto("about:blank")
            page.context.clear_cookies()
            session = page.context.new_cdp_session(page)
            session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "local_storage"})
            session.detach()
        page.set_viewport_size({"width": width, "height": height})
        page.goto(url)
        page.wait_for_selector("#prompt textarea", state="attached")
        return page

    yield open_
    for page in extra:
        page.close()
    for page in used:
        page.emulate_media(color_scheme="light")
        page.goto("about:blank")  # ends the page's streams
    assert visits.strangers == [] and visits.errors == []


# ---- what a visitor does ----

DONE = ".stage[data-kind=done]"
RUNNING = ".stage[data-kind=running]"


def generate(page, prompt: str | None = None) -> None:
    """Press Generate and wait for the picture."""
    if prompt is not None:
        page.fill("#prompt textarea", prompt)
    page.eval_on_selector("#stage .stage", "stage => { stage.dataset.kind = 'old'; }")
    page.click("#generate")
    page.wait_for_selector(f"#stage {DONE}")
    page.wait_for_selector("#stop:disabled")


def start(page, prompt: str, steps: int) -> None:
    """Press Generate and wait until the job is running or queued."""
    set_steps(page, steps)
    page.fill("#prompt textarea", prompt)
    page.click("#generate")
    page.wait_for_selector(f"#stage .stage:is([data-kind=running], [data-kind=waiting]) .title:text-is('{prompt}')")


def stop(page) -> None:
    page.click("#stop")
    page.wait_for_selector("#stage .stage[data-kind=stopped]")


def set_steps(page, steps: int | str) -> None:
    unfold(page, "#steps")
    page.fill("#steps input", str(steps))


def unfold(page, control: str) -> None:
    """Open what is folded, if that control is not in sight."""
    if not page.is_visible(control):
        page.click("[data-fold]:visible")


def open_tab(page, name: str) -> None:
    page.click(f"role=tab[name='{name}']")


def download(page, part: str = "#stage") -> bytes:
    """The file behind the download link of a part."""
    with page.expect_download() as wait:
        page.click(f"{part} [data-slot=download]")
    return wait.value.path().read_bytes()


def choose(page, button: str, content: bytes, name: str = "picture.png") -> None:
    """Choose a file through an upload button."""
    with page.expect_file_chooser() as chooser:
        page.click(button)
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def drop(page, name: str, content: bytes, on: str = "#footer") -> None:
    """Drop a file on a part of the page, as a browser would report it."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
          return transfer;
        }""",
        [name, list(content)],
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event(on, kind, {"dataTransfer": transfer})


LOW_CONTRAST = """() => {
  const parse = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = new Set();
  for (const element of document.querySelectorAll(".gradio-container *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const seen = { opacityProperty: true, visibilityProperty: true };
    if (!own || !element.checkVisibility(seen)) continue;
    if (element.closest("button:disabled") || element.tagName === "OPTION") continue;
    const style = getComputedStyle(element);
    if (parseFloat(style.fontSize) === 0) continue;
    let ground = null;
    for (let up = element; up && !ground; up = up.parentElement) {
      const colour = parse(getComputedStyle(up).backgroundColor);
      if (colour[3] === 1) ground = colour;
    }
    const [a, b] = [light(parse(style.color)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const text = element.textContent.trim().slice(0, 40);
    if (ratio < 4.5) found.add(`${ratio.toFixed(2)} ${element.tagName} ${text}`);
  }
  return [...found];
}"""  # WCAG AA: 4.5 to 1 for every text in sight that is not disabled


TRANSITIONS_END = """() => Promise.allSettled(
  document.getAnimations().filter((a) => a.transitionProperty).map((a) => a.finished)
)"""


def set_shade(page, shade: str) -> None:
    """Let the system ask for light or dark, and wait until the page follows."""
    page.emulate_media(color_scheme=shade)
    page.wait_for_function(f"document.body.classList.contains('dark') === {str(shade == 'dark').lower()}")
    page.evaluate(
        "Promise.allSettled(document.getAnimations().filter((a) => a.transitionProperty).map((a) => a.finished))"
    )
