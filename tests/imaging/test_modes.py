from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from studio.imaging.modes import bleed_colors, flatten_alpha, normalize_image, normalize_mask

COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))


def test_every_mode_becomes_rgb_or_rgba():
    for mode in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"):
        assert normalize_image(COLOURS.convert("RGB").convert(mode)).mode == "RGB", mode
    for mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        between = {"PA": "P", "La": "LA", "RGBa": "RGBA"}.get(mode, mode)
        assert normalize_image(COLOURS.convert(between).convert(mode)).mode == "RGBA", mode
    assert np.array_equal(np.asarray(normalize_image(COLOURS)), np.asarray(COLOURS))
    gray = normalize_image(COLOURS.convert("L"))
    assert np.array_equal(np.asarray(gray)[..., 0], np.asarray(COLOURS.convert("L")))


def test_16_bits_are_rounded_to_8():
    deep = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    for image in (Image.fromarray(deep), Image.fromarray(deep.astype(np.int32))):
        assert np.asarray(normalize_image(image))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "PNG")
    assert np.asarray(normalize_image(Image.open(file)))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    low = Image.fromarray(np.array([[0, 7, 255]], dtype=np.int32))
    assert np.asarray(normalize_image(low))[0, :, 0].tolist() == [0, 7, 255]
    real = Image.fromarray(np.array([[-3.0, 7.4, 300.0, np.nan]], dtype=np.float32))
    assert np.asarray(normalize_image(real))[0, :, 0].tolist() == [0, 7, 255, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    """By the EXIF standard's table of where the stored row 0 and column 0 belong."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    COLOURS.save(file, "PNG", exif=exif)
    upright = np.asarray(normalize_image(Image.open(file)))
    stored = np.asarray(COLOURS)
    expected = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    assert np.array_equal(upright, expected)


def test_palette_with_a_transparent_colour_has_alpha():
    picture = Image.new("P", (4, 4), 3)
    picture.putpixel((0, 0), 5)
    file = io.BytesIO()
    picture.save(file, "GIF", transparency=5)
    alpha = np.asarray(normalize_image(Image.open(file)))[..., 3]
    assert alpha[0, 0] == 0 and (alpha.flat[1:] == 255).all()


def test_masks_use_alpha_if_transparent_else_luminance():
    assert normalize_mask(Image.new("RGB", (3, 3), "white")).getextrema() == (255, 255)
    assert normalize_mask(Image.new("RGBA", (3, 3), "white")).getextrema() == (255, 255)
    layer = Image.new("RGBA", (3, 3), (255, 255, 255, 0))
    layer.putpixel((1, 1), (0, 0, 0, 200))
    assert normalize_mask(layer).getpixel((1, 1)) == 200 and normalize_mask(layer).getpixel((0, 0)) == 0
    assert normalize_mask(Image.new("1", (3, 3), 1)).getextrema() == (255, 255)


def test_hidden_colours_become_those_nearby():
    picture = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    picture.paste((200, 30, 60, 255), (5, 2, 9, 6))
    error = np.abs(np.asarray(bleed_colors(picture)).astype(int) - (200, 30, 60))
    assert error.max() <= 3  # 8-bit rounding, weighted by alpha
    assert np.asarray(bleed_colors(picture))[2:6, 5:9].tolist() == [[[200, 30, 60]] * 4] * 4
    assert bleed_colors(Image.new("RGBA", (5, 5), (9, 9, 9, 0))).getpixel((0, 0)) == (255, 255, 255)
    opaque = COLOURS.convert("RGBA")
    assert np.array_equal(np.asarray(bleed_colors(opaque)), np.asarray(COLOURS))
    assert flatten_alpha(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_result_is_a_copy_without_metadata():
    picture = COLOURS.copy()
    picture.info["comment"] = "mine"
    read = normalize_image(picture)
    picture.putpixel((0, 0), (1, 2, 3))
    assert read.info == {} and read == normalize_image(COLOURS)
