"""Alias of `studio.diffusion.schedulers.studio_scheduler`: model folders saved by earlier versions name this module."""

from studio.diffusion.schedulers.studio_scheduler import StudioScheduler

__all__ = ["StudioScheduler"]
