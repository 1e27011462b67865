"""The three pipelines: text to image, inpainting, super-resolution, each a way to `prepare` rows for the shared core.

Called as a diffusers user would, they loop over the same `prepare` / `denoise_step` / `decode` that a step-by-step
caller uses. Knows prompts, pictures and masks; knows nothing of queues, files of the user, or pages.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image

from studio.diffusion.conditioning import Task, inpaint_condition, super_resolution_condition
from studio.diffusion.core import Finish, StudioPipeline, from_pil
from studio.diffusion.guidance import Guidance
from studio.diffusion.rows import Row, Stage

FINISHING_NOISE = 0.05  # put on a painted picture before it is sharpened: its own flaws are not to be copied sharply
Prompts = str | Sequence[str] | None
Generators = torch.Generator | Sequence[torch.Generator] | None


class StudioTextToImagePipeline(StudioPipeline):
    """Paints from words."""

    def prepare(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str] | None = None,
        num_inference_steps: int = 12,
        guidance_scale: float = 3.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        seeds: Sequence[int] | None = None,
        generators: Sequence[torch.Generator] | None = None,
        sampler: str | SchedulerMixin | None = None,
        size: int | None = None,
        finishing_steps: int = 4,
    ) -> list[Row]:
        """One row a prompt.

        Args:
            prompts: "" paints anything.
            negative_prompts: what guidance leads away from; one for each prompt.
            num_inference_steps: 1 to the number of train steps; Heun makes 2 N - 1 network calls of it.
            guidance_scale, guidance_interval: see `studio.diffusion.guidance.Guidance`.
            seeds: one for each prompt; a picture depends on its seed and its request alone.
            generators: in place of seeds.
            sampler: a name from `studio.diffusion.samplers.SAMPLERS`, a scheduler, or None for the pipeline's own.
            size: side of the picture in px, one of `sizes`; what is larger than `sample_size` is finished by the same
                network's super-resolution. None: `default_size`.
            finishing_steps: network calls that super-resolution makes, where there is any.

        Raises:
            ValueError: naming what does not fit and what is allowed.
        """
        size = self.default_size if size is None else size
        if size not in self.sizes:
            raise ValueError(f"size is {size}; it must be one of {', '.join(map(str, self.sizes))}")
        seeds, generators = seeded(seeds, generators, len(prompts))
        rows = self._rows(
            Task.TEXT_TO_IMAGE,
            [torch.zeros(7, self.sample_size, self.sample_size)] * len(prompts),
            [Finish((size, size), (size, size))] * len(prompts),
            prompts,
            negative_prompts,
            num_inference_steps,
            Guidance(guidance_scale, *guidance_interval),
            seeds,
            generators,
            sampler,
        )
        if size > self.sample_size:
            for row in rows:
                row.then, row.steps_after = (
                    partial(self._sharpen, size, finishing_steps, row.generator),
                    finishing_steps,
                )
        return rows

    def _sharpen(self, size: int, num_inference_steps: int, generator: torch.Generator, picture: torch.Tensor) -> Stage:
        """The stage that paints a finished picture (3, h, w) at `size`."""
        low = picture.clamp(-1, 1)[None].cpu()
        low = low + FINISHING_NOISE * torch.randn(low.shape, generator=generator)
        condition = super_resolution_condition(low, (size, size))[0]
        steps = self._steps("studio", num_inference_steps)
        return self._stage(Task.SUPER_RESOLUTION, condition, generator, Guidance(), steps, FINISHING_NOISE)

    @property
    def default_size(self) -> int:
        """Side in px of the pictures that are made where no size is asked for."""
        return max(self.sample_size, self.window_size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides in px that can be asked for."""
        return tuple(self.sample_size * factor for factor in (1, 2, 4))

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompts = "",
        negative_prompt: Prompts = None,
        num_inference_steps: int = 12,
        guidance_scale: float = 3.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Paint `num_images_per_prompt` pictures of each prompt; arguments as in diffusers and `prepare`.

        A list of generators, one a picture, makes each picture independent of its batch; one generator draws for all
        in order. output_type: "pil", or "np" (B, H, W, 3) or "pt" (B, 3, H, W) in [0, 1].
        """
        prompts, negatives, generators = repeated(prompt, negative_prompt, generator, num_images_per_prompt)
        rows = self.prepare(
            prompts,
            negatives,
            num_inference_steps,
            guidance_scale,
            guidance_interval,
            generators=generators,
            size=size,
        )
        return self._run(rows, output_type, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)


class StudioInpaintPipeline(StudioPipeline):
    """Fills holes: white in the mask is repainted, and outside it not one value changes."""

    def prepare(
        self,
        prompts: Sequence[str],
        images: Sequence[Image.Image],
        masks: Sequence[Image.Image],
        negative_prompts: Sequence[str] | None = None,
        num_inference_steps: int = 12,
        guidance_scale: float = 2.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        seeds: Sequence[int] | None = None,
        generators: Sequence[torch.Generator] | None = None,
        sampler: str | SchedulerMixin | None = None,
    ) -> list[Row]:
        """One row a prompt, with its picture and its mask of the same size; the rest as for text to image.

        Pictures are worked on at the scale where their shorter side is `sample_size`, and given back at their own.
        """
        seeds, generators = seeded(seeds, generators, len(prompts))
        conditions, finishes = [], []
        for image, mask in zip(images, masks, strict=True):
            if image.size != mask.size:
                raise ValueError(f"mask_image is {mask.size} and image is {image.size}; they must be of one size")
            known, hole = image.convert("RGB"), mask.convert("L").point(lambda value: 255 * (value >= 128))
            width, height = known.size
            shrink = self.sample_size / min(width, height)
            work = (max(round(width * shrink), self.sample_size), max(round(height * shrink), self.sample_size))
            small = known.resize(work, Image.Resampling.BICUBIC, reducing_gap=3.0)
            small_hole = hole.resize(work, Image.Resampling.BOX).point(lambda value: 255 * (value > 0))
            opened = torch.from_numpy(np.array(small_hole)).float()[None, None] / 255
            conditions.append(inpaint_condition(from_pil(small)[None], opened)[0])
            keep = hole.point(lambda value: 255 - value)
            finishes.append(Finish(work[::-1], (height, width), known, keep))
        return self._rows(
            Task.INPAINT,
            conditions,
            finishes,
            prompts,
            negative_prompts,
            num_inference_steps,
            Guidance(guidance_scale, *guidance_interval),
            seeds,
            generators,
            sampler,
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompts = "",
        image: Image.Image | Sequence[Image.Image] | None = None,
        mask_image: Image.Image | Sequence[Image.Image] | None = None,
        negative_prompt: Prompts = None,
        num_inference_steps: int = 12,
        guidance_scale: float = 2.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Repaint the white of `mask_image` in `image`, once for each of `num_images_per_prompt`, or lists of each."""
        images, masks = as_list(image, "image"), as_list(mask_image, "mask_image")
        prompt = [prompt or ""] * len(images) if prompt is None or isinstance(prompt, str) else prompt
        prompts, negatives, generators = repeated(prompt, negative_prompt, generator, num_images_per_prompt)
        rows = self.prepare(
            prompts,
            spread(images, len(prompts), "image"),
            spread(masks, len(prompts), "mask_image"),
            negatives,
            num_inference_steps,
            guidance_scale,
            guidance_interval,
            generators=generators,
        )
        return self._run(rows, output_type, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)


class StudioUpscalePipeline(StudioPipeline):
    """Paints a small picture larger, window by window where the result is larger than the network's own size.

    Without noise on the small picture, the result shrinks to it again.
    """

    def prepare(
        self,
        images: Sequence[Image.Image],
        scale_factor: int = 2,
        prompts: Sequence[str] | None = None,
        noise_level: float = 0.0,
        negative_prompts: Sequence[str] | None = None,
        num_inference_steps: int = 2,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        seeds: Sequence[int] | None = None,
        generators: Sequence[torch.Generator] | None = None,
        sampler: str | SchedulerMixin | None = None,
    ) -> list[Row]:
        """One row a picture; the rest as for text to image.

        Args:
            scale_factor: 2 or 4.
            noise_level: standard deviation of the noise put on the small picture, in [0, 0.3]; more invents more.
        """
        if scale_factor not in (2, 4):
            raise ValueError(f"scale_factor is {scale_factor}; it must be 2 or 4")
        if not 0 <= noise_level <= 0.3:
            raise ValueError(f"noise_level is {noise_level}; it must be between 0 and 0.3")
        prompts = [""] * len(images) if prompts is None else prompts
        seeds, generators = seeded(seeds, generators, len(images))
        conditions, finishes = [], []
        least = self.window_size // scale_factor
        for image, generator in zip(images, generators, strict=True):
            low = from_pil(image.convert("RGB"))[None]  # (1, 3, h, w)
            height, width = low.shape[-2:]
            pad = (0, max(0, least - width), 0, max(0, least - height))
            low = torch.nn.functional.pad(low, pad, mode="replicate")
            shrinks_to = low
            if noise_level:
                low = low + noise_level * torch.randn(low.shape, generator=generator)
            whole = (low.shape[-2] * scale_factor, low.shape[-1] * scale_factor)
            conditions.append(super_resolution_condition(low, whole)[0])
            size = (height * scale_factor, width * scale_factor)
            finishes.append(Finish(size, size, low_res=None if noise_level else shrinks_to))
        return self._rows(
            Task.SUPER_RESOLUTION,
            conditions,
            finishes,
            prompts,
            negative_prompts,
            num_inference_steps,
            Guidance(guidance_scale, *guidance_interval),
            seeds,
            generators,
            sampler,
            noise_level,
        )

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image],
        scale_factor: int = 2,
        prompt: Prompts = None,
        noise_level: float = 0.0,
        negative_prompt: Prompts = None,
        num_inference_steps: int = 2,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Paint each picture `scale_factor` times as large; a prompt may say what it shows."""
        images = as_list(image, "image")
        prompt = [prompt or ""] * len(images) if prompt is None or isinstance(prompt, str) else prompt
        prompts, negatives, generators = repeated(prompt, negative_prompt, generator, 1)
        rows = self.prepare(
            images,
            scale_factor,
            prompts,
            noise_level,
            negatives,
            num_inference_steps,
            guidance_scale,
            guidance_interval,
            generators=generators,
        )
        return self._run(rows, output_type, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)


def seeded(
    seeds: Sequence[int] | None, generators: Sequence[torch.Generator] | None, count: int
) -> tuple[Sequence[int] | None, Sequence[torch.Generator]]:
    """A generator for each of `count` pictures: those given, or of the seeds given, or of seeds drawn now."""
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
