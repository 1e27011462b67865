"""Several things in one picture: how prompts are parsed, and that each tile is painted by its own caption."""

from __future__ import annotations

import time

import pytest
import torch
from PIL import Image

from studio.diffusion.composition import Layout, parse_layout
from studio.diffusion.conditioning import Condition, Task
from studio.diffusion.pipelines.base import image_to_tensor
from studio.diffusion.tiling import TileBlender

PAIR = "a red apple left of a blue cat"
LEFT, RIGHT, TOP, BOTTOM = (14, 0), (14, 28), (0, 14), (28, 14)


@pytest.mark.parametrize(
    ("prompt", "first", "second", "corners"),
    [
        (PAIR, "a red apple", "a blue cat", (LEFT, RIGHT)),
        ("a dog to the right of a cat.", "a dog.", "a cat.", (RIGHT, LEFT)),
        ("Apple above an owl", "Apple", "an owl", (TOP, BOTTOM)),
        (
            "a slice of cake below grapes, flat style, on a blue background",
            "a slice of cake, flat style, on a blue background",
            "grapes, flat style, on a blue background",
            (BOTTOM, TOP),
        ),
        (
            "a noto picture of a cat on top of a dog on red",
            "a noto picture of a cat on red",
            "a noto picture of a dog on red",
            (TOP, BOTTOM),
        ),
        (
            "striped red and blue background, a cat and a dog",
            "striped red and blue background, a cat",
            "striped red and blue background, a dog",
            (LEFT, RIGHT),
        ),
        ("a cat next to a dog in oils", "a cat in oils", "a dog in oils", (LEFT, RIGHT)),
        ("two red apples on a blue background", "a red apple on a blue background", None, (LEFT, RIGHT)),
        ("a flat two foxes, blue background", "a flat fox, blue background", None, (LEFT, RIGHT)),
        ("2 cherries", "cherries", None, (LEFT, RIGHT)),
    ],
)
def test_a_prompt_of_two_things_is_laid_out(prompt, first, second, corners):
    assert parse_layout(prompt, 32) == Layout((first, second or first), corners, 32, 60)


@pytest.mark.parametrize(("prompt", "count"), [("three owls", 3), ("a flat picture of four red balls in oil", 4)])
def test_several_of_a_kind_have_a_tile_each(prompt, count):
    layout = parse_layout(prompt, 32)
    assert len(layout.captions) == len(set(layout.corners)) == count
    assert len(set(layout.captions)) == 1 and layout.captions[0] in ("an owl", "a flat picture of a red ball in oil")


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a cat",
        "left of",
        "a cat left of, flat style",
        "salt and pepper",
        "a cat on a striped red and blue background",
        "a cat left of a dog above a bird",  # where is the bird?
        "an underground cave with a handover",
        "two",
        "two, three",
        "two of a kind",
        "two cat",
        "a bicycle on two wheels",
        "a cat with three tails",
    ],
)
def test_other_prompts_have_no_layout(prompt):
    assert parse_layout(prompt, 32) is None


@pytest.mark.parametrize("filler", [" ", "two ", "a ", "left of ", "two a", "on "])
def test_a_long_prompt_is_parsed_fast(filler):
    began = time.process_time()
    parse_layout(filler * (10_000 // len(filler)), 32)
    parse_layout("two cats" + filler * (10_000 // len(filler)) + "!", 32)
    assert time.process_time() - began < 5  # it takes milliseconds, or minutes where the expression backtracks


LAYOUTS = [parse_layout(prompt, 32) for prompt in (PAIR, "a cat above a dog", "three owls", "four owls")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_begin_from_white_noise_with_the_same_coarse_part(layout):
    noise = torch.randn(3, 60, 60, generator=torch.Generator().manual_seed(0))
    share_coarse_noise = layout.share_coarse_noise(noise)
    fine = noise - blocks(noise).repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(
        share_coarse_noise - blocks(share_coarse_noise).repeat_interleave(4, 1).repeat_interleave(4, 2), fine
    )
    coarse = blocks(share_coarse_noise)
    torch.testing.assert_close(coarse[:, 7:], coarse[:, :8])
    torch.testing.assert_close(coarse[:, :, 7:], coarse[:, :, :8])
    many = torch.stack([layout.share_coarse_noise(torch.randn(3, 60, 60)) for _ in range(200)])
    assert many.std().item() == pytest.approx(1, abs=0.01)
    top, left = layout.corners[-1]
    window = many[:, :, top : top + 28, left : left + 28]  # of one period: its pixels are independent
    assert (window[..., :-4] * window[..., 4:]).mean().abs() < 0.01
    assert (window[..., :-1] * window[..., 1:]).mean().abs() < 0.01


def blocks(picture):
    return torch.nn.functional.avg_pool2d(picture[None], 4)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_share_one_background(layout):
    covered = layout.covered()
    assert covered.mean() > 0.5 and set(covered.unique().tolist()) <= {0.0, 1.0}
    flat = torch.where(covered > 0, 0.3, 9.0).expand(3, 60, 60)
    torch.testing.assert_close(layout.merge_background(flat), torch.full((3, 60, 60), 0.3))
    backgrounds = flat.clone()  # tiles that disagree: red here, green there
    for number, (top, left) in enumerate(layout.corners):
        backgrounds[number % 2, top + 4 : top + 28, left + 4 : left + 28] = 9.0  # things
        backgrounds[2, top : top + 32, left : left + 32] = number
    picture = layout.merge_background(backgrounds)
    torch.testing.assert_close(picture[:2] * (1 - covered), 0.3 * (1 - covered).expand(2, 60, 60))  # no thing in it
    rim = picture[2, layout.corners[0][0], layout.corners[0][1] : layout.corners[0][1] + 28]
    torch.testing.assert_close(rim, torch.full((28,), (len(layout.corners) - 1) / 2))  # averaged
    for top, left in layout.corners:
        inside = (slice(None), slice(top + 4, top + 28), slice(left + 4, left + 28))
        assert torch.equal(picture[inside], backgrounds[inside])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_that_agree_blend_to_the_picture(layout):
    picture, blend = torch.randn(3, 60, 60), TileBlender(60, 60, 32, layout.corners, is_grid=False)
    for top, left in layout.corners:
        blend.add(picture[:, top : top + 32, left : left + 32], top, left)
    torch.testing.assert_close(blend.result(), picture * layout.covered())


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 1.0}, {"one_pass": True}, {"sampler": "ddim"}])
def test_each_tile_is_painted_by_its_own_caption(pipe, options):
    """Inside a tile, a step equals that of its caption alone."""
    given = {"num_inference_steps": 5, "seeds": [3], "size": 16} | options
    (pair,) = pipe.prepare([PAIR], **given)
    begun = pair.sample.clone()
    assert begun.shape == (3, 30, 30)
    alone = pipe.prepare(list(parse_layout(PAIR, 16).captions), **given | {"seeds": [3, 3]})
    for row, left in zip(alone, (0, 14), strict=True):
        row.stage.sample = begun[:, 7:23, left : left + 16].clone()
    pipe.denoise_step([pair, *alone])
    apple, cat = (row.sample for row in alone)
    inside = slice(2, -2)  # where a tile does not overlap another
    for painted, left in ((apple, 0), (cat, 14)):
        window = pair.sample[:, 7:23, left : left + 16]
        torch.testing.assert_close(window[:, inside, inside], painted[:, inside, inside], atol=1e-5, rtol=0)
    assert (apple - cat).abs().max() > 1e-3


@pytest.mark.parametrize("image", [None, Image.effect_noise((64, 64), 60).convert("RGB")])
def test_each_thing_is_upscaled_by_its_own_caption(pipe, image):
    """As the thing alone is, from the same pixels and noise, except for its colors."""
    given = {"num_inference_steps": 1, "finishing_steps": 2, "size": 32}
    (pair,) = pipe.prepare([PAIR], seeds=[3], images=image and [image], **given)
    pipe.denoise_step([pair])
    assert pair.stage.task == Task.SUPER_RESOLUTION and pair.stage.layout == parse_layout(PAIR, 32)
    alone = pipe.prepare(list(parse_layout(PAIR, 16).captions), seeds=[3, 3], **given)
    pipe.denoise_step(alone)
    places = [(slice(None), slice(14, 46), slice(left, left + 32)) for left in (0, 28)]
    for row, place in zip(alone, places, strict=True):
        row.stage.sample = pair.sample[place].clone()
        row.stage.sparse_condition = Condition((32, 32), enlarged=pair.stage.sparse_condition.enlarged[place])
        row.stage.constraints = ()
    pair.stage.constraints = pair.stage.constraints[:1]  # the merged background
    pipe.denoise_step([pair, *alone])
    for row, place in zip(alone, places, strict=True):
        inside = (slice(None), slice(3, -3), slice(5, -5))  # where a tile does not overlap another
        torch.testing.assert_close(pair.sample[place][inside], row.sample[inside], atol=1e-5, rtol=0)


def test_a_layout_is_upscaled_by_the_whole_prompt_where_the_tile_size_differs(pipe, monkeypatch):
    monkeypatch.setattr(type(pipe), "window_size", 16)
    (pair,) = pipe.prepare([PAIR], seeds=[3], num_inference_steps=1, size=32)
    pipe.denoise_step([pair])
    assert pair.stage.layout is None and pair.sample.shape == (3, 60, 60) and pair.call_key == ("unet", 16, 16)


def test_a_pair_is_as_large_as_any_picture(pipe):
    for side in (16, 32, 64, 128):
        assert pipe(PAIR, size=side, num_inference_steps=2).images[0].size == (side, side)
    for side in (16, 50):
        image = Image.effect_noise((side, side), 60).convert("RGB")
        assert pipe(PAIR, image=image, num_inference_steps=2).images[0].size == (side, side)


def test_a_variation_keeps_the_pixels_outside_of_all_tiles(pipe):
    image = Image.effect_noise((30, 30), 60).convert("RGB")
    (row,) = pipe.prepare([PAIR], seeds=[1], images=[image], size=16, num_inference_steps=4)
    while not row.finished:
        pipe.denoise_step([row])
    changed = (row.sample - image_to_tensor(image)).abs().amax(0) > 1e-3
    assert not changed[:7].any() and not changed[23:].any() and changed[7:23].any()


def test_a_picture_that_is_not_square_has_no_layout(pipe):
    image = Image.effect_noise((40, 24), 60).convert("RGB")
    (row,) = pipe.prepare([PAIR], seeds=[1], images=[image], num_inference_steps=2)
    assert row.stage.layout is None and row.text.captions == ()


def test_a_layout_of_a_batch_equals_the_layout_alone(pipe):
    prompts, seeds = ["a red cat", PAIR, "a boat above a house", "three cats"], [4, 5, 6, 7]
    rows = pipe.prepare(prompts, seeds=seeds, num_inference_steps=4)
    while not rows[0].finished:
        pipe.denoise_step(rows)
    for prompt, seed, row in zip(prompts, seeds, rows, strict=True):
        (alone,) = pipe.prepare([prompt], seeds=[seed], num_inference_steps=4)
        while not alone.finished:
            pipe.denoise_step([alone])
        torch.testing.assert_close(row.sample, alone.sample, atol=1e-4, rtol=0)


def test_network_rows_are_counted(pipe):
    (pair,) = pipe.prepare([PAIR], seeds=[1], num_inference_steps=2, size=32)
    assert pair.call_rows == 4  # two tiles, with and without prompt
    pipe.denoise_step([pair])
    pipe.denoise_step([pair])
    assert pair.call_rows == 2  # upscaled, each thing by its caption
    (three,) = pipe.prepare(["three cats"], seeds=[1], num_inference_steps=2, guidance_scale=1.0)
    assert three.call_rows == 3
