"""Inpainting: exact outside of the mask, at any size and mode."""

from __future__ import annotations

import io

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from studio.diffusion.pipelines import (
    StudioInpaintPipeline,
)
from studio.diffusion.pipelines.base import image_to_tensor
from studio.diffusion.pipelines.inpaint import RESTART_TIME
from studio.diffusion.sampling.steppers import DiffusersStepper
from studio.imaging.canvas import extend_canvas
from studio.imaging.masks import count_changes_outside, grow_hole, mask_to_hole
from studio.imaging.modes import normalize_image
from tests.diffusion.helpers import generators, noise_picture


@pytest.fixture
def inpaint(pipe):
    return StudioInpaintPipeline(**pipe.components)


def upload(picture: Image.Image, format: str, orientation: int = 1) -> Image.Image:
    """As a browser sends it."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    picture.save(file, format, exif=exif, **({"quality": 80} if format != "PNG" else {}))
    return Image.open(io.BytesIO(file.getvalue()))


def some_mask(width: int, height: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    values = np.zeros((height, width), dtype=np.uint8)
    for _ in range(3):
        x, y = rng.integers(0, width), rng.integers(0, height)
        values[y : y + height // 5 + 1, x : x + width // 6 + 1] = 255
    return Image.fromarray(values)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("width", "height"), [(16, 16), (41, 75), (333, 200)])
@pytest.mark.parametrize("whole", [True, False])
def test_nothing_outside_the_mask_changes(inpaint, format, width, height, whole):
    sent = upload(noise_picture(width, height).resize((width, height)), format)
    before, mask = normalize_image(sent), some_mask(width, height, 3)
    after = inpaint("a cat", sent, mask, num_inference_steps=1, whole_picture=whole, generator=generators(0)).images[0]
    count = count_changes_outside(before, after, mask_to_hole(mask))
    assert count == (0, int((np.asarray(mask) == 0).sum()))
    assert after.mode == "RGB" and after.size == (width, height)


@hypothesis.given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    mode=st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "CMYK"]),
    cover=st.floats(0, 1),
    seed=st.integers(0, 2**16),
    options=st.fixed_dictionaries(
        {"whole_picture": st.booleans(), "invert": st.booleans(), "grow": st.integers(-3, 40)}
    ),
)
@hypothesis.settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_nothing_outside_any_mask_changes_in_any_picture(inpaint, size, mode, cover, seed, options):
    """At feather 0, of random pictures, sizes, modes and masks, from single pixels to nearly everything."""
    rng = np.random.default_rng(seed)
    bands = {"RGBA": 4, "CMYK": 4, "LA": 2, "L": 1}.get(mode, 3)
    values = rng.integers(0, 256, (*size[::-1], bands), dtype=np.uint8)
    picture = Image.fromarray(values.squeeze(-1) if bands == 1 else values, None if mode == "P" else mode)
    picture = picture.convert(mode) if mode == "P" else picture
    mask = Image.fromarray(np.where(rng.random(size[::-1]) < cover, np.uint8(255), np.uint8(0)))
    hole = mask_to_hole(mask, options["invert"], options["grow"])
    hypothesis.assume(hole.any())
    after = inpaint("", picture, mask, num_inference_steps=1, generator=generators(seed), **options).images[0]
    assert count_changes_outside(normalize_image(picture), after, hole) == (0, int((~hole).sum()))


def test_nothing_outside_the_mask_changes_in_a_large_picture(inpaint):
    before = Image.linear_gradient("L").resize((4096, 3072)).convert("RGB")
    mask = Image.new("L", before.size)
    mask.paste(255, (3000, 100, 3500, 700))
    for whole in (True, False):
        after = inpaint(
            "a cat", before, mask, num_inference_steps=1, whole_picture=whole, generator=generators(0)
        ).images[0]
        assert count_changes_outside(before, after, mask_to_hole(mask)) == (0, 4096 * 3072 - 500 * 600)
        assert count_changes_outside(before, after, np.zeros((3072, 4096), dtype=bool)).changed > 250_000


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_rotated_upload_is_painted_upright(inpaint, orientation):
    sent = upload(noise_picture(40, 24), "PNG", orientation)
    before = normalize_image(sent)
    mask = some_mask(*before.size, 1)
    after = inpaint("", sent, mask, num_inference_steps=1, generator=generators(0)).images[0]
    assert before.size == ((24, 40) if orientation == 6 else (40, 24))
    assert count_changes_outside(before, after, mask_to_hole(mask)).changed == 0


def test_alpha_stays_outside_the_mask_and_painted_pixels_are_opaque(inpaint):
    values = np.random.default_rng(0).integers(0, 256, (40, 56, 4), dtype=np.uint8)
    picture, mask = Image.fromarray(values), some_mask(56, 40, 2)
    after = inpaint("", picture, mask, num_inference_steps=1, generator=generators(0)).images[0]
    assert after.mode == "RGBA" and count_changes_outside(picture, after, mask_to_hole(mask)).changed == 0
    assert (np.asarray(after)[..., 3][mask_to_hole(mask)] == 255).all()


@pytest.mark.parametrize("mode", ["P", "L", "LA", "CMYK", "I;16"])
def test_every_picture_mode_is_accepted(inpaint, mode):
    deep = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16))
    picture = deep if mode == "I;16" else noise_picture(30, 20).convert("L" if mode == "LA" else "RGB").convert(mode)
    mask = some_mask(30, 20, 2)
    after = inpaint("", picture, mask, num_inference_steps=1, generator=generators(0)).images[0]
    assert count_changes_outside(normalize_image(picture), after, mask_to_hole(mask)).changed == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (3, 2)])
@pytest.mark.parametrize("whole", [True, False])
def test_pictures_of_a_single_pixel(inpaint, size, whole):
    picture, mask = noise_picture(*size), Image.new("L", size)
    mask.putpixel((size[0] // 2, size[1] // 2), 255)
    after = inpaint("", picture, mask, num_inference_steps=1, whole_picture=whole, generator=generators(0)).images[0]
    assert after.size == size
    assert count_changes_outside(picture, after, mask_to_hole(mask)) == (0, size[0] * size[1] - 1)


def test_masks_all_white_and_all_black(inpaint):
    picture = noise_picture(40, 30)
    after = inpaint("", picture, Image.new("L", (40, 30), 255), num_inference_steps=1, generator=generators(0))
    assert (np.asarray(after.images[0]) != np.asarray(picture)).any(-1).mean() > 0.9
    with pytest.raises(ValueError, match="the mask is empty: there is nothing to paint"):
        inpaint("", picture, Image.new("L", (40, 30)), num_inference_steps=1)


def test_invert_grow_and_feather(inpaint):
    picture, mask = noise_picture(60, 50), Image.new("L", (60, 50), 255)
    mask.paste(0, (20, 20, 30, 30))
    options = {"num_inference_steps": 1, "invert": True, "grow": 3, "feather": 4}
    after = inpaint("", picture, mask, generator=generators(0), **options).images[0]
    hole = mask_to_hole(mask, invert=True, grow=3)
    assert 100 < hole.sum() < 256
    assert count_changes_outside(picture, after, hole).changed > 0
    assert count_changes_outside(picture, after, grow_hole(hole, 4)).changed == 0


def test_pixels_in_the_hole_have_no_influence(inpaint):
    mask = some_mask(70, 60, 4)
    first = noise_picture(70, 60)
    second = Image.composite(Image.new("RGB", first.size, "red"), first, mask)
    results = [
        inpaint("", picture, mask, num_inference_steps=2, generator=generators(0)).images[0]
        for picture in (first, second)
    ]
    assert np.array_equal(*map(np.asarray, results))


def test_a_hole_in_a_larger_picture_is_upscaled(inpaint):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (20, 20, 40, 40))
    for size, calls in ((16, 3), (32, 5), (64, 5), (300, 5)):
        picture, here = noise_picture(size, size), mask.resize((size, size), Image.Resampling.NEAREST)
        (row,) = inpaint.prepare([""], [picture], [here], num_inference_steps=3, seeds=[0])
        assert row.num_steps == calls
        shapes = []
        while not row.finished:
            shapes.append(tuple(row.sample.shape[1:]))
            inpaint.denoise_step([row])
            assert inpaint.decode(row).size == (size, size)  # as a preview
        large = min(size, 64)
        assert shapes == [(16, 16)] * 3 + [(large, large)] * (calls - 3)


def test_a_run_restarts_where_enough_is_known(inpaint):
    picture, all_of_it = noise_picture(40, 40), Image.new("L", (40, 40), 255)

    def stage(mask: Image.Image, **options):
        return inpaint.prepare(["a cat"], [picture], [mask], guidance_scale=2.0, seeds=[0], **options)[0].stage

    leaping = stage(some_mask(40, 40, 3))
    assert leaping.stepper.restart_time == RESTART_TIME and len(leaping.stepper.times) == 6
    last = len(inpaint.scheduler) - 1
    assert [leaping.guidance.acts_at(time / last) for time in leaping.stepper.times] == [False, *[True] * 5]
    for other in (stage(all_of_it), stage(some_mask(40, 40, 3), num_inference_steps=1)):
        assert other.stepper.restart_time is None and other.guidance.acts_at(1.0)
    assert isinstance(stage(some_mask(40, 40, 3), sampler="ddim").stepper, DiffusersStepper)


def test_every_prediction_keeps_known_pixels(inpaint):
    picture, mask = noise_picture(16, 16), some_mask(16, 16, 3)
    (row,) = inpaint.prepare(["a cat"], [picture], [mask], num_inference_steps=3, seeds=[0])
    known = torch.from_numpy(np.asarray(mask) == 0)
    while row.steps_before == 0 and not row.finished:
        inpaint.denoise_step([row])
        assert torch.equal(row.pred_original_sample[:, known], image_to_tensor(picture)[:, known])


def test_an_area_of_several_rows_is_planned_once(inpaint):
    picture, mask = noise_picture(40, 40), some_mask(40, 40, 0)
    rows = inpaint.prepare([""] * 3, [picture] * 3, [mask] * 3, num_inference_steps=1, seeds=[0, 1, 2])
    assert len({id(row.output.area) for row in rows}) == 1


def test_an_extended_canvas_keeps_the_picture(inpaint):
    picture = noise_picture(40, 30)
    canvas, mask = extend_canvas(picture, left="50%", bottom=7)
    after = inpaint("", canvas, mask, num_inference_steps=1, generator=generators(0)).images[0]
    assert np.array_equal(np.asarray(after)[:30, 20:], np.asarray(picture))


def test_outside_the_mask_not_one_value_changes(pipe):
    inpaint = StudioInpaintPipeline(**pipe.components)
    for seed, (width, height) in enumerate([(32, 32), (75, 41), (30, 90)]):
        picture = noise_picture(width, height, seed)
        mask = Image.fromarray((np.random.default_rng(seed).random((height, width)) < 0.3).astype(np.uint8) * 255)
        result = inpaint("a cat", picture, mask, num_inference_steps=2, generator=generators(seed)).images[0]
        assert result.size == picture.size
        known = np.asarray(mask) == 0
        assert np.array_equal(np.asarray(result)[known], np.asarray(picture)[known])
        assert (np.asarray(result)[~known] != np.asarray(picture)[~known]).mean() > 0.5
