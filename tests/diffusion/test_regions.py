"""Two things in one picture: how a prompt is read, and that each half is what its own words say."""

from __future__ import annotations

import pytest
import torch

from studio.diffusion.regions import regions_of, share, together

PAIR = "a red apple left of a blue cat"


@pytest.mark.parametrize(
    ("prompt", "first", "second", "half"),
    [
        (PAIR, "a red apple left of a red apple", "a blue cat left of a blue cat", "left"),
        ("a dog to the right of a cat.", "a dog right of a dog.", "a cat right of a cat.", "right"),
        ("Apple above an owl", "Apple above an Apple", "an owl above an owl", "top"),
        (
            "a slice of cake below grapes, flat style, on a blue background",
            "a slice of cake below a slice of cake, flat style, on a blue background",
            "grapes below grapes, flat style, on a blue background",
            "bottom",
        ),
        (
            "a noto picture of a cat on top of a dog on red",
            "a noto picture of a cat above a cat on red",
            "a noto picture of a dog above a dog on red",
            "top",
        ),
        (
            "striped red and blue background, a cat and a dog",
            "striped red and blue background, a cat left of a cat",
            "striped red and blue background, a dog left of a dog",
            "left",
        ),
        ("a cat next to a dog in oils", "a cat left of a cat in oils", "a dog left of a dog in oils", "left"),
    ],
)
def test_a_prompt_of_two_things_is_read_as_two(prompt, first, second, half):
    regions = regions_of(prompt)
    assert [region.caption for region in regions] == [first, second]
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    assert [region.half for region in regions] == [half, opposite[half]]


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
    ],
)
def test_other_prompts_are_one(prompt):
    assert regions_of(prompt) == ()


@pytest.mark.parametrize(("one", "other"), [("left", "right"), ("top", "bottom")])
def test_halves_make_the_whole(one, other):
    first, second = share(one, 32, 24), share(other, 32, 24)
    torch.testing.assert_close(first + second, torch.ones(32, 24))
    assert first[0, 0] == 1 and first[-1, -1] == 0
    assert share(None, 3, 4).eq(1).all()
    picture = torch.randn(3, 32, 24)
    torch.testing.assert_close(together([picture, picture], [one, other]), picture)
    assert together([picture], [None]) is picture


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 1.0}, {"one_pass": True}, {"sampler": "ddim"}])
@pytest.mark.parametrize("side", [16, 32])
def test_each_half_is_painted_by_its_own_words(pipe, options, side):
    """One step of a run is linear in what the network says, so that halves of steps are steps of halves."""
    from PIL import Image

    image = Image.effect_noise((side, side), 60).convert("RGB")  # where larger: several windows
    given = {"num_inference_steps": 5, "seeds": [3], "size": side, "images": [image], "strength": 1.0} | options
    (pair,), (apple,), (cat,) = (
        pipe.prepare([prompt], **given) for prompt in (PAIR, *(region.caption for region in regions_of(PAIR)))
    )
    pipe.denoise_step([pair, apple, cat])
    shape = pair.sample.shape[1:]
    expected = share("left", *shape) * apple.sample + share("right", *shape) * cat.sample
    torch.testing.assert_close(pair.sample, expected, atol=1e-5, rtol=0)
    assert (apple.sample - cat.sample).abs().max() > 1e-3


def test_a_pair_of_a_batch_is_the_pair_alone(pipe):
    prompts, seeds = ["a red cat", PAIR, "a boat above a house"], [4, 5, 6]
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
    assert pair.call_rows == 3  # two halves, and without words
    pipe.denoise_step([pair])
    pipe.denoise_step([pair])
    assert pair.call_rows == 1  # it is being sharpened
