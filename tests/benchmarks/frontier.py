"""Quality against time, over sampler x steps x guidance: what the page's presets are chosen from.

    python -m tests.benchmarks.frontier --sprites CACHE/sprites --cache CACHE/evaluation [--model assets/model]
        [--samplers studio dpm++2m] [--steps 2 4 8 12] [--guidance 2 3] [--passes one two three] [--sample 60]
        [--out FILE]

Quality is of one picture for each concept, at the size at which words become a picture, by the evaluation's classifier;
the same prompts and seeds for every setting. Time is that of one picture alone, warm. How often a step asks the network
is one more axis: once, where it was taught guidance, twice, or a third time for the style. Run it on a machine that
does nothing else, or believe the quality alone.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from studio.diffusion.guidance import STYLE_EMPHASIS
from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.prompts.nouns import with_article
from studio.training.data.scenes import default_prompt
from studio.training.data.sprites import Sprites
from studio.training.evaluation.classifier import (
    Classifier,
    LabelledPictures,
    Labels,
    Recipe,
    Verdict,
    cached_classifier,
    judge,
)
from studio.training.evaluation.evaluate import PICTURES, REAL_SEED, concept_labels, each, model_digest, spread
from studio.training.evaluation.likeness import frechet_distance
from studio.training.evaluation.restoring import tensor
from studio.training.export import paint
from tests.benchmarks.machine import heading, table, times

SAMPLERS = ("studio", "dpm++2m", "unipc", "ddim", "euler")
STEPS = (2, 3, 4, 5, 6, 8, 12, 20)
GUIDANCE = (1.5, 2.0, 3.0, 5.0)
PASSES = ("three", "two", "one")
PROMPT = "a red apple, glossy style, on a blue background"
FIRST_SEED = 700_000  # apart from those of the evaluation


@dataclass(frozen=True)
class Setting:
    sampler: str
    steps: int
    guidance: float
    passes: str = "two"  # network rows of a guided picture: "one" that was taught guidance, "three" emphasize the style


@dataclass(frozen=True)
class Quality:
    """Shares of pictures, and a distance: of concept and style, higher is better, of Fréchet, lower."""

    concept: float
    style: float
    frechet: float

    def goods(self) -> dict[str, float]:
        return {"concept": self.concept, "style": self.style, "Fréchet": -self.frechet}


@dataclass(frozen=True)
class Measured:
    setting: Setting
    seconds: float
    quality: Quality


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of (seconds, quality): whether no other is at least as fast and as good, and better in one of the two."""
    return [
        not any(fast <= seconds and good >= quality and (fast, good) != (seconds, quality) for fast, good in points)
        for seconds, quality in points
    ]


def marks(measured: Sequence[Measured]) -> list[str]:
    """For each setting, by which measures of quality it is on the frontier."""
    found: list[list[str]] = [[] for _ in measured]
    for measure in ("concept", "style", "Fréchet"):
        points = [(one.seconds, one.quality.goods()[measure]) for one in measured]
        for names, best in zip(found, frontier(points), strict=True):
            names += [measure] if best else []
    return [", ".join(names) for names in found]


def quality(verdict: Verdict, labels: Labels, real: torch.Tensor) -> Quality:
    """`real`: features of real pictures of the same labels."""
    shares = [
        (part.argmax(1) == truth).float().mean().item()
        for part, truth in (
            (verdict.concept, labels.concept),
            (verdict.style, labels.style),
        )
    ]
    return Quality(*shares, frechet_distance(verdict.features, real))


def one_each(sprites: Sprites, concepts: Sequence[int]) -> Labels:
    """One picture of each concept, styles in turn."""
    labels = concept_labels(sprites, concepts)
    rows = torch.tensor([number * PICTURES + number % PICTURES for number in range(len(concepts))])
    return Labels(labels.concept[rows], labels.style[rows], labels.background[rows])


def options(pipe: Any, setting: Setting, size: int) -> dict[str, Any]:
    """What `prepare` takes."""
    chosen = {"num_inference_steps": setting.steps, "guidance_scale": setting.guidance, "sampler": setting.sampler}
    known = inspect.signature(pipe.prepare).parameters
    if "one_pass" in known:
        chosen["one_pass"] = setting.passes == "one"
    if "style_emphasis" in known:
        chosen["style_emphasis"] = STYLE_EMPHASIS if setting.passes == "three" else 0.0
    return chosen | {"size": size}


def can_do(pipe: Any, passes: str) -> bool:
    """Whether the pipeline and its network have guidance in so many passes."""
    known = inspect.signature(pipe.prepare).parameters
    if passes == "one":
        return bool(getattr(pipe.unet.config, "guidance_rank", 0)) and "one_pass" in known
    return passes == "two" or "style_emphasis" in known


def picture(pipe: Any, chosen: dict[str, Any]) -> Image.Image:
    (row,) = pipe.prepare([PROMPT], seeds=[1], **chosen)
    while not row.finished:
        pipe.denoise_step([row])
    return pipe.decode(row)


def median_seconds(pipe: Any, chosen: dict[str, Any], repeats: int) -> float:
    return statistics.median(times(lambda: picture(pipe, chosen), repeats))


def page(head: str, real: Quality, count: int, size: int, measured: Sequence[Measured]) -> str:
    """The whole table, the fastest first, and those of it that are on a frontier."""
    order = sorted(range(len(measured)), key=lambda i: measured[i].seconds)
    names = marks(measured)
    rows = []
    for i in order:
        one, good = measured[i].setting, measured[i].quality
        rows.append(
            (
                one.sampler,
                one.steps,
                f"{one.guidance:g}",
                one.passes,
                f"{measured[i].seconds:.3f}",
                f"{good.concept:.1%}",
                f"{good.style:.1%}",
                f"{good.frechet:.3f}",
                names[i],
            )
        )
    columns = ("sampler", "steps", "guidance", "passes", f"s a picture of {size} px", "concept", "style", "Fréchet")
    text = (
        f"{count} pictures of {size} px for each setting, one a concept; the same prompts and seeds. Real pictures at "
        f"this size: concept {real.concept:.1%}, style {real.style:.1%}, Fréchet {real.frechet:.3f} between two sets. "
        "On the frontier: nothing as fast is better by that measure.\n"
    )
    best = [row for row in rows if row[-1]]
    return "\n".join(
        (
            head,
            text,
            "### The frontier\n",
            table((*columns, "best by"), best),
            "### All\n",
            table((*columns, "on the frontier by"), rows),
        )
    )


def measure(
    pipe: Any, classifier: Classifier, sprites: Sprites, settings: Sequence[Setting], sample: int | None, repeats: int
):
    """Yields (real quality, number of pictures, what was measured so far), setting by setting."""
    size = pipe.sample_size
    claimed = [entry["name"] for entry in (pipe.vocabulary or {}).get("concepts", [])] or list(sprites.concepts)
    labels = one_each(sprites, spread([sprites.concepts.index(name) for name in claimed], sample))
    prompts = [default_prompt(with_article(c), style, background) for c, style, background in each(labels, sprites)]
    painter = LabelledPictures(sprites, REAL_SEED)
    small = [F.interpolate(painter.paint(labels), size=(size, size), mode="area") for _ in range(2)]
    one, other = (judge(classifier, pictures) for pictures in small)
    real = quality(one, labels, other.features)
    clock: dict[tuple, float] = {}
    measured: list[Measured] = []
    for setting in settings:
        chosen = options(pipe, setting, size)
        kind = (setting.sampler, setting.steps, setting.passes, setting.guidance > 1)  # guidance itself costs nothing
        if kind not in clock:
            clock[kind] = median_seconds(pipe, chosen, repeats)
        verdict = judge(classifier, tensor(paint(pipe, prompts, FIRST_SEED, **chosen)))
        measured.append(Measured(setting, clock[kind], quality(verdict, labels, other.features)))
        yield real, len(prompts), measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="folder of the pipeline")
    parser.add_argument("--sprites", type=Path, required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the judge")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS)
    parser.add_argument("--guidance", nargs="+", type=float, default=GUIDANCE)
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=PASSES, help="those that the network has")
    parser.add_argument("--sample", type=int, help="at most so many concepts")
    parser.add_argument("--repeats", type=int, default=7, help="of each timing")
    parser.add_argument("--out", type=Path, help="file that is written anew after every setting")
    args = parser.parse_args()

    pipe = StudioTextToImagePipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    sprites = Sprites.load(args.sprites)
    classifier, judge_digest = cached_classifier(sprites, args.cache, Recipe())
    passes = [kind for kind in args.passes if can_do(pipe, kind)]
    grid = product(args.steps, passes, args.samplers, args.guidance)
    settings = [Setting(sampler, steps, guidance, kind) for steps, kind, sampler, guidance in grid]
    head = f"{heading()}\nModel {model_digest(args.model)}, judge {judge_digest}, {torch.get_num_threads()} threads.\n"
    whole = ""
    for real, count, measured in measure(pipe, classifier, sprites, settings, args.sample, args.repeats):
        whole = page(head, real, count, pipe.sample_size, measured)
        print(f"{len(measured)}/{len(settings)} {measured[-1]}", file=sys.stderr, flush=True)
        if args.out:
            args.out.write_text(whole)
    print(whole)


if __name__ == "__main__":
    main()
