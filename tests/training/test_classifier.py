from dataclasses import replace

import pytest
import torch

from studio.training.data.scenes import GROUNDS
from studio.training.evaluation import classifier
from studio.training.evaluation.classifier import (
    SIZE,
    Classifier,
    LabelledPictures,
    Recipe,
    augment,
    cached_classifier,
    digest,
    judge,
    train_classifier,
)
from tests.training.conftest import COLOURS


def test_it_learns_what_it_is_shown(sprites, trained):
    pictures, labels = LabelledPictures(sprites, seed=99)(240)
    verdict = judge(trained, pictures)
    assert (verdict.concept.argmax(1) == labels.concept).float().mean() > 0.9
    assert (verdict.style.argmax(1) == labels.style).float().mean() > 0.65
    assert (verdict.background.argmax(1) == labels.background).float().mean() > 0.85


def test_it_is_told_of_held_out_pairs(sprites):
    pictures = LabelledPictures(sprites, seed=0)
    _, labels = pictures(len(sprites))
    pairs = set(zip(labels.concept.tolist(), labels.style.tolist(), strict=True))
    assert len(pairs) == len(sprites)  # every pair once before any comes again


def test_pictures_show_their_labels(sprites):
    """On its ground, and in its own colours: a tinted red heart would be a blue heart."""
    pictures = LabelledPictures(sprites, seed=1)
    _, labels = pictures(48)
    picture = (pictures.paint(labels) + 1) / 2
    named = torch.tensor(list(GROUNDS.values()))
    corner = picture[:, :, 0, 0]
    assert torch.equal(torch.cdist(corner, named).argmin(1), labels.background)
    colours = torch.tensor(list(COLOURS.values())) / 255
    own = colours[labels.concept][:, :, None, None]
    assert ((picture - own).abs().amax(1) < 0.02).flatten(1).any(1).all()


def test_same_seed_same_pictures(sprites):
    one, two = LabelledPictures(sprites, seed=4), LabelledPictures(sprites, seed=4)
    for _ in range(2):
        assert torch.equal(one(20)[0], two(20)[0])


def test_augmentation_leaves_plain_grounds_plain():
    plain = torch.full((64, 3, SIZE, SIZE), 0.2)
    bent = augment(plain, torch.Generator().manual_seed(0))
    assert ((bent.mean((1, 2, 3)) - 0.2).abs() < 0.12).all()
    assert bent.std((2, 3)).max() < 0.1  # the grain, and nothing else
    assert bent.min() >= -1 and bent.max() <= 1


def test_a_verdict_does_not_depend_on_its_batch(sprites, trained):
    pictures, _ = LabelledPictures(sprites, seed=5)(10)
    together = judge(trained, pictures)
    apart = judge(trained, pictures, rows=3)
    assert torch.allclose(together.concept, apart.concept, atol=1e-4)
    assert torch.allclose(together.features, apart.features, atol=1e-4)


def test_pictures_of_other_sizes_are_judged_too(sprites, trained):
    pictures, labels = LabelledPictures(sprites, seed=6)(96)
    same = judge(trained, pictures).concept.argmax(1)
    for size in (SIZE // 2, 2 * SIZE):
        resized = torch.nn.functional.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True)
        assert (judge(trained, resized).concept.argmax(1) == same).float().mean() > 0.8


def test_training_is_deterministic(sprites):
    tiny = Recipe(width=4, views=1, batch=16)
    one, two = train_classifier(sprites, tiny), train_classifier(sprites, tiny)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


def test_trained_once_and_kept(sprites, tmp_path, monkeypatch):
    tiny = Recipe(width=4, views=1, batch=16)
    first, name = cached_classifier(sprites, tmp_path, tiny)
    monkeypatch.setattr(classifier, "train_classifier", lambda *_, **__: pytest.fail("trained again"))
    second, same = cached_classifier(sprites, tmp_path, tiny)
    assert name == same and [file.name for file in tmp_path.iterdir()] == [f"classifier-{name}.safetensors"]
    picture = torch.zeros(1, 3, SIZE, SIZE)
    assert torch.equal(judge(first, picture).concept, judge(second, picture).concept)


def test_other_sprites_or_another_recipe_are_another_judge(sprites):
    changed = sprites.rgba.clone()
    changed[0, 0, 60, 60] ^= 1
    names = {
        digest(sprites, Recipe()),
        digest(replace(sprites, rgba=changed), Recipe()),
        digest(replace(sprites, concepts=sprites.concepts[::-1]), Recipe()),
        digest(sprites, Recipe(seed=1)),
    }
    assert len(names) == 4
    # what is held out is no matter of the judge's
    assert digest(replace(sprites, held_out=~sprites.held_out), Recipe()) in names


def test_features_come_before_the_decision():
    model = Classifier(concepts=5, width=4).eval()
    verdict = judge(model, torch.zeros(2, 3, SIZE, SIZE))
    assert verdict.concept.shape == (2, 5) and verdict.features.shape == (2, model.concept.in_features)
    assert torch.allclose(model.concept(verdict.features), verdict.concept)
