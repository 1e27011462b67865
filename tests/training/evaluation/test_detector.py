import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from studio.training.data.renderer import SceneRenderer
from studio.training.data.scenes import TINTS, SceneMaker, SceneObject
from studio.training.evaluation import detector as module
from studio.training.evaluation.compositions import (
    PAIR,
    Composition,
    check_composition,
    compose_scene,
    draw_compositions,
)
from studio.training.evaluation.detector import (
    CELLS,
    ComposedPictures,
    Detection,
    DetectorConfig,
    cached_detector,
    crop_windows,
    detect,
    find_peaks,
    heatmap_targets,
    train_detector,
    window_around,
)

TINY = DetectorConfig(updates=2, batch=4)


class FakeDetector(nn.Module):
    """Predicts the given heat at cells (x, y); a bright picture as concept 1 in tint 2, a dark one as 0 in tint 0."""

    def __init__(self, heat: dict[tuple[int, int], float]) -> None:
        super().__init__()
        self.heat = nn.Parameter(torch.full((1, 1, CELLS, CELLS), -9.0), requires_grad=False)
        for (x, y), share in heat.items():
            self.heat[0, 0, y, x] = torch.tensor(share).logit()

    def forward(self, pictures):
        bright = (pictures.mean((1, 2, 3)) > 0).long()
        return self.heat.expand(len(pictures), -1, -1, -1), torch.eye(2)[bright], torch.eye(8)[2 * bright]


def test_each_peak_is_an_object_named_by_its_own_window():
    halves = torch.full((1, 3, 64, 64), -1.0)
    halves[..., 32:] = 1  # bright to the right
    (detections,) = detect(FakeDetector({(1, 3): 0.6, (2, 3): 0.5, (6, 4): 0.9, (4, 0): 0.1}), halves)
    assert [(found.concept, found.tint) for found in detections] == [(1, 2), (0, 0)]  # neighbours are one object
    assert [found.heat for found in detections] == pytest.approx([0.9, 0.6])
    assert (detections[0].x, detections[0].y) == pytest.approx((6.5 / CELLS, 4.5 / CELLS), abs=1e-3)
    between_two_cells = (1.5 * 0.6 + 2.5 * 0.5) / 1.1 / CELLS
    assert detections[1].x == pytest.approx(between_two_cells, abs=1e-3)


def test_a_single_object_is_the_whole_picture():
    detections = detect(FakeDetector({}), torch.ones(2, 3, 64, 64), single=True)
    assert detections == [[Detection(1, 2, 0.5, 0.5, 1.0, (1, 0))]] * 2


def test_without_peaks_nothing_is_detected():
    assert detect(FakeDetector({}), torch.zeros(2, 3, 64, 64)) == [[], []]


def test_a_window_reaches_to_the_next_centre():
    centres = [(0.25, 0.5), (0.75, 0.5), (0.5, 0.1)]
    assert window_around(centres[:2], 1) == (0.75, 0.5, 0.5)
    assert window_around(centres, 0) == (0.25, 0.5, pytest.approx(math.hypot(0.25, 0.4)))
    assert window_around([(0.6, 0.4)], 0) == (0.5, 0.5, 1.0)


def test_cropping_enlarges_the_window():
    ramp = torch.linspace(-1, 1, 64).expand(2, 3, 64, 64)
    whole, right = crop_windows(ramp, [(0.5, 0.5, 1.0), (0.75, 0.5, 0.5)])
    assert torch.allclose(whole, ramp[0], atol=1e-5)
    assert right[0, 0, 0].item() == pytest.approx(0, abs=0.03) and right[0, 0, -1].item() == pytest.approx(1, abs=0.03)


def test_heat_is_at_the_centres_of_objects(sprites):
    scene = compose_scene(Composition((2, 5), 0, "red", relation="left of"), SceneMaker(sprites, seed=0))
    first = SceneObject(scene.objects[0].sprite, 2.5 / CELLS, 4.5 / CELLS, 0.4)
    second = SceneObject(scene.objects[1].sprite, 0.75, 0.5, 0.4)
    heat = heatmap_targets([replace(scene, objects=(first, second))])
    assert heat[0, 0, 4, 2] == 1 and heat[0, 0, :, :2].max() < 0.3
    assert heat[0, 0, 3:5, 5:7].flatten().tolist() == pytest.approx([0.5] * 4, abs=0.01)  # on a corner of four cells
    (x, y, _), *_ = find_peaks(heat[0])
    assert (x, y) == pytest.approx((first.x, first.y), abs=0.01)


def test_training_scenes_are_of_every_kind_with_visible_tints(sprites):
    pictures = ComposedPictures(sprites, seed=0)
    scenes = [pictures.draw_scene() for _ in range(300)]
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}
    assert {item.tint for scene in scenes for item in scene.objects} == {None, *TINTS}
    for scene in scenes:
        assert {scene.background, scene.second_background}.isdisjoint({i.tint for i in scene.objects} - {None})
        assert len(scene.objects) < 3 or len({item.tint for item in scene.objects}) == 1
    assert {item.sprite for scene in scenes for item in scene.objects} == set(range(len(sprites)))


def test_it_counts_objects_and_distinguishes_a_relation_from_its_inverse(sprites, detector):
    compositions = draw_compositions(sprites, range(len(sprites.concepts)), 96, seed=1)
    maker = SceneMaker(sprites, seed=9)
    scenes = [compose_scene(composition, maker) for composition in compositions]
    detections = detect(detector, SceneRenderer(sprites).render(scenes, 64))
    results = list(zip(compositions, detections, strict=True))
    counted = [check_composition(c, found)["count right"] for c, found in results if c.count > 1]
    assert sum(counted) > 0.7 * len(counted)
    pairs = [(c, found) for c, found in results if c.kind == PAIR]
    right = [check_composition(c, found)["relation right"] for c, found in pairs]
    assert sum(right) > 0.7 * len(right)
    inverse = [check_composition(replace(c, concepts=c.concepts[::-1]), found)["relation right"] for c, found in pairs]
    assert not any(one and other for one, other in zip(right, inverse, strict=True))


def test_detections_do_not_depend_on_the_batch_size(sprites, detector):
    pictures, _ = ComposedPictures(sprites, seed=3).draw(12)
    for together, apart in zip(detect(detector, pictures), detect(detector, pictures, batch_size=5), strict=True):
        assert [(found.concept, found.tint) for found in together] == [(found.concept, found.tint) for found in apart]


def test_training_is_deterministic(sprites, classifier):
    one, two = (train_detector(sprites, classifier, TINY).state_dict() for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_it_is_trained_once_for_each_classifier_and_cached(sprites, classifier, tmp_path, monkeypatch):
    first = cached_detector(sprites, tmp_path, classifier, "digest", TINY)
    monkeypatch.setattr(module, "train_detector", lambda *_: pytest.fail("trained again"))
    second = cached_detector(sprites, tmp_path, classifier, "digest", TINY)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    with pytest.raises(pytest.fail.Exception):
        cached_detector(sprites, tmp_path, classifier, "another digest", TINY)
