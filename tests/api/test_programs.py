"""All routes for programs together: no body that fits or breaks our own description is answered with a server error."""

from __future__ import annotations

import pytest

from tests.fakes import FakeBackend
from tests.soak.fuzz import fuzz
from tests.ui.harness import fake_context

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of schemathesis


def test_random_bodies_never_end_in_a_server_error(tmp_path):
    with fake_context(tmp_path, lambda: FakeBackend(delay=0)) as context:
        answers = fuzz(context, 12)
    seen = {status for _, _, status in answers}
    assert {200, 400} <= seen and answers.total() > 30
