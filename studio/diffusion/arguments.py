"""Arguments as diffusers users give them, one or many, made into lists of one for each picture."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import torch

Prompts = str | Sequence[str] | None
Generators = torch.Generator | Sequence[torch.Generator] | None


def seeded(
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


def as_list(given: Any, name: str) -> list:
    if given is None:
        raise ValueError(f"{name} is missing")
    return list(given) if isinstance(given, Sequence) else [given]


def spread(values: list, count: int, name: str) -> list:
    """Each value as often as makes `count` in all."""
    if count % len(values):
        raise ValueError(f"{len(values)} of {name} do not go evenly into {count} pictures")
    return [value for value in values for _ in range(count // len(values))]


def repeated(
    prompt: Prompts, negative_prompt: Prompts, generator: Generators, times: int
) -> tuple[list[str], list[str] | None, list[torch.Generator] | None]:
    """Prompts, negative prompts and generators for every picture, each prompt `times` times in a row."""
    if not isinstance(times, int) or times < 1:
        raise ValueError(f"num_images_per_prompt is {times}; it must be a whole number, 1 or more")
    prompts = [prompt or ""] if prompt is None or isinstance(prompt, str) else list(prompt)
    negatives = negative_prompt
    if negatives is not None:
        negatives = [negatives] * len(prompts) if isinstance(negatives, str) else list(negatives)
        negatives = [words for words in negatives for _ in range(times)]
    prompts = [words for words in prompts for _ in range(times)]
    if generator is None:
        return prompts, negatives, None
    generators = [generator] * len(prompts) if isinstance(generator, torch.Generator) else list(generator)
    return prompts, negatives, generators
