"""Denoising: a noisy picture is taken for x_t at the time whose noise it has, and the reverse process begins there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image

from studio.diffusion.conditioning import Condition, Task
from studio.diffusion.guidance import Guidance
from studio.diffusion.pipelines.arguments import (
    Generators,
    Pictures,
    Prompts,
    expand_prompts,
    make_generators,
    to_pil_images,
)
from studio.diffusion.pipelines.base import OutputSpec, StudioPipeline, image_to_tensor
from studio.diffusion.sampling.state import SampleState, SamplingStage, StudioStepper
from studio.diffusion.schedulers.samplers import make_sampler
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.imaging.measure import estimate_noise_sigma
from studio.imaging.modes import bleed_colors, normalize_image

LEAST, MOST = 0.5, 150.0  # levels of 255: noise is taken to be between these


class StudioDenoisePipeline(StudioPipeline):
    """Takes the noise out of pictures of any size, window by window.

    As text to image, the task of the network that is told nothing else, though in windows of `window_size`: measured
    on composed scenes at sigma 25 and 50, that is 0.5 dB nearer than in windows of `sample_size`, and 0.1 to 0.5 dB
    nearer than super-resolution of the picture shrunk by 2 or 4, at any stated level of noise.
    """

    def prepare(
        self,
        images: Sequence[Image.Image],
        sigmas: Sequence[float | None] | None = None,
        prompts: Sequence[str] | None = None,
        negative_prompts: Sequence[str] | None = None,
        num_inference_steps: int = 1,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        seeds: Sequence[int] | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> list[SampleState]:
        """One row a picture.

        Args:
            images: of any mode; a picture that can be transparent keeps its alpha.
            sigmas: standard deviations of their noise in levels of 255; None, or None among them: as estimated.
            num_inference_steps: 1 gives the posterior mean, the least error; more go on to a picture that is sharp.

        Raises:
            ValueError: naming what does not fit and what is allowed.
        """
        sigmas = [None] * len(images) if sigmas is None else sigmas
        for sigma in sigmas:
            if sigma is not None and not 0 < sigma <= MOST:
                raise ValueError(f"sigma is {sigma}; it must be above 0 and at most {MOST:g}, in levels of 255")
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}; it must be 1 or more")
        prompts = [""] * len(images) if prompts is None else prompts
        seeds, generators = make_generators(seeds, generators, len(images))
        stages, finishes = [], []
        for image, sigma in zip(images, sigmas, strict=True):
            picture = normalize_image(image)
            seen = bleed_colors(picture)
            sigma = estimate_noise_sigma(seen) if sigma is None else sigma
            sigma = min(max(sigma, LEAST), MOST)
            noisy = undo_clipping(image_to_tensor(seen), sigma / 127.5)[None]
            height, width = noisy.shape[-2:]
            pad = (0, max(0, self.window_size - width), 0, max(0, self.window_size - height))
            noisy = torch.nn.functional.pad(noisy, pad, mode="replicate")[0]
            steps = self._from_noise(sigma, num_inference_steps)
            stages.append(partial(self._first, noisy, steps))
            alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
            crop = (height / noisy.shape[1], width / noisy.shape[2])
            finishes.append(OutputSpec((height, width), crop, alpha=alpha))
        guidance = Guidance(guidance_scale, *guidance_interval)
        return self._rows(stages, finishes, prompts, negative_prompts, guidance, seeds, generators)

    def _from_noise(self, sigma: float, num_inference_steps: int) -> StudioStepper:
        """Evenly spaced in time, from the time at which sigma / alpha is that of the picture. One step, where that is
        the schedule's first: there is no time between."""
        scheduler = self.scheduler
        if not isinstance(scheduler, StudioScheduler):
            scheduler = make_sampler("studio", scheduler.config)
        level = torch.tensor(-math.log(sigma / 127.5), dtype=torch.float64)
        time = scheduler.schedule.time_of(level).item()
        num_inference_steps = num_inference_steps if time else 1
        return StudioStepper(
            scheduler, timesteps=[time * (1 - i / num_inference_steps) for i in range(num_inference_steps)]
        )

    def _first(self, noisy: torch.Tensor, steps: StudioStepper, guidance: Guidance) -> SamplingStage:
        alpha, _ = steps.levels[0]
        return SamplingStage(
            task=Task.TEXT_TO_IMAGE,
            sample=(alpha * noisy).to(self._execution_device),
            given=Condition(tuple(noisy.shape[1:])),
            noise_level=0.0,
            guidance=guidance,
            steps=steps,
            window=self.window_size,
        )

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
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Each picture without its noise of `sigma` levels of 255, or of as many as it seems to have."""
        images = to_pil_images(image, "image")
        prompt = [prompt or ""] * len(images) if prompt is None or isinstance(prompt, str) else prompt
        prompts, negatives, generators = expand_prompts(prompt, negative_prompt, generator, 1)
        rows = self.prepare(
            images,
            [sigma] * len(images),
            prompts,
            negatives,
            num_inference_steps,
            guidance_scale,
            guidance_interval,
            generators=generators,
        )
        return self._run(rows, output_type, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)


def undo_clipping(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """Values at black and white, -1 and 1, put as far outside as noise that was cut off there is on average.

    On a white ground half of the noise is missing, and the mean of the rest is grey. Measured on composed scenes, this
    alone brings the posterior mean 1.1 dB nearer at sigma 25 of 255.
    """
    beyond = sigma * math.sqrt(2 / math.pi)  # mean of |x| for a normal x
    return picture + beyond * ((picture >= 1).float() - (picture <= -1).float())
