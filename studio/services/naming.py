"""Names for people: of tasks, and of the files that they download."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TASK_NAMES = {
    "text-to-image": "Text to image",
    "inpaint": "Inpaint",
    "super-resolution": "Super-resolution",
    "denoise": "Denoise",
}
MAX_NAME = 48  # characters of a caption in a file name


def download_name(settings: Mapping[str, Any]) -> str:
    """Return a file name from a picture's caption and seed: "a-red-apple-7.png"."""
    words = re.sub(r"[^a-z0-9]+", "-", str(settings.get("caption", "")).lower()).strip("-")
    return f"{words[:MAX_NAME].strip('-') or 'picture'}-{settings.get('seed', 0)}.png"
