"""A studio that serves the routes for programs, with a stand-in for the guard that names every caller."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.middleware import Middleware

from studio.api.openai.calls import Caller
from studio.engine.backend import Backend
from tests.fakes import FakeBackend
from tests.serving import Served, free_port, served
from tests.ui.harness import fake_studio

OWNER = "user:ann"


class NamesCallers:
    """Puts the caller into each request, as the guard does; the header X-Test-Owner names another, "" nobody."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            owner = dict(scope["headers"]).get(b"x-test-owner", OWNER.encode()).decode()
            if owner:
                scope.setdefault("state", {})["caller"] = Caller(owner, "")
        await self.app(scope, receive, send)


@contextlib.contextmanager
def serving_programs(folder: Path, load: Callable[[], Backend]) -> Iterator[Served]:
    """Serve a studio with the routes for programs; give its address."""
    from studio.api.programs import program_routes
    from studio.server import serve_options

    with fake_studio(folder, load) as studio:
        options = serve_options(studio.context)
        options["app_kwargs"]["routes"] += program_routes(studio.context)
        options["app_kwargs"]["middleware"] = [Middleware(NamesCallers)]
        where = {"server_name": "127.0.0.1", "server_port": free_port(), "prevent_thread_lock": True}
        studio.call(studio.page.launch, **where, **options)
        try:
            yield served(studio, studio.page.local_url.rstrip("/"))
        finally:
            studio.page.close(verbose=False)


@pytest.fixture(scope="module")
def programs_url(tmp_path_factory) -> Iterator[Served]:
    with serving_programs(tmp_path_factory.mktemp("programs"), lambda: FakeBackend(delay=0.03)) as url:
        yield url
