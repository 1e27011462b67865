"""The routes that other programs call beside Gradio's own: every door, its description and its page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from studio.api import openai
from studio.services.context import AppContext

TITLE = "Diffusion Studio"
METHODS = ("get", "post", "put", "delete", "patch")
_PAGE = Path(__file__).with_name("docs.html")
# The page asks no other host, and runs no script.
_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}


def program_routes(context: AppContext) -> list[BaseRoute]:
    """Return the routes of all doors, with /openapi.json and /docs. The guard must stand before them."""
    routers: list[APIRouter] = [openai.router(context)]
    routes = [route for router in routers for route in router.routes]
    document = openapi_document(routes)

    async def get_document(request: Request) -> Response:
        return JSONResponse(document)

    async def get_page(request: Request) -> Response:
        address = str(request.base_url).rstrip("/")
        page = _template().render(title=TITLE, address=address, groups=_groups(document))
        return HTMLResponse(page, headers=_HEADERS)

    return [*routes, Route("/openapi.json", get_document), Route("/docs", get_page)]


def openapi_document(routes: list[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of the doors' routes."""
    return get_openapi(title=TITLE, version="1", routes=routes)


@cache
def _template():
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE.read_text("utf-8"))


def _groups(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the routes by their door, each with what the page says of it."""
    groups: dict[str, list[dict[str, Any]]] = {}
    schemas = document.get("components", {}).get("schemas", {})
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in METHODS:
                facts = {"method": method.upper(), "path": path, "text": operation.get("description", "")}
                facts |= _body_facts(operation, schemas)
                groups.setdefault(operation.get("tags", ["Other"])[0], []).append(facts)
    return groups


def _body_facts(operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the form, the fields and the example of an operation's body."""
    for form, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content.get("schema", {})
        schema = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
        required, fields = schema.get("required", []), []
        for name, field in schema.get("properties", {}).items():
            text = "a picture file" if field.get("format") == "binary" else field.get("description", "")
            fields.append({"name": name, "text": text, "required": name in required})
        fields.sort(key=lambda field: not field["required"])
        return {"form": form, "fields": fields, "example": schema.get("example")}
    return {"form": "", "fields": [], "example": None}
