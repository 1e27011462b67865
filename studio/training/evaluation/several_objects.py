"""Evaluate pictures of several objects and of tinted ones: colour, relation, count, similarity to training scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from studio.training.data.renderer import SceneRenderer
from studio.training.data.scenes import Scene, SceneMaker
from studio.training.data.sprites import Sprites
from studio.training.evaluation.backbone import INPUT_SIZE
from studio.training.evaluation.classifier import Classifier, classify
from studio.training.evaluation.compositions import (
    COLOR,
    KINDS,
    Composition,
    check_composition,
    compose_scene,
    composition_prompt,
    draw_compositions,
)
from studio.training.evaluation.detector import Detector, detect
from studio.training.evaluation.report import Table, contact_sheet, mean, set_figure, share
from studio.training.evaluation.restoration import SCENE_SEED, to_tensor
from studio.training.evaluation.similarity import below_quantile, frechet_distance, nearest_distances
from studio.training.evaluation.single_objects import FRECHET, REAL_SEED, SHEET_COLUMNS, print_column, spread_evenly
from studio.training.export import generate

COMPOSITIONS = 256  # tinted objects, pairs, and groups
COMPOSITION_SEED = 600_000  # of compositions and generated pictures
TRAINING_SEED = 7_003  # of scenes as training draws them
TRAINING_SCENES = 8192  # among which the nearest is found
REAL, GENERATED = "real scenes", "generated"
TOGETHER = "Several objects, together"
SHEET_ROWS = 32  # pictures of each kind on the contact sheet


def evaluate_several_objects(
    pipe: Any,
    classifier: Classifier,
    detector: Detector,
    sprites: Sprites,
    concepts: Sequence[int],
    *,
    sample: int | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[dict[str, Table], Image.Image]:
    """Return tables by kind of composition and of all several objects together, and a contact sheet."""
    count = min(COMPOSITIONS, sample or COMPOSITIONS)
    compositions = draw_compositions(sprites, concepts, count, COMPOSITION_SEED + seed)
    prompts = [composition_prompt(composition, sprites) for composition in compositions]
    real = _render(compositions, sprites, REAL_SEED + seed)
    reference = _render(compositions, sprites, SCENE_SEED + seed)
    images = generate(pipe, prompts, 1_000_000 * seed + COMPOSITION_SEED, **options)
    sets = {REAL: real, GENERATED: to_tensor(images)}

    tables: dict[str, Table] = {kind: {} for kind in KINDS}
    for name, pictures in sets.items():
        for kind, column in _check(compositions, detector, pictures).items():
            tables[kind][name] = column
            print_column(f"{kind}, {name}", column)
    several = torch.tensor([composition.kind != COLOR for composition in compositions])
    training_count = TRAINING_SCENES if sample is None else 20 * sample
    training = draw_training_scenes(sprites, training_count, seed)
    tables[TOGETHER] = _compare_sets(
        classifier, {name: pictures[several] for name, pictures in sets.items()}, reference[several], training
    )
    shown = []
    for kind in KINDS:
        rows = [i for i, composition in enumerate(compositions) if composition.kind == kind]
        shown += spread_evenly(rows, SHEET_ROWS)
    return tables, contact_sheet([images[i] for i in shown], [prompts[i] for i in shown], SHEET_COLUMNS)


def _render(compositions: Sequence[Composition], sprites: Sprites, seed: int) -> torch.Tensor:
    maker = SceneMaker(sprites, seed)
    scenes = [compose_scene(composition, maker) for composition in compositions]
    return SceneRenderer(sprites).render(scenes, INPUT_SIZE)


def _check(compositions: Sequence[Composition], detector: Detector, pictures: torch.Tensor) -> Table:
    """Return the shares of pictures that meet each criterion, by kind."""
    several, single = detect(detector, pictures), detect(detector, pictures, single=True)
    results: dict[str, list[dict[str, bool]]] = {kind: [] for kind in KINDS}
    for composition, found_single, found_several in zip(compositions, single, several, strict=True):
        detections = found_single if composition.kind == COLOR else found_several
        results[composition.kind].append(check_composition(composition, detections))
    return {
        kind: {row: share(torch.tensor([result[row] for result in checked])) for row in checked[0]}
        for kind, checked in results.items()
        if checked
    }


def _compare_sets(
    classifier: Classifier, sets: dict[str, torch.Tensor], reference: torch.Tensor, training: torch.Tensor
) -> Table:
    """Compare sets of pictures with reference scenes of the same labels and with the nearest training scenes."""
    spaces = {"pixels": to_pixel_space(training), "features": F.normalize(classify(classifier, training).features)}

    def nearest(pictures: torch.Tensor, features: torch.Tensor) -> dict[str, torch.Tensor]:
        points = {"pixels": to_pixel_space(pictures), "features": F.normalize(features)}
        return {space: nearest_distances(points[space], training) for space, training in spaces.items()}

    reference_features = classify(classifier, reference).features
    usual = nearest(reference, reference_features)
    table: Table = {}
    for name, pictures in sets.items():
        features = classify(classifier, pictures).features
        column = {FRECHET: set_figure(frechet_distance(features, reference_features), len(features))}
        for space, distances in nearest(pictures, features).items():
            column[f"distance to the nearest training scene, {space}"] = mean(distances, "")
            column[f"nearer than the nearest 5 % of real ones, {space}"] = share(
                below_quantile(distances, usual[space])
            )
        table[name] = column
        print_column(f"several objects, {name}", column)
    return table


def draw_training_scenes(sprites: Sprites, count: int, seed: int) -> torch.Tensor:
    """Return (count, 3, INPUT_SIZE, INPUT_SIZE): scenes of several objects as training draws them."""
    maker, renderer = SceneMaker(sprites, TRAINING_SEED + seed), SceneRenderer(sprites)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = maker.draw()
        if len(scene.objects) > 1:
            scenes.append(scene)
    return torch.cat([renderer.render(scenes[start : start + 512], INPUT_SIZE) for start in range(0, count, 512)])


def to_pixel_space(pictures: torch.Tensor) -> torch.Tensor:
    """Return (B, D), whose Euclidean distances are RMS differences at half the size, as shares of the value range."""
    small = F.interpolate(pictures, size=(INPUT_SIZE // 2, INPUT_SIZE // 2), mode="area").flatten(1) / 2
    return small / small.shape[1] ** 0.5
