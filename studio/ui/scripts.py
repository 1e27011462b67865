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
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

STATIC = Path(__file__).parent / "static"
_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}


@cache
def _modules() -> dict[str, str]:
    """Return the address of each module by its path in static/, such as noise/main.js."""
    paths = sorted(STATIC.rglob("*.js"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]
    names = [path.relative_to(STATIC).as_posix() for path in paths]
    return {name: f"modules/{digest}/{name}" for name in names}


def module_routes() -> list[BaseRoute]:
    """Return the routes that serve the modules, for `launch(app_kwargs={"routes": ...})`.

    A route and no mount of a folder: Starlette's mounts do not find files below a root path that a proxy strips.
    """
    names = {f"/{url}": name for name, url in _modules().items()}

    async def serve_module(request: Request) -> Response:
        name = names.get(f"/modules/{request.path_params['path']}")
        if name is None:
            raise HTTPException(404)
        return FileResponse(STATIC / name, headers=_HEADERS, media_type="text/javascript")

    return [Route("/modules/{path:path}", serve_module, methods=["GET"])]


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
