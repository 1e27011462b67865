"""Parameters of the pipelines: one frozen object a task."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import SchedulerMixin
from PIL import Image

from studio.diffusion.guidance import Guidance

FEW_STEPS = 4  # a run of no more steps gets one step of each super-resolution stage
MAX_NOISE_LEVEL = 0.3  # of super-resolution
MAX_SIGMA = 150.0  # of denoising, on the scale of 0 to 255
# Fields with one item a picture.
PER_PICTURE = (
    "negative_prompts",
    "images",
    "masks",
    "sigmas",
    "seeds",
    "generators",
    "prompt_embeds",
    "negative_prompt_embeds",
    "latents",
)


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """What all tasks share. Sequences have one item a picture.

    Args:
        prompts: "" paints anything.
        negative_prompts: texts to avoid. None: none.
        num_inference_steps: 1 to the number of train steps; Heun makes 2 N - 1 network calls of N.
        guidance_scale, guidance_interval: see `studio.diffusion.guidance.Guidance`. A fitted solver multiplies
            (scale - 1) by a factor for each call.
        seeds: 0 or more; a picture depends on its seed and its parameters alone. None: random seeds.
        generators: in place of seeds.
        prompt_embeds, negative_prompt_embeds: (L, D) each, in place of the texts, which must be "" then; see
            `StudioPipeline.encode`.

    Raises:
        ValueError: a value does not fit; the text names it and what is allowed.
    """

    prompts: Sequence[str]
    negative_prompts: Sequence[str] | None = None
    num_inference_steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    seeds: Sequence[int] | None = None
    generators: Sequence[torch.Generator] | None = None
    prompt_embeds: Sequence[torch.Tensor] | None = None
    negative_prompt_embeds: Sequence[torch.Tensor] | None = None

    def __post_init__(self) -> None:
        count = len(self.prompts)
        object.__setattr__(self, "num_inference_steps", to_count(self.num_inference_steps, "num_inference_steps"))
        for name in PER_PICTURE:
            values = getattr(self, name, None)
            if values is not None and len(values) != count:
                raise ValueError(f"{len(values)} {name} for {count} pictures; there must be one for each")

    @property
    def guidance(self) -> Guidance:
        """The guidance of all pictures."""
        start, stop = self.guidance_interval
        return Guidance(self.guidance_scale, start, stop)

    def make_generators(self) -> tuple[Sequence[int | None], Sequence[torch.Generator]]:
        """Return each picture's seed, None where generators are given, and its generator."""
        if self.generators is not None:
            return self.seeds or [None] * len(self.prompts), self.generators
        seeds = self.seeds
        if seeds is None:
            seeds = [secrets.randbits(32) for _ in self.prompts]
        return seeds, [torch.Generator().manual_seed(seed) for seed in seeds]


@dataclass(frozen=True, kw_only=True)
class TextToImageParams(SamplingParams):
    """Parameters of text to image, and of image to image. See `SamplingParams` for the others.

    Args:
        prompts: one that names several things is laid out, see `studio.diffusion.composition`.
        sampler: a key of `studio.diffusion.schedulers.samplers.SAMPLERS`, a scheduler, or None for the pipeline's own.
        size: shorter side of the result in px, one of `StudioTextToImagePipeline.sizes`. Super-resolution of the same
            network makes what is larger than `sample_size`. None: `default_size`, or the size of the image.
        finishing_steps: of each super-resolution stage. None: one call of the upscaler for each doubling; without an
            upscaler 2, or 1 if num_inference_steps is at most FEW_STEPS.
        images: to begin from; a result has the size of its image unless `size` is given.
        strength: with images, the share of the steps that are taken, in (0, 1], as in diffusers.
        one_pass: guide by the network's own input where it can, see `StudioPipeline.guides_in_one_pass`.
        style_emphasis: additional weight of the style words ("..., flat style") as a share of the guidance. Above 0 it
            takes a third prediction where a second one is made. Usual: `studio.diffusion.guidance.STYLE_EMPHASIS`.
        latents: standard normal noise (3, h, w) of the first stage in place of what the generator draws.
    """

    num_inference_steps: int = 10
    guidance_scale: float = 3.0
    sampler: str | SchedulerMixin | None = None
    size: int | None = None
    finishing_steps: int | None = None
    images: Sequence[Image.Image] | None = None
    strength: float = 0.6
    one_pass: bool = False
    style_emphasis: float = 0.0
    latents: Sequence[torch.Tensor] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strength(self.strength)

    @property
    def guidance(self) -> Guidance:
        """The guidance of all pictures."""
        start, stop = self.guidance_interval
        return Guidance(self.guidance_scale, start, stop, self.one_pass, self.style_emphasis)


@dataclass(frozen=True, kw_only=True)
class InpaintParams(SamplingParams):
    """Parameters of inpainting. See `SamplingParams` and `TextToImageParams` for the others.

    Args:
        images, masks: of any mode; the mask has the size of its image, and values from 128 on mean: paint here.
        whole_picture: work on the whole picture. False: on a square around the hole, which is enlarged then.
        grow: enlarge the hole by so many px, or shrink it where negative.
        feather: px outside the hole over which it fades into the picture. At 0 no pixel outside changes.
        invert: paint where the mask is black.
        finishing_steps: of the super-resolution stage; 0: none.
        strength: the share of the steps that are taken, in (0, 1], as in diffusers. Below 1 the run begins from what
            is in the hole.
    """

    images: Sequence[Image.Image]
    masks: Sequence[Image.Image]
    num_inference_steps: int = 6
    guidance_scale: float = 1.5
    sampler: str | SchedulerMixin | None = None
    whole_picture: bool = True
    grow: int = 0
    feather: int = 0
    invert: bool = False
    finishing_steps: int = 2
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strength(self.strength)


@dataclass(frozen=True, kw_only=True)
class UpscaleParams(SamplingParams):
    """Parameters of super-resolution. See `SamplingParams` and `TextToImageParams` for the others.

    Args:
        images: of any mode; transparency is kept, enlarged by Lanczos.
        scale_factor: 2 or 4.
        noise_level: standard deviation of the noise added to the image, in [0, 0.3]; more invents more detail. At 0 the
            upscaler, where there is one, enlarges in one call for each doubling, whatever num_inference_steps is.
        size: (width, height) to resize the enlarged images to.
    """

    images: Sequence[Image.Image]
    scale_factor: int = 2
    noise_level: float = 0.0
    num_inference_steps: int = 2
    guidance_scale: float = 1.0
    sampler: str | SchedulerMixin | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_factor not in (2, 4):
            raise ValueError(f"scale_factor is {self.scale_factor}; it must be 2 or 4")
        if not 0 <= self.noise_level <= MAX_NOISE_LEVEL:
            raise ValueError(f"noise_level is {self.noise_level}; it must be between 0 and {MAX_NOISE_LEVEL}")


@dataclass(frozen=True, kw_only=True)
class DenoiseParams(SamplingParams):
    """Parameters of denoising. See `SamplingParams` for the others.

    Args:
        images: of any mode; transparency is kept.
        sigmas: standard deviations of their noise, on the scale of 0 to 255. None, or None among them: estimated.
        num_inference_steps: 1 gives the posterior mean, with the least error; more give a sharper picture.
    """

    images: Sequence[Image.Image]
    sigmas: Sequence[float | None] | None = None
    num_inference_steps: int = 1
    guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for sigma in self.sigmas or ():
            if sigma is not None and not 0 < sigma <= MAX_SIGMA:
                raise ValueError(f"sigma is {sigma}; it must be above 0 and at most {MAX_SIGMA:g}, on a scale of 255")


def check_strength(strength: float) -> None:
    """Raise ValueError unless the strength is above 0 and at most 1."""
    if not 0 < strength <= 1:
        raise ValueError(f"strength is {strength}; it must be above 0 and at most 1")


def to_count(value: Any, name: str) -> int:
    """Return a whole number of Python or NumPy as an int. Raises ValueError, with the argument's name, for others."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} is {value}; it must be a whole number, 1 or more")
    return count
