"""The caption that a model reads: the prompt with a style and a background added by their templates."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from studio.prompts.nouns import without_style

ANY = "any"  # a style or a background that is left open


def build_caption(prompt: str, style: str = "", background: str = "") -> str:
    """Add a style and a background to a prompt: "a red apple, glossy style, on a blue background".

    style, background: templates in which `{prompt}` stands for the text so far, or "" to add nothing. A comma
    separates the two.
    """
    text = prompt.strip().rstrip(",").rstrip()
    if style:
        text = style.replace("{prompt}", text)
    if background:
        text = background.replace("{prompt}", f"{text}," if style else text)
    return text.lstrip(", ")


def choose_style_and_background(
    prompt: str, seed: int, styles: Sequence[str], backgrounds: Sequence[str], request_only: Sequence[str] = ()
) -> tuple[str, str]:
    """Choose a style and a background by the seed, "any" for each that the prompt names itself.

    The background is not one of the `request_only` ones and has no colour that the prompt names. Without a style and a
    background, a model paints the average of all: gray backgrounds and no distinct style.
    """
    draw = random.Random(seed)
    style = draw.choice(styles)
    allowed, unnamed = list[str](), list[str]()
    for color in backgrounds:
        if color not in request_only:
            allowed.append(color)
            if not re.search(rf"\b{color}\b", prompt, re.IGNORECASE):
                unnamed.append(color)
    background = draw.choice(unnamed or allowed)
    names_style = re.search(rf"\b(?:{'|'.join(styles)})\b", prompt, re.IGNORECASE) or without_style(prompt) != prompt
    on_color = rf"\bbackground\b|\bon\s+(?:an?\s+)?(?:{'|'.join(backgrounds)})\b"
    names_background = re.search(on_color, prompt, re.IGNORECASE)
    return ANY if names_style else style, ANY if names_background else background
