"""What must be set before torch and Gradio are imported, and a served studio for the tests of the page and the API."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving import Served

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side: more threads than cores make each call slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Gradio's queue uses options that pandas means to drop.
IGNORED = "ignore::DeprecationWarning:gradio[.]queueing"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "journeys" not in item.path.parts)  # they take longest, so they start first
    for item in items:
        item.add_marker(pytest.mark.filterwarnings(IGNORED))


@pytest.fixture(scope="session")
def studio_url(tmp_path_factory) -> Iterator[Served]:
    """The address of a studio whose backend takes as long for a call as the bundled model."""
    from tests.fakes import FakeBackend
    from tests.serving import launched
    from tests.ui.harness import fake_studio

    with fake_studio(tmp_path_factory.mktemp("served"), lambda: FakeBackend(delay=0.03)) as studio:
        with launched(studio) as url:
            yield url
