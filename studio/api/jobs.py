"""What the endpoints have in common: a file that was sent, a job that is waited for, and what is given back of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal
from PIL import Image

from studio.engine.job import JobRejected, JobView
from studio.engine.requests import MAX_SEED, InvalidRequest, Request
from studio.imaging.files import open_image
from studio.imaging.modes import normalize_image
from studio.services.context import AppContext
from studio.ui.components.parts import as_int
from studio.ui.components.result import ImageCard


def run_and_wait(studio: AppContext, ask: Callable[[], Request], request: gr.Request) -> tuple[Any, JobView]:
    """What was asked for, and its job, which is done. Raises gr.Error with a sentence."""
    owner = studio.owners.of_call(request)
    try:
        asked = ask()
        *_, last = studio.engine.follow(studio.engine.submit(asked, owner), owner)
    except (InvalidRequest, JobRejected, ValueError) as problem:
        raise gr.Error(str(problem), print_exception=False) from problem
    if last.state != "done":
        problem = last.error or "The studio was ended before the pictures were done."
        raise gr.Error(problem, print_exception=False)
    return asked, last


def result_files(last: JobView) -> list[dict[str, Any]]:
    """The job's pictures, to be downloaded."""
    shown = [ImageCard.of(picture) for picture in last.pictures]
    return [
        gr.FileData(path=picture.source, orig_name=picture.file_name, mime_type="image/png").model_dump()
        for picture in shown
    ]


def job_info(studio: AppContext, asked: Request, last: JobView) -> dict[str, Any]:
    """What there is to say of any job."""
    return {
        "seed": asked.seed,
        "seeds": asked.seeds,
        "seconds": round(last.seconds, 3),
        "prompt": asked.caption,
        "prompts": asked.captions,
        "notes": list(studio.notes(last)),
    }


def seed_or_random(seed: Any) -> Any:
    return random.randrange(MAX_SEED + 1) if seed is None else as_int(seed)


def uploaded_image(file: Any, name: str, read: Callable[[Image.Image], Image.Image] = normalize_image) -> Image.Image:
    """An uploaded file as a picture, RGB or RGBA, or as `read` makes it.

    Raises ValueError, with one sentence: also for any other file, since nobody is to read the server's own through us.
    """
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", file)
    if not isinstance(path, str) or not path or not is_in_or_equal(path, get_upload_folder()):
        raise ValueError(f"The {name} must be an uploaded file, as gradio_client's handle_file makes it.")
    picture, _ = open_image(path, f"The {name}", read)
    return picture
