"""Settings of the whole suite that must hold before torch and Gradio are imported."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side: more threads than cores make each call slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Gradio's queue uses options that pandas means to drop.
IGNORED = "ignore::DeprecationWarning:gradio[.]queueing"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.filterwarnings(IGNORED))
