"""The page's modules are served under an address that changes with them, and nothing else is."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from studio.ui.scripts import STATIC, head_html, module_routes, on_event, on_load

MODULES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.js"))


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=module_routes()))


def test_every_module_is_served_as_a_script_that_may_be_kept(client):
    addresses = re.findall(r'href="(modules/\w+/([^"]+))"', head_html())
    assert [name for _, name in addresses] == MODULES
    for address, name in addresses:
        answer = client.get(address)
        assert answer.status_code == 200 and answer.text == (STATIC / name).read_text("utf-8")
        assert answer.headers["content-type"].startswith("text/javascript")
        assert "immutable" in answer.headers["cache-control"]


def test_modules_are_served_below_a_root_path_that_a_proxy_strips():
    address = re.search(r'src="([^"]+page\.js)"', head_html()).group(1)
    assert TestClient(Starlette(routes=module_routes()), root_path="/studio").get(address).status_code == 200


@pytest.mark.parametrize(
    "name", ["styles/page.css", "tsconfig.json", "../scripts.py", "..%2fscripts.py", "", "none.js"]
)
def test_nothing_else_is_served(client, name):
    folder = re.search(r'src="(modules/\w+/)page\.js"', head_html()).group(1)
    assert client.get(folder + name).status_code == 404


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_imports_is_there(name):
    for target in re.findall(r'from "(\.[^"]+)"|^import "(\.[^"]+)"', (STATIC / name).read_text("utf-8"), re.MULTILINE):
        assert (STATIC / name).parent.joinpath("".join(target)).resolve().is_file()


def test_a_script_of_an_unknown_module_cannot_be_written():
    for write in (on_load, on_event):
        with pytest.raises(KeyError):
            write("none.js", "mount()")
