"""The endpoints /inpaint and /super_resolution, for gradio_client and any other program."""

from __future__ import annotations

import gradio as gr
from PIL import Image

from studio.api.aliases import current_value
from studio.api.jobs import (
    build_model_request,
    errors_as_sentences,
    job_info,
    result_files,
    run_and_wait,
    uploaded_image,
)
from studio.engine.requests import Inpaint, SuperResolve
from studio.imaging.modes import normalize_mask
from studio.services.build_request import seed_or_random
from studio.services.comparison import count_changes
from studio.services.context import AppContext


def add_restoration_endpoints(context: AppContext) -> None:
    """Add the endpoints to the gr.Blocks under construction."""

    def inpaint(
        image: gr.FileData,
        mask: gr.FileData,
        prompt: str = "",
        negative_prompt: str = Inpaint.negative_prompt,
        style: str = Inpaint.style,
        background: str = Inpaint.background,
        count: int = Inpaint.count,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        seed: int | None = None,
        area: str = Inpaint.area,
        grow: int = Inpaint.grow,
        feather: int = Inpaint.feather,
        invert: bool = Inpaint.invert,
        ground: str | None = None,
        strength: float = Inpaint.strength,
        spacing: str | None = None,
        clip_skip: int | None = None,
        guidance_rescale: float | None = None,
        model: str = Inpaint.model_id,
        caller: gr.Request | None = None,
    ) -> tuple[list[gr.FileData], dict]:
        """Repaint a picture where its mask is white, and return 1 to 9 PNG files of the picture's size, with
        {"model", "seed", "seeds", "seconds", "prompt", "prompts", "changed_outside", "outside", "notes"}.

        Args:
            image: a PNG, JPEG, WebP, GIF, BMP or TIFF file of up to 16 megapixels
            mask: of the same size, white where to paint; if parts of it are transparent, the opaque parts
            prompt: what the whole picture shows; may be empty
            negative_prompt: what to avoid
            style: noto, twemoji, flat, glossy or any
            background: white, black, red, green, blue, yellow, pink, purple, orange, gray or any
            count: number of results, 1 to 9
            steps: denoising steps, 1 to 1000; if left out, the model's own number
            guidance: how closely to follow the prompt, 0 to 30; if left out, the model's own
            sampler: one of the model's (see /models); if left out, the model's own
            spacing: how the sampler spaces its steps, one of the model's; if left out, the model's own
            clip_skip: last layers of the text encoder that are left out, for models that can
            guidance_rescale: 0 to 1, against too strong contrast, for models that can
            seed: 0 to 4294967295; if left out, a random one
            area: painted, a square around the mask, or whole, the picture
            grow: px by which to widen the mask first, -256 to 256; a negative number shrinks it
            feather: px outside the mask over which it fades, 0 to 256; at 0 nothing outside changes
            invert: paint where the mask is black
            ground: deprecated, use background
            strength: above 0, at most 1: how much of the area may change, for models that can begin with what is there
            model: id of a model (see /models); if left out, the default model
        """
        with errors_as_sentences():
            request = build_model_request(
                context,
                Inpaint,
                model,
                {
                    "image": uploaded_image(image, "image"),
                    "mask": uploaded_image(mask, "mask", normalize_mask),
                    "prompt": prompt,
                    "negative_prompt": negative_prompt,
                    "style": style,
                    "background": current_value("background", background, Inpaint.background, "ground", ground),
                    "count": count,
                    "steps": steps,
                    "guidance": guidance,
                    "sampler": sampler,
                    "spacing": spacing,
                    "clip_skip": clip_skip,
                    "guidance_rescale": guidance_rescale,
                    "seed": seed_or_random(seed),
                    "area": area,
                    "grow": grow,
                    "feather": feather,
                    "invert": invert,
                    "strength": strength,
                },
            )
            job = run_and_wait(context, request, caller)
        counts = []
        for picture in job.pictures:
            with Image.open(picture.path) as file:
                counts.append(count_changes(request, file))
        outside = {"changed_outside": max(count.changed for count in counts), "outside": counts[0].of}
        return result_files(job), job_info(context, job) | outside

    def super_resolution(
        image: gr.FileData,
        scale: int | None = None,
        width: int | None = None,
        height: int | None = None,
        prompt: str = SuperResolve.prompt,
        negative_prompt: str = SuperResolve.negative_prompt,
        creativity: float | None = None,
        count: int = SuperResolve.count,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        seed: int | None = None,
        spacing: str | None = None,
        clip_skip: int | None = None,
        guidance_rescale: float | None = None,
        model: str = Inpaint.model_id,
        caller: gr.Request | None = None,
    ) -> tuple[list[gr.FileData], dict]:
        """Enlarge a small picture and return 1 to 9 PNG files, with
        {"model", "seed", "seeds", "seconds", "prompt", "prompts", "size", "notes"}.

        Args:
            image: a PNG, JPEG, WebP, GIF, BMP or TIFF file; the results may have 16 megapixels together
            scale: 2 or 4; if left out, the model's own
            width: px of the result in place of a scale, at most 4 times the picture's; needs height
            height: px of the result in place of a scale; needs width
            prompt: what the picture shows; may be empty
            negative_prompt: what to avoid
            creativity: 0 to 0.3 for the bundled model, 0.05 to 1 for Stable Diffusion and SDXL, 0 to 350 for the x4
                upscaler; higher invents more detail; if left out, the model's own
            count: number of results, 1 to 9
            steps: denoising steps, 1 to 1000; if left out, the model's own number
            guidance: how closely to follow the prompt, 0 to 30; if left out, the model's own
            sampler: one of the model's (see /models); if left out, the model's own
            spacing: how the sampler spaces its steps, one of the model's; if left out, the model's own
            clip_skip: last layers of the text encoder that are left out, for models that can
            guidance_rescale: 0 to 1, against too strong contrast, for models that can
            seed: 0 to 4294967295; if left out, a random one
            model: id of a model (see /models); if left out, the default model
        """
        with errors_as_sentences():
            request = build_model_request(
                context,
                SuperResolve,
                model,
                {
                    "image": uploaded_image(image, "image"),
                    "scale": scale,
                    "target": None if width is None and height is None else (width, height),
                    "prompt": prompt,
                    "negative_prompt": negative_prompt,
                    "noise_level": creativity,
                    "count": count,
                    "steps": steps,
                    "guidance": guidance,
                    "sampler": sampler,
                    "spacing": spacing,
                    "clip_skip": clip_skip,
                    "guidance_rescale": guidance_rescale,
                    "seed": seed_or_random(seed),
                },
            )
            job = run_and_wait(context, request, caller)
        return result_files(job), job_info(context, job) | {"size": list(request.output_size)}

    gr.api(inpaint, api_name="inpaint", concurrency_limit=None)
    gr.api(super_resolution, api_name="super_resolution", concurrency_limit=None)
