import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.library.metadata import from_parameters, read_png, to_parameters, write_png

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


def test_a_picture_brings_its_settings_back_exactly(tmp_path):
    picture = Image.effect_noise((64, 64), 50).convert("RGB")
    settings = SETTINGS | {"prompt": "ein Äpfelchen 🍎\nNegative prompt: no\nSteps: 1, Seed: 2, Size: 3x3"}
    write_png(picture, tmp_path / "a.png", settings)
    assert read_png(tmp_path / "a.png") == settings
    with Image.open(tmp_path / "a.png") as again:
        assert again.tobytes() == picture.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]  # no temporary file is left


def test_the_text_form_is_the_one_others_read():
    assert to_parameters(SETTINGS).splitlines() == [
        "a red apple, glossy style",
        "Negative prompt: noise, blur",
        "Steps: 15, Sampler: dpm++2m, CFG scale: 3.5, Seed: 4294967295, Size: 64x64, "
        r'Model: "Emoji, \"small\""',
    ]


def test_the_text_form_reads_back():
    back = from_parameters(to_parameters(SETTINGS))
    assert back.pop("prompt") == SETTINGS["caption"]
    assert back == {key: SETTINGS[key] for key in back} and len(back) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("only words", {"prompt": "only words", "negative_prompt": ""}),
        ("", {"prompt": "", "negative_prompt": ""}),
        (
            "two\nlines\nNegative prompt: a\nb\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, "
            'Size: 512x512, Model hash: abc, Lora hashes: "x: 1, y: 2", Version: v1.10',
            {
                "prompt": "two\nlines",
                "negative_prompt": "a\nb",
                "steps": 20,
                "sampler": "Euler a",
                "guidance": 7.0,
                "seed": 1,
                "size": "512x512",
            },
        ),
    ],
)
def test_text_of_other_studios_is_read(text, expected):
    assert from_parameters(text) == expected


def test_a_broken_json_falls_back_to_the_text(tmp_path):
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 3, Seed: 4, Size: 8x8")
    info.add_itxt("diffusion-studio", '{"prompt": ')
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert read_png(tmp_path / "a.png")["seed"] == 4


def test_a_picture_without_settings_has_none(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert read_png(tmp_path / "a.png") is None


def test_a_failed_write_leaves_the_old_picture(tmp_path):
    write_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", SETTINGS)
    with pytest.raises(TypeError):
        write_png(Image.new("RGB", (8, 8), "red"), tmp_path / "a.png", {"prompt": object()})
    assert read_png(tmp_path / "a.png") == SETTINGS
    assert len(list(tmp_path.iterdir())) == 1
