"""Pairs for the upscaler: reproducible, in range, without held-out artwork, with the damage's true level."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from studio.training.data.sprites import STYLES
from studio.training.upscaling import pairs as pairs_module
from studio.training.upscaling.drawings import SHAPES, draw_picture
from studio.training.upscaling.pairs import PairMaker, draw_held_out, paste_sprite
from studio.training.upscaling.resampling import to_levels


def test_the_same_seed_gives_the_same_pairs(sprites):
    first, again, other = (PairMaker(sprites, seed).make(12, 16) for seed in (1, 1, 2))
    for name in ("picture", "small", "noise_level"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.picture, other.picture)


def test_pictures_are_of_256_levels_and_small_ones_half_as_large(sprites):
    pairs = PairMaker(sprites, 3).make(40, 16)
    assert pairs.picture.shape == (40, 3, 16, 16) and pairs.small.shape == (40, 3, 8, 8)
    torch.testing.assert_close(to_levels(pairs.picture), pairs.picture)
    undamaged = pairs.small[pairs.noise_level == 0]
    assert 20 < len(undamaged) < 40
    torch.testing.assert_close(to_levels(undamaged), undamaged)


def test_the_noise_level_is_the_root_mean_square_of_the_damage(sprites, monkeypatch):
    monkeypatch.setattr(pairs_module, "DAMAGED", 1.0)
    maker = PairMaker(sprites, 5)
    small = torch.rand(3, 12, 12) - 0.5
    for _ in range(12):
        damaged, level = maker.damage(small)
        assert level == pytest.approx((damaged - small).square().mean().sqrt().item())
        assert 0 < level < 0.6


def test_held_out_artwork_is_kept_from_training_and_alone_in_validation(sprites):
    colored = sprites.rgba.clone()
    colored[sprites.held_out] = torch.tensor([255, 0, 255, 255], dtype=torch.uint8)[:, None, None]
    colored[~sprites.held_out] = torch.tensor([0, 255, 0, 255], dtype=torch.uint8)[:, None, None]
    marked = replace(sprites, rgba=colored)
    maker = PairMaker(marked, 0)
    centers = torch.stack([maker.draw_artwork(16) for _ in range(60)])[:, :, 8, 8]
    assert ((centers - torch.tensor([-1.0, 1, -1])).abs().amax(1) < 0.01).any()
    assert not ((centers - torch.tensor([1.0, -1, 1])).abs().amax(1) < 0.01).any()
    held_out = draw_held_out(marked, 100, 16)
    assert len(held_out) == sprites.held_out.sum() < len(STYLES) * len(sprites.concepts)
    torch.testing.assert_close(held_out[:, :, 8, 8], torch.tensor([[1.0, -1, 1]]).expand(len(held_out), 3))


def test_a_pasted_sprite_is_opaque_inside_and_leaves_the_background_around():
    sprite = torch.full((4, 32, 32), 255, dtype=torch.uint8)
    picture = paste_sprite(sprite, 8.0, 4.0, 6.0, torch.full((3, 16, 16), -1.0))
    assert (picture[:, 6:14, 4:12] == 1).all()
    assert picture.sum() == pytest.approx(3 * (64 - (256 - 64)))
    halves = paste_sprite(sprite, 8.0, 4.5, 6.0, torch.full((3, 16, 16), -1.0))
    torch.testing.assert_close(halves[:, 8, 4], torch.zeros(3))  # half covered


def test_drawings_are_reproducible_and_every_shape_draws(monkeypatch):
    assert np.array_equal(draw_picture(32, random.Random(4)), draw_picture(32, random.Random(4)))
    for shape in SHAPES:
        monkeypatch.setattr("studio.training.upscaling.drawings.SHAPES", (shape,))
        monkeypatch.setattr("studio.training.upscaling.drawings.GRADIENTS", 0.0)
        colors = [len(np.unique(draw_picture(32, random.Random(seed)).reshape(-1, 3), axis=0)) for seed in range(6)]
        assert max(colors) > 1, shape.__name__
