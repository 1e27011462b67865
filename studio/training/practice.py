"""What further training shows more often: concepts that a model does not know yet, and pairs that it draws doubtfully.

    python -m studio.training.practice --model MODEL --sprites CACHE/sprites --cache CACHE --out CACHE/doubts.json

asks the model several times for every (concept, style) pair that training may show, and writes how much a judge doubts
what it sees: the file that `studio.training.train --practice` draws by. The judge is another than the evaluation's,
begun elsewhere and trained on other views, lest what is practised be chosen by who examines it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from studio.diffusion.pipeline import StudioTextToImagePipeline
from studio.nouns import with_article
from studio.training.classifier import Classifier, Recipe, cached_classifier, judge
from studio.training.export import paint
from studio.training.restoring import tensor
from studio.training.scenes import GROUNDS, default_prompt
from studio.training.sprites import STYLES, Sprites

NEW = 3  # times as often as another is a pair of a concept drawn that the model does not know
DOUBTED = 9  # times as often, one that is doubted wholly; in between, in proportion
ROUNDS = 4  # pictures of each pair
JUDGE = Recipe(seed=1)

Pair = tuple[int, int]  # concept, style: indices into a sprites' concepts, and into STYLES


def known_concepts(model: Path, sprites: Sprites) -> list[int]:
    """Those of the sprites' concepts that a model folder's vocabulary names; none where it has no vocabulary."""
    path = model / "vocabulary.json"
    names = {entry["name"] for entry in json.loads(path.read_text())["concepts"]} if path.exists() else set()
    return [number for number, name in enumerate(sprites.concepts) if name in names]


def how_often(sprites: Sprites, model: Path | None = None, doubts: Path | None = None) -> dict[Pair, int]:
    """How many times as often as another a pair is drawn; 1 where it is not named.

    Args:
        model: begun from, whose vocabulary says which concepts are not new.
        doubts: written by this program.

    Raises:
        ValueError: when `doubts` names a concept or a style that there is not.
    """
    drawn = {}
    if model is not None:
        new = set(range(len(sprites.concepts))) - set(known_concepts(model, sprites))
        drawn = {(concept, style): NEW for concept in new for style in range(len(STYLES))}
    if doubts is not None:
        for name, styles in json.loads(doubts.read_text()).items():
            for style, doubt in styles.items():
                if name not in sprites.concepts or style not in STYLES:
                    raise ValueError(f"{doubts} names {name!r} in {style!r}: the sprites have no such picture")
                pair = sprites.concepts.index(name), STYLES.index(style)
                drawn[pair] = max(drawn.get(pair, 1), 1 + round((DOUBTED - 1) * doubt))
    return drawn


def doubted(pipe: Any, classifier: Classifier, sprites: Sprites, rounds: int = ROUNDS, **options) -> dict[Pair, float]:
    """Of each pair the judge's doubt, in [0, 1], as a mean of `rounds` pictures: 1 less the probability of the style
    where it sees the concept, and 1 where it sees another.

    options: the pipeline's.
    """
    shown = (~sprites.held_out).nonzero()[:, 0]
    concept, style = sprites.concept[shown], sprites.style[shown]
    pairs = list(zip(concept.tolist(), style.tolist(), strict=True))
    generator = torch.Generator().manual_seed(JUDGE.seed)
    grounds = [list(GROUNDS)[n] for n in torch.randint(len(GROUNDS), (rounds * len(pairs),), generator=generator)]
    prompts = [
        default_prompt(with_article(sprites.concepts[c]), STYLES[s], ground)
        for (c, s), ground in zip(pairs * rounds, grounds, strict=True)
    ]
    verdict = judge(classifier, tensor(paint(pipe, prompts, **options)))
    right = verdict.style.softmax(1).gather(1, style.repeat(rounds)[:, None])[:, 0]
    right = right * (verdict.concept.argmax(1) == concept.repeat(rounds))
    return dict(zip(pairs, (1 - right).view(rounds, -1).mean(0).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder that is to be trained further")
    parser.add_argument("--sprites", type=Path, required=True, help="folder made by studio.training.sprites")
    parser.add_argument("--cache", type=Path, required=True, help="folder where the judge is kept")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--size", type=int, default=32, help="px: at which words become pictures in training")
    args = parser.parse_args()
    sprites = Sprites.load(args.sprites)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    classifier, _ = cached_classifier(sprites, args.cache, JUDGE, device)
    pipe = StudioTextToImagePipeline.from_pretrained(args.model).to(device)
    pipe.set_progress_bar_config(disable=True)
    doubts = doubted(pipe, classifier, sprites, num_inference_steps=8, sampler="unipc", size=args.size)
    content: dict[str, dict[str, float]] = {}
    for (concept, style), doubt in sorted(doubts.items()):
        content.setdefault(sprites.concepts[concept], {})[STYLES[style]] = round(doubt, 4)
    args.out.write_text(json.dumps(content, indent=1) + "\n")
    values = torch.tensor(list(doubts.values()))
    print(f"doubt {values.mean():.3f} on the mean of {len(values)} pairs; above a half in {int((values > 0.5).sum())}")


if __name__ == "__main__":
    main()
