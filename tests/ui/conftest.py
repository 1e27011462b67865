"""The page without a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes import FakeBackend
from tests.ui.harness import OpenPage, Studio, fake_studio


@pytest.fixture(scope="session")
def studio(tmp_path_factory) -> Iterator[Studio]:
    """A page over the fake backend."""
    with fake_studio(tmp_path_factory.mktemp("studio"), FakeBackend) as studio:
        yield studio


@pytest.fixture
def page(studio) -> OpenPage:
    """The page as a new visitor opens it."""
    return studio.open()


@pytest.fixture
def slow(studio) -> Iterator[None]:
    """Network calls that take a while, so that jobs are still under way when something else happens."""
    studio.context.engine.wait_until_ready()
    backend = studio.context.engine.backend()
    backend.delay = 0.02
    yield
    backend.delay = 0.0
