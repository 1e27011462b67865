"""Build schedulers and U-Nets from their configs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.diffusion.unet import StudioUNet


def make_scheduler(config: Mapping[str, Any] = STUDIO_CONFIG, **changes: Any) -> StudioScheduler:
    """Return a scheduler with this config, by default the bundled model's, and these changes."""
    scheduler = StudioScheduler.from_config(dict(config), **changes)
    assert isinstance(scheduler, StudioScheduler)
    return scheduler


def load_scheduler(folder: Path) -> StudioScheduler:
    """Return the scheduler of a model folder."""
    scheduler = StudioScheduler.from_pretrained(folder, subfolder="scheduler")
    assert isinstance(scheduler, StudioScheduler)
    return scheduler


def new_unet(folder: Path) -> StudioUNet:
    """Return a U-Net with the config in a run's or model's folder, and random weights."""
    config: Any = StudioUNet.load_config(folder, subfolder="unet")
    unet = StudioUNet.from_config(config)
    assert isinstance(unet, StudioUNet)
    return unet
