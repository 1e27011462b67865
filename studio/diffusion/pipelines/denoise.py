"""Denoising: a noisy picture is x_t at the time that has its noise level, and the reverse process begins there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image

from studio.diffusion.conditioning import Condition, Task
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
from studio.diffusion.pipelines.params import MAX_SIGMA, DenoiseParams
from studio.diffusion.sampling.state import SampleState, SamplingStage
from studio.diffusion.sampling.steppers import StudioStepper
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.diffusion.tiling import pad_to_tile
from studio.imaging.measure import estimate_noise_sigma
from studio.imaging.modes import bleed_colors, normalize_image

MIN_SIGMA = 0.5  # on the scale of 0 to 255: less noise counts as this


class StudioDenoisePipeline(StudioPipeline):
    """Removes noise from pictures of any size, tile by tile.

    It runs the task text to image, without conditions, but in tiles of `window_size`: larger tiles give a result that
    is nearer to the original.
    """

    def prepare(
        self,
        images: Sequence[Image.Image],
        sigmas: Sequence[float | None] | None = None,
        prompts: Sequence[str] | None = None,
        **options: Any,
    ) -> list[SampleState]:
        """Return one row an image, before its first step.

        Args:
            prompts: None: "" for each image.
            images, sigmas, options: see `DenoiseParams`.

        Raises:
            ValueError: a value does not fit; the text names it and what is allowed.
        """
        prompts = [""] * len(images) if prompts is None else prompts
        params = DenoiseParams(images=images, sigmas=sigmas, prompts=prompts, **options)
        seeds, generators = params.make_generators()
        texts = self._condition_on_text(params)
        rows = []
        for i, (guidance, text) in enumerate(texts):
            picture = normalize_image(images[i])
            width, height = picture.size
            opaque = bleed_colors(picture)
            sigma = sigmas[i] if sigmas else None
            if sigma is None:
                sigma = estimate_noise_sigma(opaque)
            sigma = min(max(sigma, MIN_SIGMA), MAX_SIGMA) / 127.5  # on the scale of -1 to 1
            noisy = pad_to_tile(undo_clipping(image_to_tensor(opaque), sigma), self.window_size)
            stepper = self._make_denoise_stepper(sigma, params.num_inference_steps)
            alpha_t, _ = stepper.levels[0]
            stage = SamplingStage(
                task=Task.TEXT_TO_IMAGE,
                sparse_condition=Condition((noisy.shape[1], noisy.shape[2])),
                noise_level=0.0,
                guidance=guidance,
                stepper=stepper,
                tile_size=self.window_size,
                sample=(alpha_t * noisy).to(self._execution_device),
            )
            crop = (height / noisy.shape[1], width / noisy.shape[2])
            alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
            output = OutputSpec((width, height), crop, alpha=alpha)
            train_steps = self.scheduler.config.num_train_timesteps
            rows.append(SampleState(stage, text, generators[i], seeds[i], output, train_steps=train_steps))
        return rows

    def _make_denoise_stepper(self, sigma: float, num_inference_steps: int) -> StudioStepper:
        """Return a stepper whose times are evenly spaced from the time at which sigma_t / alpha_t is `sigma`.

        It has one step where that is the schedule's first time: there is no time before it.
        """
        scheduler = self.scheduler
        if not isinstance(scheduler, StudioScheduler):
            scheduler = self._get_studio_sampler()
        time = scheduler.schedule.time_of(torch.tensor(-math.log(sigma), dtype=torch.float64)).item()
        steps = num_inference_steps if time else 1
        return StudioStepper(scheduler, timesteps=[time * (1 - i / steps) for i in range(steps)])

    @torch.no_grad()
    def __call__(
        self,
        image: Pictures,
        sigma: float | None = None,
        prompt: Prompts = None,
        negative_prompt: Prompts = None,
        num_inference_steps: int = 1,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Remove noise of standard deviation `sigma`, on the scale of 0 to 255, from each image. None: estimate it.

        Arguments are those of diffusers and of `DenoiseParams`.
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
            [sigma] * len(images),
            **of_pictures,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
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


def undo_clipping(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return the picture with its clipped values, -1 and 1, moved outward by the mean of the noise that was clipped.

    On a white background half of the noise is clipped, and the mean of the rest is gray.
    """
    offset = sigma * math.sqrt(2 / math.pi)  # mean of |x| for a normal x
    return picture + offset * ((picture >= 1).float() - (picture <= -1).float())
