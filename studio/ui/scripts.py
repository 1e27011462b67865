"""The page's ES modules: the route that serves static/, and the script texts that import from them.

The address of a module holds a digest of all modules, so browsers keep a module until one changes. Addresses are
relative to the page, so they hold below a root path, too.
"""

from __future__ import annotations

import hashlib
from functools import cache
from html import escape
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"


class _Modules(StaticFiles):
    """Serve modules alone, with the type that browsers require and a year in their cache."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if not path.endswith(".js"):
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        response.headers["Content-Type"] = "text/javascript; charset=utf-8"
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


@cache
def _modules() -> dict[str, str]:
    """Return the address of each module by its path in static/, such as noise/main.js."""
    paths = sorted(STATIC.rglob("*.js"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]
    names = [path.relative_to(STATIC).as_posix() for path in paths]
    return {name: f"modules/{digest}/{name}" for name in names}


def module_routes() -> list[BaseRoute]:
    """Return the routes that serve the modules, for `launch(app_kwargs={"routes": ...})`."""
    prefix = "/" + _modules()["page.js"].removesuffix("/page.js")
    return [Mount(prefix, _Modules(directory=STATIC))]


def head_html() -> str:
    """Return the tags that load page.js with the page, and the other modules beside it."""
    preloads = "".join(f'<link rel="modulepreload" href="{escape(url)}">' for url in _modules().values())
    return f'{preloads}<script type="module" src="{escape(_modules()["page.js"])}"></script>'


def on_load(module: str, call: str) -> str:
    """Return the text for `js_on_load` that makes a call into a module, such as "mount(element, trigger)".

    An event of one's own is known to Gradio if its name stands quoted in the call: "() => trigger('paint')".
    """
    return f"{_imported(module)}.then((module) => module.{call});"


def on_event(module: str, call: str, parameters: str = "...values") -> str:
    """Return the text for the `js` of an event: a function of the input values that returns those to send."""
    return f"async ({parameters}) => (await {_imported(module)}).{call}"


def _imported(module: str) -> str:
    return f'import(new URL("{_modules()[module]}", document.baseURI))'
