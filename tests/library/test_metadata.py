from __future__ import annotations

import random
import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.library.metadata import format_parameters, make_png_info, parse_parameters, read_png_settings, write_png
from studio.models.samplers import SAMPLER_LABELS

PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


SETTINGS = {
    "prompt": "a red apple",
    "caption": "a red apple, glossy style",
    "negative_prompt": "noise, blur",
    "steps": 15,
    "sampler": "dpm++2m",
    "guidance": 3.5,
    "seed": 4294967295,
    "size": "64x64",
    "model": 'Emoji, "small"',
    "style": "glossy",
}


def test_settings_of_a_png_read_back_exactly(tmp_path):
    picture = Image.effect_noise((64, 64), 50).convert("RGB")
    settings = SETTINGS | {"prompt": "ein Äpfelchen 🍎\nNegative prompt: no\nSteps: 1, Seed: 2, Size: 3x3"}
    write_png(picture, tmp_path / "a.png", settings)
    assert read_png_settings(tmp_path / "a.png") == settings
    with Image.open(tmp_path / "a.png") as again:
        assert again.tobytes() == picture.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]  # no temporary file is left


def test_parameters_text_has_the_form_of_other_studios():
    assert format_parameters(SETTINGS).splitlines() == [
        "a red apple, glossy style",
        "Negative prompt: noise, blur",
        "Steps: 15, Sampler: DPM++ 2M, CFG scale: 3.5, Seed: 4294967295, Size: 64x64, "
        r'Model: "Emoji, \"small\""',
    ]


def test_settings_of_latent_models_have_the_labels_of_other_studios():
    latent = {"spacing": "karras", "clip_skip": 1, "model_hash": "0123456789", "model": "mine"}
    last_line = format_parameters(SETTINGS | latent).splitlines()[-1]
    assert last_line == (
        "Steps: 15, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3.5, Seed: 4294967295, Size: 64x64, "
        "Model hash: 0123456789, Model: mine, Clip skip: 2"
    )
    back = parse_parameters(f"a cat\n{last_line}")
    assert {name: back[name] for name in latent} == latent and "not_understood" not in back
    plain = SETTINGS | {"spacing": "", "clip_skip": 0}  # as the bundled model has them
    assert format_parameters(plain) == format_parameters(SETTINGS)


@pytest.mark.parametrize(
    ("text", "sampler", "spacing"),
    [
        ("DPM++ 2M Karras", "dpm++2m", "karras"),
        ("DPM++ 2M SDE Exponential", "dpm++2m_sde", "exponential"),
        ("Euler a", "euler_a", None),
        ("PLMS", "pndm", None),
        ("Euler, Schedule type: Automatic", "euler", ""),
        ("DPM fast, Schedule type: Turbo", "DPM fast", "Turbo"),  # unknown here: the page says so
    ],
)
def test_samplers_and_spacings_of_other_studios(text, sampler, spacing):
    back = parse_parameters(f"a cat\nSteps: 20, Sampler: {text}, Seed: 1")
    assert (back["sampler"], back.get("spacing")) == (sampler, spacing)


def test_parameters_text_reads_back():
    back = parse_parameters(format_parameters(SETTINGS))
    assert back.pop("prompt") == SETTINGS["caption"]
    assert back == {key: SETTINGS[key] for key in back} and len(back) == 7


PONY = (
    "score_9, (masterpiece:1.2), <lora:detail:0.7>,\nBREAK a cat,\n"
    "Negative prompt: score_4, [blurry: 0.5],\n text\n"
    "Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 2837465, Size: 832x1216, "
    "Model hash: 67ab2fd8ec, Model: ponyDiffusionV6XL, VAE hash: 235745af8d, Denoising strength: 0.35, "
    "Clip skip: 2, Hires upscale: 1.5, Hires steps: 10, Hires upscaler: 4x-UltraSharp, "
    'Lora hashes: "detail: 7b1a, Seed: 9, add: 00ff", Version: v1.10.1'
)
PONY_UNKNOWN = ["VAE hash", "Denoising strength", "Hires upscale", "Hires steps", "Hires upscaler", "Lora hashes"]
CIVITAI = (
    "a dog\nSteps: 25, CFG scale: 4, Sampler: Euler, Seed: 77, Size: 1024x1024, Clip skip: 2, "
    'Created Date: 2024-11-03T10:12:44.1Z, Civitai resources: [{"type":"checkpoint","modelVersionId":9,'
    '"modelName":"Size: 1x1, Seed: 5"},{"type":"lora","weight":0.8}], Civitai metadata: {}'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("only words", {"prompt": "only words"}),
        ("a list: of, words: that are, no: settings,", {"prompt": "a list: of, words: that are, no: settings,"}),
        ("", {}),
        ("\r\n", {}),
        (
            "two\nlines\nNegative prompt: a\nb\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, "
            'Size: 512x512, Model hash: abc, Lora hashes: "x: 1, y: 2", Version: v1.10',
            {
                "prompt": "two\nlines",
                "negative_prompt": "a\nb",
                "steps": 20,
                "sampler": "euler_a",
                "guidance": 7.0,
                "seed": 1,
                "size": "512x512",
                "model_hash": "abc",
                "not_understood": ["Lora hashes"],
            },
        ),
        (
            PONY,
            {
                "prompt": "score_9, (masterpiece:1.2), <lora:detail:0.7>,\nBREAK a cat,",
                "negative_prompt": "score_4, [blurry: 0.5],\n text",
                "steps": 28,
                "sampler": "dpm++2m",
                "guidance": 6.5,
                "seed": 2837465,
                "size": "832x1216",
                "spacing": "karras",
                "clip_skip": 1,
                "model_hash": "67ab2fd8ec",
                "not_understood": PONY_UNKNOWN,
                "model": "ponyDiffusionV6XL",
            },
        ),
        (
            PONY.replace("\n", "\r\n").split("Negative")[0] + PONY.split("\n")[-1],
            {
                "prompt": "score_9, (masterpiece:1.2), <lora:detail:0.7>,\nBREAK a cat,",
                "steps": 28,
                "sampler": "dpm++2m",
                "guidance": 6.5,
                "seed": 2837465,
                "size": "832x1216",
                "spacing": "karras",
                "clip_skip": 1,
                "model_hash": "67ab2fd8ec",
                "not_understood": PONY_UNKNOWN,
                "model": "ponyDiffusionV6XL",
            },
        ),
        (
            CIVITAI,
            {"prompt": "a dog", "steps": 25, "guidance": 4.0, "sampler": "euler", "seed": 77, "size": "1024x1024"}
            | {"clip_skip": 1, "not_understood": ["Civitai resources"]},
        ),
        (
            'Negative prompt: b\nSteps: 1e9, Seed: -1, Size: x, CFG scale: 1e999, Sampler: , Model: "a, \\"b\\""',
            {
                "negative_prompt": "b",
                "steps": "1e9",
                "seed": -1,
                "size": "x",
                "guidance": float("inf"),
                "sampler": "",
                "model": 'a, "b"',
            },
        ),
        (
            "a cat\nSteps: 5, Seed: 6, Size: 8x8\nTemplate: a {cat|dog}\nNegative Template: none",
            {"prompt": "a cat", "steps": 5, "seed": 6, "size": "8x8"},
        ),
        ("Steps: 5, Seed: 6, Size: 8x8", {"steps": 5, "seed": 6, "size": "8x8"}),
        (
            'a cat\nSteps: 5, Seed: 6, Model: "never closed',
            {"prompt": "a cat", "steps": 5, "seed": 6} | {"model": '"never closed'},
        ),
    ],
)
def test_text_of_other_studios_is_read(text, expected):
    assert parse_parameters(text) == {"prompt": "", "negative_prompt": ""} | expected


@pytest.mark.parametrize("text", ["[" * 100_000, 'a: "' * 20_000, "a: [" * 20_000, "a:" * 50_000, "," * 100_000])
def test_malicious_text_is_harmless(text):
    parse_parameters(f"Steps: 1, Seed: 2, x: {text}")
    parse_parameters(text)


@pytest.mark.parametrize("number", range(100))
def test_any_text_reads_back_from_a_png(number):
    draw = random.Random(number)
    letters = 'aZ ,:"\\\n\r\t\0é🍎\u2028\ud800[]{}()<>%_\x7f'
    prompt, negative = ("".join(draw.choices(letters, k=draw.randrange(20))) for _ in range(2))
    settings = {
        "prompt": prompt,
        "negative_prompt": negative,
        "sampler": draw.choice(list(SAMPLER_LABELS)),
        "seed": number,
    }
    file = BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG", pnginfo=make_png_info(settings | {"steps": 3}))
    assert read_png_settings(file) == settings | {"steps": 3}
    back = parse_parameters(format_parameters(settings | {"steps": 3}))
    assert (back["sampler"], back["seed"], back["steps"]) == (settings["sampler"], number, 3)


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt compressed"])
@pytest.mark.parametrize("after_the_pixels", [False, True])
def test_every_kind_of_text_chunk_is_read(tmp_path, kind, after_the_pixels):
    info, text = PngInfo(), "a caf\xe9\nSteps: 3, Seed: 4, Size: 8x8"
    if kind.startswith("iTXt"):
        info.add_itxt("parameters", text, zip=kind.endswith("compressed"))
    else:
        info.add_text("parameters", text, zip=kind == "zTXt")
    if after_the_pixels:
        info.chunks = [(*chunk[:2], True) for chunk in info.chunks]
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert read_png_settings(tmp_path / "a.png") == {
        "prompt": "a caf\xe9",
        "negative_prompt": "",
        "steps": 3,
        "seed": 4,
        "size": "8x8",
    }


def damage(harm) -> BytesIO:
    file = BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG", pnginfo=make_png_info(SETTINGS))
    return BytesIO(harm(file.getvalue()))


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: b"GIF89a" + data,
        lambda data: data[:20],
        lambda data: data[:200],
        lambda data: data[:-2000],
        lambda data: data.replace(b"IDAT", b"IDAX"),
        lambda data: data[:60] + b"\0\0\0" + data[63:],
        lambda data: data[:8] + b"\xff\xff\xff\xff" + data[12:],
    ],
)
def test_damaged_png_is_refused(harm):
    with pytest.raises(ValueError, match="^The file is not a PNG picture, or it is cut short.$"):
        read_png_settings(damage(harm))


def test_missing_file_raises_its_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_png_settings(tmp_path / "no.png")


@pytest.mark.parametrize("side", [5_000, 10_000, 14_000, 60_000])
def test_huge_picture_is_not_decoded(side):
    """A few bytes may claim to be gigabytes of pixels."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="^The picture has .* megapixels"):
        read_png_settings(
            BytesIO(PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND"))
        )


def test_huge_text_is_not_decompressed():
    header, text = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), zlib.compress(bytes(20_000_000))
    data = PNG + chunk(b"IHDR", header) + chunk(b"zTXt", b"parameters\0\0" + text)
    with pytest.raises(ValueError, match="not a PNG picture"):
        read_png_settings(BytesIO(data + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND")))


def test_damaged_json_falls_back_to_the_text(tmp_path):
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 3, Seed: 4, Size: 8x8")
    info.add_itxt("diffusion-studio", '{"prompt": ')
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert read_png_settings(tmp_path / "a.png")["seed"] == 4


def test_png_without_settings_has_none(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert read_png_settings(tmp_path / "a.png") is None


def test_failed_write_leaves_the_old_file(tmp_path):
    write_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", SETTINGS)
    with pytest.raises(TypeError):
        write_png(Image.new("RGB", (8, 8), "red"), tmp_path / "a.png", {"prompt": object()})
    assert read_png_settings(tmp_path / "a.png") == SETTINGS
    assert len(list(tmp_path.iterdir())) == 1
