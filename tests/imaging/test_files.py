import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from studio.imaging.files import open_image
from studio.imaging.modes import normalize_mask


def encode(picture: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


def test_any_mode_becomes_rgb_or_rgba():
    for mode, kind, normalized in [
        ("RGB", "PNG", "RGB"),
        ("RGBA", "PNG", "RGBA"),
        ("L", "PNG", "RGB"),
        ("LA", "PNG", "RGBA"),
        ("P", "GIF", "RGB"),
        ("1", "BMP", "RGB"),
        ("CMYK", "JPEG", "RGB"),
        ("I;16", "PNG", "RGB"),
        ("F", "TIFF", "RGB"),
        ("RGB", "WEBP", "RGB"),
    ]:
        picture, notes = open_image(encode(Image.new(mode, (7, 5)), kind))
        assert (picture.mode, picture.size, notes) == (normalized, (7, 5), ()), mode


def test_pixels_are_unchanged():
    values = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    picture, _ = open_image(encode(Image.fromarray(values)))
    assert np.array_equal(np.asarray(picture), values)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, _ = open_image(encode(Image.new("RGB", (10, 4)), "JPEG", exif=exif))
    assert picture.size == (4, 10)


def test_animation_gives_its_first_frame_and_a_note():
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    file = encode(first, "GIF", save_all=True, append_images=[second])
    picture, notes = open_image(file, "x.gif")
    assert picture.convert("RGB").getpixel((0, 0))[0] > 200
    assert notes == ("x.gif is animated: its first picture was taken.",)


def test_extreme_shapes():
    assert open_image(encode(Image.new("RGB", (1, 1))))[0].size == (1, 1)
    assert open_image(encode(Image.new("RGB", (16_000, 1))))[0].size == (16_000, 1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "x is damaged or is not a picture. Allowed: PNG, JPEG, WebP, GIF, BMP or TIFF."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x is damaged or is not a picture"),
        (b"<!doctype html><script>1</script>", "x is damaged or is not a picture"),
        (encode(Image.effect_noise((64, 64), 90)).getvalue()[:1500], "x is damaged or is not a picture"),
        (
            encode(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG").getvalue()[:900],
            "x is damaged or is not a picture",
        ),
        (encode(Image.new("1", (5000, 4000))).getvalue(), "x has 5000 x 4000 px; a picture may have"),
        (encode(Image.new("1", (20_001, 2))).getvalue(), "x has 20001 x 2 px; its sides may be at most 20,000 px."),
    ],
)
def test_invalid_files_are_refused_with_a_sentence(content, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        open_image(io.BytesIO(content), "x")


def test_decompression_bomb_is_refused_before_decoding(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(ValueError, match="^x has (60000 x 60000 px|too many pixels)"):
        open_image(tmp_path / "bomb.png", "x")


def test_masks_are_normalized_as_masks():
    mask = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    mask.putpixel((1, 1), (0, 0, 0, 255))
    picture, _ = open_image(encode(mask), "The mask", normalize_mask)
    assert picture.mode == "L" and picture.getpixel((1, 1)) == 255 and picture.getpixel((0, 0)) == 0
