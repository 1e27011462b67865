"""The endpoint /text_to_image, for gradio_client and any other program."""

from __future__ import annotations

import gradio as gr

from studio.api.aliases import current_value
from studio.api.jobs import errors_as_sentences, job_info, result_files, run_and_wait
from studio.engine.requests import TextToImage
from studio.services.build_request import build_request, seed_or_random
from studio.services.context import AppContext


def add_text_to_image_endpoint(context: AppContext) -> None:
    """Add the endpoint to the gr.Blocks under construction."""
    randomizes_style = context.vocabulary is not None

    def text_to_image(
        prompt: str,
        negative_prompt: str = TextToImage.negative_prompt,
        style: str = TextToImage.style,
        background: str = TextToImage.background,
        count: int = TextToImage.count,
        steps: int = TextToImage.steps,
        guidance: float = TextToImage.guidance,
        sampler: str = TextToImage.sampler,
        seed: int | None = None,
        one_pass: bool = TextToImage.one_pass,
        style_emphasis: bool = TextToImage.style_emphasis,
        randomize_style: bool = randomizes_style,
        ground: str | None = None,
        varied: bool | None = None,
        caller: gr.Request | None = None,
    ) -> tuple[list[gr.FileData], dict]:
        """Generate 1 to 9 pictures from a prompt and return them as PNG files, with
        {"seed", "seeds", "seconds", "prompt", "prompts", "notes"}.

        Args:
            prompt: what to paint; empty lets the model choose
            negative_prompt: what to avoid
            style: noto, twemoji, flat, glossy or any
            background: white, black, red, green, blue, yellow, pink, purple, orange, gray or any
            count: number of pictures, 1 to 9
            steps: denoising steps, 1 to 1000
            guidance: how closely to follow the prompt, 0 to 30
            sampler: studio, ddim, ddpm, dpm++2m, unipc, euler or heun
            seed: 0 to 4294967295; if left out, a random one
            one_pass: faster guidance, half the work, slightly worse; for guidance from 1 to 5 and no negative prompt
            style_emphasis: follow the style more closely, for half as much work again
            randomize_style: let the seed choose a style and a background where the prompt names none
            ground: deprecated, use background
            varied: deprecated, use randomize_style
        """
        with errors_as_sentences():
            request = build_request(
                TextToImage,
                {
                    "prompt": prompt,
                    "negative_prompt": negative_prompt,
                    "style": style,
                    "background": current_value("background", background, TextToImage.background, "ground", ground),
                    "count": count,
                    "steps": steps,
                    "guidance": guidance,
                    "sampler": sampler,
                    "seed": seed_or_random(seed),
                    "one_pass": one_pass,
                    "style_emphasis": style_emphasis,
                    "randomize_style": current_value(
                        "randomize_style", randomize_style, randomizes_style, "varied", varied
                    ),
                },
            )
            job = run_and_wait(context, request, caller)
        return result_files(job), job_info(context, job)

    gr.api(text_to_image, api_name="text_to_image", concurrency_limit=None)
