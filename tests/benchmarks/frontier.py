"""The Pareto frontier of quality and time over sampler, steps and guidance, from which the presets are chosen.

    python -m tests.benchmarks.frontier --sprites CACHE/sprites --cache CACHE/evaluation [--model assets/model]
        [--samplers studio dpm++2m] [--steps 2 4 8 12] [--guidance 2 3] [--passes one two three] [--sample 60]
        [--out FILE]

Quality is measured by the evaluation's classifier on one picture of each concept, at the size of text to image, with
the same prompts and seeds for every setting. Time is that of one picture alone, warm. Passes are the network rows of a
step: one (guidance in one pass), two, or three (style emphasis). Only times need an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from studio.diffusion.guidance import STYLE_EMPHASIS
from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.training.data.sprites import Sprites
from studio.training.evaluation.classifier import (
    Classifier,
    ClassifierConfig,
    LabelledPictures,
    Labels,
    Predictions,
    cached_classifier,
    classify,
)
from studio.training.evaluation.evaluate import find_concepts, model_digest
from studio.training.evaluation.restoration import to_tensor
from studio.training.evaluation.similarity import frechet_distance
from studio.training.evaluation.single_objects import (
    PICTURES,
    REAL_SEED,
    concept_labels,
    label_prompts,
    spread_evenly,
)
from studio.training.export import generate
from tests.benchmarks.machine import heading, table, times

SAMPLERS = ("studio", "dpm++2m", "unipc", "ddim", "euler")
STEPS = (2, 3, 4, 5, 6, 8, 12, 20)
GUIDANCE = (1.5, 2.0, 3.0, 5.0)
PASSES = ("three", "two", "one")
PROMPT = "a red apple, glossy style, on a blue background"
FIRST_SEED = 700_000  # not among those of the evaluation
MEASURES = ("concept", "style", "Fréchet")


@dataclass(frozen=True)
class Setting:
    sampler: str
    steps: int
    guidance: float
    passes: str = "two"  # network rows of a guided step: "one": guidance as an input; "three": style emphasis


@dataclass(frozen=True)
class Quality:
    """Shares of pictures with the right concept and style (higher is better), and Fréchet distance (lower)."""

    concept: float
    style: float
    frechet: float

    def values(self) -> dict[str, float]:
        """Return the measures so that higher is better."""
        return {"concept": self.concept, "style": self.style, "Fréchet": -self.frechet}


@dataclass(frozen=True)
class Measurement:
    setting: Setting
    seconds: float
    quality: Quality


def is_on_frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which (seconds, quality) no other point dominates: as fast, as good, and better in one of the two."""
    return [
        not any(fast <= seconds and good >= quality and (fast, good) != (seconds, quality) for fast, good in points)
        for seconds, quality in points
    ]


def frontier_measures(measurements: Sequence[Measurement]) -> list[str]:
    """Return for each setting the measures of quality by which it is on the frontier, such as "concept, style"."""
    names: list[list[str]] = [[] for _ in measurements]
    for measure in MEASURES:
        points = [(each.seconds, each.quality.values()[measure]) for each in measurements]
        for row, is_best in enumerate(is_on_frontier(points)):
            if is_best:
                names[row].append(measure)
    return [", ".join(row) for row in names]


def measure_quality(predictions: Predictions, labels: Labels, real_features: torch.Tensor) -> Quality:
    """Return the quality of pictures; real_features: of real pictures of the same labels."""
    concept = (predictions.concept.argmax(1) == labels.concept).float().mean().item()
    style = (predictions.style.argmax(1) == labels.style).float().mean().item()
    return Quality(concept, style, frechet_distance(predictions.features, real_features))


def one_label_each(sprites: Sprites, concepts: Sequence[int]) -> Labels:
    """Return one label for each concept, with the styles in turn."""
    labels = concept_labels(sprites, concepts)
    rows = torch.tensor([number * PICTURES + number % PICTURES for number in range(len(concepts))])
    return Labels(labels.concept[rows], labels.style[rows], labels.background[rows])


def prepare_options(pipe: Any, setting: Setting, size: int) -> dict[str, Any]:
    """Return the setting as options of `prepare`."""
    options = {"num_inference_steps": setting.steps, "guidance_scale": setting.guidance, "sampler": setting.sampler}
    known = inspect.signature(pipe.prepare).parameters
    if "one_pass" in known:
        options["one_pass"] = setting.passes == "one"
    if "style_emphasis" in known:
        options["style_emphasis"] = STYLE_EMPHASIS if setting.passes == "three" else 0.0
    return options | {"size": size}


def has_passes(pipe: Any, passes: str) -> bool:
    """Return whether the pipeline and its network have guidance in so many passes."""
    known = inspect.signature(pipe.prepare).parameters
    if passes == "one":
        return bool(getattr(pipe.unet.config, "guidance_rank", 0)) and "one_pass" in known
    return passes == "two" or "style_emphasis" in known


def generate_one(pipe: Any, options: dict[str, Any]) -> Image.Image:
    (row,) = pipe.prepare([PROMPT], seeds=[1], **options)
    while not row.finished:
        pipe.denoise_step([row])
    return pipe.decode(row)


def median_seconds(pipe: Any, options: dict[str, Any], repeats: int) -> float:
    return statistics.median(times(lambda: generate_one(pipe, options), repeats))


def format_page(head: str, real: Quality, count: int, size: int, measurements: Sequence[Measurement]) -> str:
    """Return the settings on a Pareto frontier, then all settings, the fastest first."""
    rows = []
    for measurement, names in zip(measurements, frontier_measures(measurements), strict=True):
        setting, quality = measurement.setting, measurement.quality
        row = (
            setting.sampler,
            setting.steps,
            f"{setting.guidance:g}",
            setting.passes,
            f"{measurement.seconds:.3f}",
            f"{quality.concept:.1%}",
            f"{quality.style:.1%}",
            f"{quality.frechet:.3f}",
            names,
        )
        rows.append((measurement.seconds, row))
    ordered = [row for _, row in sorted(rows, key=lambda entry: entry[0])]
    columns = ("sampler", "steps", "guidance", "passes", f"s per picture of {size} px", *MEASURES, "on the frontier by")
    text = (
        f"{count} pictures of {size} px for each setting, one of each concept, with the same prompts and seeds. Real "
        f"pictures of this size: concept {real.concept:.1%}, style {real.style:.1%}, Fréchet {real.frechet:.3f} "
        "between two sets. A setting is on the Pareto frontier where no other is as fast and better.\n"
    )
    best = [row for row in ordered if row[-1]]
    return "\n".join(
        (head, text, "### Pareto frontier\n", table(columns, best), "### All settings\n", table(columns, ordered))
    )


def measure(
    pipe: Any,
    classifier: Classifier,
    sprites: Sprites,
    settings: Sequence[Setting],
    *,
    sample: int | None,
    repeats: int,
) -> Iterator[tuple[Quality, int, list[Measurement]]]:
    """Yield the quality of real pictures, the number of pictures, and all measurements so far, for each setting."""
    size = pipe.sample_size
    labels = one_label_each(sprites, spread_evenly(find_concepts(pipe, sprites), sample))
    prompts = label_prompts(labels, sprites)
    source = LabelledPictures(sprites, REAL_SEED)
    real, reference = (F.interpolate(source.render(labels), size=(size, size), mode="area") for _ in range(2))
    real_features = classify(classifier, reference).features
    real_quality = measure_quality(classify(classifier, real), labels, real_features)
    seconds: dict[tuple, float] = {}
    measurements: list[Measurement] = []
    for setting in settings:
        options = prepare_options(pipe, setting, size)
        kind = (setting.sampler, setting.steps, setting.passes, setting.guidance > 1)  # scales above 1 cost the same
        if kind not in seconds:
            seconds[kind] = median_seconds(pipe, options, repeats)
        predictions = classify(classifier, to_tensor(generate(pipe, prompts, FIRST_SEED, **options)))
        quality = measure_quality(predictions, labels, real_features)
        measurements.append(Measurement(setting, seconds[kind], quality))
        yield real_quality, len(prompts), measurements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="pipeline folder")
    parser.add_argument("--sprites", type=Path, required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the classifier")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS)
    parser.add_argument("--guidance", nargs="+", type=float, default=GUIDANCE)
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=PASSES, help="default: all that the network has")
    parser.add_argument("--sample", type=int, help="at most so many concepts")
    parser.add_argument("--repeats", type=int, default=7, help="of each timing")
    parser.add_argument("--out", type=Path, help="file to write after every setting")
    args = parser.parse_args()

    pipe = StudioTextToImagePipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    sprites = Sprites.load(args.sprites)
    classifier, digest = cached_classifier(sprites, args.cache, ClassifierConfig())
    passes = [kind for kind in args.passes if has_passes(pipe, kind)]
    grid = product(args.steps, passes, args.samplers, args.guidance)
    settings = [Setting(sampler, steps, guidance, kind) for steps, kind, sampler, guidance in grid]
    head = f"{heading()}\nModel {model_digest(args.model)}, classifier {digest}, {torch.get_num_threads()} threads.\n"
    page = ""
    for real, count, measurements in measure(
        pipe, classifier, sprites, settings, sample=args.sample, repeats=args.repeats
    ):
        page = format_page(head, real, count, pipe.sample_size, measurements)
        print(f"{len(measurements)}/{len(settings)} {measurements[-1]}", file=sys.stderr, flush=True)
        if args.out:
            args.out.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
