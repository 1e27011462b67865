"""Quality of prompts that name only an object: style and background chosen by the model, or by the seed as on the page.

    python -m tests.benchmarks.left_open --sprites CACHE/sprites --cache CACHE/evaluation

The evaluation's classifier checks the pictures. It measures quality, not time: a busy machine gives the same figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.engine.requests import TextToImage
from studio.models.families.studio import BACKGROUNDS
from studio.prompts.nouns import with_article
from studio.training.data.sprites import Sprites
from studio.training.evaluation.classifier import ClassifierConfig, cached_classifier, classify
from studio.training.evaluation.report import format_figure, share
from studio.training.evaluation.restoration import to_tensor
from studio.training.export import generate
from tests.benchmarks.machine import describe, table
from tests.fakes import resolve

FIRST_SEED = 4_000
STEPS = {"live": 3, "balanced": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="pipeline folder")
    parser.add_argument("--sprites", type=Path, required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the classifier")
    args = parser.parse_args()
    sprites = Sprites.load(args.sprites)
    classifier, _ = cached_classifier(sprites, args.cache, ClassifierConfig())
    pipe = StudioTextToImagePipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    concepts, rows = torch.arange(len(sprites.concepts)), []
    for randomize_style in (False, True):
        requests = [
            TextToImage(with_article(name), seed=FIRST_SEED + number, randomize_style=randomize_style)
            for number, name in enumerate(sprites.concepts)
        ]
        prompts = [caption for request in requests for caption in resolve(request).captions]
        for preset, steps in STEPS.items():
            pictures = to_tensor(generate(pipe, prompts, FIRST_SEED, num_inference_steps=steps))
            predictions = classify(classifier, pictures)
            figures = (
                share(predictions.concept.argmax(1) == concepts),
                share(predictions.background.argmax(1) == BACKGROUNDS.index("gray")),
            )
            chosen_by = "the seed" if randomize_style else "the model"
            rows.append([chosen_by, preset, *map(format_figure, figures)])
    print(f"{describe()}\n")
    columns = ["style and background by", "preset", f"concept, top-1 (n = {len(concepts)})", "gray background"]
    print(table(columns, rows))


if __name__ == "__main__":
    main()
