"""How near few evaluations come to the converged picture: the fitted solver against the best settings of diffusers'.

    python -m tests.benchmarks.solver [--model assets/model] [--guidance 3] [--pictures 64] [--open-ground] [--sample]
        [--sprites CACHE/sprites --cache CACHE/evaluation]

Distance is the root mean square difference (of values in [-1, 1], at `sample_size`) to what a long run makes of the
same noise; prompts and seeds are none that a table was fitted on. Each family's settings are swept on a quarter of the
pictures, and the best of each is measured on all of them. Prompts that leave the ground open are apart: there a small
error can turn the whole picture's colour, with any sampler, and few pictures make the mean. Heun's evaluations are its
network calls, 2 N - 1 of them, at most as many. With sprites, the Fréchet distances to real pictures of the fitted
solver and of the best setting (but Heun's) stand beside, two pictures of each concept, whether a table was fitted on it
or not. Quality, not time: a busy machine gives the same figures.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.samplers import SOLVER_CONFIG, timestep_arguments
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.prompts.nouns import with_article
from studio.training.data.scenes import default_prompt
from studio.training.data.sprites import Sprites
from studio.training.evaluation.classifier import LabelledPictures, Labels, Recipe, cached_classifier, judge
from studio.training.evaluation.evaluate import PICTURES, REAL_SEED, concept_labels, each
from studio.training.evaluation.likeness import frechet_distance
from studio.training.evaluation.report import in_words, mean
from studio.training.evaluation.restoring import tensor
from studio.training.export import paint
from studio.training.solver import EVALUATIONS
from studio.training.trajectories import ROWS, Painting, distance, formula, solve, split_prompts, teach
from tests.benchmarks.machine import describe, table

SEED = 2_000  # of prompts and noise
CONVERGED = 50  # steps, whose Fréchet distance is that of the model itself
SPACINGS = ({"timestep_spacing": "trailing"}, {"timestep_spacing": "linspace"}, {"timestep_spacing": "leading"})
KARRAS = {"use_karras_sigmas": True}
ORDERS = ({"solver_order": 2}, {"solver_order": 3})
DPM = {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"}
FAMILIES: dict[str, tuple[type[SchedulerMixin], list[dict[str, Any]]]] = {
    "DDIM": (DDIMScheduler, [*SPACINGS]),
    "DPM++ 2M, 3M": (DPMSolverMultistepScheduler, [o | s | DPM for o in ORDERS for s in (*SPACINGS, KARRAS)]),
    "UniPC": (
        UniPCMultistepScheduler,
        [o | s | {"solver_type": kind} for o in ORDERS for s in (*SPACINGS, KARRAS) for kind in ("bh1", "bh2")],
    ),
    "DEIS": (DEISMultistepScheduler, [o | s | {"solver_type": "logrho"} for o in ORDERS for s in (*SPACINGS, KARRAS)]),
    "Heun": (HeunDiscreteScheduler, [*SPACINGS, KARRAS, {"quadratic": True}]),
}


def schedulers(family: str, config: dict[str, Any]) -> Iterator[tuple[str, SchedulerMixin, bool]]:
    """(setting in words, scheduler, whether times are spaced quadratically) for all that is swept."""
    made, settings = FAMILIES[family]
    plain = {key: value for key, value in config.items() if not key.startswith("_") and key != "solver_tables"}
    for setting in settings:
        given = {key: value for key, value in setting.items() if key != "quadratic"}
        fixed = {"clip_sample": False, "set_alpha_to_one": True} | SOLVER_CONFIG | {"timestep_spacing": "trailing"}
        words = [str(value) if value is not True else key for key, value in setting.items() if key not in DPM]
        words += [str(setting["solver_type"])] if family == "UniPC" else []
        yield ", ".join(words), made.from_config({**plain, **fixed, **given}), "quadratic" in setting


@torch.no_grad()
def run(scheduler: SchedulerMixin, problem: Painting, evaluations: int, count: int, quadratic: bool) -> torch.Tensor:
    """The first `count` pictures by a stock scheduler in at most so many network calls."""
    heun = isinstance(scheduler, HeunDiscreteScheduler)
    steps = (evaluations + 1) // 2 if heun else evaluations
    ends = []
    for begin in range(0, count, ROWS):
        rows = range(begin, min(begin + ROWS, count))
        scheduler.set_timesteps(
            **(timestep_arguments(scheduler, steps) if quadratic else {"num_inference_steps": steps})
        )
        if hasattr(scheduler, "set_begin_index"):  # Karras' times repeat when they are rounded
            scheduler.set_begin_index(0)
        x = problem.noise[rows] * scheduler.init_noise_sigma
        for number, t in enumerate(scheduler.timesteps):
            assert number < evaluations
            seen = scheduler.scale_model_input(x, t)
            x = scheduler.step(problem.predict(seen, torch.as_tensor(t).float(), rows), t, x).prev_sample
        ends.append(x)
    return torch.cat(ends)


def fitted(pipe: StudioTextToImagePipeline, prompts: list[str], scale: float, evaluations: int) -> torch.Tensor | None:
    """The same pictures as the pipeline makes them with its tables; None where it has no table for them."""
    ends = []
    for begin in range(0, len(prompts), ROWS):
        part = prompts[begin : begin + ROWS]
        seeds = range(SEED + begin, SEED + begin + len(part))
        options = {"num_inference_steps": evaluations, "guidance_scale": scale, "size": pipe.sample_size}
        rows = pipe.prepare(part, seeds=seeds, sampler="studio", **options)
        if rows[0].stage.stepper.times == pipe.scheduler.plan(evaluations).timesteps.tolist():
            return None
        while not rows[0].finished:
            pipe.denoise_step(rows)
        ends += [row.sample for row in rows]
    return torch.stack(ends)


class Likeness:
    """Two pictures of each concept, as large as words become, held against real ones by the evaluation's classifier."""

    def __init__(self, pipe: StudioTextToImagePipeline, sprites: Sprites, cache: Path) -> None:
        self.pipe, self.classifier = pipe, cached_classifier(sprites, cache, Recipe())[0]
        assert pipe.vocabulary is not None
        claimed = [sprites.concepts.index(entry["name"]) for entry in pipe.vocabulary["concepts"]]
        labels = concept_labels(sprites, claimed)
        number = torch.arange(len(labels.concept))
        half = (number // PICTURES + number % PICTURES) % 2 == 0  # two of each concept, and of each style as many
        labels = Labels(labels.concept[half], labels.style[half], labels.background[half])
        self.prompts = [
            default_prompt(with_article(c), style, background) for c, style, background in each(labels, sprites)
        ]
        painter, size = LabelledPictures(sprites, REAL_SEED), (pipe.sample_size,) * 2
        real, again = (F.interpolate(painter.paint(labels), size=size, mode="area") for _ in range(2))
        self.real = judge(self.classifier, real).features
        self.floor = frechet_distance(self.real, judge(self.classifier, again).features)

    def of(self, sampler: str | SchedulerMixin, evaluations: int, scale: float) -> float:
        """The Fréchet distance of a sampler's pictures."""
        options = {"sampler": sampler, "num_inference_steps": evaluations, "guidance_scale": scale}
        painted = paint(self.pipe, self.prompts, SEED, size=self.pipe.sample_size, **options)
        return frechet_distance(judge(self.classifier, tensor(painted)).features, self.real)


def compare(
    pipe: StudioTextToImagePipeline,
    scale: float,
    evaluations: Sequence[int],
    count: int,
    teacher_steps: int,
    backgrounds: bool = True,
    likeness: Likeness | None = None,
) -> str:
    scheduler = pipe.scheduler
    assert isinstance(scheduler, StudioScheduler) and pipe.vocabulary is not None
    prompts = split_prompts(pipe.vocabulary, count, SEED, True, backgrounds)
    problem = Painting(pipe, prompts, range(SEED, SEED + count), scale)
    end = teach(problem, scheduler, teacher_steps).end
    half = distance(teach(problem, scheduler, teacher_steps // 2).end, end).mean()
    swept, lines = max(count // 4, 1), []
    for calls in evaluations:
        best: dict[str, tuple[torch.Tensor, str]] = {}
        chosen: dict[str, SchedulerMixin] = {}
        for family in FAMILIES:
            found = []
            for words, stock, quadratic in schedulers(family, dict(scheduler.config)):
                error = distance(run(stock, problem, calls, swept, quadratic), end[:swept]).mean().item()
                found.append((error if error == error else float("inf"), words, stock, quadratic))
            _, words, stock, quadratic = min(found, key=lambda one: one[0])
            best[family] = distance(run(stock, problem, calls, count, quadratic), end), words
            chosen[family] = stock
        least = min(best, key=lambda family: best[family][0].mean().item())
        plain = distance(
            solve(problem, scheduler, formula(scheduler, end, num_inference_steps=calls), range(count)), end
        )
        ours = fitted(pipe, prompts, scale, calls)
        own, ratio = "no table", ""
        if ours is not None:
            error = distance(ours, end)
            own, ratio = in_words(mean(error, "")), f"{(error.mean() / best[least][0].mean()).item():.2f}"
        others = [f"{error.mean().item():.4f} ({words})" for error, words in best.values()]
        lines.append((calls, own, f"{plain.mean().item():.4f}", *others, least, ratio))
        if likeness is not None:
            samplers = ("studio" if ours is not None else None, chosen[least] if least != "Heun" else None)
            lines[-1] += tuple("" if one is None else f"{likeness.of(one, calls, scale):.1f}" for one in samplers)
        print(f"{calls} evaluations: {own}, of {least} {ratio}", file=sys.stderr, flush=True)
    head = ("evaluations", "fitted", "DPM-Solver++ as it is", *FAMILIES, "best of diffusers'", "fitted over it")
    said = f"{count} pictures; a run of {teacher_steps // 2} steps is {half.item():.4f} from the {teacher_steps} steps"
    said += " that count as converged."
    if likeness is not None:
        head += ("Fréchet distance, fitted", "of the best")
        converged = likeness.of("dpm++2m", CONVERGED, scale)
        said += (
            f" Fréchet distances of {len(likeness.prompts)} pictures each: {likeness.floor:.1f} between two real sets,"
        )
        said += f" {converged:.1f} of {CONVERGED} steps of DPM++ 2M."
    return f"#### Guidance {scale:g}\n\n{said}\n\n" + table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="assets/model", help="pipeline folder")
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    parser.add_argument("--guidance", type=float, nargs="+", default=(3.0,))
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--open-ground", action="store_true", help="prompts that do not say the ground")
    parser.add_argument("--teacher", type=int, default=128, help="steps of the run that counts as converged")
    parser.add_argument("--sample", action="store_true", help="a quick look: 16 pictures, 5 and 6 evaluations")
    parser.add_argument("--sprites", type=Path, help="for Fréchet distances: as the evaluation has them")
    parser.add_argument("--cache", type=Path, help="with the sprites: where the evaluation's judge is")
    args = parser.parse_args()
    if (args.sprites is None) != (args.cache is None):
        parser.error("--sprites and --cache go together")
    if args.sample:
        args.pictures, args.evaluations, args.teacher = 16, (5, 6), 64
    print(f"`python -m tests.benchmarks.solver {shlex.join(sys.argv[1:])}`\n\n{describe()}\n")
    pipe = StudioTextToImagePipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    likeness = None if args.sprites is None else Likeness(pipe, Sprites.load(args.sprites), args.cache)
    for scale in args.guidance:
        backgrounds = not args.open_ground
        print(compare(pipe, scale, args.evaluations, args.pictures, args.teacher, backgrounds, likeness), flush=True)


if __name__ == "__main__":
    main()
