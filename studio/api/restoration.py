"""The endpoints /inpaint and /super_resolution, for gradio_client and any other program."""

from __future__ import annotations

import gradio as gr
from PIL import Image

from studio.api.jobs import job_info, result_files, run_and_wait, seed_or_random, uploaded_image
from studio.engine.requests import Inpaint, SuperResolve
from studio.imaging.modes import normalize_mask
from studio.prompts.captions import build_caption
from studio.services.comparison import count_changes
from studio.services.context import AppContext
from studio.ui.components.parts import as_int


def add_restoring_endpoints(studio: AppContext) -> None:
    """Adds them to the gr.Blocks under construction."""

    def inpaint(
        image: gr.FileData,
        mask: gr.FileData,
        prompt: str = "",
        negative_prompt: str = "",
        style: str = "any",
        background: str = "any",
        count: int = 1,
        steps: int = 6,
        guidance: float = 1.5,
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
                build_caption(prompt, style, background) if isinstance(prompt, str) else prompt,
                uploaded_image(image, "image"), uploaded_image(mask, "mask", normalize_mask), negative_prompt, as_int(count),
                as_int(steps), guidance, sampler, seed_or_random(seed), grow=as_int(grow), feather=as_int(feather),
                invert=invert, area=area,
            )  # fmt: skip

        asked, last = run_and_wait(studio, ask, request)
        counts = []
        for picture in last.pictures:
            with Image.open(picture.path) as file:
                counts.append(count_changes(asked, file))
        outside = {"changed_outside": max(count.changed for count in counts), "outside": counts[0].of}
        return result_files(last), job_info(studio, asked, last) | outside

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
            target = None if width is None and height is None else (as_int(width), as_int(height))
            return SuperResolve(
                uploaded_image(image, "image"), as_int(scale), prompt, creativity, negative_prompt, as_int(count),
                as_int(steps), guidance, sampler, seed_or_random(seed), target=target,
            )  # fmt: skip

        asked, last = run_and_wait(studio, ask, request)
        return result_files(last), job_info(studio, asked, last) | {"size": list(asked.output_size)}

    gr.api(inpaint, api_name="inpaint", concurrency_limit=None)
    gr.api(super_resolution, api_name="super_resolution", concurrency_limit=None)
