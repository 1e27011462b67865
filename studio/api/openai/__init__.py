"""The door for programs that speak OpenAI's Images API: /v1/images/* and /v1/models."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Request
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response, StreamingResponse

from studio.api.openai.answers import events, images_answer, picture_file
from studio.api.openai.bodies import (
    DEFAULT_COMPRESSION,
    EditBody,
    GenerationBody,
    ImageBody,
    ImagesAnswer,
    VariationBody,
)
from studio.api.openai.calls import caller_of, run_job
from studio.api.openai.errors import CallRefused, OpenAIRoute
from studio.api.openai.mapping import FORMATS, Call, mask_from_alpha, read_call
from studio.imaging.files import open_image
from studio.models.catalog import ModelEntry
from studio.services.context import AppContext

URL_SECONDS = 3600.0  # for which the address of a picture answers
BodyT = TypeVar("BodyT", EditBody, VariationBody)
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


def router(context: AppContext) -> APIRouter:
    """Return the routes. They answer callers whom the guard has let in."""
    routes = APIRouter(route_class=OpenAIRoute, tags=["OpenAI"])

    async def answer(request: Request, call: Call, kind: str, *, stream: bool | None = False) -> Any:
        caller = caller_of(request)
        if stream:
            if call.by_url:
                call.notes.append("A stream sends pictures as b64_json.")
            sent = events(context, replace(call, by_url=False), caller, kind)
            return StreamingResponse(sent, media_type="text/event-stream", headers={"cache-control": "no-store"})
        job = await run_job(context, call.request, caller, request.is_disconnected)
        if job is None:
            return Response(status_code=499)  # nobody reads it
        address = f"{str(request.base_url).rstrip('/')}/v1/images/files/"
        return await anyio.to_thread.run_sync(images_answer, context, call, job, address)

    @routes.post("/v1/images/generations", response_model=ImagesAnswer, responses=_STREAM)
    async def generate(body: GenerationBody, request: Request) -> Any:
        """Paint pictures from text."""
        caller_of(request)
        call = await anyio.to_thread.run_sync(read_call, context, body)
        return await answer(request, call, "image_generation", stream=body.stream)

    @routes.post(
        "/v1/images/edits", response_model=ImagesAnswer, responses=_STREAM, openapi_extra=_multipart(EditBody, "mask")
    )
    async def edit(request: Request) -> Any:
        """Paint a picture anew where the mask is transparent, or all of it without a mask."""
        caller_of(request)
        async with request.form(max_files=20, max_fields=100) as form:
            body, images = _read_form(EditBody, form)
            image = await _open(images[0], "image")
            mask = None
            if isinstance(upload := form.get("mask"), UploadFile):
                mask = mask_from_alpha(await _open(upload, "mask"))
        call = await anyio.to_thread.run_sync(read_call, context, body, image, mask)
        if len(images) > 1:
            call.notes.append(f"Only the first of {len(images)} images is read.")
        return await answer(request, call, "image_edit", stream=body.stream)

    @routes.post("/v1/images/variations", response_model=ImagesAnswer, openapi_extra=_multipart(VariationBody))
    async def vary(request: Request) -> Any:
        """Paint variations of a picture."""
        caller_of(request)
        async with request.form(max_files=20, max_fields=100) as form:
            body, images = _read_form(VariationBody, form)
            image = await _open(images[0], "image")
        return await answer(request, await anyio.to_thread.run_sync(read_call, context, body, image), "image_edit")

    @routes.get("/v1/images/files/{name}", response_class=Response)
    async def picture(name: str, request: Request) -> Response:
        """Return a picture that was answered by url. It answers its caller alone, for an hour."""
        caller, (id, _, output_format) = caller_of(request), name.rpartition(".")
        found = await anyio.to_thread.run_sync(context.library.get_picture, caller.owner, id)
        if found is None or output_format not in FORMATS or found.created + URL_SECONDS < time.time():
            raise CallRefused("There is no such picture, or its hour is over.", status=404, code="not_found")
        file = await anyio.to_thread.run_sync(picture_file, Path(found.path), output_format, DEFAULT_COMPRESSION)
        return Response(file, media_type=f"image/{output_format}", headers={"cache-control": "private, no-store"})

    @routes.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        """List the models, the default one first."""
        caller_of(request)
        return {"object": "list", "data": [_model(entry) for entry in context.catalog.entries if not entry.problems]}

    @routes.get("/v1/models/{id:path}")
    async def model(id: str, request: Request) -> dict[str, Any]:
        """Return one model."""
        caller_of(request)
        for entry in context.catalog.entries:
            if entry.id == id and not entry.problems:
                return _model(entry)
        raise CallRefused("There is no such model; GET /v1/models lists them.", status=404, code="model_not_found")

    for path in ("generations", "edits", "variations"):  # some programs ask so whether the API is there

        @routes.options(f"/v1/images/{path}", status_code=204, name=f"{path} options", include_in_schema=False)
        async def options() -> Response:
            return Response(status_code=204, headers={"allow": "OPTIONS, POST"})

    return routes


def _model(entry: ModelEntry) -> dict[str, Any]:
    return {"id": entry.id, "object": "model", "created": 0, "owned_by": "diffusion-studio"}


def _read_form(kind: type[BodyT], form: FormData) -> tuple[BodyT, list[UploadFile]]:
    """Return the fields and the pictures of a multipart body. Raises ValidationError, CallRefused."""
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, str) and value != "":
            fields.setdefault(name, value)
    body = kind.model_validate(fields)
    images = [item for name in ("image", "image[]") for item in form.getlist(name) if isinstance(item, UploadFile)]
    if not images:
        raise CallRefused("The image is missing: send it as a file of multipart/form-data.", "image")
    return body, images


async def _open(upload: UploadFile, name: str) -> Image.Image:
    """Return an uploaded picture, RGB or RGBA. Raises CallRefused."""
    try:
        picture, _ = await anyio.to_thread.run_sync(open_image, upload.file, f"The {name}")
    except ValueError as problem:
        raise CallRefused(str(problem), name) from problem
    return picture


def _multipart(kind: type[ImageBody], *files: str) -> dict[str, Any]:
    """Return the OpenAPI description of a multipart body: the fields of a model, an image and other files."""
    schema = kind.model_json_schema()
    schema.pop("example", None)
    for name in ("image", *files):
        schema["properties"][name] = {"type": "string", "format": "binary"}
    schema["required"] = [*schema.get("required", ()), "image"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
