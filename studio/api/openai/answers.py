"""The pictures of a job in the form in which OpenAI sends them."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio.to_thread
from PIL import Image

from studio.api.openai.bodies import ImageAnswer, ImagesAnswer
from studio.api.openai.calls import Caller, submit, watch
from studio.api.openai.errors import describe_error
from studio.api.openai.mapping import Call
from studio.engine.job import JobView
from studio.imaging.modes import flatten_alpha
from studio.services.context import AppContext

USAGE = {
    "total_tokens": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}


def images_answer(context: AppContext, call: Call, job: JobView, address: str) -> ImagesAnswer:
    """Return the answer for a job that is done. address: of the folder of pictures, for those sent by url."""
    resolved = job.resolved
    assert resolved is not None  # only a job that is read from the disk has none
    data: list[ImageAnswer] = []
    for picture, caption in zip(job.pictures, resolved.captions, strict=True):
        if call.by_url:
            data.append(ImageAnswer(url=f"{address}{picture.id}.{call.output_format}", revised_prompt=caption))
        else:
            file = picture_file(Path(picture.path), call.output_format, call.compression)
            data.append(ImageAnswer(b64_json=base64.b64encode(file).decode(), revised_prompt=caption))
    return ImagesAnswer(
        created=int(job.created),
        data=data,
        background="opaque",
        output_format=call.output_format,
        quality=call.quality,
        size=f"{job.pictures[0].width}x{job.pictures[0].height}",
        usage=USAGE,
        model=resolved.model_id,
        seeds=list(resolved.seeds),
        notes=[*call.notes, *context.notes(job)],
    )


def picture_file(path: Path, output_format: str, compression: int) -> bytes:
    """Return a saved picture as a file; PNG keeps its settings."""
    if output_format == "png":
        return path.read_bytes()
    with Image.open(path) as picture:
        return encode(picture, output_format, compression)


def encode(picture: Image.Image, output_format: str, compression: int) -> bytes:
    """Return a picture as a PNG, JPEG or WebP file. compression: quality of the last two, 0 to 100."""
    file = io.BytesIO()
    if output_format == "png":
        picture.save(file, "PNG")
    else:
        picture = flatten_alpha(picture) if output_format == "jpeg" else picture
        picture.save(file, output_format.upper(), quality=compression)
    return file.getvalue()


async def events(context: AppContext, call: Call, caller: Caller, kind: str) -> AsyncGenerator[str]:
    """Run the job of a call and yield its server-sent events: pictures on the way, then the finished ones, or an error.

    kind: image_generation or image_edit.
    """
    sent = 0
    try:
        job_id = await submit(context, call.request, caller)
        async with aclosing(watch(context, job_id, caller)) as views:
            async for view in views:
                if sent < call.partials and view.previews and view.share >= (sent + 1) / (call.partials + 1):
                    preview = view.previews[0]
                    file = await anyio.to_thread.run_sync(encode, preview, call.output_format, call.compression)
                    facts = _facts(call, f"{preview.width}x{preview.height}")
                    image = base64.b64encode(file).decode()
                    yield _event(f"{kind}.partial_image", facts | {"b64_json": image, "partial_image_index": sent})
                    sent += 1
                if view.state == "done":
                    answer = await anyio.to_thread.run_sync(images_answer, context, call, view, "")
                    extra = {"usage": USAGE, "notes": answer.notes, "seeds": answer.seeds, "model": answer.model}
                    for image in answer.data:
                        facts = _facts(call, answer.size) | extra
                        yield _event(f"{kind}.completed", facts | image.model_dump(exclude_none=True))
    except Exception as problem:
        yield _event("error", describe_error(problem)[1])


def _facts(call: Call, size: str) -> dict[str, Any]:
    created = int(time.time())
    shared = {"background": "opaque", "output_format": call.output_format, "quality": call.quality, "size": size}
    return {"created_at": created, **shared}


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n"
