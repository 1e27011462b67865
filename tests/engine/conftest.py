import threading
import time
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from studio.engine.engine import Engine
from studio.engine.job import JobView
from studio.engine.requests import Request, TextToImage
from tests.fakes import FakeBackend, MemoryJournal, resolve, single_model


def eventually(condition: Callable[[], object], patience: float = 60.0) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the condition stays false"
        time.sleep(0.002)


PICTURE = Image.new("RGB", (48, 32), "teal")
MASK = Image.new("L", (48, 32), 255)
LONG = TextToImage("a long one", steps=1000)


def saved_pixels(journal: MemoryJournal, job_id: str) -> list[bytes]:
    """Return the pixels of the pictures that were saved for a job."""
    return [journal.images[picture.id].tobytes() for picture in journal.entries[job_id].pictures]


def states(engine: Engine, ids: list[str], owner: str = "me") -> list[str]:
    return [engine.view(job_id, owner).state for job_id in ids]


def done(engine: Engine, request: Request, owner: str = "me") -> JobView:
    """Run a job and return its last view."""
    *_, last = engine.follow(engine.submit(request, owner), owner)
    return last


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Return a function that starts engines. They are shut down after the test, also if a gate holds their backend."""
    engines, backends, threads_before = [], [], set(threading.enumerate())

    def start(backend: FakeBackend | None = None, journal: MemoryJournal | None = None, **options: object) -> Engine:
        backends.append(backend or FakeBackend())
        engines.append(
            Engine(
                single_model(lambda backend=backends[-1]: backend),
                journal or MemoryJournal(),
                resolve=resolve,
                **options,
            )
        )
        return engines[-1].start()

    yield start
    for backend in backends:
        if backend.gate:
            backend.gate.release(100_000)
    for engine in engines:
        assert engine.shutdown(60)
    left_over = set(threading.enumerate()) - threads_before
    assert not [thread.name for thread in left_over if thread.name in ("engine", "result-writer", "model-loader")]
