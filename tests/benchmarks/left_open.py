"""Things asked for by their name alone: style and ground left to the model, or chosen by the seed as the page has it.

    python -m tests.benchmarks.left_open --sprites CACHE/sprites --cache CACHE/evaluation

The judge is the evaluation's classifier, from the cache. Quality, not time: a busy machine gives the same figures.
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
from studio.training.evaluation.classifier import Recipe, cached_classifier, judge
from studio.training.evaluation.report import in_words, share
from studio.training.evaluation.restoring import tensor
from studio.training.export import paint
from tests.benchmarks.machine import describe, table
from tests.fakes import resolve

FIRST_SEED = 4_000
STEPS = {"live": 3, "balanced": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="folder of the pipeline")
    parser.add_argument("--sprites", type=Path, required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the judge")
    args = parser.parse_args()
    sprites = Sprites.load(args.sprites)
    classifier, _ = cached_classifier(sprites, args.cache, Recipe())
    pipe = StudioTextToImagePipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    asked, rows = torch.arange(len(sprites.concepts)), []
    for randomize_style in (False, True):
        requests = [
            TextToImage(with_article(name), seed=FIRST_SEED + number, randomize_style=randomize_style)
            for number, name in enumerate(sprites.concepts)
        ]
        prompts = [text for request in requests for text in resolve(request).captions]
        for preset, steps in STEPS.items():
            verdict = judge(classifier, tensor(paint(pipe, prompts, FIRST_SEED, num_inference_steps=steps)))
            seen = (
                share(verdict.concept.argmax(1) == asked),
                share(verdict.background.argmax(1) == BACKGROUNDS.index("gray")),
            )
            rows.append(["by the seed" if randomize_style else "by the model", preset, *map(in_words, seen)])
    print(f"{describe()}\n")
    print(table(["style and ground", "preset", f"the thing, top-1 (n = {len(asked)})", "a grey ground"], rows))


if __name__ == "__main__":
    main()
