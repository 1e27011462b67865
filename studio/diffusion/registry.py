"""Makes diffusers know our classes, so that its loaders and `AutoPipeline...` find them with no remote code."""

from __future__ import annotations

import diffusers
from diffusers.pipelines import auto_pipeline

import studio.diffusion.scheduler  # noqa: F401  diffusers loads only from modules that are imported already
from studio.diffusion.pipelines import (
    StudioDenoisePipeline,
    StudioInpaintPipeline,
    StudioTextToImagePipeline,
    StudioUpscalePipeline,
)
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.diffusion.unet import StudioUNet


def register() -> None:
    """Set our names in diffusers' namespace and in its AutoPipeline tables. Calling it again changes nothing."""
    for ours in (
        StudioTextToImagePipeline,
        StudioInpaintPipeline,
        StudioUpscalePipeline,
        StudioDenoisePipeline,
        StudioScheduler,
        StudioUNet,
    ):
        setattr(diffusers, ours.__name__, ours)
    auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING["studio"] = StudioTextToImagePipeline
    auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING["studio"] = StudioInpaintPipeline
    auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING["studio"] = StudioTextToImagePipeline
