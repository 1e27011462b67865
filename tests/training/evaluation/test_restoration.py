import math
import sys

import pytest
import torch
from PIL import Image

from studio.training.evaluation.classifier import LabelledPictures
from studio.training.evaluation.restoration import (
    draw_holes,
    evaluate_super_resolution,
    feature_distance,
    inpaint_telea,
    psnr,
    scenes_to_restore,
    to_tensor,
)
from tests.training.evaluation.test_evaluate import enlarge_bicubic


def test_psnr_of_known_errors():
    truth = torch.zeros(2, 3, 8, 8)
    off = truth + 0.2  # a tenth of the range
    assert torch.allclose(psnr(off, truth), torch.tensor([20.0, 20.0]))
    assert psnr(truth, truth)[0].item() == pytest.approx(58.9, abs=0.03)
    off[:, :, :4] = 0
    half = torch.zeros(2, 1, 8, 8)
    half[:, :, 4:] = 1
    assert torch.allclose(psnr(off, truth, half), torch.tensor(20.0))
    assert torch.allclose(psnr(off, truth), torch.tensor(20 + 10 * math.log10(2)))


def test_features_of_similar_pictures_are_near(sprites, classifier):
    truth, _ = LabelledPictures(sprites, seed=8).draw(24)
    nearly = (truth + 0.02).clamp(-1, 1)
    assert (feature_distance(classifier, truth, truth) < 1e-3).all()
    others = feature_distance(classifier, truth.flip(0), truth).mean()
    assert feature_distance(classifier, nearly, truth).mean() < 0.5 * others


def test_scenes_to_restore_are_held_out_and_holes_have_their_share(sprites):
    scenes, truth = scenes_to_restore(sprites, 24, seed=0)
    held_out = set(sprites.held_out_pairs())
    for scene in scenes:
        pairs = {(int(sprites.concept[item.sprite]), int(sprites.style[item.sprite])) for item in scene.objects}
        assert pairs <= held_out
    holes = draw_holes(scenes, truth, sprites, seed=0)
    assert torch.equal(holes, draw_holes(scenes, truth, sprites, seed=0))
    assert holes.mean((1, 2, 3)).min() >= 0.05 and holes.mean((1, 2, 3)).max() <= 0.5


def test_telea_fills_a_plain_background():
    picture, mask = Image.new("RGB", (32, 32), (200, 40, 90)), Image.new("L", (32, 32))
    mask.paste(255, (10, 10, 20, 20))
    damaged = picture.copy()
    damaged.paste((0, 0, 0), (10, 10, 20, 20))
    assert (to_tensor([inpaint_telea(damaged, mask)]) - to_tensor([picture])).abs().max() < 0.02


def test_without_opencv_a_message_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SystemExit, match="pip install opencv-python-headless"):
        inpaint_telea(Image.new("RGB", (8, 8)), Image.new("L", (8, 8)))


def test_bicubic_does_not_differ_from_itself(sprites):
    _, truth = scenes_to_restore(sprites, 6, seed=0)
    column, strip = evaluate_super_resolution(enlarge_bicubic, truth, 2, seed=0)
    assert column["PSNR, difference"]["value"] == 0
    assert 15 < column["PSNR, ours"]["value"] < 45
    assert [len(part) for part in strip] == [6] * 4 and strip[0][0].size == (32, 32)
