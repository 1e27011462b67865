"""Inpainting: a hole is painted at the network's scale, sharpened by the same network, and put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from diffusers import SchedulerMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image

from studio.diffusion.conditioning import Condition, Task, replace_known
from studio.diffusion.guidance import Guidance
from studio.diffusion.pipelines.arguments import (
    Generators,
    Pictures,
    Prompts,
    expand_prompts,
    make_generators,
    repeat_each,
    to_pil_images,
)
from studio.diffusion.pipelines.base import OutputSpec, StudioPipeline, image_to_tensor
from studio.diffusion.sampling.state import SampleState, SamplingStage, StageSpec, StudioStepper
from studio.imaging.areas import Area, select_area
from studio.imaging.masks import mask_to_hole
from studio.imaging.modes import normalize_image, normalize_mask

# What is known decides most of what fits a hole. So the first call goes at once to the mean of what may be there, under
# the noise of this share of the time, and the rest keeps to that: nearer to what was there, in fewer calls.
RESTART_TIME = 0.6
KNOWN = 0.1  # share of a picture that must be known for that: else the mean is of too much
SHARPENED = 4  # at most so many times the size at which holes are painted; then enlarged


class StudioInpaintPipeline(StudioPipeline):
    """Fills holes: white in the mask is repainted, and outside it not one value changes."""

    def prepare(
        self,
        prompts: Sequence[str],
        images: Sequence[Image.Image],
        masks: Sequence[Image.Image],
        negative_prompts: Sequence[str] | None = None,
        num_inference_steps: int = 6,
        guidance_scale: float = 1.5,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        seeds: Sequence[int] | None = None,
        generators: Sequence[torch.Generator] | None = None,
        sampler: str | SchedulerMixin | None = None,
        whole: bool = True,
        grow: int = 0,
        feather: int = 0,
        invert: bool = False,
        finishing_steps: int = 2,
    ) -> list[SampleState]:
        """One row a prompt, with its picture and its mask of the same size; the rest as for text to image.

        Pictures are worked on at the scale where the shorter side is `sample_size`, sharpened by super-resolution to
        up to SHARPENED times that where they are larger, and given back at their own size, RGBA if they can be
        transparent.

        Args:
            images, masks: of any mode and size; from 128 on a mask means: paint here.
            whole: work on the whole picture; else on a square around the hole, which is larger then.
            grow: make the hole so many px wider, or narrower where it is negative.
            feather: px outside the hole over which it fades into the picture. At 0 nothing outside is changed.
            invert: paint where the mask is black.
            finishing_steps: network calls of super-resolution, where there is any.
        """
        seeds, generators = make_generators(seeds, generators, len(prompts))
        areas: dict[tuple[int, int], Area] = {}  # several rows may be of one picture
        stages, finishes, then = [], [], []
        for image, mask, generator in zip(images, masks, generators, strict=True):
            if (id(image), id(mask)) not in areas:
                picture, marked = normalize_image(image), normalize_mask(mask)
                if picture.size != marked.size:
                    raise ValueError(
                        f"mask_image is {marked.size} and image is {picture.size}; they must be of one size"
                    )
                hole = mask_to_hole(marked, invert, grow)
                areas[id(image), id(mask)] = select_area(picture, hole, feather, self.sample_size, whole)
            area = areas[id(image), id(mask)]
            stages.append(partial(self._first, area, generator, sampler, num_inference_steps))
            (width, height), (full_width, full_height) = area.fit
            finishes.append(OutputSpec(area.size[::-1], (height / full_height, width / full_width), area=area))
            then.append(())
            factor = next((f for f in (1, 2, 4) if f * min(area.fit.size) >= min(area.size)), SHARPENED)
            if factor > 1 and finishing_steps:
                make = partial(self._detailed, area, factor, finishing_steps, generator)
                then[-1] = (StageSpec(make, finishing_steps),)
        guidance = Guidance(guidance_scale, *guidance_interval)
        return self._rows(stages, finishes, prompts, negative_prompts, guidance, seeds, generators, then)

    def _first(
        self,
        area: Area,
        generator: torch.Generator,
        sampler: str | SchedulerMixin | None,
        num_inference_steps: int,
        guidance: Guidance,
    ) -> SamplingStage:
        picture, hole = known(area, 1)
        condition = Condition.inpaint(picture, hole)
        leap = RESTART_TIME if 1 - hole.mean() >= KNOWN else None
        steps = self._steps(sampler, num_inference_steps, leap=leap)
        if isinstance(steps, StudioStepper) and steps.leap:  # the mean is of what may be there, not of what is louder
            guidance = replace(guidance, start=min(guidance.start, RESTART_TIME), stop=min(guidance.stop, RESTART_TIME))
        kept = partial(replace_known, *(part.to(self._execution_device) for part in (picture, 1 - hole)))
        return self._stage(Task.INPAINT, condition, generator, guidance, steps, constraints=(kept,))

    def _detailed(
        self, area: Area, factor: int, num_inference_steps: int, generator: torch.Generator, painted: torch.Tensor
    ) -> SamplingStage:
        """The stage that sharpens a painted area (3, h, w), its known pixels being known sharply too."""
        picture, hole = known(area, 1)
        low = replace_known(picture, 1 - hole, painted.cpu())
        picture, hole = known(area, factor)
        size = tuple(picture.shape[1:])
        return self._sharpened(size, num_inference_steps, generator, low, (picture, 1 - hole))

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompts = "",
        image: Pictures | None = None,
        mask_image: Pictures | None = None,
        negative_prompt: Prompts = None,
        num_inference_steps: int = 6,
        guidance_scale: float = 1.5,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        whole: bool = True,
        grow: int = 0,
        feather: int = 0,
        invert: bool = False,
        finishing_steps: int = 2,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Repaint the white of `mask_image` in `image`, once for each of `num_images_per_prompt`, or lists of each;
        arguments as in diffusers and `prepare`."""
        images, masks = to_pil_images(image, "image"), to_pil_images(mask_image, "mask_image")
        prompt = [prompt or ""] * len(images) if prompt is None or isinstance(prompt, str) else prompt
        prompts, negatives, generators = expand_prompts(prompt, negative_prompt, generator, num_images_per_prompt)
        rows = self.prepare(
            prompts,
            repeat_each(images, len(prompts), "image"),
            repeat_each(masks, len(prompts), "mask_image"),
            negatives,
            num_inference_steps,
            guidance_scale,
            guidance_interval,
            generators=generators,
            whole=whole,
            grow=grow,
            feather=feather,
            invert=invert,
            finishing_steps=finishing_steps,
        )
        return self._run(rows, output_type, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)


def known(area: Area, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The area at `factor` times the network's scale: the picture (3, H, W) in [-1, 1], and the hole (1, H, W)."""
    picture, hole = area.scale_known(factor)
    return image_to_tensor(picture), torch.from_numpy(hole)[None].float()
