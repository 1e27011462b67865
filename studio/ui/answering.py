"""What the endpoints have in common: a file that was sent, a job that is waited for, and what is given back of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal
from PIL import Image

from studio.engine.job import JobView, Refusal
from studio.engine.requests import MAX_SEED, InvalidRequest, Request
from studio.pictures.files import open_picture
from studio.pictures.modes import plain
from studio.ui.parts import whole
from studio.ui.stage import Shown
from studio.ui.studio import Studio


def finished(studio: Studio, ask: Callable[[], Request], request: gr.Request) -> tuple[Any, JobView]:
    """What was asked for, and its job, which is done. Raises gr.Error with a sentence."""
    owner = studio.owners.of_call(request)
    try:
        asked = ask()
        *_, last = studio.engine.follow(studio.engine.submit(asked, owner), owner)
    except (InvalidRequest, Refusal, ValueError) as problem:
        raise gr.Error(str(problem), print_exception=False) from problem
    if last.state != "done":
        problem = last.error or "The studio was ended before the pictures were done."
        raise gr.Error(problem, print_exception=False)
    return asked, last


def files(last: JobView) -> list[dict[str, Any]]:
    """The job's pictures, to be downloaded."""
    shown = [Shown.of(picture) for picture in last.pictures]
    return [
        gr.FileData(path=picture.source, orig_name=picture.file_name, mime_type="image/png").model_dump()
        for picture in shown
    ]


def facts(studio: Studio, asked: Request, last: JobView) -> dict[str, Any]:
    """What there is to say of any job."""
    return {
        "seed": asked.seed,
        "seeds": asked.seeds,
        "seconds": round(last.seconds, 3),
        "prompt": asked.caption,
        "prompts": asked.captions,
        "notes": list(studio.notes(last)),
    }


def seed_or_new(seed: Any) -> Any:
    return random.randrange(MAX_SEED + 1) if seed is None else whole(seed)


def uploaded(file: Any, name: str, read: Callable[[Image.Image], Image.Image] = plain) -> Image.Image:
    """An uploaded file as a picture, RGB or RGBA, or as `read` makes it.

    Raises ValueError, with one sentence: also for any other file, since nobody is to read the server's own through us.
    """
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", file)
    if not isinstance(path, str) or not path or not is_in_or_equal(path, get_upload_folder()):
        raise ValueError(f"The {name} must be an uploaded file, as gradio_client's handle_file makes it.")
    picture, _ = open_picture(path, f"The {name}", read)
    return picture
