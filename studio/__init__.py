"""Diffusion Studio: public names, resolved on first use so that importing the package loads no torch (PEP 562)."""

from __future__ import annotations

import importlib

_HOME = {
    "StudioUNet": "studio.diffusion.unet",
    "StudioScheduler": "studio.diffusion.schedulers.studio_scheduler",
    "StudioTextToImagePipeline": "studio.diffusion.pipelines",
    "StudioInpaintPipeline": "studio.diffusion.pipelines",
    "StudioUpscalePipeline": "studio.diffusion.pipelines",
    "StudioDenoisePipeline": "studio.diffusion.pipelines",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'studio' has no attribute {name!r}")
    importlib.import_module("studio.diffusion")  # registers with diffusers
    return getattr(importlib.import_module(_HOME[name]), name)
