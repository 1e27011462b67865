"""Super-resolution: a picture is painted two or four times as large, or to a size, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image

from studio.diffusion.conditioning import Condition, Task, enlarge, match_colors, match_low_res
from studio.diffusion.guidance import Guidance
from studio.diffusion.pipelines.arguments import (
    Generators,
    Pictures,
    Prompts,
    expand_prompts,
    repeat_each,
    to_pil_images,
)
from studio.diffusion.pipelines.base import OutputSpec, StudioPipeline, image_to_tensor
from studio.diffusion.pipelines.loop import run_loop
from studio.diffusion.pipelines.params import UpscaleParams
from studio.diffusion.sampling.state import SampleState, SamplingStage, randn
from studio.diffusion.tiling import pad_to_tile
from studio.imaging.modes import bleed_colors, normalize_image

# Weight of x0 against the bicubic enlargement. One sample is one of many pictures that fit; part of the way back to
# their mean is nearer to the original.
TRUST = 0.75


class StudioUpscalePipeline(StudioPipeline):
    """Paints a small picture larger.

    Without noise on the small picture, the upscaler predicts the mean of what it may show; where there is no upscaler,
    the block means of the result are the small picture. With noise, the result has its coarse colors.
    """

    def prepare(
        self, images: Sequence[Image.Image], scale_factor: int = 2, prompts: Sequence[str] | None = None, **options: Any
    ) -> list[SampleState]:
        """Return one row an image, before its first step.

        Args:
            prompts: None: "" for each image.
            images, scale_factor, options: see `UpscaleParams`.

        Raises:
            ValueError: a value does not fit; the text names it and what is allowed.
        """
        prompts = [""] * len(images) if prompts is None else prompts
        params = UpscaleParams(images=images, scale_factor=scale_factor, prompts=prompts, **options)
        seeds, generators = params.make_generators()
        texts = self._condition_on_text(params)
        train_steps = self.scheduler.config.num_train_timesteps
        rows = []
        for i, (guidance, text) in enumerate(texts):
            picture = normalize_image(images[i])
            width, height = picture.size
            low_res = image_to_tensor(bleed_colors(picture))
            if self.upscaler is not None and not params.noise_level:
                first, *following = self._plan_doublings((height, width), scale_factor, noise_level=0.0)
                stage, kept = first.start(low_res.to(self._execution_device), generators[i]), None
            else:
                low_res, following = pad_to_tile(low_res, self.window_size // scale_factor), []
                stage = self._start_stage(params, low_res, guidance, generators[i])
                kept = None if params.noise_level else low_res[None]
            output_size = params.size or (width * scale_factor, height * scale_factor)
            alpha = None
            if picture.mode == "RGBA":
                alpha = picture.getchannel("A").resize(output_size, Image.Resampling.LANCZOS)
            crop = (height / low_res.shape[1], width / low_res.shape[2])
            output = OutputSpec(output_size, crop=crop, low_res=kept, alpha=alpha)
            rows.append(
                SampleState(
                    stage,
                    text,
                    generators[i],
                    seeds[i],
                    output,
                    next_stages=tuple(following),
                    train_steps=train_steps,
                )
            )
        return rows

    def _start_stage(
        self, params: UpscaleParams, low_res: torch.Tensor, guidance: Guidance, generator: torch.Generator
    ) -> SamplingStage:
        """Return the U-Net's stage for low_res (3, h, w), before its first step."""
        device, factor, level = self._execution_device, params.scale_factor, params.noise_level
        size = (low_res.shape[1] * factor, low_res.shape[2] * factor)
        noisy = low_res + level * randn(low_res.shape, generator) if level else low_res
        enlarged = enlarge(noisy[None], size)[0].to(device)
        if level:
            constraint = partial(match_colors, low_res.to(device))
        else:
            constraint = partial(match_low_res, low_res.to(device), enlarged, TRUST)
        return SamplingStage.start(
            Task.SUPER_RESOLUTION,
            Condition(size, enlarged=enlarged),
            generator,
            device,
            guidance=guidance,
            stepper=self._get_stepper(params.sampler, params.num_inference_steps),
            tile_size=self.window_size,
            noise_level=level,
            constraints=(constraint,),
        )

    @torch.no_grad()
    def __call__(
        self,
        image: Pictures,
        scale_factor: int = 2,
        prompt: Prompts = None,
        noise_level: float = 0.0,
        negative_prompt: Prompts = None,
        num_inference_steps: int = 2,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        size: tuple[int, int] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Paint each image `scale_factor` times as large; a prompt may describe it.

        Arguments are those of diffusers and of `UpscaleParams`.
        """
        images = to_pil_images(image, "image")
        of_pictures = expand_prompts(
            prompt,
            negative_prompt,
            generator,
            num_images_per_prompt,
            len(images),
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
        )
        images = repeat_each(images, len(of_pictures["prompts"]), "image")
        rows = self.prepare(
            images,
            scale_factor,
            **of_pictures,
            noise_level=noise_level,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            size=size,
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
