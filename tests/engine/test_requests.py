import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from studio.engine.requests import (
    MAX_SEED,
    Denoise,
    Inpaint,
    InvalidRequest,
    SuperResolve,
    TextToImage,
    request_from,
)
from tests.fakes import resolve


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("steps", 0, "The steps must be a whole number from 1 to 1000; it was 0."),
        ("steps", 10_000, "from 1 to 1000; it was 10000"),
        ("steps", 2.5, "it was 2.5"),
        ("steps", True, "it was True"),
        ("steps", "20", 'it was "20"'),
        ("steps", None, "it was empty"),
        ("guidance", math.nan, "The guidance must be a number from 0 to 30; it was NaN."),
        ("guidance", math.inf, "it was inf"),
        ("guidance", -0.1, "it was -0.1"),
        ("guidance", False, "it was False"),
        ("guidance", 10**400, "from 0 to 30"),
        ("resolution", 64.0, "The output size must be a whole number from 1 to 20000; it was 64.0."),
        ("resolution", 100, "The output size must be one of 64, 128, 256, 512; it was 100."),
        ("count", 1000, "The number of pictures must be a whole number from 1 to 9; it was 1000."),
        ("count", 0, "from 1 to 9"),
        ("seed", -1, "The seed must be a whole number from 0 to 4294967295; it was -1."),
        ("seed", MAX_SEED + 1, "from 0 to 4294967295"),
        (
            "sampler",
            "plms",
            'The sampler must be one of studio, ddim, ddpm, dpm++2m, unipc, euler, heun; it was "plms".',
        ),
        ("style", ["noto"], "The style must be text, not ['noto']."),
        ("background", "mauve", "The background must be one of any, white"),
        ("prompt", None, "The prompt must be text, not empty."),
        ("prompt", "half an apple \ud83c", "The prompt contains an invalid character (U+D83C). Type it again."),
        ("prompt", "x" * 10_001, "The prompt may have at most 10,000 characters; this one has 10,001."),
        ("negative_prompt", 3, "The negative prompt must be text, not 3."),
    ],
)
def test_wrong_values_are_named_with_their_range(field, value, says):
    with pytest.raises(InvalidRequest) as problem:
        resolve(TextToImage(**{"prompt": "a cat", field: value}))
    assert says in str(problem.value)
    assert str(problem.value).endswith(".") and "\n" not in str(problem.value)


def test_the_ends_of_every_range_are_allowed():
    TextToImage("", steps=1, guidance=0, count=1, seed=0)
    TextToImage("x" * 10_000, steps=1000, guidance=30, count=9, seed=MAX_SEED)


# ---- pictures ----

RED = Image.new("RGB", (40, 30), "red")
MASK = Image.new("L", (40, 30), 255)
SPOT = Image.new("L", (40, 30))
SPOT.putpixel((20, 15), 255)


@pytest.mark.parametrize(
    "request_",
    [
        TextToImage(
            "a cat",
            negative_prompt="a dog",
            style="noto",
            background="blue",
            count=3,
            steps=7,
            guidance=2.5,
            sampler="ddim",
            seed=11,
        ),
        TextToImage("a cat", seed=11, image=RED, strength=0.3, resolution=256),
        Inpaint("a cat", RED, MASK, negative_prompt="a dog", count=3, steps=7, guidance=2.5, sampler="ddim", seed=11),
        Inpaint("a cat", RED.convert("RGBA"), MASK, seed=11, grow=-3, feather=9, area="whole"),
        Inpaint("a cat", RED, Image.new("L", RED.size), seed=11, invert=True),
        SuperResolve(
            RED,
            4,
            prompt="a cat",
            noise_level=0.2,
            negative_prompt="a dog",
            count=3,
            steps=7,
            guidance=2.5,
            sampler="ddim",
            seed=11,
        ),
        SuperResolve(RED, prompt="a cat", seed=11, target=(101, 33)),
        Denoise(RED, 25.0, "run", prompt="a cat", seed=11),
        Denoise(RED, prompt="a cat", seed=11),
    ],
    ids=lambda request_: request_.task,
)
def test_settings_and_pictures_give_the_request_again(request_):
    settings = json.loads(json.dumps(request_.settings()))
    assert settings["task"] == request_.task and settings["seed"] == 11 and not settings.keys() & {"image", "mask"}
    again = request_from(settings, {name: reread(picture) for name, picture in request_.pictures().items()})
    assert again == request_ and hash(again) == hash(request_) and type(again) is type(request_)
    assert request_from(settings | {"model": "x", "size": "64x64"}, request_.pictures()) == request_
    assert request_from(settings | {"seed": 12}, request_.pictures()) != request_
    assert resolve(replace(request_, count=1)).seeds == (11,) and resolve(request_).caption.startswith("a cat")


def reread(picture: Image.Image) -> Image.Image:
    """As it comes from a file."""
    file = io.BytesIO()
    picture.save(file, "PNG", dpi=(72, 72))
    return Image.open(file)


def test_requests_are_equal_if_the_pixels_are():
    other = RED.copy()
    assert SuperResolve(other) == SuperResolve(RED)
    other.putpixel((3, 3), (255, 0, 1))
    assert SuperResolve(other) != SuperResolve(RED)


def test_a_request_copies_its_pictures():
    mine = RED.copy()
    request_ = Inpaint("x", mine, MASK)
    mine.putpixel((3, 3), (0, 0, 0))
    assert request_ == Inpaint("x", RED, MASK)


def test_pictures_of_any_kind_become_rgb_and_masks_grey():
    clear = Image.new("RGBA", (40, 30), (0, 0, 255, 0))
    deep = Image.fromarray(np.full((30, 40), 65535 // 3, np.uint16))
    turned = Image.new("RGB", (30, 40), "red")
    turned.getexif()[0x0112] = 6  # the camera was held upright
    assert Inpaint("x", clear, MASK).image.getpixel((0, 0)) == (0, 0, 255, 0)
    assert Inpaint("x", deep, MASK).image.getpixel((0, 0)) == (85, 85, 85)
    assert Inpaint("x", turned, MASK).image.size == (40, 30)
    for mode in ("1", "L", "LA", "P", "CMYK", "I", "F", "YCbCr", "HSV", "LAB"):
        request_ = Inpaint("x", RED.convert("RGB").convert("L" if mode in "IF" else "RGB").convert(mode), MASK)
        assert request_.image.mode == ("RGBA" if mode == "LA" else "RGB") and request_.image.size == (40, 30)
    assert Inpaint("x", RED, MASK.convert("RGBA")).mask == MASK


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Inpaint("x", "red.png", MASK), 'The picture must be a picture, not "red.png".'),
        (lambda: Inpaint("x", RED, None), "The mask must be a picture, not empty."),
        (
            lambda: Inpaint("x", RED, Image.new("L", (30, 40))),
            "The mask is 30 x 40 px and the picture 40 x 30 px; both must be of one size.",
        ),
        (
            lambda: Inpaint("x", Image.new("1", (4001, 4000)), MASK),
            "The picture must have from one pixel to 16 megapixels; this one has 4001 x 4000 px.",
        ),
        (lambda: Inpaint("x", Image.new("L", (0, 9)), MASK), "this one has 0 x 9 px"),
        (
            lambda: SuperResolve(Image.new("L", (20_001, 1))),
            "The picture's sides may be at most 20,000 px; it is 20001 x 1 px.",
        ),
        (
            lambda: SuperResolve(Image.new("1", (1001, 1000)), 4),
            "The larger pictures may have 16 megapixels together; these would have 16 megapixels: 1 x 1001 x 1000 px, "
            "4 times as large.",
        ),
        (lambda: SuperResolve(Image.new("1", (1000, 1000)), 2, count=5), "these would have 20 megapixels"),
        (lambda: SuperResolve(RED, 3), "The scale must be 2 or 4; it was 3."),
        (lambda: SuperResolve(RED, 2.0), "The scale must be 2 or 4; it was 2.0."),
        (lambda: SuperResolve(RED, True), "The scale must be 2 or 4; it was True."),
        (
            lambda: resolve(SuperResolve(RED, noise_level=0.4)),
            "The creativity must be a number from 0 to 0.3; it was 0.4.",
        ),
        (lambda: SuperResolve(RED, steps=0), "The steps must be a whole number"),
        (lambda: SuperResolve(RED, target=(161, 30)), "The target width may be at most 4 times the picture's, 160 px;"),
        (lambda: SuperResolve(RED, target=(80, 0)), "The target height must be a whole number from 1 to 20000;"),
        (lambda: SuperResolve(RED, target=80), "The target size must be a width and a height in px; it was 80."),
        (
            lambda: SuperResolve(Image.new("1", (1500, 1500)), target=(3100, 3000)),
            "painted 4 times as large, then resized to 3100 x 3000 px.",
        ),
        (
            lambda: Inpaint("x", RED, Image.new("L", RED.size, 127)),
            "Paint over the part you want to change first. The mask is all black.",
        ),
        (lambda: Inpaint("x", RED, MASK, invert=True), "The mask is all white and inverted, so there is nothing"),
        (lambda: Inpaint("x", RED, SPOT, grow=-1), "Nothing is left of the mask when it shrinks by 1 px."),
        (lambda: Inpaint("x", RED, MASK, grow=300), "The mask growth (grow) must be a whole number from -256 to 256"),
        (lambda: Inpaint("x", RED, MASK, feather=-1), "The feather must be a whole number from 0 to 256; it was -1."),
        (lambda: Inpaint("x", RED, MASK, invert=1), "Invert mask must be true or false; it was 1."),
        (lambda: Inpaint("x", RED, MASK, area="part"), 'The area must be one of painted, whole; it was "part".'),
        (lambda: TextToImage("x", strength=0), "The strength must be a number above 0 and at most 1; it was 0."),
        (lambda: TextToImage("x", strength=1.1), "The strength must be a number above 0 and at most 1; it was 1.1."),
        (lambda: TextToImage("x", image="red.png"), 'The picture must be a picture, not "red.png".'),
        (lambda: Denoise(RED, 0), "The noise must be a number above 0 and at most 100; it was 0."),
        (lambda: Denoise(RED, 101), "The noise must be a number above 0 and at most 100; it was 101."),
        (lambda: Denoise(RED, method="median"), 'The method must be one of mean, run; it was "median".'),
        (
            lambda: request_from({"task": "knit"}, {}),
            'The task must be one of text-to-image, inpaint, super-resolution, denoise; it was "knit".',
        ),
        (lambda: request_from({"task": "inpaint", "prompt": "x"}, {"image": RED}), "The mask is missing."),
        (
            lambda: request_from({"task": "inpaint", "prompt": "x", "image": "/etc/passwd"}, {"mask": MASK}),
            "The image is missing.",
        ),
        (lambda: request_from({}, {}), "The prompt is missing."),
    ],
)
def test_wrong_pictures_are_refused_with_a_sentence(make, says):
    with pytest.raises(InvalidRequest) as problem:
        make()
    assert says in str(problem.value) and str(problem.value).endswith(".") and "\n" not in str(problem.value)


def test_a_damaged_picture_is_refused():
    file = io.BytesIO()
    Image.effect_noise((100, 100), 50).save(file, "PNG")
    with pytest.raises(InvalidRequest, match="The picture cannot be read"):
        SuperResolve(Image.open(io.BytesIO(file.getvalue()[:3000])))


def test_the_largest_pictures_are_allowed():
    SuperResolve(Image.new("1", (1000, 1000)), 4)
    Inpaint("x", Image.new("L", (4000, 4000)), Image.new("1", (4000, 4000), 1))
    Inpaint("x", Image.new("L", (16_000, 1)), Image.new("1", (16_000, 1), 1))


def test_a_target_takes_the_scale_that_reaches_it():
    for target, scale in (((40, 30), 2), ((80, 60), 2), ((81, 60), 4), ((10, 120), 4)):
        request_ = SuperResolve(RED, target=target)
        assert (request_.scale, request_.output_size) == (scale, target)
    assert SuperResolve(RED, 4).output_size == (160, 120)


def test_the_alpha_of_a_transparent_mask_is_the_mask():
    layer = Image.new("RGBA", (40, 30), (255, 255, 255, 0))
    layer.putpixel((20, 15), (0, 0, 0, 255))
    assert Inpaint("x", RED, layer).mask == Inpaint("x", RED, SPOT).mask
