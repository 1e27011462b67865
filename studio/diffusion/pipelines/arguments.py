"""Arguments of the pipelines' calls, as diffusers users give them, made into one item a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from studio.diffusion.pipelines.params import to_count

Prompts = str | Sequence[str] | None
Generators = torch.Generator | Sequence[torch.Generator] | None
AnyPicture = Image.Image | np.ndarray | torch.Tensor
Pictures = AnyPicture | Sequence[AnyPicture]  # see `to_pil_images`


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
    prompt: Prompts,
    negative_prompt: Prompts,
    generator: Generators,
    times: int,
    images: int | None = None,
    *,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
) -> dict[str, Any]:
    """Return `prompts`, `negative_prompts`, `generators` and the embeddings of every picture.

    times: pictures of each prompt, in a row.
    images: how many there are, where there are any; a single prompt then goes with each.
    prompt_embeds, negative_prompt_embeds: (B, L, D), in place of the texts.
    """
    times = to_count(times, "num_images_per_prompt")
    embeds = _check_embeddings(prompt_embeds, "prompt_embeds")
    negative_embeds = _check_embeddings(negative_prompt_embeds, "negative_prompt_embeds")
    for given, name, text in ((embeds, "prompt", prompt), (negative_embeds, "negative_prompt", negative_prompt)):
        if given is not None and text:
            raise ValueError(f"{name} and {name}_embeds are both given; give one of them")
    if prompt is None or isinstance(prompt, str):
        prompts = [prompt or ""] * (len(embeds) if embeds is not None else images or 1)
    else:
        prompts = _check_texts(prompt, "prompt")
    negatives = None
    if negative_prompt is not None:
        is_single = isinstance(negative_prompt, str)
        texts = [negative_prompt] * len(prompts) if is_single else _check_texts(negative_prompt, "negative_prompt")
        negatives = _repeat(texts, times)
    prompts = _repeat(prompts, times)
    generators = None
    if generator is not None:
        generators = [generator] * len(prompts) if isinstance(generator, torch.Generator) else list(generator)
    return {
        "prompts": prompts,
        "negative_prompts": negatives,
        "generators": generators,
        "prompt_embeds": embeds and _repeat(embeds, times),
        "negative_prompt_embeds": negative_embeds and _repeat(negative_embeds, times),
    }


def to_size(size: int | None, width: int | None, height: int | None) -> int | None:
    """Return the side of a square picture from `size`, or from diffusers' width and height.

    Raises ValueError where they are not one square.
    """
    sides = {side for side in (size, width, height) if side is not None}
    if len(sides) > 1:
        raise ValueError(f"width is {width}, height {height} and size {size}; pictures from text are square")
    return sides.pop() if sides else None


def _repeat(values: Sequence[Any], times: int) -> list[Any]:
    return [value for value in values for _ in range(times)]


def _check_embeddings(embeddings: Any, name: str) -> list[torch.Tensor] | None:
    if embeddings is None:
        return None
    if not isinstance(embeddings, torch.Tensor) or embeddings.ndim != 3:
        raise ValueError(f"{name} is a {type(embeddings).__name__}; it must be a tensor (pictures, tokens, width)")
    return list(embeddings)


def _check_texts(texts: Any, name: str) -> list[str]:
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is {str(texts)[:60]}; it must be text, or a list of at least one")
    return list(texts)
