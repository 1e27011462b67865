"""Files inside data URIs, as browsers send and show them."""

from __future__ import annotations

import base64
import io

from PIL import Image

from studio.imaging.files import open_image


def image_from_uri(uri: str) -> Image.Image:
    """Return the picture in a data URI as RGB or RGBA. Raises ValueError."""
    try:
        data = base64.b64decode(str(uri).partition(",")[2], validate=True)
    except ValueError as problem:
        raise ValueError("The picture did not arrive completely.") from problem
    return open_image(io.BytesIO(data), "The picture")[0]


def file_to_uri(data: bytes, media_type: str) -> str:
    """Return a file as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
