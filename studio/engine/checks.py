"""Checks of single fields. Each failure is an InvalidRequest: a sentence with the field, the value, what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard

from PIL import Image

from studio.imaging.files import MAX_PIXELS, MAX_SIDE
from studio.imaging.modes import normalize_image

MAX_PROMPT = 10_000  # characters


class InvalidRequest(ValueError):
    """A request that cannot run. Its text is one sentence for the person who made it."""


def quote_value(value: object) -> str:
    """Return a value as it stands in a sentence: at most 40 characters, on one line."""
    if value is None or value == "":
        return "empty"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    text = text if len(text) <= 40 else text[:39] + "…"
    return f'"{text}"' if isinstance(value, str) else text


def check_text(name: str, value: object) -> None:
    """Raise InvalidRequest unless the value is text of at most MAX_PROMPT characters."""
    if not isinstance(value, str):
        raise InvalidRequest(f"The {name} must be text, not {quote_value(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as problem:  # half of a surrogate pair, which no tokenizer reads
        character = f"U+{ord(value[problem.start]):04X}"
        raise InvalidRequest(f"The {name} contains an invalid character ({character}). Type it again.") from problem
    if len(value) > MAX_PROMPT:
        raise InvalidRequest(f"The {name} may have at most {MAX_PROMPT:,} characters; this one has {len(value):,}.")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise InvalidRequest unless the value is one of the allowed ones."""
    if not isinstance(value, str) or value not in allowed:
        raise InvalidRequest(f"The {name} must be one of {', '.join(allowed)}; it was {quote_value(value)}.")


def check_bool(name: str, value: object) -> None:
    """Raise InvalidRequest unless the value is True or False."""
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false; it was {quote_value(value)}.")


def check_int(name: str, value: object, low: int, high: int) -> None:
    """Raise InvalidRequest unless the value is a whole number from low to high."""
    if not is_number(value) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(f"The {name} must be a whole number from {low} to {high}; it was {quote_value(value)}.")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise InvalidRequest unless the value is a number from low to high."""
    if not is_number(value) or not low <= value <= high:
        raise InvalidRequest(f"The {name} must be a number from {low:g} to {high:g}; it was {quote_value(value)}.")


def check_positive(name: str, value: object, high: float) -> None:
    """Raise InvalidRequest unless the value is a number above 0 and at most `high`."""
    if not is_number(value) or not 0 < value <= high:
        raise InvalidRequest(f"The {name} must be a number above 0 and at most {high:g}; it was {quote_value(value)}.")


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether the value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_image(
    name: str, picture: object, read: Callable[[Image.Image], Image.Image] = normalize_image
) -> Image.Image:
    """Return a copy of the picture as `read` converts it. Raise InvalidRequest if it is none, too large or damaged."""
    if not isinstance(picture, Image.Image):
        raise InvalidRequest(f"The {name} must be a picture, not {quote_value(picture)}.")
    width, height = picture.size
    if not 1 <= width * height <= MAX_PIXELS:
        raise InvalidRequest(
            f"The {name} must have from one pixel to {format_megapixels(MAX_PIXELS)}; "
            f"this one has {width} x {height} px."
        )
    if max(width, height) > MAX_SIDE:
        raise InvalidRequest(f"The {name}'s sides may be at most {MAX_SIDE:,} px; it is {width} x {height} px.")
    try:
        return read(picture)
    except (OSError, ValueError, SyntaxError) as problem:
        raise InvalidRequest(f"The {name} cannot be read: {quote_value(str(problem))}.") from problem


def format_megapixels(pixels: int) -> str:
    """Return a number of pixels as "16 megapixels"."""
    return f"{pixels / 1e6:,.3g} megapixels"


def format_hours(seconds: float) -> str:
    """Return a duration of a minute or more as "3 hours"."""
    minutes = max(round(seconds / 60), 1)
    number, unit = (minutes, "minute") if minutes < 60 else (round(minutes / 60), "hour")
    return f"{number:,} {unit}{'s' if number > 1 else ''}"


def describe_exception(problem: BaseException) -> str:
    """Return an exception as a part of a sentence."""
    text = " ".join(str(problem).split()).rstrip(".")
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
