from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage import data

from studio.imaging.measure import estimate_noise_sigma, is_drawing


def drawing(side: int = 128, background: str = "white") -> Image.Image:
    picture = Image.new("RGB", (4 * side, 4 * side), background)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((side, side, 3 * side, 3 * side), fill="orange", outline="brown", width=side // 8)
    pen.rectangle((2 * side, 2 * side, 3 * side, 4 * side), fill="teal")
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def noisy(picture: Image.Image, sigma: float) -> Image.Image:
    values = np.asarray(picture, dtype=float)
    values = values + sigma * np.random.default_rng(0).standard_normal(values.shape)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("background", ["gray", "white", "black"])
@pytest.mark.parametrize("sigma", [5, 15, 25, 50])
def test_estimate_is_close_to_the_added_noise(background, sigma):
    """Within 20 %, although half of the noise is cut off on white and black."""
    assert estimate_noise_sigma(noisy(drawing(background=background), sigma)) == pytest.approx(sigma, rel=0.2)


def test_clean_and_tiny_pictures_have_no_noise():
    assert estimate_noise_sigma(drawing()) < 0.5
    assert estimate_noise_sigma(Image.new("RGB", (1, 1))) == 0
    assert estimate_noise_sigma(Image.new("RGB", (1, 9))) == 0
    assert estimate_noise_sigma(Image.new("RGB", (2, 2), "red")) == 0


def test_drawings_are_recognized():
    assert is_drawing(drawing()) and is_drawing(drawing(64, "teal"))
    assert not is_drawing(noisy(drawing(), 8))
    clouds = Image.effect_noise((8, 8), 90).resize((256, 256), Image.Resampling.BICUBIC).convert("RGB")
    assert not is_drawing(noisy(clouds, 3))
    assert is_drawing(Image.effect_noise((20, 20), 90))  # smaller than MIN_SIDE


def test_photographs_are_not_drawings():
    for name in ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket", "brick", "grass"):
        assert not is_drawing(Image.fromarray(getattr(data, name)())), name
