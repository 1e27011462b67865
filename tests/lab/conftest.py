"""One thread for all tests here, the fastest for small matrices, and a small pipeline with random weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.lab.point_model import one_thread
from tests.diffusion.conftest import random_pipeline


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def pipe() -> StudioTextToImagePipeline:
    return random_pipeline()
