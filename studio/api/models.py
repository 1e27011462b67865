"""The list of models: the endpoint /models, and GET /models.json."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from studio.services.context import AppContext


def add_models_endpoint(context: AppContext) -> None:
    """Add the endpoint to the gr.Blocks under construction."""

    def models() -> list[dict[str, Any]]:
        """Return the models, the default one first, each as {"id", "name", "family", "version", "variant",
        "prediction_type", "size", "bytes", "parameters", "tasks", "samplers", "defaults", "trigger_words", "evidence",
        "problems", "loaded"}. The other endpoints take an id as `model`.
        """
        return list_models(context)

    gr.api(models, api_name="models", concurrency_limit=None)


def models_route(context: AppContext) -> Route:
    """Return the route GET /models.json. Where the studio asks for a login, only those who are signed in may use it."""

    def get_models(request: Request) -> Response:
        if not _is_signed_in(request):
            return JSONResponse({"error": "Not authenticated"}, status_code=401)
        return JSONResponse(list_models(context))

    return Route("/models.json", get_models, methods=["GET"])


def list_models(context: AppContext) -> list[dict[str, Any]]:
    """Return what a program may know of each model; no paths."""
    loaded = context.engine.loaded
    models: list[dict[str, Any]] = []
    for entry in context.catalog.entries:
        identity, capabilities = entry.identity, context.capabilities_of(entry.id)
        defaults = {task: dict(settings) for task, settings in capabilities.defaults.items()}
        models.append(
            {
                "id": entry.id,
                "name": capabilities.name,
                "family": identity.family,
                "version": identity.version,
                "variant": identity.variant,
                "prediction_type": identity.prediction_type,
                "size": list(identity.sample_size),
                "bytes": entry.bytes,
                "parameters": entry.parameters,
                "tasks": [] if entry.problems else list(capabilities.tasks),
                "samplers": {sampler: list(capabilities.spacings_of(sampler)) for sampler in capabilities.samplers},
                "defaults": defaults,
                "trigger_words": entry.trigger_words,
                "evidence": list(identity.evidence),
                "problems": list(entry.problems),
                "loaded": entry.id in loaded,
            }
        )
    return models


def _is_signed_in(request: Request) -> bool:
    """Return whether Gradio knows who sent the request, or asks nobody to sign in."""
    app = request.app  # Gradio's, with the cookies that its login sets
    if app.auth is None:
        return True
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(request.cookies.get(name) in app.tokens for name in names)
