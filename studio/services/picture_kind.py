"""Tell drawings from photographs, which the bundled model was not trained on."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from studio.imaging.measure import is_drawing
from studio.library.metadata import read_png_settings

PHOTOGRAPH = "photograph"


def picture_kind(picture: Image.Image, path: Path | None = None) -> str:
    """Return PHOTOGRAPH for a picture that does not look drawn, else "".

    path: the file of the picture. One that holds settings of this studio counts as drawn.
    """
    try:
        is_ours = path is not None and "task" in (read_png_settings(path) or {})
    except (OSError, ValueError):
        is_ours = False
    return "" if is_ours or is_drawing(picture) else PHOTOGRAPH
