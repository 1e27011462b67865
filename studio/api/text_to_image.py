"""The endpoint /text_to_image, for gradio_client and any other program."""

from __future__ import annotations

from dataclasses import fields

import gradio as gr

from studio.api.jobs import job_info, result_files, run_and_wait, seed_or_random
from studio.engine.requests import TextToImage
from studio.services.context import AppContext
from studio.ui.components.parts import as_int

_DEFAULT = {field.name: field.default for field in fields(TextToImage) if field.name != "prompt"}


def add_text_to_image_endpoint(studio: AppContext) -> None:
    """Adds it to the gr.Blocks under construction."""

    def text_to_image(
        prompt: str,
        negative_prompt: str = _DEFAULT["negative_prompt"],
        style: str = _DEFAULT["style"],
        background: str = _DEFAULT["background"],
        count: int = _DEFAULT["count"],
        steps: int = _DEFAULT["steps"],
        guidance: float = _DEFAULT["guidance"],
        sampler: str = _DEFAULT["sampler"],
        seed: int | None = None,
        one_pass: bool = _DEFAULT["one_pass"],
        style_emphasis: bool = _DEFAULT["style_emphasis"],
        randomize_style: bool = studio.vocabulary is not None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> tuple[list[gr.FileData], dict]:
        """Paints 1 to 9 pictures from words and returns them as PNG files, with
        {"seed", "seeds", "seconds", "prompt", "prompts", "notes"}.

        Args:
            prompt: what to paint; empty lets the model choose
            negative_prompt: what to keep away from
            style: noto, twemoji, flat, glossy or any
            ground: white, black, red, green, blue, yellow, pink, purple, orange, gray or any
            count: number of pictures, 1 to 9
            steps: denoising steps, 1 to 1000
            guidance: how closely to follow the prompt, 0 to 30
            sampler: studio, ddim, ddpm, dpm++2m, unipc, euler or heun
            seed: 0 to 4294967295; left out, one is drawn
            one_pass: guidance by the network itself, half the work, from 1 to 5 and without a negative prompt
            style_emphasis: follow the words for the style, if there are any, more closely: half as much work again
            varied: let the seed choose a style and a ground where they are left open
        """

        def ask() -> TextToImage:
            return build_text_to_image_request(
                prompt=prompt,
                negative_prompt=negative_prompt,
                style=style,
                background=background,
                count=count,
                steps=steps,
                guidance=guidance,
                sampler=sampler,
                seed=seed_or_random(seed),
                one_pass=one_pass,
                style_emphasis=style_emphasis,
                randomize_style=randomize_style,
            )

        asked, last = run_and_wait(studio, ask, request)
        return result_files(last), job_info(studio, asked, last)

    gr.api(text_to_image, api_name="text_to_image", concurrency_limit=None)


def build_text_to_image_request(**asked) -> TextToImage:
    """The request with these fields. Raises InvalidRequest. 15.0 is taken as 15: browsers and JSON do not tell them
    apart."""
    wholes = {name: as_int(asked[name]) for name in ("count", "steps", "seed", "resolution") if name in asked}
    return TextToImage(**asked | wholes)
