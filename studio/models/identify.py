"""What kind of model the headers and configs of its files describe. Pure functions; "unknown" is an answer."""

from __future__ import annotations

from dataclasses import dataclass

STUDIO = "studio"
FAMILIES = (STUDIO, "stable-diffusion", "sdxl", "sdxl-refiner", "upscaler-x4")
UNKNOWN = "unknown"
VARIANTS = ("text-to-image", "inpainting", "lcm", "turbo")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a model is, as its files say or as a person has set it.

    family: one of FAMILIES, or UNKNOWN for a file that is no model, or none that this studio runs.
    variant: one of VARIANTS. "inpainting" has a mask and a picture among the network's input channels.
    prediction_type: one of PREDICTION_TYPES, as diffusers' schedulers name them.
    version: for people: "SD 1.x", "SD 2.x", "SDXL" ...; of an unknown file what it is, "LoRA" for example.
    evidence: a sentence for each fact that was found in the files.
    problems: a sentence for each reason why it cannot paint, if its files are read correctly.
    latent_channels: channels of what the network denoises (3: pixels).
    sample_size: default width and height of a picture in px.
    zero_terminal_snr: whether it was trained with noise alone at the last time (diffusers: rescale_betas_zero_snr).
    """

    family: str
    variant: str = "text-to-image"
    prediction_type: str = "epsilon"
    version: str
    evidence: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    latent_channels: int = 4
    sample_size: tuple[int, int] = (512, 512)
    zero_terminal_snr: bool = False
