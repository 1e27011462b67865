"""The pipelines, as diffusers users know them, over one set of components.

`__call__` loops over the same `prepare`, `denoise_step` and `decode` that the step-level engine uses.
"""

from __future__ import annotations

from studio.diffusion.pipelines.denoise import StudioDenoisePipeline
from studio.diffusion.pipelines.inpaint import StudioInpaintPipeline
from studio.diffusion.pipelines.text_to_image import StudioTextToImagePipeline
from studio.diffusion.pipelines.upscale import StudioUpscalePipeline

__all__ = ["StudioDenoisePipeline", "StudioInpaintPipeline", "StudioTextToImagePipeline", "StudioUpscalePipeline"]
