"""A real browser that may talk to nobody else, with tabs that are kept warm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import sync_playwright

from tests.fakes import FakeBackend
from tests.serving import PATIENCE, Served, launched
from tests.ui.harness import fake_studio
from tests.ui.journeys.visitor import BROWSER


@pytest.fixture(scope="session")
def narrow_url(tmp_path_factory) -> Iterator[Served]:
    """A studio where one job runs at a time. Whoever uses it leaves nothing running."""
    with fake_studio(tmp_path_factory.mktemp("narrow"), lambda: FakeBackend(delay=0.03), max_active=1) as studio:
        with launched(studio) as url:
            yield url


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as driver:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        chromium = driver.chromium.launch(executable_path=program, args=BROWSER)
        yield chromium
        chromium.close()


class Visits:
    """What pages asked for and which scripts failed, for the test that is running."""

    def __init__(self) -> None:
        self.own: list[str] = []  # beginnings of the addresses that may be asked
        self.strangers: list[str] = []
        self.errors: list[str] = []

    def watch(self, page) -> None:
        page.set_default_timeout(1000 * PATIENCE)
        page.on("request", lambda request: self._request(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _request(self, url: str) -> None:
        if not url.startswith((*self.own, "data:", "blob:", "about:")):
            self.strangers.append(url)


@pytest.fixture(scope="session")
def visits() -> Visits:
    return Visits()


@pytest.fixture(scope="session")
def tabs(browser, visits):
    """Warm tabs, by the options of their context. In one, a page opens in a third of the time of a new tab."""
    found: dict = {}

    def get(**options):
        key = tuple(sorted(options.items()))
        if key not in found:
            found[key] = browser.new_context(**options).new_page()
            visits.watch(found[key])
        return found[key]

    yield get
    for tab in found.values():
        tab.context.close()


@pytest.fixture
def open_page(visits, tabs):
    """Open a page at an address; the test fails if it asks another host for anything or a script fails."""
    used, extra = [], []
    visits.own, visits.strangers, visits.errors = [], [], []

    def open_(url: str, width: int = 1280, height: int = 860, context=None, **options):
        """Open a new visitor's page, or one more page of the visitor whose `context` this is.

        A new visitor gets the tab of the one before, unless the options are others.
        """
        origin = "/".join(url.split("/")[:3])
        visits.own.append(origin)
        if context is not None:
            page = context.new_page()
            visits.watch(page)
            extra.append(page)
        else:
            page = tabs(**options)
            used.append(page)
            page.goto("about:blank")
            page.context.clear_cookies()
            session = page.context.new_cdp_session(page)
            session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "local_storage"})
            session.detach()
        page.set_viewport_size({"width": width, "height": height})
        page.goto(url)
        page.wait_for_selector("#prompt textarea", state="attached")
        return page

    yield open_
    for page in extra:
        page.close()
    for page in used:
        page.emulate_media(color_scheme="light")
        page.goto("about:blank")  # ends the page's streams
    assert visits.strangers == [] and visits.errors == []
