"""A job in the engine, with what only the engine knows of it. The lock of the job table guards it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from studio.engine.backend import Backend
from studio.engine.job import Job
from studio.engine.scheduling.batcher import Slot

MAX_PREVIEW_SIDE = 256  # px: larger predictions are thinned out


@dataclass(eq=False)
class ActiveJob:
    """A job, its slots in the batcher, and its followers."""

    job: Job
    is_visible: bool = False  # it is in the journal, and its owner may see it
    resumed: bool = False  # another process left it unfinished
    is_saving: bool = False  # all steps are taken: too late to cancel
    backend: Backend | None = None  # its model, from its start until its slots are released
    slots: list[Slot] = field(default_factory=list[Slot])
    waits_since: float = math.inf  # when it was its turn but for its model
    started_at: float = 0.0
    seconds: float = 0.0  # its share of the network calls' time
    pictures_left: int = 0  # pictures that are not finished
    version: int = 0  # rises with each change that followers should see
    last_notified: float = 0.0
    followers: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])  # each call wakes one
    final_previews: Sequence[Any] = ()  # shown once there are no slots: predictions, or pictures that were not saved

    @cached_property
    def input_bytes(self) -> int:
        """Bytes of the pictures in the request."""
        total = 0
        for picture in self.job.request.pictures().values():
            total += picture.width * picture.height * len(picture.getbands())
        return total

    def notify(self) -> None:
        """Wake the followers."""
        self.version += 1
        for wake in tuple(self.followers):  # the garbage collector may close a forgotten follower here
            wake()

    def update_progress(self) -> None:
        """Set the job's steps and share: of its slowest picture, and of all pictures together."""
        progress, step = 0.0, self.slots[0].step
        for slot in self.slots:
            progress += slot.progress
            step = min(step, slot.step)
        self.job.share, self.job.step = progress / len(self.slots), step

    def predictions(self) -> Sequence[Any]:
        """Return the predicted pictures of the rows that have taken a step, or the final previews."""
        if self.final_previews:
            return self.final_previews
        predictions = [slot.row.preview() for slot in self.slots]
        return [prediction for prediction in predictions if prediction is not None]


def preview_picture(prediction: Any) -> Image.Image:
    """Convert a tensor or array (3, H, W) in [-1, 1] to RGB, at most MAX_PREVIEW_SIDE px a side; keep a picture."""
    if isinstance(prediction, Image.Image):
        return prediction
    stride = -(-max(prediction.shape[1:]) // MAX_PREVIEW_SIDE)
    prediction = prediction[:, ::stride, ::stride]
    if hasattr(prediction, "detach"):  # torch
        prediction = prediction.detach().float().cpu()
    levels = (np.asarray(prediction, dtype=np.float32) + 1.0) * 127.5
    pixels = np.clip(levels, 0.0, 255.0).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))  # (H, W, 3)
