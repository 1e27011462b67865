"""A few sessions of what `python -m tests.soak.load` does with many."""

from __future__ import annotations

from tests.fakes import FakeBackend
from tests.serving import launched
from tests.soak.load import check, load
from tests.ui.harness import fake_studio


def test_sessions_that_come_and_go_get_their_own_pictures(tmp_path):
    with fake_studio(tmp_path, lambda: FakeBackend(delay=0.005)) as studio, launched(studio) as url:
        check(load(url, tmp_path / "data", sessions=4, jobs=3, drops=0.3), tmp_path / "data")
