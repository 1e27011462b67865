import torch

from studio.training.data.scenes import BACKGROUND_COLORS
from studio.training.data.sprites import STYLES
from studio.training.evaluation.classifier import LabelledPictures, Labels, Predictions
from studio.training.evaluation.single_objects import (
    BY_BORDER,
    BY_CLASSIFIER,
    PICTURES,
    TOP1,
    TOP5,
    border_background,
    concept_labels,
    find_worst_concepts,
    label_names,
    pair_labels,
    score,
    spread_evenly,
)


def test_every_concept_has_labels_in_every_style_from_training(sprites):
    labels = concept_labels(sprites, range(12))
    assert (labels.concept.bincount() == PICTURES).all()
    pairs = set(zip(labels.concept.tolist(), labels.style.tolist(), strict=True))
    assert not pairs & set(sprites.held_out_pairs())
    assert len(pairs) == len(sprites) - int(sprites.held_out.sum())
    assert set(labels.background.tolist()) == set(range(len(BACKGROUND_COLORS)))
    for style in range(len(STYLES)):  # backgrounds do not depend on the style
        assert len(labels.background[labels.style == style].unique()) >= 8


def test_held_out_pairs_have_labels_of_their_own(sprites):
    names = label_names(pair_labels(sprites.held_out_pairs()), sprites)
    assert {(concept, style) for concept, style, _ in names} == {("brown square", "flat"), ("coral disc", "noto")}
    assert len(names) == len(set(names)) == 2 * PICTURES


def test_the_border_shows_the_background(sprites):
    pictures = LabelledPictures(sprites, seed=2)
    _, labels = pictures.draw(100)
    assert (border_background(pictures.render(labels)) == labels.background).float().mean() > 0.97


def test_scores_of_known_predictions():
    logits = torch.eye(10)[[0, 1, 2, 3]] * 5 + torch.linspace(1, 0, 10)  # the first, then 0, 1, 2 ...
    labels = Labels(torch.tensor([0, 1, 9, 0]), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 0, 0]))
    styles, backgrounds = torch.eye(4)[[0, 1, 0, 0]], torch.eye(10)[[0, 0, 0, 1]]
    white = torch.ones(4, 3, 8, 8)
    figures = score(white, labels, Predictions(logits, styles, backgrounds, torch.zeros(4, 1)))
    assert {name: figure["value"] for name, figure in figures.items()} == {
        TOP1: 0.5,
        TOP5: 0.75,
        "style": 0.5,
        BY_CLASSIFIER: 0.75,
        BY_BORDER: 1.0,
    }


def test_the_worst_concepts_come_first_with_what_they_were_taken_for(sprites):
    labels = Labels(*torch.tensor([(0, 0, 0), (1, 0, 0), (1, 0, 0), (2, 0, 0)]).T)
    first = torch.eye(10)[[0] * 4]
    predictions = Predictions(torch.eye(12)[[0, 5, 5, 4]] * 9, first[:, :4], first, torch.zeros(4, 1))
    worst = find_worst_concepts(labels, predictions, sprites, count=2)
    assert {entry["concept"] for entry in worst} == set(sprites.concepts[1:3])
    assert {entry["taken_for"] for entry in worst} == {sprites.concepts[5], sprites.concepts[4]}


def test_values_are_spread_evenly():
    assert spread_evenly(range(10), None) == list(range(10))
    assert spread_evenly(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread_evenly("ab", 5) == ["a", "b"]
