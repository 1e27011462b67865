from dataclasses import replace

import pytest
import torch
from torch import nn

from studio.training import detector as module
from studio.training.compositions import PAIR, Question, answers, compose, questions
from studio.training.detector import (
    CELLS,
    OWN,
    ComposedPictures,
    DetectorRecipe,
    cached_detector,
    find,
    targets,
    train_detector,
)
from studio.training.scenes import TINTS, Painter, SceneMaker, Thing

TINY = DetectorRecipe(updates=2, batch=4)


class Known(nn.Module):
    """Answers with logits that were given to it."""

    def __init__(self, *logits: torch.Tensor) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.logits = logits

    def forward(self, picture):
        return self.logits


def known(heat: dict[tuple[int, int], float]) -> Known:
    """Warmth by cell (x, y); the concept says the column, the tint the row."""
    warmth = torch.full((1, 1, CELLS, CELLS), -9.0)
    for (x, y), share in heat.items():
        warmth[0, 0, y, x] = torch.tensor(share).logit()
    column = torch.eye(CELLS)[:, None, :].expand(-1, CELLS, -1)[None]
    return Known(warmth, column, column.transpose(2, 3))


def test_peaks_are_things_the_surest_first():
    found = find(known({(1, 3): 0.6, (2, 3): 0.5, (5, 4): 0.9, (4, 0): 0.1}), torch.zeros(1, 3, 64, 64))[0]
    assert [(thing.concept, thing.tint) for thing in found] == [(5, 4), (1, 3)]  # neighbours are one thing
    assert [(thing.x, thing.y) for thing in found] == [(5.5 / CELLS, 4.5 / CELLS), (1.5 / CELLS, 3.5 / CELLS)]
    assert [thing.heat for thing in found] == pytest.approx([0.9, 0.6])


def test_nothing_is_found_where_nothing_is_warm():
    assert find(known({}), torch.zeros(1, 3, 64, 64)) == [[]]


def test_targets_are_warm_at_things_and_nowhere_else(sprites):
    scene = compose(Question((2, 5), 0, "red", relation="left of"), SceneMaker(sprites, seed=0))
    first, second = (
        Thing(scene.things[0].sprite, 2.5 / CELLS, 4.5 / CELLS, 0.4),
        Thing(scene.things[1].sprite, 0.75, 0.5, 0.4),
    )
    heat, concept, tint = targets([replace(scene, things=(first, replace(second, tint="blue")))], sprites)
    assert heat[0, 0, 4, 2] == 1 and heat[0, 0, :, :2].max() < 0.3
    assert heat[0, 0, 3:5, 5:7].flatten().tolist() == pytest.approx([0.5] * 4, abs=0.01)  # on a corner of four cells
    assert concept[0, 4, 2] == 2 and (concept[0, 3:5, 5:7] == 5).all()
    assert tint[0, 4, 2] == OWN and (tint[0, 3:5, 5:7] == TINTS.index("blue")).all()
    assert (concept >= 0).sum() == (tint >= 0).sum() == 5


def test_it_is_shown_every_kind_and_colours_that_can_be_seen(sprites):
    pictures = ComposedPictures(sprites, seed=0)
    scenes = [pictures.draw() for _ in range(300)]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    assert {thing.tint for scene in scenes for thing in scene.things} == {None, *TINTS}
    assert all(
        thing.tint not in (scene.ground, scene.ground2) for scene in scenes for thing in scene.things if thing.tint
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
        assert [replace(thing, heat=0) for thing in together] == [replace(thing, heat=0) for thing in apart]


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
