from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from studio.imaging.modes import bleed_colors, flatten_alpha, normalize_image, normalize_mask, read_mask

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


def make_mask(mode: str = "RGBA") -> Image.Image:
    """Return a black mask (64 x 48) with a white square of 20 x 20 px."""
    mask = Image.new("RGBA", (64, 48), (0, 0, 0, 255))
    mask.paste((255, 255, 255, 255), (10, 10, 30, 30))
    return mask.convert(mode)


def count_painted(mask: Image.Image) -> int:
    return int((np.asarray(normalize_mask(mask)) >= 128).sum())


def test_black_and_white_masks_are_read_by_lightness_whatever_their_alpha():
    one_pixel = make_mask()
    one_pixel.putpixel((63, 47), (0, 0, 0, 254))
    corners = make_mask()
    for place in ((0, 0), (63, 0), (0, 47), (63, 47)):
        corners.putpixel(place, (0, 0, 0, 0))
    white_corner = make_mask()
    white_corner.putpixel((0, 0), (255, 255, 255, 0))  # a clear pixel is not painted, whatever colour it hides
    clear_half = make_mask()
    clear_half.paste((0, 0, 0, 0), (32, 0, 64, 48))
    gray = make_mask("LA")
    gray.putpixel((5, 5), (0, 10))
    palette = make_mask("RGB").quantize(4)
    dim = make_mask()
    dim.putalpha(254)
    off_white = Image.new("RGBA", (64, 48), (25, 20, 20, 255))
    off_white.paste((230, 225, 230, 255), (10, 10, 30, 30))
    off_white.putpixel((0, 0), (0, 0, 0, 0))
    for mask in (one_pixel, corners, white_corner, clear_half, gray, palette, dim, off_white, make_mask("1")):
        assert count_painted(mask) == 400 and read_mask(mask)[1] == "lightness", mask
    turned = make_mask().rotate(5, resample=Image.Resampling.BICUBIC)
    assert 380 <= count_painted(turned) <= 420 and read_mask(turned)[1] == "lightness"
    assert count_painted(Image.new("RGBA", (3, 3), "white")) == 9 and count_painted(Image.new("RGB", (3, 3))) == 0


def test_strokes_on_a_clear_layer_are_read_by_alpha():
    rainbow = [(255, 0, 0, 255), (255, 255, 0, 255), (0, 0, 255, 255), (0, 160, 0, 255)]
    for colors in ([(0, 0, 0, 255)], [(255, 255, 255, 255)], [(230, 0, 60, 200)], rainbow):
        layer = Image.new("RGBA", (64, 48), (255, 255, 255, 0))
        for i, color in enumerate(colors):
            layer.paste(color, (10 + 5 * i, 10, 30 if len(colors) == 1 else 15 + 5 * i, 30))
        assert count_painted(layer) == 400 and read_mask(layer)[1] == "opaque", colors
    assert count_painted(Image.new("RGBA", (3, 3), (0, 0, 0, 0))) == 0


def test_the_erased_part_of_a_photograph_is_painted():
    values = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    photograph = Image.fromarray(values).convert("RGBA")
    photograph.paste((0, 0, 0, 0), (10, 10, 30, 30))
    assert count_painted(photograph) == 400 and read_mask(photograph)[1] == "erased"
    gray = Image.fromarray(values).convert("L").convert("LA")
    gray.paste((0, 0), (10, 10, 30, 30))
    assert count_painted(gray) == 400 and read_mask(gray)[1] == "erased"


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
