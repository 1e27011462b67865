"""The pipelines by name. Each is a way to `prepare` rows for the shared core (core.py).

Called as a diffusers user would, they loop over the same `prepare` / `denoise_step` / `decode` that a step-by-step
caller uses. They know prompts, pictures and masks; they know nothing of queues, files of the user, or pages.
"""

from __future__ import annotations

from studio.diffusion.pipelines.denoise import StudioDenoisePipeline
from studio.diffusion.pipelines.inpaint import StudioInpaintPipeline
from studio.diffusion.pipelines.text_to_image import StudioTextToImagePipeline
from studio.diffusion.pipelines.upscale import StudioUpscalePipeline

__all__ = ["StudioDenoisePipeline", "StudioInpaintPipeline", "StudioTextToImagePipeline", "StudioUpscalePipeline"]
