"""Several things in one picture: how a prompt is read, and that each window is what its own words say."""

from __future__ import annotations

import time

import pytest
import torch
from PIL import Image

from studio.diffusion.core import from_pil
from studio.diffusion.layout import Layout, layout_of
from studio.diffusion.windows import Blend

PAIR = "a red apple left of a blue cat"
LEFT, RIGHT, TOP, BOTTOM = (12, 0), (12, 24), (0, 12), (24, 12)


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
    assert layout_of(prompt, 32) == Layout((first, second or first), corners, 32, 56)


@pytest.mark.parametrize(("prompt", "count"), [("three owls", 3), ("a flat picture of four red balls in oil", 4)])
def test_several_of_a_kind_have_a_window_each(prompt, count):
    layout = layout_of(prompt, 32)
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
def test_other_prompts_are_one(prompt):
    assert layout_of(prompt, 32) is None


@pytest.mark.parametrize("filler", [" ", "two ", "a ", "left of ", "two a", "on "])
def test_a_long_prompt_is_read_at_once(filler):
    began = time.process_time()
    layout_of(filler * (10_000 // len(filler)), 32)
    layout_of("two cats" + filler * (10_000 // len(filler)) + "!", 32)
    assert time.process_time() - began < 5  # of a thing that takes milliseconds, or minutes if it goes back and forth


LAYOUTS = [layout_of(prompt, 32) for prompt in (PAIR, "a cat above a dog", "three owls", "four owls")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_begin_with_the_same_coarse_noise_and_each_with_white_noise(layout):
    noise = torch.randn(3, 56, 56, generator=torch.Generator().manual_seed(0))
    attuned = layout.attuned(noise)
    fine = noise - blocks(noise).repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(attuned - blocks(attuned).repeat_interleave(4, 1).repeat_interleave(4, 2), fine)
    means = [
        blocks(attuned[:, top : top + 32, left : left + 32])[:, :6, :6].flatten(1).sort(1).values
        for top, left in layout.corners
    ]
    for other in means[1:]:
        torch.testing.assert_close(other, means[0])
    many = torch.stack([layout.attuned(torch.randn(3, 56, 56)) for _ in range(200)])
    assert many.std().item() == pytest.approx(1, abs=0.01)
    top, left = layout.corners[-1]
    window = many[:, :, top : top + 24, left : left + 24]  # of one period: no two of its pixels have a part in common
    assert (window[..., :-4] * window[..., 4:]).mean().abs() < 0.01
    assert (window[..., :-1] * window[..., 1:]).mean().abs() < 0.01


def blocks(picture):
    return torch.nn.functional.avg_pool2d(picture[None], 4)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_no_window_is_the_picture_goes_on(layout):
    covered = layout.covered()
    assert covered.mean() > 0.5 and set(covered.unique().tolist()) <= {0.0, 1.0}
    flat = torch.where(covered > 0, 0.3, 9.0).expand(3, 56, 56)
    torch.testing.assert_close(layout.filled(flat), torch.full((3, 56, 56), 0.3))
    picture = torch.rand(3, 56, 56)
    filled = layout.filled(picture)
    assert torch.equal(filled * covered, picture * covered)
    assert ((filled >= 0) & (filled <= 1)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_that_agree_make_the_whole(layout):
    picture, blend = torch.randn(3, 56, 56), Blend(56, 56, 32, layout.corners)
    for top, left in layout.corners:
        blend.add(picture[:, top : top + 32, left : left + 32], top, left)
    torch.testing.assert_close(blend.whole(), picture * layout.covered())


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 1.0}, {"one_pass": True}, {"sampler": "ddim"}])
def test_each_window_is_painted_by_its_own_words(pipe, options):
    """Where only one window is, a step is that of its words alone."""
    given = {"num_inference_steps": 5, "seeds": [3], "size": 16} | options
    (pair,) = pipe.prepare([PAIR], **given)
    begun = pair.sample.clone()
    assert begun.shape == (3, 28, 28)
    alone = pipe.prepare(list(layout_of(PAIR, 16).captions), **given | {"seeds": [3, 3]})
    for row, left in zip(alone, (0, 12), strict=True):
        row.stage.sample = begun[:, 6:22, left : left + 16].clone()
    pipe.denoise_step([pair, *alone])
    apple, cat = (row.sample for row in alone)
    torch.testing.assert_close(pair.sample[:, 6:22, :12], apple[:, :, :12], atol=1e-5, rtol=0)
    torch.testing.assert_close(pair.sample[:, 6:22, 16:], cat[:, :, 4:], atol=1e-5, rtol=0)
    assert (apple - cat).abs().max() > 1e-3


def test_a_pair_is_as_large_as_any_picture(pipe):
    for side in (16, 32):
        assert pipe(PAIR, size=side, num_inference_steps=2).images[0].size == (side, side)
    for side in (16, 50):
        image = Image.effect_noise((side, side), 60).convert("RGB")
        assert pipe(PAIR, image=image, num_inference_steps=2).images[0].size == (side, side)


def test_a_variation_leaves_alone_what_no_window_shows(pipe):
    image = Image.effect_noise((28, 28), 60).convert("RGB")
    (row,) = pipe.prepare([PAIR], seeds=[1], images=[image], size=16, num_inference_steps=4)
    while not row.finished:
        pipe.denoise_step([row])
    changed = (row.sample - from_pil(image)).abs().amax(0) > 1e-3
    assert not changed[:6].any() and not changed[22:].any() and changed[6:22].any()


def test_of_a_picture_that_is_no_square_a_pair_is_one_prompt(pipe):
    image = Image.effect_noise((40, 24), 60).convert("RGB")
    (row,) = pipe.prepare([PAIR], seeds=[1], images=[image], num_inference_steps=2)
    assert row.stage.layout is None and row.captions == ()


def test_a_pair_of_a_batch_is_the_pair_alone(pipe):
    prompts, seeds = ["a red cat", PAIR, "a boat above a house", "three cats"], [4, 5, 6, 7]
    rows = pipe.prepare(prompts, seeds=seeds, num_inference_steps=4)
    while not rows[0].finished:
        pipe.denoise_step(rows)
    for prompt, seed, row in zip(prompts, seeds, rows, strict=True):
        (alone,) = pipe.prepare([prompt], seeds=[seed], num_inference_steps=4)
        while not alone.finished:
            pipe.denoise_step([alone])
        torch.testing.assert_close(row.sample, alone.sample, atol=1e-4, rtol=0)


def test_rows_are_counted(pipe):
    (pair,) = pipe.prepare([PAIR], seeds=[1], num_inference_steps=2, size=32)
    assert pair.call_rows == 4  # two windows, with words and without
    pipe.denoise_step([pair])
    pipe.denoise_step([pair])
    assert pair.call_rows == 1  # it is being sharpened
    (three,) = pipe.prepare(["three cats"], seeds=[1], num_inference_steps=2, guidance_scale=1.0)
    assert three.call_rows == 3
