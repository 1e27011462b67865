"""Matrices here are small: one thread is fastest, by far so on a busy machine."""

from __future__ import annotations

import pytest

from studio.lab.point_model import one_thread


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    with one_thread():
        yield
