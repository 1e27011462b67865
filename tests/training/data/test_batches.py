import random

import pytest
import torch
import torch.nn.functional as F

from studio.diffusion.composition import parse_layout
from studio.diffusion.conditioning import Task
from studio.training.data.batches import (
    GENERATION_SHARES,
    MAX_NOISE_LEVEL,
    SUPER_RESOLUTION_SHARES,
    Batch,
    BatchMaker,
    compress_jpeg,
    degrade,
    random_crop,
    random_hole,
)
from studio.training.data.renderer import SceneRenderer
from studio.training.data.scenes import SceneMaker, SceneMix

ALL_TASKS = {Task.TEXT_TO_IMAGE: 0.6, Task.INPAINT: 0.2, Task.SUPER_RESOLUTION: 0.2}


def batch_maker(sprites, seed: int = 0) -> BatchMaker:
    return BatchMaker(SceneMaker(sprites, seed), SceneRenderer(sprites), seed)


@pytest.fixture(scope="module")
def batch(sprites) -> Batch:
    return batch_maker(sprites).make(300, 32, ALL_TASKS)


def test_tasks_have_their_shares(sprites, batch):
    for task, share in ALL_TASKS.items():
        assert (batch.task == task).float().mean().item() == pytest.approx(share, abs=0.08)
    assert sum(GENERATION_SHARES.values()) == sum(SUPER_RESOLUTION_SHARES.values()) == 1
    assert (batch_maker(sprites).make(8, 32, SUPER_RESOLUTION_SHARES).task == Task.SUPER_RESOLUTION).all()


def test_shapes_and_ranges(batch):
    assert batch.picture.shape == (300, 3, 32, 32) and batch.condition.shape == (300, 7, 32, 32)
    assert batch.picture.min() >= -1 and batch.picture.max() <= 1
    assert len(batch.captions) == 300
    assert batch.noise_level.min() == 0 and batch.noise_level.max() <= MAX_NOISE_LEVEL


def test_text_to_image_has_no_condition(batch):
    rows = batch.task == Task.TEXT_TO_IMAGE
    assert (batch.condition[rows] == 0).all()
    assert (batch.noise_level[rows] == 0).all()


def test_only_restored_pictures_show_several_objects(sprites):
    scenes = SceneMaker(sprites, 2, mix=SceneMix(0.3, 0.4))
    batch = BatchMaker(scenes, SceneRenderer(sprites), 2).make(300, 32, ALL_TASKS)
    several = torch.tensor([parse_layout(caption, 32) is not None for caption in batch.captions])
    generated = batch.task == Task.TEXT_TO_IMAGE
    assert not several[generated].any() and several[~generated].sum() > 30


def test_known_pixels_are_the_picture(batch):
    rows = batch.task == Task.INPAINT
    known, mask = batch.condition[rows, :3], batch.condition[rows, 3:4]
    assert torch.equal(known, batch.picture[rows] * mask)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert ((mask == 0).flatten(1).sum(1) > 0).all()  # no hole is empty
    assert (batch.condition[rows, 4:] == 0).all()


def test_the_low_resolution_picture_is_the_picture_shrunk(batch):
    rows = (batch.task == Task.SUPER_RESOLUTION) & (batch.noise_level == 0)
    assert rows.sum() > 10
    assert (batch.condition[rows, :4] == 0).all()
    shrunk = F.avg_pool2d(batch.condition[rows, 4:], 4)
    truth = F.avg_pool2d(batch.picture[rows], 4)
    assert (shrunk - truth).abs().mean() < 0.05


def test_noise_on_the_low_resolution_picture_has_the_stated_level(sprites):
    batch = batch_maker(sprites, seed=5).make(200, 32, SUPER_RESOLUTION_SHARES)
    level = batch.noise_level
    error = F.avg_pool2d(batch.condition[:, 4:] - batch.picture, 4).flatten(1).std(1)
    quiet, loud = error[level == 0].mean(), error[level > 0.2].mean()
    assert 0.3 < (level == 0).float().mean() < 0.7
    assert loud > quiet + 0.03


def test_captions_are_dropped_at_the_stated_rate(batch):
    rows = [i for i, task in enumerate(batch.task.tolist()) if task == Task.TEXT_TO_IMAGE]
    assert sum(batch.captions[i] == "" for i in rows) / len(rows) == pytest.approx(0.1, abs=0.07)


def test_same_seed_same_batches(sprites):
    first, second, other = batch_maker(sprites, 7), batch_maker(sprites, 7), batch_maker(sprites, 8)
    for _ in range(2):
        a, b = first.make(12, 32, ALL_TASKS), second.make(12, 32, ALL_TASKS)
        assert torch.equal(a.picture, b.picture) and torch.equal(a.condition, b.condition)
        assert torch.equal(a.task, b.task) and a.captions == b.captions
    assert not torch.equal(a.picture, other.make(12, 32, ALL_TASKS).picture)


def test_crops_lie_inside_the_scene():
    rng = random.Random(0)
    crops = [random_crop(rng) for _ in range(500)]
    assert all(0 <= c.left and c.left + c.side <= 1 + 1e-9 and c.top + c.side <= 1 + 1e-9 for c in crops)
    assert min(c.side for c in crops) >= 0.45 and 0.3 < sum(c.side == 1 for c in crops) / 500 < 0.5


def test_holes_are_of_many_sizes():
    rng = random.Random(0)
    holes = torch.cat([random_hole(32, rng) for _ in range(200)])
    shares = holes.mean((1, 2, 3))
    assert set(holes.unique().tolist()) == {0.0, 1.0}
    assert 0.05 < (shares == 1).float().mean() < 0.18  # the whole picture
    assert shares.min() > 0 and (shares < 0.2).any() and ((shares > 0.4) & (shares < 0.6)).any()


def smooth_picture(cells: int) -> torch.Tensor:
    """Return (1, 3, 32, 32) of colours that change slowly."""
    noise = torch.rand(1, 3, cells, cells, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.interpolate(noise, size=(32, 32), mode="bilinear")


@pytest.mark.parametrize("factor", [2, 4])
def test_shrinking_keeps_the_mean(factor):
    rng = random.Random(0)
    picture = smooth_picture(4)
    for _ in range(12):
        low_res = degrade(picture, factor, rng)
        assert low_res.shape == (1, 3, 32 // factor, 32 // factor)
        assert (low_res.mean() - picture.mean()).abs() < 0.03


def test_jpeg_is_nearer_at_a_better_quality():
    picture = smooth_picture(8)
    errors = [(compress_jpeg(picture, quality) - picture).abs().mean().item() for quality in (95, 60, 20)]
    assert errors[0] < 0.06 and errors == sorted(errors)
