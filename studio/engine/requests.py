"""What can be asked of the engine: frozen requests, checked once, here.

Knows fields, types and ranges; knows nothing of queues, networks or pages. Whatever is wrong is refused with
one sentence that names the field, the value and what is allowed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

# The keys of studio.diffusion.samplers.SAMPLERS with their names for people, here so that a page can be
# built, and a request checked, before torch is imported. A test holds the two equal.
SAMPLERS = {
    "studio": "Studio",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "dpm++2m": "DPM++ 2M",
    "unipc": "UniPC",
    "euler": "Euler",
    "heun": "Heun",
}
ANY = "any"
STYLES = ("noto", "twemoji", "flat", "glossy")
GROUNDS = ("white", "black", "red", "green", "blue", "yellow", "pink", "purple", "orange", "gray")

MAX_PROMPT = 10_000  # characters
MAX_SEED = 2**32 - 1
MAX_STEPS = 1000
MAX_GUIDANCE = 30.0
MAX_COUNT = 9


class InvalidRequest(ValueError):
    """A request that cannot be run; its text is one sentence for the person who asked."""


def caption(prompt: str, style: str = ANY, ground: str = ANY) -> str:
    """The prompt as the training captions phrase it: "a red apple, glossy style, on a blue background"."""
    text = prompt.strip().rstrip(",").rstrip()
    if style != ANY:
        text += f", {style} style"
    if ground != ANY:
        text += f"{',' if style != ANY else ''} on a {ground} background"  # always "a": so it was trained
    return text.lstrip(", ")


@dataclass(frozen=True)
class TextToImage:
    """Pictures from words.

    prompt, negative_prompt: up to 10,000 characters; an empty prompt paints without guidance by words.
    style, ground: one of STYLES, GROUNDS, or "any"; they are added to the prompt (see `caption`).
    count: pictures, 1 to 9; picture i has seed (seed + i) mod 2**32.
    steps: 1 to 1000.  guidance: 0 to 30, 1 is none.  sampler: a key of SAMPLERS.  seed: 0 to 2**32 - 1.

    Raises InvalidRequest.
    """

    prompt: str
    negative_prompt: str = ""
    style: str = ANY
    ground: str = ANY
    count: int = 1
    steps: int = 12
    guidance: float = 3.0
    sampler: str = "studio"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        _check_text("negative prompt", self.negative_prompt)
        _check_choice("style", self.style, (ANY, *STYLES))
        _check_choice("ground colour", self.ground, (ANY, *GROUNDS))
        _check_whole("number of pictures", self.count, 1, MAX_COUNT)
        _check_whole("steps", self.steps, 1, MAX_STEPS)
        _check_real("guidance", self.guidance, 0.0, MAX_GUIDANCE)
        _check_choice("sampler", self.sampler, tuple(SAMPLERS))
        _check_whole("seed", self.seed, 0, MAX_SEED)

    @property
    def caption(self) -> str:
        """The whole prompt that the model reads, style and ground included."""
        return caption(self.prompt, self.style, self.ground)

    @property
    def seeds(self) -> list[int]:
        """One seed a picture: picture i of many is the picture that its seed gives alone."""
        return [(self.seed + i) % (MAX_SEED + 1) for i in range(self.count)]

    def settings(self) -> dict:
        """The fields as plain values, for metadata and JSON."""
        return asdict(self)


def _shown(value: object) -> str:
    """A value as it may stand in a sentence: short, on one line."""
    if value is None or value == "":
        return "empty"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    text = text if len(text) <= 40 else text[:39] + "…"
    return f'"{text}"' if isinstance(value, str) else text


def _check_text(field: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(f"The {field} must be text, not {_shown(value)}.")
    if len(value) > MAX_PROMPT:
        raise InvalidRequest(f"The {field} may have at most {MAX_PROMPT:,} characters; this one has {len(value):,}.")


def _check_choice(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise InvalidRequest(f"The {field} must be one of {', '.join(allowed)}; it was {_shown(value)}.")


def _check_whole(field: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(f"The {field} must be a whole number from {low} to {high}; it was {_shown(value)}.")


def _check_real(field: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequest(f"The {field} must be a number from {low:g} to {high:g}; it was {_shown(value)}.")
