"""The endpoint /text_to_image, for gradio_client and any other program."""

from __future__ import annotations

import gradio as gr

from studio.api.aliases import current_value
from studio.api.jobs import (
    build_model_request,
    errors_as_sentences,
    job_info,
    result_files,
    run_and_wait,
    uploaded_image,
)
from studio.engine.requests import TextToImage
from studio.services.build_request import seed_or_random
from studio.services.context import AppContext


def add_text_to_image_endpoint(context: AppContext) -> None:
    """Add the endpoint to the gr.Blocks under construction."""

    def text_to_image(
        prompt: str,
        negative_prompt: str = TextToImage.negative_prompt,
        style: str = TextToImage.style,
        background: str = TextToImage.background,
        count: int = TextToImage.count,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        seed: int | None = None,
        one_pass: bool = TextToImage.one_pass,
        style_emphasis: bool = TextToImage.style_emphasis,
        randomize_style: bool | None = None,
        ground: str | None = None,
        varied: bool | None = None,
        width: int | None = None,
        height: int | None = None,
        image: gr.FileData | None = None,
        strength: float = TextToImage.strength,
        refiner: str = TextToImage.refiner,
        refiner_start: float = TextToImage.refiner_start,
        spacing: str | None = None,
        clip_skip: int | None = None,
        guidance_rescale: float | None = None,
        model: str = TextToImage.model_id,
        caller: gr.Request | None = None,
    ) -> tuple[list[gr.FileData], dict]:
        """Generate 1 to 9 pictures from a prompt and return them as PNG files, with
        {"model", "seed", "seeds", "seconds", "prompt", "prompts", "notes"}.

        Args:
            prompt: what to paint; empty lets the model choose
            negative_prompt: what to avoid
            style: noto, twemoji, flat, glossy or any
            background: white, black, red, green, blue, yellow, pink, purple, orange, gray or any
            count: number of pictures, 1 to 9
            steps: denoising steps, 1 to 1000; if left out, the model's own number
            guidance: how closely to follow the prompt, 0 to 30; if left out, the model's own
            sampler: one of the model's (see /models); if left out, the model's own
            spacing: how the sampler spaces its steps, one of the model's; if left out, the model's own
            clip_skip: last layers of the text encoder that are left out, for models that can
            guidance_rescale: 0 to 1, against too strong contrast, for models that can
            seed: 0 to 4294967295; if left out, a random one
            one_pass: faster guidance, half the work, slightly worse; for guidance from 1 to 5 and no negative prompt
            style_emphasis: follow the style more closely, for half as much work again
            randomize_style: let the seed choose a style and a background where the prompt names none; if left out,
                as the model does
            ground: deprecated, use background
            varied: deprecated, use randomize_style
            width: px, a multiple of 8, for models that paint any size; if left out, the model's own
            height: px, as width
            image: a picture to vary, a PNG, JPEG, WebP, GIF, BMP or TIFF file of up to 16 megapixels
            strength: above 0, at most 1: how much of the image may change
            refiner: id of a model that takes the last steps, for SDXL
            refiner_start: share of the noise schedule after which the refiner goes on
            model: id of a model (see /models); if left out, the default model
        """
        with errors_as_sentences():
            randomizes = current_value("randomize_style", randomize_style, None, "varied", varied)
            if randomizes is None:
                randomizes = context.capabilities_of(model).vocabulary is not None
            request = build_model_request(
                context,
                TextToImage,
                model,
                {
                    "prompt": prompt,
                    "negative_prompt": negative_prompt,
                    "style": style,
                    "background": current_value("background", background, TextToImage.background, "ground", ground),
                    "count": count,
                    "steps": steps,
                    "guidance": guidance,
                    "sampler": sampler,
                    "spacing": spacing,
                    "clip_skip": clip_skip,
                    "guidance_rescale": guidance_rescale,
                    "seed": seed_or_random(seed),
                    "one_pass": one_pass,
                    "style_emphasis": style_emphasis,
                    "randomize_style": randomizes,
                    "width": width,
                    "height": height,
                    "image": None if image is None else uploaded_image(image, "image"),
                    "strength": strength,
                    "refiner": refiner,
                    "refiner_start": refiner_start,
                },
            )
            job = run_and_wait(context, request, caller)
        return result_files(job), job_info(context, job)

    gr.api(text_to_image, api_name="text_to_image", concurrency_limit=None)
