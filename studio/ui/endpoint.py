"""The endpoint /text_to_image, for gradio_client and any other program."""

from __future__ import annotations

from dataclasses import fields

import gradio as gr

from studio.engine.requests import TextToImage
from studio.ui.answering import facts, files, finished, seed_or_new
from studio.ui.parts import whole
from studio.ui.studio import Studio

_DEFAULT = {field.name: field.default for field in fields(TextToImage) if field.name != "prompt"}


def add_endpoint(studio: Studio) -> None:
    """Adds it to the gr.Blocks under construction."""

    def text_to_image(
        prompt: str,
        negative_prompt: str = _DEFAULT["negative_prompt"],
        style: str = _DEFAULT["style"],
        ground: str = _DEFAULT["ground"],
        count: int = _DEFAULT["count"],
        steps: int = _DEFAULT["steps"],
        guidance: float = _DEFAULT["guidance"],
        sampler: str = _DEFAULT["sampler"],
        seed: int | None = None,
        one_pass: bool = _DEFAULT["one_pass"],
        style_emphasis: bool = _DEFAULT["style_emphasis"],
        varied: bool = studio.vocabulary is not None,
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
            return paint_request(
                prompt=prompt,
                negative_prompt=negative_prompt,
                style=style,
                ground=ground,
                count=count,
                steps=steps,
                guidance=guidance,
                sampler=sampler,
                seed=seed_or_new(seed),
                one_pass=one_pass,
                style_emphasis=style_emphasis,
                varied=varied,
            )

        asked, last = finished(studio, ask, request)
        return files(last), facts(studio, asked, last)

    gr.api(text_to_image, api_name="text_to_image", concurrency_limit=None)


def paint_request(**asked) -> TextToImage:
    """The request with these fields. Raises InvalidRequest. 15.0 is taken as 15: browsers and JSON do not tell them
    apart."""
    wholes = {name: whole(asked[name]) for name in ("count", "steps", "seed", "finish") if name in asked}
    return TextToImage(**asked | wholes)
