"""Inpainting: a hole is painted at the network's size, enlarged by super-resolution, and pasted back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image

from studio.diffusion.conditioning import Condition, Task, replace_known
from studio.diffusion.pipelines.arguments import (
    Generators,
    Pictures,
    Prompts,
    expand_prompts,
    repeat_each,
    to_pil_images,
    to_pil_masks,
)
from studio.diffusion.pipelines.base import OutputSpec, StudioPipeline, image_to_tensor
from studio.diffusion.pipelines.loop import run_loop
from studio.diffusion.pipelines.params import InpaintParams
from studio.diffusion.sampling.state import KnownPixels, SampleState, SamplingStage, StageSpec
from studio.diffusion.sampling.steppers import Stepper
from studio.imaging.areas import Area, select_area
from studio.imaging.masks import mask_to_hole
from studio.imaging.modes import normalize_image, normalize_mask

# The known pixels decide most of what fits a hole. So the first call predicts the mean of all that fits, and the run
# restarts from it at this share of the time: the result is nearer to the original, in fewer calls.
RESTART_TIME = 0.6
MIN_KNOWN = 0.1  # share of a picture that must be known for a restart; below it the mean is too vague
MAX_FACTOR = 4  # by which super-resolution enlarges a painted area; beyond that it is resized


class StudioInpaintPipeline(StudioPipeline):
    """Fills holes: white areas of the mask are repainted, and no value outside of them changes."""

    def prepare(
        self, prompts: Sequence[str], images: Sequence[Image.Image], masks: Sequence[Image.Image], **options: Any
    ) -> list[SampleState]:
        """Return one row a prompt, before its first step.

        The shorter side of an area is scaled to `sample_size`. Super-resolution enlarges the result by up to MAX_FACTOR
        where the area is larger. The output has the image's own size, RGBA if it can be transparent.

        Args:
            prompts, images, masks, options: see `InpaintParams`.

        Raises:
            ValueError: a value does not fit, or a mask is empty; the text names it and what is allowed.
        """
        params = InpaintParams(prompts=prompts, images=images, masks=masks, **options)
        seeds, generators = params.make_generators()
        texts = self._condition_on_text(params)
        plans: dict[tuple[int, int], _AreaPlan] = {}  # several rows may paint the same area
        rows = []
        for i, (guidance, text) in enumerate(texts):
            key = id(images[i]), id(masks[i])
            if key not in plans:
                plans[key] = self._plan_area(images[i], masks[i], params)
            plan = plans[key]
            if plan.stepper.restart_time is not None:  # the first call predicts the mean, unguided
                start, stop = min(guidance.start, RESTART_TIME), min(guidance.stop, RESTART_TIME)
                guidance = replace(guidance, start=start, stop=stop)
            stage = SamplingStage.start(
                Task.INPAINT,
                plan.condition,
                generators[i],
                self._execution_device,
                guidance=guidance,
                stepper=plan.stepper,
                tile_size=self.sample_size,
                picture=plan.content,
                constraints=(plan.constraint,),
            )
            rows.append(
                SampleState(
                    stage,
                    text,
                    generators[i],
                    seeds[i],
                    plan.output,
                    next_stages=plan.next_stages,
                    train_steps=self.scheduler.config.num_train_timesteps,
                )
            )
        return rows

    def _plan_area(self, image: Image.Image, mask: Image.Image, params: InpaintParams) -> _AreaPlan:
        """Return how the hole of a picture is painted."""
        picture, mask = normalize_image(image), normalize_mask(mask)
        if picture.size != mask.size:
            raise ValueError(f"mask_image is {mask.size} and image is {picture.size}; they must be of one size")
        hole = mask_to_hole(mask, params.invert, params.grow)
        area = select_area(picture, hole, params.feather, self.sample_size, params.whole_picture)
        small = scale_known(area, 1)
        device = self._execution_device
        (width, height), (padded_width, padded_height) = area.fit
        factor = next((factor for factor in (1, 2, 4) if factor * min(width, height) >= min(area.size)), MAX_FACTOR)
        next_stages = ()
        if factor > 1 and params.finishing_steps:
            large = scale_known(area, factor)
            spec = StageSpec(
                size=(large.picture.shape[1], large.picture.shape[2]),
                stepper=self._get_finishing_stepper(params.finishing_steps),
                tile_size=self.window_size,
                starts_enlarged=params.finishing_steps == 1,
                known_small=small,
                known=large,
            )
            next_stages = (spec,)
        restarts = small.mask.mean() >= MIN_KNOWN and params.strength == 1
        return _AreaPlan(
            content=None if params.strength == 1 else image_to_tensor(area.scale_content()),
            condition=Condition.inpaint(small.picture, 1 - small.mask),
            constraint=partial(replace_known, small.picture.to(device), small.mask.to(device)),
            stepper=self._get_stepper(
                params.sampler,
                params.num_inference_steps,
                strength=params.strength,
                restart_time=RESTART_TIME if restarts else None,
            ),
            output=OutputSpec(area.size, (height / padded_height, width / padded_width), area=area),
            next_stages=next_stages,
        )

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
        strength: float = 1.0,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        whole_picture: bool = True,
        grow: int = 0,
        feather: int = 0,
        invert: bool = False,
        finishing_steps: int = 2,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Repaint the white area of `mask_image` in `image`, `num_images_per_prompt` times, or lists of each.

        Arguments are those of diffusers and of `InpaintParams`.
        """
        images, masks = to_pil_images(image, "image"), to_pil_masks(mask_image, "mask_image")
        of_pictures = expand_prompts(
            prompt,
            negative_prompt,
            generator,
            num_images_per_prompt,
            len(images),
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
        )
        count = len(of_pictures["prompts"])
        rows = self.prepare(
            images=repeat_each(images, count, "image"),
            masks=repeat_each(masks, count, "mask_image"),
            **of_pictures,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            strength=strength,
            whole_picture=whole_picture,
            grow=grow,
            feather=feather,
            invert=invert,
            finishing_steps=finishing_steps,
        )
        return run_loop(
            self,
            rows,
            guidance_scale=guidance_scale,
            output_type=output_type,
            return_dict=return_dict,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )


@dataclass(frozen=True)
class _AreaPlan:
    """How one hole is painted, whatever the seed."""

    content: torch.Tensor | None  # (3, H, W), what the run begins from; None: from noise
    condition: Condition
    constraint: Callable[[torch.Tensor], torch.Tensor]
    stepper: Stepper
    output: OutputSpec
    next_stages: tuple[StageSpec, ...]


def scale_known(area: Area, factor: int) -> KnownPixels:
    """Return the pixels of an area outside of its hole, at `factor` times the network's size."""
    picture, hole = area.scale_known(factor)
    return KnownPixels(image_to_tensor(picture), 1 - torch.from_numpy(hole)[None].float())
