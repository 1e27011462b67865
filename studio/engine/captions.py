"""The words that a picture is asked for with: a prompt, and what is added to it of style and ground.

Knows words; knows nothing of requests, networks or pages.
"""

from __future__ import annotations

import random
import re

from studio.nouns import without_style

ANY = "any"
STYLES = ("noto", "twemoji", "flat", "glossy")
GROUNDS = ("white", "black", "red", "green", "blue", "yellow", "pink", "purple", "orange", "gray")
DULL = ("black", "gray")  # grounds on which many things are lost: to be asked for

_STYLE = re.compile(rf"\b(?:{'|'.join(STYLES)})\b", re.IGNORECASE)
_GROUND = re.compile(rf"\bbackground\b|\bon\s+(?:an?\s+)?(?:{'|'.join(GROUNDS)})\b", re.IGNORECASE)


def caption(prompt: str, style: str = ANY, ground: str = ANY) -> str:
    """The prompt as the training captions phrase it: "a red apple, glossy style, on a blue background"."""
    text = prompt.strip().rstrip(",").rstrip()
    if style != ANY:
        text += f", {style} style"
    if ground != ANY:
        text += f"{',' if style != ANY else ''} on a {ground} background"  # always "a": so it was trained
    return text.lstrip(", ")


def chosen(prompt: str, seed: int) -> tuple[str, str]:
    """A style and a ground by the seed, ANY for what the prompt says itself. No ground is DULL, or of a colour that the
    prompt names.

    A model that is told neither paints a mean of all, most of all in few steps: a gray ground, and no hand of its own.
    """
    draw = random.Random(seed)
    style = draw.choice(STYLES)
    bright = [colour for colour in GROUNDS if colour not in DULL]
    others = [colour for colour in bright if not re.search(rf"\b{colour}\b", prompt, re.IGNORECASE)]
    ground = draw.choice(others or bright)
    says_style = _STYLE.search(prompt) or without_style(prompt) != prompt
    return ANY if says_style else style, ANY if _GROUND.search(prompt) else ground
