"""A few sessions of what `python -m tests.soak.load` does with many."""

from __future__ import annotations

from tests.soak.load import check, load
from tests.ui.conftest import serving_fake


def test_sessions_that_come_and_go_get_their_own_pictures(tmp_path):
    with serving_fake(tmp_path, "--delay", "0.005") as url:
        check(load(url, tmp_path / "data", sessions=4, jobs=3, drops=0.3), tmp_path / "data")
