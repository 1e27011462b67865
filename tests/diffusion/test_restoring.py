"""Holes, enlargements, variations and noise: exact where they promise to be, at any size."""

from __future__ import annotations

import io
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps

import studio.diffusion.tiling as tiling
import studio.imaging.tiles as tiles
from studio.diffusion.conditioning import Condition, back_project, enlarge, match_colors
from studio.diffusion.pipelines import StudioDenoisePipeline, StudioInpaintPipeline, StudioUpscalePipeline
from studio.diffusion.pipelines.base import image_to_tensor
from studio.diffusion.pipelines.denoise import undo_clipping
from studio.diffusion.pipelines.inpaint import RESTART_TIME
from studio.diffusion.sampling.steppers import DiffusersStepper, StudioStepper
from studio.diffusion.schedulers.samplers import SAMPLERS, make_sampler
from studio.diffusion.tiling import TileBlender, tile_corners
from studio.imaging.canvas import extend_canvas
from studio.imaging.masks import count_changes_outside, grow_hole, mask_to_hole
from studio.imaging.modes import normalize_image
from studio.imaging.tiles import place_tiles
from tests.diffusion.test_pipeline import generators, noise_picture, painted

MODEL = Path(__file__).parents[2] / "assets" / "model"


@pytest.fixture
def inpaint(pipe):
    return StudioInpaintPipeline(**pipe.components)


@pytest.fixture
def upscale(pipe):
    return StudioUpscalePipeline(**pipe.components)


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


# ---- inpainting ----


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
def test_an_upload_that_is_turned_is_painted_upright(inpaint, orientation):
    sent = upload(noise_picture(40, 24), "PNG", orientation)
    before = normalize_image(sent)
    mask = some_mask(*before.size, 1)
    after = inpaint("", sent, mask, num_inference_steps=1, generator=generators(0)).images[0]
    assert before.size == ((24, 40) if orientation == 6 else (40, 24))
    assert count_changes_outside(before, after, mask_to_hole(mask)).changed == 0


def test_alpha_stays_outside_the_mask_and_what_is_painted_is_seen(inpaint):
    values = np.random.default_rng(0).integers(0, 256, (40, 56, 4), dtype=np.uint8)
    picture, mask = Image.fromarray(values), some_mask(56, 40, 2)
    after = inpaint("", picture, mask, num_inference_steps=1, generator=generators(0)).images[0]
    assert after.mode == "RGBA" and count_changes_outside(picture, after, mask_to_hole(mask)).changed == 0
    assert (np.asarray(after)[..., 3][mask_to_hole(mask)] == 255).all()


@pytest.mark.parametrize("mode", ["P", "L", "LA", "CMYK", "I;16"])
def test_every_mode_is_painted_on(inpaint, mode):
    deep = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16))
    picture = deep if mode == "I;16" else noise_picture(30, 20).convert("L" if mode == "LA" else "RGB").convert(mode)
    mask = some_mask(30, 20, 2)
    after = inpaint("", picture, mask, num_inference_steps=1, generator=generators(0)).images[0]
    assert count_changes_outside(normalize_image(picture), after, mask_to_hole(mask)).changed == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (3, 2)])
@pytest.mark.parametrize("whole", [True, False])
def test_pictures_as_small_as_can_be(inpaint, size, whole):
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


def test_what_lay_under_the_hole_has_no_say(inpaint):
    mask = some_mask(70, 60, 4)
    first = noise_picture(70, 60)
    second = Image.composite(Image.new("RGB", first.size, "red"), first, mask)
    results = [
        inpaint("", picture, mask, num_inference_steps=2, generator=generators(0)).images[0]
        for picture in (first, second)
    ]
    assert np.array_equal(*map(np.asarray, results))


def test_a_hole_in_a_larger_picture_is_sharpened_by_the_same_network(inpaint):
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


def test_a_run_leaps_where_enough_is_known(inpaint):
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


def test_what_is_known_is_known_in_every_prediction(inpaint):
    picture, mask = noise_picture(16, 16), some_mask(16, 16, 3)
    (row,) = inpaint.prepare(["a cat"], [picture], [mask], num_inference_steps=3, seeds=[0])
    known = torch.from_numpy(np.asarray(mask) == 0)
    while row.steps_before == 0 and not row.finished:
        inpaint.denoise_step([row])
        assert torch.equal(row.pred_original_sample[:, known], image_to_tensor(picture)[:, known])


def test_the_same_picture_many_times_is_read_once(inpaint):
    picture, mask = noise_picture(40, 40), some_mask(40, 40, 0)
    rows = inpaint.prepare([""] * 3, [picture] * 3, [mask] * 3, num_inference_steps=1, seeds=[0, 1, 2])
    assert len({id(row.output.area) for row in rows}) == 1


def test_an_extended_canvas_keeps_the_picture(inpaint):
    picture = noise_picture(40, 30)
    canvas, mask = extend_canvas(picture, left="50%", bottom=7)
    after = inpaint("", canvas, mask, num_inference_steps=1, generator=generators(0)).images[0]
    assert np.array_equal(np.asarray(after)[:30, 20:], np.asarray(picture))


# ---- super-resolution ----


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [(16, 16), (37, 23), (50, 9)])
def test_an_enlargement_shrinks_to_its_input_within_one_level(upscale, factor, size):
    picture = noise_picture(*size)
    (row,) = upscale.prepare([picture], factor, seeds=[0])
    while not row.finished:
        upscale.denoise_step([row])
    low = row.output.low_res
    back = torch.nn.functional.avg_pool2d(back_project(row.sample[None].clamp(-1, 1), low), factor)
    assert (back - low).square().mean().sqrt() / 2 <= 1 / 255
    large = np.asarray(upscale.decode(row), dtype=float)
    mean = large.reshape(size[1], factor, size[0], factor, 3).mean(axis=(1, 3))
    assert np.sqrt(np.square(mean - np.asarray(picture)).mean()) <= 1.3  # levels, after rounding to eight bits


@pytest.mark.parametrize("size", [(16, 16), (37, 23), (5, 64)])
@pytest.mark.parametrize("factor", [2, 4, 32 / 15])
def test_a_cast_is_taken_out_exactly(size, factor):
    """At any size and ratio: of one colour, and of a picture in its own pixels."""
    low = image_to_tensor(noise_picture(*size))
    height, width = (round(length * factor) for length in low.shape[1:])
    cast = torch.tensor([-0.3, 0.1, 0.2])[:, None, None]
    even = match_colors(torch.full_like(low, 0.1), torch.full((3, height, width), 0.1) + cast)
    assert torch.allclose(even, torch.tensor(0.1), atol=1e-5)
    assert torch.allclose(match_colors(low, low + cast), low, atol=1e-5)


def test_colours_are_held_where_they_are_lost_and_what_is_finer_is_left():
    low = torch.zeros(3, 8, 64)
    checks = (torch.arange(16)[:, None] + torch.arange(128)) % 2 * 0.2 - 0.1  # finer than what is held
    faded = checks.repeat(3, 1, 1)
    faded[..., :64] += 0.4
    held = match_colors(low, faded)
    assert torch.allclose(held[..., :56], checks[:, :56], atol=1e-5)  # but for the blocks at the border
    assert torch.allclose(held[..., 72:], checks[:, 72:], atol=1e-5)


def test_a_finished_picture_has_the_colours_that_were_painted(pipe):
    (row,) = pipe.prepare(["a cat"], seeds=[0], size=64, num_inference_steps=2)
    while not row.steps_before:
        before = row.stage
        pipe.denoise_step([row])
    small = before.sample.clamp(-1, 1)
    while not row.finished:
        pipe.denoise_step([row])
        assert torch.allclose(row.pred_original_sample.mean((1, 2)), small.mean((1, 2)), atol=1e-5)


def test_with_noise_an_enlargement_keeps_the_colours(upscale):
    picture = noise_picture(32, 16)
    (row,) = upscale.prepare([picture], 2, seeds=[0], noise_level=0.3)
    while not row.finished:
        upscale.denoise_step([row])
        assert torch.allclose(row.pred_original_sample.mean((1, 2)), image_to_tensor(picture).mean((1, 2)), atol=1e-5)


def test_alpha_is_enlarged_by_lanczos(upscale):
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    picture = Image.fromarray(values)
    for options, size in (({"scale_factor": 2}, (48, 40)), ({"scale_factor": 4, "size": (53, 61)}, (53, 61))):
        large = upscale(picture, num_inference_steps=1, generator=generators(0), **options).images[0]
        assert large.mode == "RGBA" and large.size == size
        assert large.getchannel("A") == picture.getchannel("A").resize(size, Image.Resampling.LANCZOS)


def test_one_window_is_the_picture_itself_and_many_are_one_picture(pipe):
    """Predictions that are a function of the pixel alone come back as they were, whatever the windows."""
    whole = torch.randn(3, 100, 71)

    def again(picture, size):
        corners = tile_corners(*picture.shape[1:], size)
        pieces = TileBlender(*picture.shape[1:], size, corners)
        for top, left in corners:
            pieces.add(picture[:, top : top + size, left : left + size].clone(), top, left)
        return pieces.result()

    torch.testing.assert_close(again(whole, 32), whole, atol=1e-5, rtol=0)
    assert torch.equal(again(whole, 128), whole)
    narrow = whole[:, :, :20]
    torch.testing.assert_close(again(narrow, 32), narrow, atol=1e-5, rtol=0)


def test_a_prediction_with_flaws_at_window_borders_leaves_no_seam():
    """Windows that disagree by a constant each: the blended picture has no step anywhere."""
    torch.manual_seed(0)
    height = width = 256
    corners = tile_corners(height, width, 64)
    pieces = TileBlender(height, width, 64, corners)
    for top, left in corners:
        pieces.add(torch.full((1, 64, 64), torch.randn(()).item()), top, left)
    whole = pieces.result()[0]
    step = max(whole.diff(dim=0).abs().max().item(), whole.diff(dim=1).abs().max().item())
    assert step < 4 / 16  # the largest disagreement, spread over an overlap of 16 px


def test_a_condition_is_seen_in_windows():
    picture, hole, low = torch.randn(3, 40, 48), (torch.rand(1, 40, 48) > 0.5).float(), torch.randn(3, 20, 24)
    nothing = torch.zeros(4, 40, 48)
    for ours, theirs in (
        (Condition.inpaint(picture, hole), torch.cat([picture * (1 - hole), 1 - hole, nothing[:3]])),
        (Condition.super_resolution(low, (40, 48)), torch.cat([nothing, enlarge(low[None], (40, 48))[0]])),
        (Condition((40, 48)), torch.zeros(7, 40, 48)),
    ):
        assert torch.equal(ours.crop(0, 0, 40, 48, picture), theirs)
        assert torch.equal(ours.crop(5, 9, 16, 32, picture), theirs[:, 5:21, 9:41])


# ---- image to image ----


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_run_begins_with_the_pictures_own_noise_level(pipe, name):
    """x_t = alpha x0 + sigma eps where the network first looks, whatever the sampler's own scaling."""
    picture, noise = torch.rand(3, 8, 8) * 2 - 1, torch.randn(3, 8, 8)
    scheduler = make_sampler(name, pipe.scheduler.config)
    begin = 4
    if name == "studio":
        steps = StudioStepper(scheduler, 10, begin=begin)
    else:
        steps = DiffusersStepper(scheduler, 10, "cpu", begin=begin)
    alpha, sigma = steps.levels[0]
    assert 0.2 < alpha < 0.95
    seen = steps.network_input(steps.initial_state, steps.add_noise(picture, noise), 0)
    torch.testing.assert_close(seen, (alpha * picture + sigma * noise).float(), atol=2e-4, rtol=0)
    assert len(steps.times) == (11 if name == "heun" else 6)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_little_strength_changes_little(pipe, name, monkeypatch):
    """With a network that knows the picture, every sampler ends with it from any strength."""
    truth = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4) * 2 - 1, size=(16, 16))[0]
    picture = Image.fromarray(((truth + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    schedule = pipe.scheduler.schedule

    class Said:
        def __init__(self, sample):
            self.sample = sample

    def forward(sample, time, *rest):
        alpha, sigma = (part.view(-1, 1, 1, 1).float() for part in schedule.alpha_sigma(time.double()))
        x_t = sample[:, :3]
        eps = (x_t - alpha * truth) / sigma
        return Said(alpha * eps - sigma * truth)

    monkeypatch.setattr(pipe.unet, "forward", forward)
    for strength in (0.1, 0.5, 1.0):
        rows = pipe.prepare(
            [""], num_inference_steps=10, seeds=[0], sampler=name, size=16, images=[picture], strength=strength
        )
        assert rows[0].num_steps == (2 * 10 * strength - 1 if name == "heun" else 10 * strength)
        (result,) = painted(rows, pipe)
        assert np.abs(result.astype(int) - np.asarray(picture)).max() <= 6


def test_variations_have_the_size_of_the_picture(pipe):
    for size in ((16, 16), (50, 40), (3, 200), (301, 200)):
        options = {"num_inference_steps": 2, "image": noise_picture(*size), "generator": generators(0)}
        assert pipe("a cat", **options).images[0].size == size
    assert pipe("a cat", size=64, **options).images[0].size == (96, 64)
    with pytest.raises(ValueError, match="strength is 0; it must be above 0"):
        pipe("a cat", strength=0, **options)


def test_strength_is_how_far_from_the_picture(pipe):
    picture = noise_picture(32, 32).resize((8, 8)).resize((32, 32))
    away = []
    for strength in (0.1, 0.4, 1.0):
        options = {"num_inference_steps": 10, "generator": generators(1), "size": 16}
        result = pipe("", image=picture, strength=strength, **options).images[0].resize((32, 32))
        away.append(np.square(np.asarray(result, dtype=float) - np.asarray(picture)).mean())
    assert away[0] < away[1] < away[2]


def test_a_picture_of_512_px_is_finished_in_stages(pipe):
    (row,) = pipe.prepare(["a cat"], num_inference_steps=1, seeds=[0], size=256, finishing_steps=1)
    shapes = []
    while not row.finished:
        shapes.append(row.sample.shape[1])
        pipe.denoise_step([row])
    assert shapes == [16, 64, 256] and pipe.decode(row).size == (256, 256)


# ---- denoising ----


def test_denoising_begins_at_the_pictures_noise(pipe):
    denoise = StudioDenoisePipeline(**pipe.components)
    picture = noise_picture(40, 24)
    for sigma in (5.0, 25.0, 50.0):
        (row,) = denoise.prepare([picture], [sigma], num_inference_steps=3, seeds=[0])
        alpha, noise = row.stage.stepper.levels[0]
        assert noise / alpha == pytest.approx(sigma / 127.5, rel=1e-3)
        given = image_to_tensor(picture)
        inside = given.abs() < 1
        torch.testing.assert_close(row.sample[:, :24, :40][inside], (alpha * given).float()[inside])
        assert row.num_steps == 3
        (result,) = painted([row], denoise)
        assert result.shape == (24, 40, 3)


@pytest.mark.parametrize("sigma", [None, 0.6])
def test_a_clean_picture_has_nothing_to_run_through(pipe, sigma):
    """Its noise is less than the schedule's least: one step, not eight at one time."""
    clean = Image.new("RGB", (20, 20), "teal")
    denoise = StudioDenoisePipeline(**pipe.components)
    (row,) = denoise.prepare([clean], [sigma], num_inference_steps=8, seeds=[0])
    assert row.num_steps == 1
    assert denoise(clean, sigma, num_inference_steps=8).images[0].size == (20, 20)


def test_noise_that_was_cut_off_at_white_is_put_back_on_average():
    true = torch.full((3, 64, 64), 0.999)
    seen = (true + 0.2 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    assert seen.mean() < 0.93
    for sign in (1, -1):
        assert (undo_clipping(sign * seen, 0.2).mean() - sign * true.mean()).abs() < 0.01
    assert torch.equal(undo_clipping(torch.tensor([0.5, -0.9]), 0.2), torch.tensor([0.5, -0.9]))


def test_the_posterior_mean_is_one_evaluations_x0(pipe):
    denoise = StudioDenoisePipeline(**pipe.components)
    (row,) = denoise.prepare([noise_picture(32, 32)], [25.0], seeds=[0])
    denoise.denoise_step([row])
    assert row.finished
    torch.testing.assert_close(row.sample, row.pred_original_sample, atol=1e-5, rtol=0)


def test_denoising_any_size_keeps_alpha_and_estimates(pipe):
    denoise = StudioDenoisePipeline(**pipe.components)
    values = np.random.default_rng(0).integers(0, 256, (9, 130, 4), dtype=np.uint8)
    result = denoise(Image.fromarray(values), generator=generators(0)).images[0]
    assert result.size == (130, 9) and np.array_equal(np.asarray(result)[..., 3], values[..., 3])
    with pytest.raises(ValueError, match="sigma is 0; it must be above 0"):
        denoise(noise_picture(8, 8), 0)


# ---- the bundled weights ----


@pytest.fixture(scope="module")
def bundled():
    upscale = StudioUpscalePipeline.from_pretrained(MODEL)
    upscale.set_progress_bar_config(disable=True)
    return upscale


def texture(side: int) -> Image.Image:
    """Coloured blobs, the same kind everywhere."""
    return ImageOps.autocontrast(noise_picture(side, side).filter(ImageFilter.GaussianBlur(2)))


def test_two_tilings_agree(bundled, monkeypatch):
    small = texture(80)
    first = np.asarray(bundled(small, 2, generator=generators(0)).images[0], dtype=float)
    for module in (tiling, tiles):
        monkeypatch.setattr(module, "place_tiles", lambda length, size, _: place_tiles(length, size, size // 2))
    second = np.asarray(bundled(small, 2, generator=generators(0)).images[0], dtype=float)
    error = np.square(first - second).mean()
    assert 0 < error and 10 * np.log10(255**2 / error) >= 35


def test_no_seam_is_measurable(bundled):
    """Steps across the borders of windows are no larger than elsewhere between two pixels of the small picture."""
    large = np.asarray(bundled(texture(128), 2, generator=generators(0)).images[0], dtype=float)
    starts = place_tiles(256, 64, 16)
    borders = sorted({start for start in starts[1:]} | {start + 64 for start in starts[:-1]})
    for values in (large, large.transpose(1, 0, 2)):
        steps = np.abs(np.diff(values, axis=1)).mean((0, 2))  # steps[x]: from column x to column x + 1
        at = np.array([steps[border - 1] for border in borders]).mean()
        elsewhere = np.array([steps[x - 1] for x in range(2, 256, 2) if x not in borders]).mean()
        assert at == pytest.approx(elsewhere, rel=0.1)
