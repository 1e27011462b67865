"""Arguments as diffusers users give them, one or many, made into lists of one for each picture."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

Prompts = str | Sequence[str] | None
Generators = torch.Generator | Sequence[torch.Generator] | None
AnyPicture = Image.Image | np.ndarray | torch.Tensor
Pictures = AnyPicture | Sequence[AnyPicture]  # see `as_pictures`


def make_generators(
    seeds: Sequence[int] | None, generators: Sequence[torch.Generator] | None, count: int
) -> tuple[Sequence[int] | None, Sequence[torch.Generator]]:
    """A generator for each of `count` pictures: those given, or of the seeds given, or of seeds drawn now.

    Raises ValueError where they are not as many.
    """
    for name, values in (("seeds", seeds), ("generators", generators)):
        if values is not None and len(values) != count:
            raise ValueError(f"{len(values)} {name} for {count} pictures; there must be one for each")
    if generators is not None:
        return seeds, generators
    seeds = [secrets.randbits(32) for _ in range(count)] if seeds is None else seeds
    return seeds, [torch.Generator().manual_seed(seed) for seed in seeds]


def to_pil_images(given: Any, name: str) -> list[Image.Image]:
    """One picture or several: of Pillow, or as a pipeline gives them as "np" ((B,) H, W, C) or "pt" ((B,) C, H, W).

    Raises ValueError where it is none of these.
    """
    many = given if isinstance(given, Sequence) else [given]
    found = [picture for one in many for picture in (one if getattr(one, "ndim", 0) == 4 else [one])]
    if not found or given is None:
        raise ValueError(f"{name} is missing; there must be at least one picture")
    return [_picture(picture, name) for picture in found]


def _picture(given: Any, name: str) -> Image.Image:
    if isinstance(given, Image.Image):
        return given
    values = given
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.permute(1, 2, 0) if values.ndim == 3 else values).numpy()
    if not isinstance(values, np.ndarray) or values.ndim < 2 or values.shape[2:] not in ((), (1,), (3,), (4,)):
        kind = f"{type(given).__name__} {tuple(getattr(given, 'shape', ()))}"
        raise ValueError(f"{name} is a {kind}; it must be a Pillow picture, an array (H, W, C) or a tensor (C, H, W)")
    if values.dtype != np.uint8:
        if not (values.min(initial=0) >= 0 and values.max(initial=0) <= 1):  # NaN is neither
            raise ValueError(f"{name} has values from {values.min()} to {values.max()}; they must be in [0, 1]")
        values = (values * 255).round().astype(np.uint8)
    return Image.fromarray(values[:, :, 0] if values.shape[2:] == (1,) else values)


def repeat_each(values: list, count: int, name: str) -> list:
    """Each value as often as makes `count` in all."""
    if count % len(values):
        raise ValueError(f"{len(values)} of {name} do not go evenly into {count} pictures")
    return [value for value in values for _ in range(count // len(values))]


def _texts(given: Any, name: str) -> list[str]:
    if not isinstance(given, Sequence) or not given or not all(isinstance(words, str) for words in given):
        raise ValueError(f"{name} is {str(given)[:60]}; it must be text, or a list of at least one")
    return list(given)


def expand_prompts(
    prompt: Prompts, negative_prompt: Prompts, generator: Generators, times: int
) -> tuple[list[str], list[str] | None, list[torch.Generator] | None]:
    """Prompts, negative prompts and generators for every picture, each prompt `times` times in a row."""
    if not isinstance(times, int) or times < 1:
        raise ValueError(f"num_images_per_prompt is {times}; it must be a whole number, 1 or more")
    prompts = [prompt or ""] if prompt is None or isinstance(prompt, str) else _texts(prompt, "prompt")
    negatives = negative_prompt
    if negatives is not None:
        negatives = [negatives] * len(prompts) if isinstance(negatives, str) else _texts(negatives, "negative_prompt")
        negatives = [words for words in negatives for _ in range(times)]
    prompts = [words for words in prompts for _ in range(times)]
    if generator is None:
        return prompts, negatives, None
    generators = [generator] * len(prompts) if isinstance(generator, torch.Generator) else list(generator)
    return prompts, negatives, generators
