"""Alias of `studio.diffusion.schedulers.studio_scheduler`: model folders saved by earlier versions name this module."""

from studio.diffusion.schedulers.studio_scheduler import SchedulerMixin, StudioScheduler

__all__ = ["SchedulerMixin", "StudioScheduler"]  # diffusers looks up both here
