"""Samplers and spacings of all model families. Plain data: a page is built from it without torch."""

from __future__ import annotations

from collections.abc import Sequence

SAMPLER_LABELS = {
    "studio": "Studio",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "pndm": "PNDM",
    "dpm++2m": "DPM++ 2M",
    "dpm++2m_sde": "DPM++ 2M SDE",
    "unipc": "UniPC",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "lcm": "LCM",
}
SECOND_ORDER = frozenset({"heun"})  # two network calls per step
# Of the bundled model. A test holds them equal to `studio.diffusion.schedulers.samplers.SAMPLERS`.
STUDIO_SAMPLERS = ("studio", "ddim", "ddpm", "dpm++2m", "unipc", "euler", "heun")

SPACING_LABELS = {
    "": "As the model has it",
    "leading": "Leading",
    "trailing": "Trailing",
    "linspace": "Linspace",
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
}
# As AUTOMATIC1111 names them, by the table in diffusers' documentation of schedulers.
SCHEDULE_TYPES = {
    "leading": "DDIM",
    "trailing": "SGM Uniform",
    "linspace": "Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
}
_EVEN = ("", "leading", "trailing", "linspace")
_SIGMAS = (*_EVEN, "karras", "exponential", "beta")
# The spacings of each sampler of a latent model; "" leaves the spacing as the model's own scheduler config has it.
LATENT_SPACINGS: dict[str, tuple[str, ...]] = {
    "studio": _EVEN,
    "ddim": _EVEN,
    "ddpm": _EVEN,
    "pndm": _EVEN,
    "dpm++2m": _SIGMAS,
    "dpm++2m_sde": _SIGMAS,
    "unipc": _SIGMAS,
    "euler": _SIGMAS,
    "euler_a": _EVEN,
    "heun": _SIGMAS,
    "lcm": ("",),
}


def sampler_labels(keys: Sequence[str]) -> dict[str, str]:
    """Return the names for people of these samplers, by key."""
    return {key: SAMPLER_LABELS[key] for key in keys}
