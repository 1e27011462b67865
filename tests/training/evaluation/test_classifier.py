from dataclasses import replace

import pytest
import torch

from studio.training.data.scenes import BACKGROUND_COLORS
from studio.training.evaluation import classifier as module
from studio.training.evaluation.backbone import INPUT_SIZE
from studio.training.evaluation.classifier import (
    Classifier,
    ClassifierConfig,
    LabelledPictures,
    augment,
    cached_classifier,
    classifier_digest,
    classify,
    train_classifier,
)
from tests.training.conftest import COLOURS


def test_it_learns_concept_style_and_background(sprites, classifier):
    pictures, labels = LabelledPictures(sprites, seed=99).draw(240)
    predictions = classify(classifier, pictures)
    assert (predictions.concept.argmax(1) == labels.concept).float().mean() > 0.9
    assert (predictions.style.argmax(1) == labels.style).float().mean() > 0.65
    assert (predictions.background.argmax(1) == labels.background).float().mean() > 0.75


def test_it_is_trained_on_every_pair_held_out_or_not(sprites):
    pictures = LabelledPictures(sprites, seed=0)
    _, labels = pictures.draw(len(sprites))
    pairs = set(zip(labels.concept.tolist(), labels.style.tolist(), strict=True))
    assert len(pairs) == len(sprites)  # every pair once before any comes again


def test_pictures_show_their_labels(sprites):
    pictures = LabelledPictures(sprites, seed=1)
    _, labels = pictures.draw(48)
    picture = (pictures.render(labels) + 1) / 2
    named = torch.tensor(list(BACKGROUND_COLORS.values()))
    corner = picture[:, :, 0, 0]
    assert torch.equal(torch.cdist(corner, named).argmin(1), labels.background)
    colours = torch.tensor(list(COLOURS.values())) / 255
    own = colours[labels.concept][:, :, None, None]
    assert ((picture - own).abs().amax(1) < 0.02).flatten(1).any(1).all()


def test_same_seed_same_pictures(sprites):
    one, two = LabelledPictures(sprites, seed=4), LabelledPictures(sprites, seed=4)
    for _ in range(2):
        assert torch.equal(one.draw(20)[0], two.draw(20)[0])


def test_augmentation_leaves_plain_backgrounds_plain():
    plain = torch.full((64, 3, INPUT_SIZE, INPUT_SIZE), 0.2)
    bent = augment(plain, torch.Generator().manual_seed(0))
    assert ((bent.mean((1, 2, 3)) - 0.2).abs() < 0.12).all()
    assert bent.std((2, 3)).max() < 0.1  # noise alone
    assert bent.min() >= -1 and bent.max() <= 1


def test_predictions_do_not_depend_on_the_batch_size(sprites, classifier):
    pictures, _ = LabelledPictures(sprites, seed=5).draw(10)
    together = classify(classifier, pictures)
    apart = classify(classifier, pictures, batch_size=3)
    assert torch.allclose(together.concept, apart.concept, atol=1e-4)
    assert torch.allclose(together.features, apart.features, atol=1e-4)


def test_pictures_of_other_sizes_are_resized(sprites, classifier):
    pictures, labels = LabelledPictures(sprites, seed=6).draw(96)
    same = classify(classifier, pictures).concept.argmax(1)
    for size in (INPUT_SIZE // 2, 2 * INPUT_SIZE):
        resized = torch.nn.functional.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True)
        assert (classify(classifier, resized).concept.argmax(1) == same).float().mean() > 0.8


def test_training_is_deterministic(sprites):
    tiny = ClassifierConfig(width=4, views=1, batch=16)
    one, two = train_classifier(sprites, tiny), train_classifier(sprites, tiny)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


def test_it_is_trained_once_and_cached(sprites, tmp_path, monkeypatch):
    tiny = ClassifierConfig(width=4, views=1, batch=16)
    first, name = cached_classifier(sprites, tmp_path, tiny)
    monkeypatch.setattr(module, "train_classifier", lambda *_, **__: pytest.fail("trained again"))
    second, same = cached_classifier(sprites, tmp_path, tiny)
    assert name == same and [file.name for file in tmp_path.iterdir()] == [f"classifier-{name}.safetensors"]
    picture = torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE)
    assert torch.equal(classify(first, picture).concept, classify(second, picture).concept)


def test_other_sprites_or_another_config_have_another_digest(sprites):
    changed = sprites.rgba.clone()
    changed[0, 0, 60, 60] ^= 1
    names = {
        classifier_digest(sprites, ClassifierConfig()),
        classifier_digest(replace(sprites, rgba=changed), ClassifierConfig()),
        classifier_digest(replace(sprites, concepts=sprites.concepts[::-1]), ClassifierConfig()),
        classifier_digest(sprites, ClassifierConfig(seed=1)),
    }
    assert len(names) == 4
    assert classifier_digest(replace(sprites, held_out=~sprites.held_out), ClassifierConfig()) in names


def test_logits_are_computed_from_the_features():
    model = Classifier(concepts=5, width=4).eval()
    predictions = classify(model, torch.zeros(2, 3, INPUT_SIZE, INPUT_SIZE))
    assert predictions.concept.shape == (2, 5) and predictions.features.shape == (2, model.concept.in_features)
    assert torch.allclose(model.concept(predictions.features), predictions.concept)
