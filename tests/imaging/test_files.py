import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.imaging.files import open_image, open_mask
from studio.imaging.png_chunks import drop_large_chunks


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


def test_a_mask_says_how_it_was_read():
    layer = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    layer.putpixel((1, 1), (0, 0, 0, 255))
    mask, notes = open_mask(encode(layer))
    assert mask.getpixel((1, 1)) == 255 and mask.getpixel((0, 0)) == 0
    assert notes == ("The mask has a clear background: its opaque part is repainted.",)
    assert open_mask(encode(Image.new("L", (4, 4), 255)))[1] == ("White is repainted.",)


EXIF_FAULTS = (
    b"",
    b"II",
    b"Exif",
    b"MM\0*",
    b"II*\0\xff\xff\xff\xff",
    b"no exif",
    b"II*\0\x08\0\0\0\xff\xff" + b"\1" * 24,
)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_with_unreadable_exif_are_read(kind):
    for exif in EXIF_FAULTS:
        for data in (exif, b"Exif\0\0" + exif):
            picture, _ = open_image(encode(Image.new("RGB", (40, 20)), kind, exif=data))
            assert picture.size == (40, 20), (kind, data)


def test_large_profiles_and_texts_are_passed_over():
    values = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    texts = PngInfo()
    texts.add_text("workflow", "x" * 1_200_000, zip=True)
    translated = PngInfo()
    translated.add_itxt("XML:com.adobe.xmp", "y" * 1_200_000, "en", "translated", zip=True)
    small = PngInfo()
    small.add_itxt("note", "z" * 100, zip=True)
    for options in ({"icc_profile": b"p" * 3_000_000}, {"pnginfo": texts}, {"pnginfo": translated}, {"pnginfo": small}):
        picture, notes = open_image(encode(Image.fromarray(values), **options))
        assert np.array_equal(np.asarray(picture), values) and not notes


def test_only_large_chunks_are_dropped():
    info = PngInfo()
    info.add_text("workflow", "x" * 1_200_000, zip=True)
    info.add_text("parameters", "a cat")
    data = encode(Image.new("RGB", (3, 3)), pnginfo=info).read()
    with Image.open(io.BytesIO(drop_large_chunks(data))) as image:
        assert image.text == {"parameters": "a cat"}
    assert drop_large_chunks(drop_large_chunks(data)) is None
    assert drop_large_chunks(b"GIF89a") is None
    assert drop_large_chunks(data[:20]) is None  # cut short inside its first chunk


def test_a_phone_picture_of_several_images_is_not_animated():
    file = encode(Image.new("RGB", (8, 6), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (4, 3))])
    with Image.open(file) as image:
        assert image.format == "MPO" and image.n_frames == 2
    picture, notes = open_image(file)
    assert picture.size == (8, 6) and not notes
