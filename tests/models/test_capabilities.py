"""Capabilities: requests are checked against the bundled model and resolved by it, without torch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from studio.diffusion.guidance import MAX_ONE_PASS_GUIDANCE
from studio.diffusion.schedulers import samplers
from studio.engine.requests import MAX_SEED, Denoise, Inpaint, InvalidRequest, Request, SuperResolve, TextToImage
from studio.models.families.studio import read_capabilities
from studio.models.samplers import STUDIO_SAMPLERS, sampler_labels
from studio.prompts.captions import ANY
from tests.fakes import CAPABILITIES, MODEL, resolve, write_model_folder

RED = Image.new("RGB", (40, 30), "red")
MASK = Image.new("L", (40, 30), 255)


def test_each_picture_has_its_own_seed():
    assert resolve(TextToImage("", count=3, seed=MAX_SEED)).seeds == (MAX_SEED, 0, 1)


def test_sampler_labels_are_those_of_the_samplers():
    assert sampler_labels(STUDIO_SAMPLERS) == {key: sampler.label for key, sampler in samplers.SAMPLERS.items()}


def test_the_seed_of_each_picture_chooses_an_open_style_and_background():
    many = TextToImage("a cat", count=9, seed=MAX_SEED - 3, randomize_style=True)
    resolved = resolve(many)
    assert resolved.captions == tuple(resolve(replace(many, count=1, seed=s)).captions[0] for s in resolved.seeds)
    assert len(set(resolved.captions)) > 6 and resolved.caption == "a cat"
    for text, (style, background) in zip(resolved.captions, resolved.styles_and_backgrounds, strict=True):
        assert text == CAPABILITIES.caption("a cat", style, background)
        assert style in CAPABILITIES.styles and background in CAPABILITIES.backgrounds
    assert {style for style, _ in resolve(replace(many, style="flat")).styles_and_backgrounds} == {"flat"}
    only_blue = resolve(replace(many, background="blue"))
    assert {background for _, background in only_blue.styles_and_backgrounds} == {"blue"}
    assert resolve(replace(many, randomize_style=False)).captions == ("a cat",) * 9
    assert resolve(TextToImage(" ", count=2, randomize_style=True)).captions == ("", "")
    with pytest.raises(InvalidRequest, match="randomize_style"):
        TextToImage("a cat", randomize_style="yes")


def test_passes_of_a_step():
    def passes(prompt: str = "a cat", style: str = "flat", **given) -> int:
        return resolve(TextToImage(prompt, style=style, **{"style_emphasis": True} | given)).passes

    assert passes() == passes("a cat, oil style", ANY) == 3
    assert passes(style=ANY, randomize_style=True) == 3
    assert passes(style=ANY) == passes(style_emphasis=False) == passes(guidance=0.5) == 2
    assert passes(guidance=1) == passes(one_pass=True) == 1
    assert passes(one_pass=True, guidance=6) == 3  # more than the network was taught
    assert passes(negative_prompt="a dog", one_pass=True) == 3  # which the network does not know in one pass
    assert resolve(Inpaint("a cat", RED, MASK, style="flat")).passes == 2
    assert resolve(SuperResolve(RED, guidance=1)).passes == 1


def test_pixels_are_those_of_all_results():
    picture, mask = Image.new("RGB", (30, 20)), Image.new("L", (30, 20), 255)
    for request_, pixels in (
        (TextToImage("a", count=3), 0),
        (TextToImage("a", count=3, resolution=64), 3 * 64 * 64),
        (TextToImage("a", image=picture), 600),
        (TextToImage("a", image=picture, resolution=64), 6144),
        (Inpaint("a", picture, mask, count=2), 1200),
        (SuperResolve(picture, 4, count=2), 2 * 16 * 600),
        (SuperResolve(picture, target=(31, 20)), 4 * 600),  # painted twice as large, then reduced
        (Denoise(picture), 600),
    ):
        assert resolve(request_).pixels == pixels


@pytest.mark.parametrize(
    ("changes", "request_", "sentence"),
    [
        ({}, TextToImage("a cat", sampler="plms"), 'The sampler must be one of studio, ddim, .*; it was "plms".'),
        ({}, TextToImage("a cat", style="oil"), 'The style must be one of any, noto, .*; it was "oil".'),
        ({}, Inpaint("a cat", RED, MASK, background="mauve"), "The background must be one of any, white, .*mauve"),
        ({}, TextToImage("a cat", resolution=100), "The output size must be one of 64, 128, 256, 512; it was 100."),
        ({}, TextToImage("a cat", model_id="other"), 'The model must be model; it was "other".'),
        ({"steps": (1, 8)}, TextToImage("a cat"), "The steps must be a whole number from 1 to 8; it was 10."),
        ({"guidance": (1.0, 2.0)}, TextToImage("a cat"), "The guidance must be a number from 1 to 2; it was 3.0."),
        ({"count": (1, 1)}, SuperResolve(RED, count=2), "The number of pictures must be .* from 1 to 1; it was 2."),
        (
            {"tasks": ("inpaint",)},
            TextToImage("a cat"),
            "The task must be inpaint for Studio Emoji; it was text-to-image.",
        ),
        (
            {"negative_prompt": False, "name": "Turbo"},
            TextToImage("a cat", negative_prompt="a dog"),
            'The negative prompt must be empty for Turbo; it was "a dog".',
        ),
        ({"styles": {}}, TextToImage("a cat", style="noto"), 'The style must be one of any; it was "noto".'),
    ],
)
def test_a_request_that_the_model_cannot_run_is_refused(changes, request_, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        replace(CAPABILITIES, **changes).check(request_)


def test_a_style_is_a_template():
    model = replace(CAPABILITIES, styles={"oil": "an oil painting of {prompt}"}, backgrounds={})
    assert resolve(TextToImage("a cat", style="noto")).caption == "a cat, noto style"
    assert model.resolve(TextToImage("a cat", style="oil")).captions == ("an oil painting of a cat",)
    assert model.resolve(TextToImage("a cat", randomize_style=True)).captions == ("a cat",)  # nothing to choose from


def test_all_tasks_build_their_captions_in_one_way():
    choices = {"style": "flat", "background": "blue"}
    caption = "a cat, flat style, on a blue background"
    assert resolve(Inpaint("a cat", RED, MASK, **choices)).captions == (caption,)
    assert resolve(TextToImage("a cat", **choices)).captions == (caption,)
    assert resolve(Inpaint(caption, RED, MASK)).captions == (caption,)  # as earlier versions stored it


def test_rows_are_counted_by_tiles_calls_and_passes():
    resolve = replace(CAPABILITIES, has_upscaler=False).resolve
    small, large = Image.new("RGB", (32, 32)), Image.new("RGB", (64, 64))
    assert resolve(SuperResolve(small, steps=3)).rows == 3
    assert resolve(SuperResolve(large, steps=3)).rows == 9 * 3  # tiles of 64 px overlap by a quarter
    assert resolve(SuperResolve(small, steps=3, guidance=2, count=2)).rows == 3 * 2 * 2
    assert resolve(SuperResolve(small, steps=3, sampler="heun")).rows == 3 * 2
    assert resolve(Denoise(large, steps=50)).rows == 1 and resolve(Denoise(large, method="run", steps=50)).rows == 50
    painted = resolve(TextToImage("a cat", steps=10))
    assert painted.rows == 10 * 2 + 2  # finished in two calls
    assert painted.seconds == painted.rows * CAPABILITIES.seconds_per_row
    assert resolve(TextToImage("a cat", steps=10, resolution=512)).rows > 5 * painted.rows


def test_the_bundled_model_can_do_what_its_files_say():
    assert CAPABILITIES.resolutions == (64, 128, 256, 512) and CAPABILITIES.default_resolution == 64
    assert CAPABILITIES.one_pass_guidance == (1.0, MAX_ONE_PASS_GUIDANCE)
    assert len(CAPABILITIES.vocabulary.concepts) > 100
    for settings in CAPABILITIES.presets.values():
        CAPABILITIES.check(TextToImage("a cat", **settings))
    assert CAPABILITIES.live_preset in CAPABILITIES.presets


def test_a_folder_that_is_no_model_gets_capabilities(tmp_path):
    assert read_capabilities(tmp_path / "no").resolutions == CAPABILITIES.resolutions
    other = read_capabilities(write_model_folder(tmp_path / "model"))
    assert (other.name, other.sample_size, other.tile_size) == ("Blob 64", 64, 64)
    assert other.one_pass_guidance is None


def test_a_request_is_resolved_without_torch():
    code = (
        "import sys; from studio.engine.requests import TextToImage;"
        "from studio.models.families.studio import read_capabilities;"
        f"read_capabilities({str(MODEL)!r}).resolve(TextToImage('a cat'));"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "[]"


def test_an_upscaler_takes_one_call_for_each_doubling():
    capabilities = replace(CAPABILITIES, has_upscaler=True)

    def rows(request: Request) -> int:
        return capabilities.count_rows(request, capabilities.count_passes(request, "a cat"))

    small, large = Image.new("RGB", (32, 32)), Image.new("RGB", (64, 64))
    assert rows(SuperResolve(small, steps=3, guidance=2)) == 1
    assert rows(SuperResolve(large, scale=4, count=2)) == (9 + 25) * 2  # tiles of 64 px overlap by a quarter
    assert rows(SuperResolve(small, steps=3, noise_level=0.1)) == 3
    assert (
        rows(TextToImage("a cat")) == 10 * 2 + 1 and rows(TextToImage("a cat", resolution=256)) == 10 * 2 + 1 + 9 + 25
    )
