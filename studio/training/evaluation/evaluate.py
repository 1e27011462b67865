"""Is it recognisable, and is it better than what needs no model? Measures a model folder on all three tasks.

    python -m studio.training.evaluation.evaluate --model assets/model --sprites CACHE/sprites --cache CACHE/evaluation

A classifier trained on the real sprites (once, kept in the cache) judges pictures painted with the pipeline's defaults,
for every concept that the model claims to know and for the (concept, style) pairs that it never saw; a detector, made
and kept likewise, judges colours bound to things, relations and counts. Both judge real pictures, too. Super-resolution
is held against bicubic enlargement, inpainting against Telea's method, on scenes of pairs that it never saw. Writes
report.json, report.md and sheets of the first seeds' pictures. The same model, sprites and seed give the same report.
With `--before MODEL` another model is measured in the same run on the same seeds, and stands beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from studio.diffusion.pipelines import StudioInpaintPipeline, StudioTextToImagePipeline, StudioUpscalePipeline
from studio.prompts.nouns import with_article
from studio.training.data.scenes import GROUNDS, Painter, Scene, SceneMaker, default_prompt
from studio.training.data.sprites import STYLES, Sprites
from studio.training.evaluation.classifier import (
    SIZE,
    Classifier,
    LabelledPictures,
    Labels,
    Recipe,
    Verdict,
    cached_classifier,
    judge,
)
from studio.training.evaluation.compositions import COLOUR, KINDS, answers, compose, questions, words
from studio.training.evaluation.detector import Detector, DetectorRecipe, cached_detector, find
from studio.training.evaluation.likeness import frechet_distance, nearer_than_usual, nearest
from studio.training.evaluation.report import beside, captioned_sheet, in_words, markdown, mean, of_a_set, share
from studio.training.evaluation.restoring import (
    SCENE_SEED,
    SCENES,
    evaluate_inpainting,
    evaluate_super_resolution,
    holes,
    scenes_to_restore,
    tensor,
)
from studio.training.export import paint

PICTURES = 4  # of each concept, and of each held-out pair
COMPOSED = 256  # pictures of things in a colour, of pairs, and of several of a kind
TRAINING_SCENES = 8192  # among which the nearest is looked for
HELD_OUT_SEED, COMPOSED_SEED = 500_000, 600_000  # of painted pictures
REAL_SEED, TRAINING_SEED = 7_001, 7_003  # of scenes: apart from one another, and from the judges'
FRECHET = "Fréchet distance"


def concept_labels(sprites: Sprites, concepts: Sequence[int]) -> Labels:
    """PICTURES of each concept, one in each style that training saw (the first again where one was held out)."""
    held = set(held_out_pairs(sprites))
    rows = []
    for c in concepts:
        styles = [s for s in range(len(STYLES)) if (c, s) not in held]
        rows += [(c, styles[k % len(styles)], (c + 3 * k) % len(GROUNDS)) for k in range(PICTURES)]
    return Labels(*torch.tensor(rows).T)


def pair_labels(pairs: Sequence[tuple[int, int]]) -> Labels:
    """PICTURES of each (concept, style), on grounds that go round."""
    rows = [(c, s, (c + 3 * k) % len(GROUNDS)) for c, s in pairs for k in range(PICTURES)]
    return Labels(*torch.tensor(rows).T)


def held_out_pairs(sprites: Sprites) -> list[tuple[int, int]]:
    rows = sprites.held_out.nonzero()[:, 0]
    return sorted(zip(sprites.concept[rows].tolist(), sprites.style[rows].tolist(), strict=True))


def each(labels: Labels, sprites: Sprites) -> list[tuple[str, str, str]]:
    """(concept, style, ground) in words."""
    indices = zip(labels.concept.tolist(), labels.style.tolist(), labels.background.tolist(), strict=True)
    return [(sprites.concepts[c], STYLES[s], list(GROUNDS)[g]) for c, s, g in indices]


# ---- what is measured ----


def border_ground(pictures: torch.Tensor) -> torch.Tensor:
    """(B,) index of the named colour nearest to the median of a two-pixel border."""
    edge = torch.ones(pictures.shape[2:], dtype=torch.bool)
    edge[2:-2, 2:-2] = False
    colour = (pictures[:, :, edge].median(dim=2).values + 1) / 2  # (B, 3)
    return torch.cdist(colour, torch.tensor(list(GROUNDS.values()))).argmin(1)


def scores(pictures: torch.Tensor, labels: Labels, verdict: Verdict) -> dict[str, dict]:
    """Shares of pictures that show what was asked for."""
    top5 = verdict.concept.topk(min(5, verdict.concept.shape[1])).indices
    return {
        "concept, top-1": share(verdict.concept.argmax(1) == labels.concept),
        "concept, top-5": share((top5 == labels.concept[:, None]).any(1)),
        "style": share(verdict.style.argmax(1) == labels.style),
        "ground, by the judge": share(verdict.background.argmax(1) == labels.background),
        "ground, by its border": share(border_ground(pictures) == labels.background),
    }


def worst_concepts(labels: Labels, verdict: Verdict, sprites: Sprites, count: int = 20) -> list[dict[str, Any]]:
    """The concepts least often recognized, and what they were most often taken for."""
    chances = verdict.concept.softmax(1)
    said = verdict.concept.argmax(1)
    found = []
    for c in labels.concept.unique().tolist():
        rows = labels.concept == c
        wrong = Counter(said[rows & (said != c)].tolist()).most_common(1)
        found.append(
            {
                "concept": sprites.concepts[c],
                "top1": (said[rows] == c).float().mean().item(),
                "chance": round(chances[rows, c].mean().item(), 4),
                "taken_for": sprites.concepts[wrong[0][0]] if wrong else None,
            }
        )
    return sorted(found, key=lambda entry: (entry["top1"], entry["chance"]))[:count]


# ---- compositions ----


def evaluate_compositions(
    pipe: Any,
    classifier: Classifier,
    detector: Detector,
    sprites: Sprites,
    concepts: Sequence[int],
    sample: int | None,
    seed: int,
    **options,
) -> tuple[dict[str, dict], Image.Image]:
    """Tables by kind and of all that show several things together, real scenes first; and a sheet."""
    asked = questions(sprites, concepts, min(COMPOSED, sample or COMPOSED), COMPOSED_SEED + seed)
    prompts = [words(question, sprites) for question in asked]
    makers = SceneMaker(sprites, REAL_SEED + seed), SceneMaker(sprites, SCENE_SEED + seed)
    real, again = (Painter(sprites)([compose(question, maker) for question in asked], SIZE) for maker in makers)
    painted = paint(pipe, prompts, 1_000_000 * seed + COMPOSED_SEED, **options)
    sets = {"real scenes": real, "generated": tensor(painted)}

    tables: dict[str, dict] = {kind: {} for kind in (*KINDS, "Several things, together")}
    for name, pictures in sets.items():
        found, alone = find(detector, pictures), find(detector, pictures, alone=True)
        found = [one if q.kind == COLOUR else many for q, one, many in zip(asked, alone, found, strict=True)]
        for kind in KINDS:
            pairs = [(question, things) for question, things in zip(asked, found, strict=True) if question.kind == kind]
            if judged := [answers(*pair) for pair in pairs]:
                rows = {row: share(torch.tensor([answer[row] for answer in judged])) for row in judged[0]}
                tables[kind][name] = rows
                announce(f"{kind}, {name}", rows)

    several = torch.tensor([question.kind != COLOUR for question in asked])
    floor = judge(classifier, again[several]).features
    shown = training_scenes(sprites, TRAINING_SCENES if sample is None else 20 * sample, seed)
    places = {"pixels": in_pixels(shown), "features": F.normalize(judge(classifier, shown).features)}

    def distances(pictures: torch.Tensor, features: torch.Tensor) -> dict[str, torch.Tensor]:
        ways = {"pixels": in_pixels(pictures), "features": F.normalize(features)}
        return {way: nearest(ours, places[way]) for way, ours in ways.items()}

    usual = distances(again[several], floor)
    for name, pictures in sets.items():
        features = judge(classifier, pictures[several]).features
        rows = {FRECHET: of_a_set(frechet_distance(features, floor), len(features))}
        for way, values in distances(pictures[several], features).items():
            rows[f"distance to the nearest training scene, {way}"] = mean(values, "")
            rows[f"nearer than the nearest 5 % of real ones, {way}"] = share(nearer_than_usual(values, usual[way]))
        tables["Several things, together"][name] = rows
        announce(f"several things, {name}", rows)
    chosen = [i for kind in KINDS for i in spread([i for i, q in enumerate(asked) if q.kind == kind], 32)]
    return tables, captioned_sheet([painted[i] for i in chosen], [prompts[i] for i in chosen], 16)


def training_scenes(sprites: Sprites, count: int, seed: int) -> torch.Tensor:
    """(count, 3, SIZE, SIZE): scenes of several things as training draws them."""
    maker, painter = SceneMaker(sprites, TRAINING_SEED + seed), Painter(sprites)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = maker.draw()
        if len(scene.things) > 1:
            scenes.append(scene)
    return torch.cat([painter(scenes[begin : begin + 512], SIZE) for begin in range(0, count, 512)])


def in_pixels(pictures: torch.Tensor) -> torch.Tensor:
    """(B, D) whose Euclidean distances are root mean square differences at half the size, of the range of values."""
    small = F.interpolate(pictures, size=(SIZE // 2, SIZE // 2), mode="area").flatten(1) / 2
    return small / small.shape[1] ** 0.5


# ---- the whole ----


def evaluate(
    pipe: Any,
    upscale: Any,
    inpaint: Any,
    classifier: Classifier,
    detector: Detector,
    sprites: Sprites,
    sample: int | None = None,
    seed: int = 0,
    **options,
) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    """The report's measured part, and the sheets by name.

    Args:
        pipe: text to image; `upscale` and `inpaint` are called as diffusers users call them.
        sample: at most so many concepts, pairs and scenes, for a quick look.
        options: num_inference_steps, guidance_scale, sampler, one_pass, style_emphasis: the pipeline's own where
            absent.

    Raises:
        ValueError: when the model claims a concept of which there is no sprite, or no pair was held out.
    """
    pairs = held_out_pairs(sprites)
    if not pairs:
        raise ValueError("the sprites hold no pair out, so that nothing can be said of what was never seen")
    claimed = [entry["name"] for entry in (pipe.vocabulary or {}).get("concepts", [])] or list(sprites.concepts)
    if unknown := set(claimed) - set(sprites.concepts):
        raise ValueError(f"the model claims concepts of which there is no sprite: {', '.join(sorted(unknown))}")
    claimed_concepts = [sprites.concepts.index(name) for name in claimed]
    concepts = spread(claimed_concepts, sample)
    pairs = spread([pair for pair in pairs if sprites.concepts[pair[0]] in claimed], sample)

    columns: dict[str, dict] = {}
    asked = {"generated": concept_labels(sprites, concepts), "generated, held-out pairs": pair_labels(pairs)}
    real = LabelledPictures(sprites, REAL_SEED + seed)
    pictures, labels = real(max(len(sprites), 1000) if sample is None else 20 * sample)
    columns["real sprites, augmented"] = scores(pictures, labels, judge(classifier, pictures))
    labels = asked["generated"]
    pictures = real.paint(labels)
    verdict = judge(classifier, pictures)
    columns["real sprites, as asked"] = scores(pictures, labels, verdict)
    again = judge(classifier, real.paint(labels)).features
    columns["real sprites, as asked"][FRECHET] = of_a_set(frechet_distance(verdict.features, again), len(again))
    announce("the judge on real sprites", columns["real sprites, augmented"])

    worst: list[dict] = []
    sheets = {}
    first_seed = 1_000_000 * seed
    for name, labels in asked.items():
        held = name != "generated"
        wanted = each(labels, sprites)
        prompts = [default_prompt(with_article(concept), style, background) for concept, style, background in wanted]
        painted = paint(pipe, prompts, first_seed + held * HELD_OUT_SEED, **options)
        pictures = tensor(painted)
        verdict = judge(classifier, pictures)
        columns[name] = scores(pictures, labels, verdict)
        if not held:
            columns[name][FRECHET] = of_a_set(frechet_distance(verdict.features, again), len(again))
        announce(name, columns[name])
        captions = [f"{concept}, {style}, {background}" for concept, style, background in wanted]
        if not held:
            worst = worst_concepts(labels, verdict, sprites)
        shown = [i for row in spread(range(len(wanted) // PICTURES), 32) for i in range(row * 4, row * 4 + 4)]
        sheets["held-out" if held else "concepts"] = captioned_sheet(
            [painted[i] for i in shown], [captions[i] for i in shown], 16
        )

    composed, sheets["compositions"] = evaluate_compositions(
        pipe, classifier, detector, sprites, claimed_concepts, sample, seed, **options
    )
    scenes, truth = scenes_to_restore(sprites, min(SCENES, sample or SCENES), seed)
    hole = holes(scenes, truth, sprites, seed)
    tasks: dict[str, dict] = {"Text to image": columns, **composed, "Super-resolution to 64 px": {}, "Inpainting": {}}
    strips: list[tuple[list, tuple[str, ...]]] = []
    for factor in (2, 4):
        column, strip = evaluate_super_resolution(upscale, truth, factor, first_seed)
        tasks["Super-resolution to 64 px"][f"×{factor}"] = column
        strips.append((strip, (f"given, x{factor}", "ours", "bicubic", "truth")))
        announce(f"super-resolution ×{factor}", column)
    column, strip = evaluate_inpainting(inpaint, classifier, scenes, truth, hole, first_seed)
    tasks["Inpainting"]["scenes of held-out pairs"] = column
    strips.append((strip, ("given, hole", "ours", "Telea", "truth")))
    announce("inpainting", column)
    tiles = []
    for strip, names in strips:
        tiles += [(part[i], name) for i in range(min(6, len(truth))) for part, name in zip(strip, names, strict=True)]
    sheets["other-tasks"] = captioned_sheet([picture for picture, _ in tiles], [word for _, word in tiles], 8)
    return {"tasks": tasks, "worst_concepts": worst}, sheets


def spread(values: Sequence, count: int | None) -> list:
    """At most `count` of the values, evenly from first to last."""
    if count is None or count >= len(values):
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]


def announce(name: str, column: dict[str, dict]) -> None:
    print(f"{name}: " + "; ".join(f"{row} {in_words(figure)}" for row, figure in column.items()), flush=True)


def model_digest(folder: Path) -> str:
    """16 hexadecimal digits of the model's weights."""
    whole = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        whole.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return whole.hexdigest()[:16]


def pipelines(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """Text to image, super-resolution and inpainting, without progress bars."""
    pipe = StudioTextToImagePipeline.from_pretrained(folder).to(device)
    whole = pipe, StudioUpscalePipeline.from_pipe(pipe), StudioInpaintPipeline.from_pipe(pipe)
    for each_pipe in whole:
        each_pipe.set_progress_bar_config(disable=True)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/model"), help="pipeline folder")
    parser.add_argument("--before", type=Path, help="another pipeline folder, to stand beside it")
    parser.add_argument("--sprites", type=Path, required=True, help="folder made by studio.training.data.sprites")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the judge")
    parser.add_argument("--out", type=Path, help="folder for the report; default: report in the cache")
    parser.add_argument("--sample", type=int, help="a quick look: so many concepts, held-out pairs and scenes")
    parser.add_argument("--seed", type=int, default=0, help="of pictures and scenes")
    parser.add_argument("--steps", type=int, help="num_inference_steps; default: the pipeline's own, as the next two")
    parser.add_argument("--guidance", type=float, help="guidance_scale")
    parser.add_argument("--sampler", help="a name from studio.diffusion.schedulers.samplers")
    parser.add_argument("--one-pass", action="store_true", help="guidance by the network's own input, where it can")
    parser.add_argument("--style-emphasis", type=float, help="of guidance; 0 for none, default: the pipeline's own")
    parser.add_argument("--classifier-views", type=int, default=Recipe.views, help="of each sprite, to train the judge")
    parser.add_argument("--detector-updates", type=int, default=DetectorRecipe.updates, help="to train the second")
    args = parser.parse_args()
    command = f"python -m studio.training.evaluation.evaluate {shlex.join(sys.argv[1:])}"
    folders = {"model": args.model} | ({"before": args.before} if args.before else {})
    digests = {name: model_digest(folder) for name, folder in folders.items()}
    print(command, *(f"{name} {digest}" for name, digest in digests.items()), sep="\n", flush=True)

    began = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sprites = Sprites.load(args.sprites)
    classifier, judge_digest = cached_classifier(sprites, args.cache, Recipe(views=args.classifier_views), device)
    recipe = DetectorRecipe(updates=args.detector_updates)
    detector = cached_detector(sprites, args.cache, classifier, judge_digest, recipe, device)
    given = {"num_inference_steps": args.steps, "guidance_scale": args.guidance, "sampler": args.sampler}
    given |= {"one_pass": args.one_pass or None, "style_emphasis": args.style_emphasis}
    options = {name: value for name, value in given.items() if value is not None}
    judges = classifier, detector, sprites
    measured, sheets = {}, {}
    for name, folder in folders.items():
        print(f"{name}:", flush=True)
        measured[name], sheets[name] = evaluate(*pipelines(folder, device), *judges, args.sample, args.seed, **options)
    tasks = measured["model"]["tasks"]
    if args.before:
        tasks = beside(tasks, measured["before"]["tasks"])

    report = {"command": command, **digests, "classifier": judge_digest, "options": options}
    report |= {"tasks": tasks, "worst_concepts": measured["model"]["worst_concepts"]}
    out = args.out or args.cache / "report"
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "report.md").write_text(markdown(report))
    for which, pictures in sheets.items():
        for name, picture in pictures.items():
            picture.save(out / f"{name}{'-before' * (which == 'before')}.png")
    print(f"{out}/report.md, after {(time.monotonic() - began) / 60:.1f} min")


if __name__ == "__main__":
    main()
