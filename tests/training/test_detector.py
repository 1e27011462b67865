import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from studio.training.data.scenes import TINTS, Painter, SceneMaker, Thing
from studio.training.evaluation import detector as module
from studio.training.evaluation.compositions import PAIR, Question, answers, compose, questions
from studio.training.evaluation.detector import (
    CELLS,
    ComposedPictures,
    DetectorRecipe,
    Found,
    cached_detector,
    cut,
    find,
    peaks,
    train_detector,
    warmth,
    window,
)

TINY = DetectorRecipe(updates=2, batch=4)


class Known(nn.Module):
    """Warm at the cells (x, y) that are given to it; a bright picture is concept 1 in tint 2, a dark one 0 in 0."""

    def __init__(self, heat: dict[tuple[int, int], float]) -> None:
        super().__init__()
        self.heat = nn.Parameter(torch.full((1, 1, CELLS, CELLS), -9.0), requires_grad=False)
        for (x, y), share in heat.items():
            self.heat[0, 0, y, x] = torch.tensor(share).logit()

    def forward(self, picture):
        bright = (picture.mean((1, 2, 3)) > 0).long()
        return self.heat.expand(len(picture), -1, -1, -1), torch.eye(2)[bright], torch.eye(8)[2 * bright]


def test_peaks_are_things_the_surest_first_and_each_is_looked_at_alone():
    halves = torch.full((1, 3, 64, 64), -1.0)
    halves[..., 32:] = 1  # bright to the right
    found = find(Known({(1, 3): 0.6, (2, 3): 0.5, (6, 4): 0.9, (4, 0): 0.1}), halves)[0]
    assert [(thing.concept, thing.tint) for thing in found] == [(1, 2), (0, 0)]  # neighbours are one thing
    assert [thing.heat for thing in found] == pytest.approx([0.9, 0.6])
    assert (found[0].x, found[0].y) == pytest.approx((6.5 / CELLS, 4.5 / CELLS), abs=1e-3)
    assert found[1].x == pytest.approx((1.5 * 0.6 + 2.5 * 0.5) / 1.1 / CELLS, abs=1e-3)  # between the two cells


def test_a_thing_alone_is_the_whole_picture():
    found = find(Known({}), torch.ones(2, 3, 64, 64), alone=True)
    assert found == [[Found(1, 2, 0.5, 0.5, 1.0, (1, 0))]] * 2


def test_nothing_is_found_where_nothing_is_warm():
    assert find(Known({}), torch.zeros(2, 3, 64, 64)) == [[], []]


def test_a_window_reaches_to_the_next_thing():
    places = [(0.25, 0.5), (0.75, 0.5), (0.5, 0.1)]
    assert window(places[:2], 1) == (0.75, 0.5, 0.5)
    assert window(places, 0) == (0.25, 0.5, pytest.approx(math.hypot(0.25, 0.4)))
    assert window([(0.6, 0.4)], 0) == (0.5, 0.5, 1.0)


def test_cutting_enlarges_the_window():
    ramp = torch.linspace(-1, 1, 64).expand(2, 3, 64, 64)
    whole, right = cut(ramp, [(0.5, 0.5, 1.0), (0.75, 0.5, 0.5)])
    assert torch.allclose(whole, ramp[0], atol=1e-5)
    assert right[0, 0, 0].item() == pytest.approx(0, abs=0.03) and right[0, 0, -1].item() == pytest.approx(1, abs=0.03)


def test_things_are_warm_and_nothing_else(sprites):
    scene = compose(Question((2, 5), 0, "red", relation="left of"), SceneMaker(sprites, seed=0))
    first = Thing(scene.things[0].sprite, 2.5 / CELLS, 4.5 / CELLS, 0.4)
    second = Thing(scene.things[1].sprite, 0.75, 0.5, 0.4)
    heat = warmth([replace(scene, things=(first, second))])
    assert heat[0, 0, 4, 2] == 1 and heat[0, 0, :, :2].max() < 0.3
    assert heat[0, 0, 3:5, 5:7].flatten().tolist() == pytest.approx([0.5] * 4, abs=0.01)  # on a corner of four cells
    (x, y, _), *_ = peaks(heat[0])
    assert (x, y) == pytest.approx((first.x, first.y), abs=0.01)


def test_it_is_shown_every_kind_and_colours_that_can_be_seen(sprites):
    pictures = ComposedPictures(sprites, seed=0)
    scenes = [pictures.draw() for _ in range(300)]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    assert {thing.tint for scene in scenes for thing in scene.things} == {None, *TINTS}
    assert all(
        thing.tint not in (scene.background, scene.ground2) for scene in scenes for thing in scene.things if thing.tint
    )
    assert all(len({thing.tint for thing in scene.things}) == 1 for scene in scenes if len(scene.things) == 3)
    assert {thing.sprite for scene in scenes for thing in scene.things} == set(range(len(sprites)))


def test_it_sees_what_is_composed_and_that_a_relation_is_flipped(sprites, detector):
    asked = questions(sprites, range(len(sprites.concepts)), 96, seed=1)
    maker = SceneMaker(sprites, seed=9)
    found = find(detector, Painter(sprites)([compose(question, maker) for question in asked], 64))
    counted = [answers(q, things)["count right"] for q, things in zip(asked, found, strict=True) if q.count > 1]
    assert sum(counted) > 0.8 * len(counted)
    pairs = [(q, things) for q, things in zip(asked, found, strict=True) if q.kind == PAIR]
    right = [answers(q, things)["relation right"] for q, things in pairs]
    assert sum(right) > 0.7 * len(right)
    flipped = [answers(replace(q, concepts=q.concepts[::-1]), things) for q, things in pairs]
    assert not any(one and other["relation right"] for one, other in zip(right, flipped, strict=True))


def test_what_it_finds_does_not_depend_on_the_batch(sprites, detector):
    pictures, _ = ComposedPictures(sprites, seed=3)(12)
    for together, apart in zip(find(detector, pictures), find(detector, pictures, rows=5), strict=True):
        assert [(thing.concept, thing.tint) for thing in together] == [(thing.concept, thing.tint) for thing in apart]


def test_training_is_deterministic(sprites, trained):
    one, two = (train_detector(sprites, trained, TINY).state_dict() for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_trained_once_and_kept(sprites, trained, tmp_path, monkeypatch):
    first = cached_detector(sprites, tmp_path, trained, "judge", TINY)
    monkeypatch.setattr(module, "train_detector", lambda *_: pytest.fail("trained again"))
    second = cached_detector(sprites, tmp_path, trained, "judge", TINY)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    with pytest.raises(pytest.fail.Exception):
        cached_detector(sprites, tmp_path, trained, "another judge", TINY)
