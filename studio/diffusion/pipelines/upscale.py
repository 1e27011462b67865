"""Super-resolution: a picture painted two or four times as large, or to a size, window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from diffusers import SchedulerMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image

from studio.diffusion.conditioning import Condition, Task, match_colours, match_low_res
from studio.diffusion.guidance import Guidance
from studio.diffusion.pipelines.arguments import (
    Generators,
    Pictures,
    Prompts,
    expand_prompts,
    make_generators,
    to_pil_images,
)
from studio.diffusion.pipelines.base import OutputSpec, StudioPipeline, image_to_tensor, randn
from studio.diffusion.sampling.state import SampleState, SamplingStage
from studio.imaging.modes import bleed_colors, normalize_image

# How far x0 is trusted over plain enlargement: a sample is one of all that the picture may be, and part of the way
# back to their mean is nearer. On composed scenes 0.75 is 0.3 dB nearer at x2 than 1, and as near at x4; on
# photographs, which the network was never shown, 0.6 and 0.4 dB nearer.
TRUST = 0.75


class StudioUpscalePipeline(StudioPipeline):
    """Paints a small picture larger, window by window where the result is larger than the network's own size.

    Without noise on the small picture, the result shrinks to it again; with noise it keeps its colours.
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
        size: tuple[int, int] | None = None,
    ) -> list[SampleState]:
        """One row a picture; the rest as for text to image.

        Args:
            images: of any mode; a picture that can be transparent stays so, its alpha enlarged by Lanczos.
            scale_factor: 2 or 4.
            noise_level: standard deviation of the noise put on the small picture, in [0, 0.3]; more invents more.
            size: (width, height) to resize the enlarged pictures to.
        """
        if scale_factor not in (2, 4):
            raise ValueError(f"scale_factor is {scale_factor}; it must be 2 or 4")
        if not 0 <= noise_level <= 0.3:
            raise ValueError(f"noise_level is {noise_level}; it must be between 0 and 0.3")
        prompts = [""] * len(images) if prompts is None else prompts
        seeds, generators = make_generators(seeds, generators, len(images))
        stages, finishes = [], []
        least = self.window_size // scale_factor
        for image, generator in zip(images, generators, strict=True):
            picture = normalize_image(image)
            low = image_to_tensor(bleed_colors(picture))[None]  # (1, 3, h, w)
            height, width = low.shape[-2:]
            pad = (0, max(0, least - width), 0, max(0, least - height))
            low = torch.nn.functional.pad(low, pad, mode="replicate")
            stages.append(
                partial(self._first, low[0], scale_factor, noise_level, generator, sampler, num_inference_steps)
            )
            to = size or (width * scale_factor, height * scale_factor)
            alpha = picture.getchannel("A").resize(to, Image.Resampling.LANCZOS) if picture.mode == "RGBA" else None
            crop = (height / low.shape[-2], width / low.shape[-1])
            finishes.append(OutputSpec(to[::-1], crop, None if noise_level else low, alpha=alpha))
        guidance = Guidance(guidance_scale, *guidance_interval)
        return self._rows(stages, finishes, prompts, negative_prompts, guidance, seeds, generators)

    def _first(
        self,
        low: torch.Tensor,
        scale_factor: int,
        noise_level: float,
        generator: torch.Generator,
        sampler: str | SchedulerMixin | None,
        num_inference_steps: int,
        guidance: Guidance,
    ) -> SamplingStage:
        size = (low.shape[1] * scale_factor, low.shape[2] * scale_factor)
        steps = self._steps(sampler, num_inference_steps)
        device = self._execution_device
        shown = low + noise_level * randn(low.shape, generator) if noise_level else low
        condition = Condition.super_resolution(shown, size).to(device)
        if noise_level:
            held = partial(match_colours, low.to(device))
        else:
            held = partial(match_low_res, low.to(device), condition.enlarged, TRUST)
        return self._stage(
            Task.SUPER_RESOLUTION, condition, generator, guidance, steps, noise_level, constraints=(held,)
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
        generator: Generators = None,
        size: tuple[int, int] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Paint each picture `scale_factor` times as large; a prompt may say what it shows."""
        images = to_pil_images(image, "image")
        prompt = [prompt or ""] * len(images) if prompt is None or isinstance(prompt, str) else prompt
        prompts, negatives, generators = expand_prompts(prompt, negative_prompt, generator, 1)
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
            size=size,
        )
        return self._run(rows, output_type, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)
