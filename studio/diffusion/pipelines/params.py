"""Parameters of the pipelines: one frozen object a task, and the arguments of diffusers made into lists."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin
from PIL import Image

from studio.diffusion.guidance import Guidance

Prompts = str | Sequence[str] | None
Generators = torch.Generator | Sequence[torch.Generator] | None
AnyPicture = Image.Image | np.ndarray | torch.Tensor
Pictures = AnyPicture | Sequence[AnyPicture]  # see `to_pil_images`

FEW_STEPS = 4  # a run of no more steps gets one step of each super-resolution stage
MAX_NOISE_LEVEL = 0.3  # of super-resolution
MAX_SIGMA = 150.0  # of denoising, on the scale of 0 to 255


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

    def __post_init__(self) -> None:
        count = len(self.prompts)
        object.__setattr__(self, "num_inference_steps", _to_count(self.num_inference_steps, "num_inference_steps"))
        for name in ("negative_prompts", "images", "masks", "sigmas", "seeds", "generators"):
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
        finishing_steps: of each super-resolution stage. None: 2, or 1 if num_inference_steps is at most FEW_STEPS.
        images: to begin from; a result has the size of its image unless `size` is given.
        strength: with images, the share of the steps that are taken, in (0, 1], as in diffusers.
        one_pass: guide by the network's own input where it can, see `StudioPipeline.guides_in_one_pass`.
        style_emphasis: additional weight of the style words ("..., flat style") as a share of the guidance. Above 0 it
            takes a third prediction where a second one is made. Usual: `studio.diffusion.guidance.STYLE_EMPHASIS`.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength}; it must be above 0 and at most 1")

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


@dataclass(frozen=True, kw_only=True)
class UpscaleParams(SamplingParams):
    """Parameters of super-resolution. See `SamplingParams` and `TextToImageParams` for the others.

    Args:
        images: of any mode; transparency is kept, enlarged by Lanczos.
        scale_factor: 2 or 4.
        noise_level: standard deviation of the noise added to the image, in [0, 0.3]; more invents more detail.
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


# ---- arguments of `__call__`, as diffusers users give them ----


def to_pil_images(images: Any, name: str) -> list[Image.Image]:
    """Return one picture or several as Pillow pictures.

    images: of Pillow, or in the forms that pipelines return, "np" ((B,) H, W, C) or "pt" ((B,) C, H, W).
    Raises ValueError, with the argument's name, for anything else.
    """
    pictures = []
    for item in images if isinstance(images, Sequence) else [images]:
        pictures.extend(item if getattr(item, "ndim", 0) == 4 else [item])
    if not pictures or images is None:
        raise ValueError(f"{name} is missing; there must be at least one picture")
    return [_to_pil_image(picture, name) for picture in pictures]


def to_pil_masks(masks: Any, name: str) -> list[Image.Image]:
    """Return one mask or several as Pillow pictures.

    masks: as for `to_pil_images`, or without channels, ((B,) H, W). Integers and booleans of at most 1 mean 0 and 1.
    Raises ValueError, with the argument's name, for anything else.
    """
    items: list[Any] = []
    for item in masks if isinstance(masks, Sequence) else [masks]:
        is_array = isinstance(item, np.ndarray | torch.Tensor)
        colors = item.shape[0 if isinstance(item, torch.Tensor) else -1] if is_array and item.ndim == 3 else 0
        items.extend(item if is_array and item.ndim == 3 and colors not in (1, 3, 4) else [item])
    scaled: list[Any] = []
    for item in items:
        if isinstance(item, np.ndarray | torch.Tensor) and 0 not in item.shape and item.max() <= 1:
            values = item.detach().cpu() if isinstance(item, torch.Tensor) else item
            if isinstance(values, torch.Tensor):
                is_whole = not values.is_floating_point()
                item = values.to(torch.uint8) * 255 if is_whole else values
            elif values.dtype.kind in "biu":
                item = values.astype(np.uint8) * 255
        scaled.append(item)
    return to_pil_images(scaled, name)


def _to_pil_image(picture: Any, name: str) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    values = picture
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.float()  # NumPy has no bfloat16
        values = (values.permute(1, 2, 0) if values.ndim == 3 else values).numpy()
    if not isinstance(values, np.ndarray) or values.ndim < 2 or values.shape[2:] not in ((), (1,), (3,), (4,)):
        kind = f"{type(picture).__name__} {tuple(getattr(picture, 'shape', ()))}"
        raise ValueError(f"{name} is a {kind}; it must be a Pillow picture, an array (H, W, C) or a tensor (C, H, W)")
    if not values.size:
        raise ValueError(f"{name} has the shape {tuple(picture.shape)}; it must have at least one pixel")
    if values.dtype != np.uint8:
        if not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
            raise ValueError(f"{name} has values from {values.min()} to {values.max()}; they must be in [0, 1]")
        values = (values * 255).round().astype(np.uint8)
    return Image.fromarray(values[:, :, 0] if values.shape[2:] == (1,) else values)


def repeat_each(values: list, count: int, name: str) -> list:
    """Return each value repeated, so that there are `count` in all. Raises ValueError where that is not possible."""
    if count % len(values):
        raise ValueError(f"{len(values)} of {name} do not go evenly into {count} pictures")
    return [value for value in values for _ in range(count // len(values))]


def expand_prompts(
    prompt: Prompts, negative_prompt: Prompts, generator: Generators, times: int, images: int | None = None
) -> tuple[list[str], list[str] | None, list[torch.Generator] | None]:
    """Return prompts, negative prompts and generators for every picture, each prompt `times` times in a row.

    images: how many there are, where there are any; a single prompt then goes with each.
    """
    times = _to_count(times, "num_images_per_prompt")
    if prompt is None or isinstance(prompt, str):
        prompts = [prompt or ""] * (images or 1)
    else:
        prompts = _check_texts(prompt, "prompt")
    negatives = None
    if negative_prompt is not None:
        is_single = isinstance(negative_prompt, str)
        texts = [negative_prompt] * len(prompts) if is_single else _check_texts(negative_prompt, "negative_prompt")
        negatives = [text for text in texts for _ in range(times)]
    prompts = [text for text in prompts for _ in range(times)]
    if generator is None:
        return prompts, negatives, None
    generators = [generator] * len(prompts) if isinstance(generator, torch.Generator) else list(generator)
    return prompts, negatives, generators


def _to_count(value: Any, name: str) -> int:
    """Return a whole number of Python or NumPy as an int. Raises ValueError, with the argument's name, for others."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} is {value}; it must be a whole number, 1 or more")
    return count


def _check_texts(texts: Any, name: str) -> list[str]:
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is {str(texts)[:60]}; it must be text, or a list of at least one")
    return list(texts)
