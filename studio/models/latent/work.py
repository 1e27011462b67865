"""What a request asks of the latents, whatever its text and its sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from studio.models.latent.plan import keep_picture
from studio.models.latent.starts import Start


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work on one picture.

    size: (width, height) in px at which the model paints. strength: share of the steps that are taken.
    tile_size: side of the latents' tiles; None: one tile. class_label: see `UNetInput`. finish: see `Plan`.
    """

    start: Start
    size: tuple[int, int]
    strength: float = 1.0
    tile_size: int | None = None
    class_label: int | None = None
    finish: Callable[[Image.Image], Image.Image] = keep_picture
