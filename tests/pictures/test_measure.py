"""Noise is measured as it was put on, and drawings are told from photographs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage import data

from studio.pictures.measure import looks_drawn, noise_sigma


def drawing(side: int = 128, ground: str = "white") -> Image.Image:
    picture = Image.new("RGB", (4 * side, 4 * side), ground)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((side, side, 3 * side, 3 * side), fill="orange", outline="brown", width=side // 8)
    pen.rectangle((2 * side, 2 * side, 3 * side, 4 * side), fill="teal")
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def noisy(picture: Image.Image, sigma: float) -> Image.Image:
    values = np.asarray(picture, dtype=float)
    values = values + sigma * np.random.default_rng(0).standard_normal(values.shape)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("ground", ["gray", "white", "black"])
@pytest.mark.parametrize("sigma", [5, 15, 25, 50])
def test_noise_is_measured(ground, sigma):
    """Within a fifth, though on white and black half of it is cut off."""
    assert noise_sigma(noisy(drawing(ground=ground), sigma)) == pytest.approx(sigma, rel=0.2)


def test_without_noise_there_is_none():
    assert noise_sigma(drawing()) < 0.5
    assert noise_sigma(Image.new("RGB", (1, 1))) == 0
    assert noise_sigma(Image.new("RGB", (1, 9))) == 0
    assert noise_sigma(Image.new("RGB", (2, 2), "red")) == 0


def test_drawings_are_told_from_photographs():
    assert looks_drawn(drawing()) and looks_drawn(drawing(64, "teal"))
    assert not looks_drawn(noisy(drawing(), 8))
    clouds = Image.effect_noise((8, 8), 90).resize((256, 256), Image.Resampling.BICUBIC).convert("RGB")
    assert not looks_drawn(noisy(clouds, 3))
    assert looks_drawn(Image.effect_noise((20, 20), 90))  # too small to tell


def test_photographs_of_scikit_image():
    for name in ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket", "retina", "brick", "grass", "gravel"):
        assert not looks_drawn(Image.fromarray(getattr(data, name)())), name
