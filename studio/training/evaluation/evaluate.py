"""Evaluate a model folder on text to image, super-resolution and inpainting.

    python -m studio.training.evaluation.evaluate --model assets/model --sprites CACHE/sprites --cache CACHE/evaluation

A classifier of the real sprites, trained once and kept in the cache, checks pictures by the pipeline's defaults: of
every concept in the model's vocabulary, and of the held-out (concept, style) pairs. A detector, trained and kept in the
same way, checks tinted objects, relations and counts. Both are measured on real pictures, too. Super-resolution is
compared with bicubic enlargement, inpainting with Telea's method, on scenes of held-out pairs. Writes report.json,
report.md and contact sheets of the first seeds' pictures. The same model, sprites and seed give the same report.
With `--before MODEL` another model is measured on the same seeds, side by side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from studio.diffusion.pipelines import StudioInpaintPipeline, StudioTextToImagePipeline, StudioUpscalePipeline
from studio.training.data.sprites import Sprites
from studio.training.evaluation.classifier import Classifier, ClassifierConfig, cached_classifier
from studio.training.evaluation.detector import Detector, DetectorConfig, cached_detector
from studio.training.evaluation.report import Table, contact_sheet, markdown_report, side_by_side
from studio.training.evaluation.restoration import (
    SCENES,
    Strip,
    draw_holes,
    evaluate_inpainting,
    evaluate_super_resolution,
    scenes_to_restore,
)
from studio.training.evaluation.several_objects import evaluate_several_objects
from studio.training.evaluation.single_objects import evaluate_single_objects, print_column, spread_evenly

STRIP_ROWS, STRIP_COLUMNS = 6, 8
SUPER_RESOLUTION = "Super-resolution to 64 px"


@dataclass(frozen=True)
class Evaluators:
    """The networks that check pictures, and the sprites that they were trained on."""

    classifier: Classifier
    detector: Detector
    sprites: Sprites


@dataclass(frozen=True)
class Pipelines:
    """A model's pipelines, called as by users of diffusers."""

    text_to_image: Any
    upscale: Any
    inpaint: Any

    @classmethod
    def load(cls, folder: Path, device: str) -> Pipelines:
        """Load a model folder, without progress bars."""
        pipe = StudioTextToImagePipeline.from_pretrained(folder).to(device)
        pipelines = cls(pipe, StudioUpscalePipeline.from_pipe(pipe), StudioInpaintPipeline.from_pipe(pipe))
        for each in (pipelines.text_to_image, pipelines.upscale, pipelines.inpaint):
            each.set_progress_bar_config(disable=True)
        return pipelines


def evaluate(
    pipelines: Pipelines, evaluators: Evaluators, sample: int | None = None, seed: int = 0, **options: Any
) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    """Return the measured part of the report, and contact sheets by name.

    Args:
        sample: at most so many concepts, pairs and scenes, for a quick look.
        options: num_inference_steps, guidance_scale, sampler, one_pass, style_emphasis of text to image; default: the
            pipeline's own.

    Raises:
        ValueError: when the vocabulary names a concept without a sprite, or no pair was held out.
    """
    pipe, sprites, classifier = pipelines.text_to_image, evaluators.sprites, evaluators.classifier
    concepts = find_concepts(pipe, sprites)
    pairs = [pair for pair in sprites.held_out_pairs() if pair[0] in concepts]
    if not sprites.held_out.any():
        raise ValueError("the sprites hold no pair out: generalization cannot be measured")
    single = evaluate_single_objects(
        pipe,
        classifier,
        sprites,
        spread_evenly(concepts, sample),
        spread_evenly(pairs, sample),
        sample=sample,
        seed=seed,
        **options,
    )
    compositions, sheet = evaluate_several_objects(
        pipe, classifier, evaluators.detector, sprites, concepts, sample=sample, seed=seed, **options
    )
    restored, strips = evaluate_restoration(pipelines, evaluators, min(SCENES, sample or SCENES), seed)
    report = {
        "tasks": {"Text to image": single.columns, **compositions, **restored},
        "worst_concepts": single.worst_concepts,
    }
    return report, {**single.sheets, "compositions": sheet, "other-tasks": strips}


def evaluate_restoration(
    pipelines: Pipelines, evaluators: Evaluators, count: int, seed: int
) -> tuple[dict[str, Table], Image.Image]:
    """Return the tables of super-resolution and inpainting, and a contact sheet."""
    first_seed = 1_000_000 * seed
    scenes, truth = scenes_to_restore(evaluators.sprites, count, seed)
    holes = draw_holes(scenes, truth, evaluators.sprites, seed)
    tables: dict[str, Table] = {SUPER_RESOLUTION: {}, "Inpainting": {}}
    strips: list[tuple[Strip, Sequence[str]]] = []
    for factor in (2, 4):
        column, strip = evaluate_super_resolution(pipelines.upscale, truth, factor, first_seed)
        tables[SUPER_RESOLUTION][f"×{factor}"] = column
        strips.append((strip, (f"given, x{factor}", "ours", "bicubic", "truth")))
        print_column(f"super-resolution ×{factor}", column)
    column, strip = evaluate_inpainting(pipelines.inpaint, evaluators.classifier, scenes, truth, holes, seed=first_seed)
    tables["Inpainting"]["scenes of held-out pairs"] = column
    strips.append((strip, ("given, hole", "ours", "Telea", "truth")))
    print_column("inpainting", column)
    pictures, captions = [], []
    for columns, names in strips:
        for row in range(min(STRIP_ROWS, len(truth))):
            pictures += [pictures_of_method[row] for pictures_of_method in columns]
            captions += names
    return tables, contact_sheet(pictures, captions, STRIP_COLUMNS)


def find_concepts(pipe: Any, sprites: Sprites) -> list[int]:
    """Return the sprites' indices of the concepts in a pipeline's vocabulary; all where it has none.

    Raises:
        ValueError: when the vocabulary names a concept without a sprite.
    """
    names = [entry["name"] for entry in (pipe.vocabulary or {}).get("concepts", [])] or list(sprites.concepts)
    if unknown := set(names) - set(sprites.concepts):
        raise ValueError(f"the vocabulary has concepts without a sprite: {', '.join(sorted(unknown))}")
    return [sprites.concepts.index(name) for name in names]


def model_digest(folder: Path) -> str:
    """Return 16 hexadecimal digits of the model's weights."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="pipeline folder")
    parser.add_argument("--before", type=Path, help="another pipeline folder to compare with")
    parser.add_argument("--sprites", type=Path, required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the classifier and the detector")
    parser.add_argument("--out", type=Path, help="folder for the report; default: report in the cache")
    parser.add_argument("--sample", type=int, help="a quick look: so many concepts, held-out pairs and scenes")
    parser.add_argument("--seed", type=int, default=0, help="of pictures and scenes")
    parser.add_argument("--steps", type=int, help="num_inference_steps; default: the pipeline's own, as the next two")
    parser.add_argument("--guidance", type=float, help="guidance_scale")
    parser.add_argument("--sampler", help="a name from studio.diffusion.schedulers.samplers")
    parser.add_argument("--one-pass", action="store_true", help="guidance in one pass, where the network has it")
    parser.add_argument("--style-emphasis", type=float, help="0 for none; default: the pipeline's own")
    parser.add_argument("--classifier-views", type=int, default=ClassifierConfig.views, help="of each sprite, to train")
    parser.add_argument("--detector-updates", type=int, default=DetectorConfig.updates, help="of its training")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    command = f"python -m studio.training.evaluation.evaluate {shlex.join(sys.argv[1:])}"
    folders = {"model": args.model} | ({"before": args.before} if args.before else {})
    digests = {name: model_digest(folder) for name, folder in folders.items()}
    print(command, *(f"{name} {digest}" for name, digest in digests.items()), sep="\n", flush=True)

    start = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sprites = Sprites.load(args.sprites)
    config = ClassifierConfig(views=args.classifier_views)
    classifier, digest = cached_classifier(sprites, args.cache, config, device)
    detector_config = DetectorConfig(updates=args.detector_updates)
    detector = cached_detector(sprites, args.cache, classifier, digest, detector_config, device=device)
    evaluators = Evaluators(classifier, detector, sprites)
    chosen = {
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
        "sampler": args.sampler,
        "one_pass": args.one_pass or None,
        "style_emphasis": args.style_emphasis,
    }
    options = {name: value for name, value in chosen.items() if value is not None}
    results, sheets = {}, {}
    for name, folder in folders.items():
        print(f"{name}:", flush=True)
        pipelines = Pipelines.load(folder, device)
        results[name], sheets[name] = evaluate(pipelines, evaluators, args.sample, args.seed, **options)
    tasks = results["model"]["tasks"]
    if args.before:
        tasks = side_by_side(tasks, results["before"]["tasks"])

    report = {"command": command, **digests, "classifier": digest, "options": options}
    report |= {"tasks": tasks, "worst_concepts": results["model"]["worst_concepts"]}
    out = args.out or args.cache / "report"
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "report.md").write_text(markdown_report(report))
    for model, pictures in sheets.items():
        suffix = "-before" if model == "before" else ""
        for name, picture in pictures.items():
            picture.save(out / f"{name}{suffix}.png")
    print(f"{out}/report.md, after {(time.monotonic() - start) / 60:.1f} min")


if __name__ == "__main__":
    main()
