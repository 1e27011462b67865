"""What the endpoints share: read an uploaded file, run a job, and return its files and facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal
from PIL import Image

from studio.engine.job import JobRejected, JobView
from studio.engine.requests import Request
from studio.imaging.files import open_image
from studio.imaging.modes import normalize_image
from studio.services.build_request import RequestT, build_request
from studio.services.context import AppContext
from studio.services.naming import download_name

# What a caller may leave out, so that the model chooses.
OPTIONAL_FIELDS = (
    "sampler", "spacing", "steps", "guidance", "clip_skip", "guidance_rescale", "scale", "noise_level",
)  # fmt: skip


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Answer a call that is refused with the sentence that says why."""
    try:
        yield
    except (ValueError, JobRejected) as problem:  # InvalidRequest is a ValueError
        raise gr.Error(str(problem), print_exception=False) from problem


def build_model_request(context: AppContext, kind: type[RequestT], model: str, values: Mapping[str, Any]) -> RequestT:
    """Return a request for a model, with the model's own settings in place of those that the caller left out.

    Raises InvalidRequest.
    """
    defaults = context.capabilities_of(model).defaults.get(kind.task, {})
    given: dict[str, Any] = {"model_id": model}
    for name, value in values.items():
        if value is not None or name not in OPTIONAL_FIELDS:
            given[name] = value
        elif name in defaults:
            given[name] = defaults[name]
    return build_request(kind, given)


def run_and_wait(context: AppContext, request: Request, caller: gr.Request | None) -> JobView:
    """Submit a request, wait for its job and return the job, which is done.

    Raises gr.Error if it failed or was cancelled, JobRejected if it cannot be queued.
    """
    owner = context.owners.of_call(caller)
    *_, job = context.engine.follow(context.engine.submit(request, owner), owner)
    if job.state != "done":
        raise gr.Error(job.error or "The studio was stopped before the pictures were done.", print_exception=False)
    return job


def result_files(job: JobView) -> list[gr.FileData]:
    """Return the job's pictures as files to download."""
    return [output_file(picture.path, download_name(picture.settings)) for picture in job.pictures]


def output_file(path: str, name: str) -> gr.FileData:
    """Return a PNG file for the caller to download by this name."""
    file = gr.FileData(path=path, orig_name=name, mime_type="image/png")
    return cast(gr.FileData, file.model_dump())  # Gradio sends files as dictionaries


def job_info(context: AppContext, job: JobView) -> dict[str, Any]:
    """Return the facts that every endpoint gives about its job."""
    resolved = job.resolved
    assert resolved is not None  # only a job that is read from the disk has none
    return {
        "model": resolved.model_id,
        "seed": resolved.request.seed,
        "seeds": list(resolved.seeds),
        "seconds": round(job.seconds, 3),
        "prompt": resolved.caption,
        "prompts": list(resolved.captions),
        "notes": list(context.notes(job)),
    }


def uploaded_image(file: Any, name: str, read: Callable[[Image.Image], Image.Image] = normalize_image) -> Image.Image:
    """Return an uploaded file as a picture, RGB or RGBA, or as `read` converts it.

    Raises ValueError with one sentence: also for a path outside the upload folder, so that no caller can read the
    server's own files.
    """
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", file)
    if not isinstance(path, str) or not path or not is_in_or_equal(path, get_upload_folder()):
        raise ValueError(f"The {name} must be an uploaded file, as gradio_client's handle_file makes it.")
    picture, _ = open_image(path, f"The {name}", read)
    return picture
