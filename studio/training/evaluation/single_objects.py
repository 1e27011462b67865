"""Evaluate pictures of single objects: concept, style and background, and the distance to real pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from studio.prompts.nouns import with_article
from studio.training.data.captions import default_prompt
from studio.training.data.scenes import BACKGROUND_COLORS
from studio.training.data.sprites import STYLES, Sprites
from studio.training.evaluation.classifier import Classifier, LabelledPictures, Labels, Predictions, classify
from studio.training.evaluation.report import Column, Table, contact_sheet, format_figure, set_figure, share
from studio.training.evaluation.restoration import to_tensor
from studio.training.evaluation.similarity import frechet_distance
from studio.training.export import generate

PICTURES = 4  # of each concept, and of each held-out pair
HELD_OUT_SEED = 500_000  # of generated pictures of held-out pairs
REAL_SEED = 7_001  # of real pictures: not among the seeds of the classifier's training
SHEET_ROWS, SHEET_COLUMNS = 32, 16
FRECHET = "Fréchet distance"
TOP1, TOP5 = "concept, top-1", "concept, top-5"
BY_CLASSIFIER, BY_BORDER = "background, by classifier", "background, by border colour"
AUGMENTED, REAL = "real sprites, augmented", "real sprites, same prompts"
GENERATED, HELD_OUT = "generated", "generated, held-out pairs"


@dataclass(frozen=True)
class SingleObjectResults:
    """Figures by column, the concepts least often recognized, and contact sheets by name."""

    columns: Table
    worst_concepts: list[dict[str, Any]]
    sheets: dict[str, Image.Image]


def concept_labels(sprites: Sprites, concepts: Sequence[int]) -> Labels:
    """Return PICTURES labels for each concept, one in each style from training.

    Where a style is held out, the first style comes again.
    """
    held_out = set(sprites.held_out_pairs())
    rows = []
    for concept in concepts:
        styles = [style for style in range(len(STYLES)) if (concept, style) not in held_out]
        for k in range(PICTURES):
            rows.append((concept, styles[k % len(styles)], (concept + 3 * k) % len(BACKGROUND_COLORS)))
    return Labels(*torch.tensor(rows).T)


def pair_labels(pairs: Sequence[tuple[int, int]]) -> Labels:
    """Return PICTURES labels for each (concept, style), with the backgrounds in turn."""
    rows = []
    for concept, style in pairs:
        rows += [(concept, style, (concept + 3 * k) % len(BACKGROUND_COLORS)) for k in range(PICTURES)]
    return Labels(*torch.tensor(rows).T)


def label_names(labels: Labels, sprites: Sprites) -> list[tuple[str, str, str]]:
    """Return (concept, style, background) as words."""
    backgrounds = list(BACKGROUND_COLORS)
    indices = zip(labels.concept.tolist(), labels.style.tolist(), labels.background.tolist(), strict=True)
    return [(sprites.concepts[c], STYLES[s], backgrounds[b]) for c, s, b in indices]


def label_prompts(labels: Labels, sprites: Sprites) -> list[str]:
    """Return the default prompts of the labels."""
    return [default_prompt(with_article(c), style, background) for c, style, background in label_names(labels, sprites)]


def border_background(pictures: torch.Tensor) -> torch.Tensor:
    """Return (B,): the index of the named colour nearest to the median of a two-pixel border."""
    border = torch.ones(pictures.shape[2:], dtype=torch.bool)
    border[2:-2, 2:-2] = False
    color = (pictures[:, :, border].median(dim=2).values + 1) / 2  # (B, 3)
    return torch.cdist(color, torch.tensor(list(BACKGROUND_COLORS.values()))).argmin(1)


def score(pictures: torch.Tensor, labels: Labels, predictions: Predictions) -> Column:
    """Return the shares of pictures that show their labels."""
    top5 = predictions.concept.topk(min(5, predictions.concept.shape[1])).indices
    return {
        TOP1: share(predictions.concept.argmax(1) == labels.concept),
        TOP5: share((top5 == labels.concept[:, None]).any(1)),
        "style": share(predictions.style.argmax(1) == labels.style),
        BY_CLASSIFIER: share(predictions.background.argmax(1) == labels.background),
        BY_BORDER: share(border_background(pictures) == labels.background),
    }


def find_worst_concepts(
    labels: Labels, predictions: Predictions, sprites: Sprites, count: int = 20
) -> list[dict[str, Any]]:
    """Return the concepts least often recognized, each with what it was most often taken for."""
    probabilities = predictions.concept.softmax(1)
    predicted = predictions.concept.argmax(1)
    entries = []
    for concept in labels.concept.unique().tolist():
        rows = labels.concept == concept
        confusions = Counter(predicted[rows & (predicted != concept)].tolist()).most_common(1)
        entries.append(
            {
                "concept": sprites.concepts[concept],
                "top1": (predicted[rows] == concept).float().mean().item(),
                "chance": round(probabilities[rows, concept].mean().item(), 4),
                "taken_for": sprites.concepts[confusions[0][0]] if confusions else None,
            }
        )
    return sorted(entries, key=lambda entry: (entry["top1"], entry["chance"]))[:count]


def evaluate_single_objects(
    pipe: Any,
    classifier: Classifier,
    sprites: Sprites,
    concepts: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    *,
    sample: int | None = None,
    seed: int = 0,
    **options: Any,
) -> SingleObjectResults:
    """Measure pictures of each concept and of each held-out pair, beside real pictures."""
    first_seed = 1_000_000 * seed
    columns: Table = {}
    real = LabelledPictures(sprites, REAL_SEED + seed)
    pictures, labels = real.draw(max(len(sprites), 1000) if sample is None else 20 * sample)
    columns[AUGMENTED] = score(pictures, labels, classify(classifier, pictures))
    labels = concept_labels(sprites, concepts)
    pictures = real.render(labels)
    predictions = classify(classifier, pictures)
    columns[REAL] = score(pictures, labels, predictions)
    reference = classify(classifier, real.render(labels)).features
    columns[REAL][FRECHET] = set_figure(frechet_distance(predictions.features, reference), len(reference))
    print_column("classifier on real sprites", columns[AUGMENTED])

    sheets = {}
    worst_concepts: list[dict[str, Any]] = []
    prompted = {
        "concepts": (GENERATED, labels, first_seed),
        "held-out": (HELD_OUT, pair_labels(pairs), first_seed + HELD_OUT_SEED),
    }
    for sheet, (column, labels, picture_seed) in prompted.items():
        images = generate(pipe, label_prompts(labels, sprites), picture_seed, **options)
        pictures = to_tensor(images)
        predictions = classify(classifier, pictures)
        columns[column] = score(pictures, labels, predictions)
        if column == GENERATED:
            distance = frechet_distance(predictions.features, reference)
            columns[column][FRECHET] = set_figure(distance, len(reference))
            worst_concepts = find_worst_concepts(labels, predictions, sprites)
        print_column(column, columns[column])
        captions = [", ".join(names) for names in label_names(labels, sprites)]
        shown = spread_evenly(range(len(captions) // PICTURES), SHEET_ROWS)
        rows = [number * PICTURES + k for number in shown for k in range(PICTURES)]
        sheets[sheet] = contact_sheet([images[i] for i in rows], [captions[i] for i in rows], SHEET_COLUMNS)
    return SingleObjectResults(columns, worst_concepts, sheets)


def spread_evenly(values: Sequence, count: int | None) -> list:
    """Return at most `count` of the values, evenly from first to last; None: all."""
    if count is None or count >= len(values):
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]


def print_column(name: str, column: Column) -> None:
    """Print the figures of a column as they are measured."""
    figures = "; ".join(f"{row} {format_figure(figure)}" for row, figure in column.items())
    print(f"{name}: {figures}", flush=True)
