"""Tiles: cut and blended again, they are the picture."""

from __future__ import annotations

import torch

from studio.diffusion.conditioning import Condition, enlarge
from studio.diffusion.tiling import TileBlender, tile_corners


def test_tiles_of_a_picture_blend_to_the_picture(pipe):
    """Whatever the tile size."""
    full = torch.randn(3, 100, 71)

    def again(picture, size):
        corners = tile_corners(*picture.shape[1:], size)
        pieces = TileBlender(*picture.shape[1:], size, corners)
        for top, left in corners:
            pieces.add(picture[:, top : top + size, left : left + size].clone(), top, left)
        return pieces.result()

    torch.testing.assert_close(again(full, 32), full, atol=1e-5, rtol=0)
    assert torch.equal(again(full, 128), full)
    narrow = full[:, :, :20]
    torch.testing.assert_close(again(narrow, 32), narrow, atol=1e-5, rtol=0)


def test_tiles_that_disagree_leave_no_seam():
    """Windows that disagree by a constant each: the blended picture has no step anywhere."""
    torch.manual_seed(0)
    height = width = 256
    corners = tile_corners(height, width, 64)
    pieces = TileBlender(height, width, 64, corners)
    for top, left in corners:
        pieces.add(torch.full((1, 64, 64), torch.randn(()).item()), top, left)
    full = pieces.result()[0]
    step = max(full.diff(dim=0).abs().max().item(), full.diff(dim=1).abs().max().item())
    assert step < 4 / 16  # the largest disagreement, spread over an overlap of 16 px


def test_a_condition_is_cropped_to_tiles():
    picture, hole, low = torch.randn(3, 40, 48), (torch.rand(1, 40, 48) > 0.5).float(), torch.randn(3, 20, 24)
    nothing = torch.zeros(4, 40, 48)
    for ours, theirs in (
        (Condition.inpaint(picture, hole), torch.cat([picture * (1 - hole), 1 - hole, nothing[:3]])),
        (Condition.super_resolution(low, (40, 48)), torch.cat([nothing, enlarge(low[None], (40, 48))[0]])),
        (Condition((40, 48)), torch.zeros(7, 40, 48)),
    ):
        assert torch.equal(ours.crop(0, 0, 40, 48, picture), theirs)
        assert torch.equal(ours.crop(5, 9, 16, 32, picture), theirs[:, 5:21, 9:41])
