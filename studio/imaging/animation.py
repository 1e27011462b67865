"""Pictures of one size, one after another, as a file that plays."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

ANIMATION_TYPES = {"webp": "image/webp", "gif": "image/gif"}
PAUSE = 1.2  # seconds that the last picture stays


def encode_animation(frames: Sequence[Image.Image], kind: str, seconds: float) -> bytes:
    """An animation of RGB pictures that takes so many seconds and goes round: WebP without loss, or GIF.

    Raises ValueError for another kind, no pictures, or pictures of several sizes.
    """
    if kind not in ANIMATION_TYPES:
        raise ValueError(f"kind is {str(kind)[:40]!r}; it must be one of {', '.join(ANIMATION_TYPES)}")
    if not frames or len({frame.size for frame in frames}) > 1:
        raise ValueError("an animation needs pictures, all of one size")
    each = max(20, round(1000 * seconds / len(frames)))
    durations = [each] * (len(frames) - 1) + [each + round(1000 * PAUSE)]
    options = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": 0}
    file = io.BytesIO()
    if kind == "webp":
        frames[0].save(file, "WEBP", lossless=True, method=2, **options)
    else:
        frames[0].save(file, "GIF", optimize=False, **options)
    return file.getvalue()
