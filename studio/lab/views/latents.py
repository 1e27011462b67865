"""The view of pixels and latents: a picture, its latents, and what the VAE makes of them again."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from studio.lab.coefficients import root_mean_square
from studio.lab.latents import preview_rgb
from studio.lab.pack import data_uri, gray_sheet, to_image


def latents_view(
    picture: Image.Image, latents: np.ndarray, preview: np.ndarray, reconstruction: Image.Image
) -> dict[str, Any]:
    """Return a picture beside its latents as gray maps and by the linear map, and its reconstruction, with numbers.

    picture, reconstruction: RGB of one size. latents: (C, h, w). preview: (C + 1, 3), see `preview_rgb`.
    """
    linear = preview_rgb(latents, preview)
    small = picture.resize((latents.shape[2], latents.shape[1]), Image.Resampling.BOX)
    limit = float(np.abs(latents).max()) or 1.0  # the value that is drawn white; its negative is black
    pixels = picture.width * picture.height * 3
    return {
        "picture": data_uri(picture),
        "reconstruction": data_uri(reconstruction),
        "preview": data_uri(to_image(linear)),
        "channels": [
            {
                "map": gray_sheet(channel[None] / limit / 2 + 0.5),
                "mean": float(channel.mean()),
                "deviation": float(channel.std()),
            }
            for channel in latents
        ],
        "limit": limit,
        "width": picture.width,
        "height": picture.height,
        "latent_shape": list(latents.shape),
        "pixel_values": pixels,
        "latent_values": latents.size,
        "ratio": pixels / latents.size,
        "reconstruction_error": root_mean_square(_scaled(reconstruction) - _scaled(picture)),
        "preview_error": root_mean_square(np.clip(linear, -1, 1) - _scaled(small)),
    }


def _scaled(picture: Image.Image) -> np.ndarray:
    """Return (3, H, W) in [-1, 1]."""
    return np.asarray(picture.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1
