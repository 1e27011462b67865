"""The names of the samplers, shared by all model families. Plain data: a page is built from it without torch."""

from __future__ import annotations

# A test holds the keys equal to those of `studio.diffusion.schedulers.samplers.SAMPLERS`.
SAMPLER_LABELS = {
    "studio": "Studio",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "dpm++2m": "DPM++ 2M",
    "unipc": "UniPC",
    "euler": "Euler",
    "heun": "Heun",
}
SECOND_ORDER = frozenset({"heun"})  # two network calls per step
