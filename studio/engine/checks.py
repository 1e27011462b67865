"""What every request's fields are held to: each refusal is one sentence with the field, the value and what is allowed.

Knows types and ranges; knows nothing of any one request.
"""

from __future__ import annotations

import math

MAX_PROMPT = 10_000  # characters


class InvalidRequest(ValueError):
    """A request that cannot be run; its text is one sentence for the person who asked."""


def shown(value: object) -> str:
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
        raise InvalidRequest(f"The {name} must be text, not {shown(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as problem:  # half of a surrogate pair, which no tokenizer reads
        half = f"U+{ord(value[problem.start]):04X}"
        raise InvalidRequest(f"The {name} holds {half}, which is half a character: please type it again.") from problem
    if len(value) > MAX_PROMPT:
        raise InvalidRequest(f"The {name} may have at most {MAX_PROMPT:,} characters; this one has {len(value):,}.")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise InvalidRequest(f"The {name} must be one of {', '.join(allowed)}; it was {shown(value)}.")


def check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false; it was {shown(value)}.")


def check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(f"The {name} must be a whole number from {low} to {high}; it was {shown(value)}.")


def check_real(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise InvalidRequest(f"The {name} must be a number from {low:g} to {high:g}; it was {shown(value)}.")
