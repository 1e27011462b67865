"""What every request's fields are held to: each refusal is one sentence with the field, the value and what is allowed.

Knows types, ranges and pictures; knows nothing of any one request.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import Image

from studio.imaging.files import MAX_PIXELS, MAX_SIDE
from studio.imaging.modes import normalize_image

MAX_PROMPT = 10_000  # characters


class InvalidRequest(ValueError):
    """A request that cannot be run; its text is one sentence for the person who asked."""


def quote_value(value: object) -> str:
    """A value as it may stand in a sentence: short, on one line."""
    if value is None or value == "":
        return "empty"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    text = text if len(text) <= 40 else text[:39] + "…"
    return f'"{text}"' if isinstance(value, str) else text


def check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(f"The {name} must be text, not {quote_value(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as problem:  # half of a surrogate pair, which no tokenizer reads
        half = f"U+{ord(value[problem.start]):04X}"
        raise InvalidRequest(f"The {name} holds {half}, which is half a character: please type it again.") from problem
    if len(value) > MAX_PROMPT:
        raise InvalidRequest(f"The {name} may have at most {MAX_PROMPT:,} characters; this one has {len(value):,}.")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise InvalidRequest(f"The {name} must be one of {', '.join(allowed)}; it was {quote_value(value)}.")


def check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false; it was {quote_value(value)}.")


def check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(f"The {name} must be a whole number from {low} to {high}; it was {quote_value(value)}.")


def check_number(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise InvalidRequest(f"The {name} must be a number from {low:g} to {high:g}; it was {quote_value(value)}.")


def check_image(
    name: str, picture: object, read: Callable[[Image.Image], Image.Image] = normalize_image
) -> Image.Image:
    """A plain copy of the picture, if it is one and not too large."""
    if not isinstance(picture, Image.Image):
        raise InvalidRequest(f"The {name} must be a picture, not {quote_value(picture)}.")
    width, height = picture.size
    if not 1 <= width * height <= MAX_PIXELS:
        raise InvalidRequest(
            f"The {name} must have from one pixel to {format_megapixels(MAX_PIXELS)}; this one has {width} x {height} px."
        )
    if max(width, height) > MAX_SIDE:
        raise InvalidRequest(f"The {name}'s sides may be at most {MAX_SIDE:,} px; it is {width} x {height} px.")
    try:
        return read(picture)
    except (OSError, ValueError, SyntaxError) as problem:
        raise InvalidRequest(f"The {name} cannot be read: {quote_value(str(problem))}.") from problem


def format_megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:,.3g} megapixels"
