"""Registers our classes with diffusers, so that its loaders and `AutoPipeline...` find them with no remote code."""

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
    """Add our classes to diffusers and to its AutoPipeline tables. Repeated calls change nothing."""
    for cls in (
        StudioTextToImagePipeline,
        StudioInpaintPipeline,
        StudioUpscalePipeline,
        StudioDenoisePipeline,
        StudioScheduler,
        StudioUNet,
    ):
        setattr(diffusers, cls.__name__, cls)
    for table, cls in (
        ("AUTO_TEXT2IMAGE_PIPELINES_MAPPING", StudioTextToImagePipeline),
        ("AUTO_INPAINT_PIPELINES_MAPPING", StudioInpaintPipeline),
        ("AUTO_IMAGE2IMAGE_PIPELINES_MAPPING", StudioTextToImagePipeline),
    ):
        getattr(auto_pipeline, table)["studio"] = cls
