"""Animations: frames of one size, encoded as a WebP or GIF file."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

ANIMATION_TYPES = {"webp": "image/webp", "gif": "image/gif"}
LAST_FRAME_SECONDS = 1.2  # added to the last frame, so that the result stays visible before the loop restarts
MIN_FRAME_MS = 20  # browsers slow down frames that are shorter


def encode_animation(frames: Sequence[Image.Image], kind: str, seconds: float) -> bytes:
    """Encode RGB frames as an endless loop: "webp" without loss, or "gif".

    seconds: how long one round takes, without the pause on the last frame.

    Raises ValueError for another kind, no frames, or frames of different sizes.
    """
    if kind not in ANIMATION_TYPES:
        raise ValueError(f"kind is {str(kind)[:40]!r}; it must be one of {', '.join(ANIMATION_TYPES)}")
    if not frames or len({frame.size for frame in frames}) > 1:
        raise ValueError("an animation needs pictures, all of one size")
    frame_ms = max(MIN_FRAME_MS, round(1000 * seconds / len(frames)))
    durations = [frame_ms] * (len(frames) - 1) + [frame_ms + round(1000 * LAST_FRAME_SECONDS)]
    file, others = io.BytesIO(), list(frames[1:])
    if kind == "webp":
        frames[0].save(
            file, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, lossless=True, method=2
        )
    else:
        frames[0].save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
    return file.getvalue()
