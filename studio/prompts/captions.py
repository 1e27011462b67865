"""The words that a picture is asked for with: a prompt, and what is added to it of style and ground.

Knows words; knows nothing of requests, networks or pages.
"""

from __future__ import annotations

import random
import re

from studio.prompts.nouns import without_style

ANY = "any"
STYLES = ("noto", "twemoji", "flat", "glossy")
BACKGROUNDS = ("white", "black", "red", "green", "blue", "yellow", "pink", "purple", "orange", "gray")
DULL_BACKGROUNDS = ("black", "gray")  # grounds on which many things are lost: to be asked for

_STYLE = re.compile(rf"\b(?:{'|'.join(STYLES)})\b", re.IGNORECASE)
_GROUND = re.compile(rf"\bbackground\b|\bon\s+(?:an?\s+)?(?:{'|'.join(BACKGROUNDS)})\b", re.IGNORECASE)


def build_caption(prompt: str, style: str = ANY, background: str = ANY) -> str:
    """The prompt as the training captions phrase it: "a red apple, glossy style, on a blue background"."""
    text = prompt.strip().rstrip(",").rstrip()
    if style != ANY:
        text += f", {style} style"
    if background != ANY:
        text += f"{',' if style != ANY else ''} on a {background} background"  # always "a": so it was trained
    return text.lstrip(", ")


def choose_look(prompt: str, seed: int) -> tuple[str, str]:
    """A style and a ground by the seed, ANY for what the prompt says itself. No ground is DULL, or of a colour that the
    prompt names.

    A model that is told neither paints a mean of all, most of all in few steps: a gray ground, and no hand of its own.
    """
    draw = random.Random(seed)
    style = draw.choice(STYLES)
    bright = [colour for colour in BACKGROUNDS if colour not in DULL_BACKGROUNDS]
    others = [colour for colour in bright if not re.search(rf"\b{colour}\b", prompt, re.IGNORECASE)]
    background = draw.choice(others or bright)
    says_style = _STYLE.search(prompt) or without_style(prompt) != prompt
    return ANY if says_style else style, ANY if _GROUND.search(prompt) else background
