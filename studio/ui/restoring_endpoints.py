"""The endpoints /inpaint and /super_resolution, for gradio_client and any other program."""

from __future__ import annotations

import random
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal
from PIL import Image

from studio.engine.job import JobView, Refusal
from studio.engine.requests import MAX_SEED, Inpaint, InvalidRequest, Request, SuperResolve, caption
from studio.pictures.files import open_picture
from studio.pictures.modes import plain, plain_mask
from studio.ui.before import count_outside
from studio.ui.parts import whole
from studio.ui.stage import Shown
from studio.ui.studio import Studio


def add_restoring_endpoints(studio: Studio) -> None:
    """Adds them to the gr.Blocks under construction."""

    def inpaint(
        image: gr.FileData,
        mask: gr.FileData,
        prompt: str = "",
        negative_prompt: str = "",
        style: str = "any",
        ground: str = "any",
        count: int = 1,
        steps: int = 12,
        guidance: float = 2.0,
        sampler: str = "studio",
        seed: int | None = None,
        area: str = "painted",
        grow: int = 0,
        feather: int = 0,
        invert: bool = False,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> tuple[list[gr.FileData], dict]:
        """Paints a picture anew where its mask is white, and returns 1 to 9 PNG files of the picture's size, with
        {"seed", "seeds", "seconds", "prompt", "changed_outside", "outside", "notes"}.

        Args:
            image: a PNG, JPEG, WebP, GIF, BMP or TIFF file of up to 16 megapixels
            mask: of the same size, white where it is to be painted; where it is transparent somewhere, what is opaque
            prompt: what the whole picture is to show; may be empty
            negative_prompt: what to keep away from
            style: noto, twemoji, flat, glossy or any
            ground: white, black, red, green, blue, yellow, pink, purple, orange, gray or any
            count: number of results, 1 to 9
            steps: denoising steps, 1 to 1000
            guidance: how closely to follow the prompt, 0 to 30
            sampler: studio, ddim, ddpm, dpm++2m, unipc, euler or heun
            seed: 0 to 4294967295; left out, one is drawn
            area: painted, a square around the mask, or whole, the picture
            grow: -256 to 256, px by which the mask is made wider first, or narrower
            feather: 0 to 256, px outside the mask over which it fades; at 0 nothing outside is changed
            invert: paint where the mask is black
        """

        def ask() -> Inpaint:
            return Inpaint(
                caption(prompt, style, ground) if isinstance(prompt, str) else prompt,
                _picture(image, "image"), _picture(mask, "mask", plain_mask), negative_prompt, whole(count),
                whole(steps), guidance, sampler, _seed(seed), grow=whole(grow), feather=whole(feather),
                invert=invert, area=area,
            )  # fmt: skip

        asked, last = _run(studio, ask, request)
        counts = []
        for picture in last.pictures:
            with Image.open(picture.path) as file:
                counts.append(count_outside(asked, file))
        outside = {"changed_outside": max(count.changed for count in counts), "outside": counts[0].of}
        return _files(last), _facts(studio, asked, last) | outside

    def super_resolution(
        image: gr.FileData,
        scale: int = 2,
        width: int | None = None,
        height: int | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        creativity: float = 0.0,
        count: int = 1,
        steps: int = 2,
        guidance: float = 1.0,
        sampler: str = "studio",
        seed: int | None = None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> tuple[list[gr.FileData], dict]:
        """Paints a small picture larger and returns 1 to 9 PNG files, with
        {"seed", "seeds", "seconds", "prompt", "size", "notes"}.

        Args:
            image: a PNG, JPEG, WebP, GIF, BMP or TIFF file; the results may have 16 megapixels together
            scale: 2 or 4
            width: px of the result in place of a scale, at most 4 times the picture's; needs height
            height: px of the result in place of a scale; needs width
            prompt: what the picture shows; may be empty
            negative_prompt: what to keep away from
            creativity: 0 to 0.3; noise put on the small picture, more invents more
            count: number of results, 1 to 9
            steps: denoising steps, 1 to 1000
            guidance: how closely to follow the prompt, 0 to 30
            sampler: studio, ddim, ddpm, dpm++2m, unipc, euler or heun
            seed: 0 to 4294967295; left out, one is drawn
        """

        def ask() -> SuperResolve:
            target = None if width is None and height is None else (whole(width), whole(height))
            return SuperResolve(
                _picture(image, "image"), whole(scale), prompt, creativity, negative_prompt, whole(count),
                whole(steps), guidance, sampler, _seed(seed), target=target,
            )  # fmt: skip

        asked, last = _run(studio, ask, request)
        return _files(last), _facts(studio, asked, last) | {"size": list(asked.output_size)}

    gr.api(inpaint, api_name="inpaint", concurrency_limit=None)
    gr.api(super_resolution, api_name="super_resolution", concurrency_limit=None)


def _run(studio: Studio, ask: Any, request: gr.Request) -> tuple[Any, JobView]:
    """What was asked for, and the job that is done. Raises gr.Error with a sentence."""
    owner = studio.owners.of_call(request)
    try:
        asked: Request = ask()
        *_, last = studio.engine.follow(studio.engine.submit(asked, owner), owner)
    except (InvalidRequest, Refusal, ValueError) as problem:
        raise gr.Error(str(problem), print_exception=False) from problem
    if last.state != "done":
        problem = last.error or "The studio was ended before the pictures were done."
        raise gr.Error(problem, print_exception=False)
    return asked, last


def _files(last: JobView) -> list[dict[str, Any]]:
    shown = [Shown.of(picture) for picture in last.pictures]
    return [
        gr.FileData(path=picture.source, orig_name=picture.file_name, mime_type="image/png").model_dump()
        for picture in shown
    ]


def _facts(studio: Studio, asked: Request, last: JobView) -> dict[str, Any]:
    return {
        "seed": asked.seed,
        "seeds": asked.seeds,
        "seconds": round(last.seconds, 3),
        "prompt": asked.caption,
        "notes": list(studio.notes(last)),
    }


def _seed(seed: Any) -> Any:
    return random.randrange(MAX_SEED + 1) if seed is None else whole(seed)


def _picture(file: Any, name: str, read: Any = plain) -> Image.Image:
    """An uploaded file as a picture. Raises ValueError: also for any other file, since nobody is to read the server's
    own through us."""
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", file)
    if not isinstance(path, str) or not path or not is_in_or_equal(path, get_upload_folder()):
        raise ValueError(f"The {name} must be an uploaded file, as gradio_client's handle_file makes it.")
    picture, _ = open_picture(path, f"The {name}", read)
    return picture
