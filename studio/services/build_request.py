"""Build requests from values that the page or another program sends."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, TypeVar

from studio.engine.requests import MAX_SEED, Denoise, Inpaint, SuperResolve, TextToImage

RequestT = TypeVar("RequestT", TextToImage, Inpaint, SuperResolve, Denoise)
_WHOLE_NUMBERS = ("count", "steps", "seed", "resolution", "grow", "feather", "scale", "width", "height", "clip_skip")
_TEXTS = ("prompt", "negative_prompt")


def build_request(kind: type[RequestT], values: Mapping[str, Any]) -> RequestT:
    """Return a request of this kind.

    values: its fields by name. A missing text is an empty one, and 15.0 counts as 15.
    Raises InvalidRequest.
    """
    return kind(**convert_values(values))


def convert_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of fields by name: a missing text is an empty one, and 15.0 counts as 15."""
    return {name: _converted(name, value) for name, value in values.items()}


def as_int(value: Any) -> Any:
    """Return 15 for 15.0, and any other value as it is. Browsers and JSON do not tell the two apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def random_seed() -> int:
    """Draw a seed for a new picture."""
    return random.randrange(MAX_SEED + 1)


def seed_or_random(seed: Any) -> Any:
    """Return the seed, or a random one where none is given."""
    return random_seed() if seed is None else as_int(seed)


def _converted(name: str, value: Any) -> Any:
    if name in _TEXTS and value is None:
        return ""
    if name == "target" and value is not None:
        return tuple(as_int(length) for length in value)
    return as_int(value) if name in _WHOLE_NUMBERS else value
