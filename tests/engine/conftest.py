import threading
import time
from collections.abc import Callable, Iterator

import pytest

from studio.engine.engine import Engine
from studio.engine.job import JobView
from studio.engine.requests import Request
from tests.fakes import FakeBackend, MemoryJournal, resolve


def eventually(condition: Callable[[], object], patience: float = 60.0) -> None:
    """Waits until the condition is true."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def done(engine: Engine, request: Request, owner: str = "me") -> JobView:
    """The last view of a job that is run now."""
    *_, last = engine.follow(engine.submit(request, owner), owner)
    return last


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Starts engines that are shut down after the test, whatever gate their samplers stand at."""
    engines, samplers = [], []

    def start(sampler: FakeBackend | None = None, journal: MemoryJournal | None = None, **options: object) -> Engine:
        samplers.append(sampler or FakeBackend())
        engines.append(
            Engine(lambda sampler=samplers[-1]: sampler, journal or MemoryJournal(), resolve=resolve, **options)
        )
        return engines[-1].start()

    yield start
    for sampler in samplers:
        if sampler.gate:
            sampler.gate.release(100_000)
    for engine in engines:
        assert engine.shutdown(60)
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("engine", "result-writer")]
