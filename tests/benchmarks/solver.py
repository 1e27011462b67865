"""Distance to the converged picture in few evaluations: the fitted solver and the best settings of other samplers.

    python -m tests.benchmarks.solver [--model assets/model] [--guidance 3] [--pictures 64] [--open-background]
        [--sample] [--sprites CACHE/sprites --cache CACHE/evaluation]

Distance is the root mean square difference (of values in [-1, 1], at `sample_size`) to a long run from the same noise.
No table was fitted to these prompts and seeds. Each family's settings are swept on a quarter of the pictures; the best
is measured on all. Prompts without a background are measured apart (`--open-background`): there a small error can
change the colour of the whole picture, with any sampler, and a few pictures dominate the mean. Heun makes 2 N - 1
network calls for N steps, at most as many as the others. With sprites, the Fréchet distances to real pictures are
given, too, for the fitted solver and the best other setting (except Heun), on two pictures of each concept. It measures
quality, not time: a busy machine gives the same figures.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.samplers import SOLVER_CONFIG, timestep_arguments
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.training.data.sprites import Sprites
from studio.training.evaluation.classifier import (
    ClassifierConfig,
    LabelledPictures,
    Labels,
    cached_classifier,
    classify,
)
from studio.training.evaluation.evaluate import find_concepts
from studio.training.evaluation.report import format_figure, mean
from studio.training.evaluation.restoration import to_tensor
from studio.training.evaluation.similarity import frechet_distance
from studio.training.evaluation.single_objects import PICTURES, REAL_SEED, concept_labels, label_prompts
from studio.training.export import generate
from studio.training.solver import EVALUATIONS
from studio.training.trajectories import (
    BATCH_SIZE,
    TextToImageProblem,
    dpm_solver,
    fitting_prompts,
    rms_distance,
    solve,
    solve_reference,
)
from tests.benchmarks.machine import describe, table

SEED = 2_000  # of prompts and noise
CONVERGED_STEPS = 50  # steps for the Fréchet distance of the model itself
SPACINGS = ({"timestep_spacing": "trailing"}, {"timestep_spacing": "linspace"}, {"timestep_spacing": "leading"})
KARRAS = {"use_karras_sigmas": True}
ORDERS = ({"solver_order": 2}, {"solver_order": 3})
DPM = {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"}
FAMILIES: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "DDIM": (DDIMScheduler, [*SPACINGS]),
    "DPM++ 2M, 3M": (DPMSolverMultistepScheduler, [o | s | DPM for o in ORDERS for s in (*SPACINGS, KARRAS)]),
    "UniPC": (
        UniPCMultistepScheduler,
        [o | s | {"solver_type": kind} for o in ORDERS for s in (*SPACINGS, KARRAS) for kind in ("bh1", "bh2")],
    ),
    "DEIS": (DEISMultistepScheduler, [o | s | {"solver_type": "logrho"} for o in ORDERS for s in (*SPACINGS, KARRAS)]),
    "Heun": (HeunDiscreteScheduler, [*SPACINGS, KARRAS, {"quadratic": True}]),
}


def family_schedulers(family: str, config: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Yield (settings as text, scheduler, whether times are spaced quadratically) for all settings of a family."""
    scheduler_class, settings = FAMILIES[family]
    base = {key: value for key, value in config.items() if not key.startswith("_") and key != "solver_tables"}
    base |= {"clip_sample": False, "set_alpha_to_one": True} | SOLVER_CONFIG | {"timestep_spacing": "trailing"}
    for setting in settings:
        options = {key: value for key, value in setting.items() if key != "quadratic"}
        words = [str(value) if value is not True else key for key, value in setting.items() if key not in DPM]
        if family == "UniPC":
            words.append(str(setting["solver_type"]))
        yield ", ".join(words), scheduler_class.from_config({**base, **options}), "quadratic" in setting


@torch.no_grad()
def run_scheduler(
    scheduler: Any, problem: TextToImageProblem, evaluations: int, count: int, *, quadratic: bool
) -> torch.Tensor:
    """Return the first `count` pictures by a diffusers scheduler in at most so many network calls."""
    is_heun = isinstance(scheduler, HeunDiscreteScheduler)
    steps = (evaluations + 1) // 2 if is_heun else evaluations
    ends = []
    for start in range(0, count, BATCH_SIZE):
        rows = range(start, min(start + BATCH_SIZE, count))
        options = timestep_arguments(scheduler, steps) if quadratic else {"num_inference_steps": steps}
        scheduler.set_timesteps(**options)
        if hasattr(scheduler, "set_begin_index"):  # Karras' times repeat when they are rounded
            scheduler.set_begin_index(0)
        x = problem.noise[rows] * scheduler.init_noise_sigma
        for number, t in enumerate(scheduler.timesteps):
            assert number < evaluations
            model_input = scheduler.scale_model_input(x, t)
            prediction = problem.predict(model_input, torch.as_tensor(t).float(), rows)
            x = scheduler.step(prediction, t, x).prev_sample
        ends.append(x)
    return torch.cat(ends)


def run_fitted(
    pipe: StudioTextToImagePipeline, prompts: Sequence[str], scale: float, evaluations: int
) -> torch.Tensor | None:
    """Return the pictures as the pipeline makes them with its table; None where it has no table."""
    ends = []
    for start in range(0, len(prompts), BATCH_SIZE):
        batch = list(prompts[start : start + BATCH_SIZE])
        seeds = range(SEED + start, SEED + start + len(batch))
        options = {"num_inference_steps": evaluations, "guidance_scale": scale, "size": pipe.sample_size}
        rows = pipe.prepare(batch, seeds=seeds, sampler="studio", **options)
        if rows[0].stage.stepper.times == pipe.scheduler.plan(evaluations).timesteps.tolist():
            return None
        while not rows[0].finished:
            pipe.denoise_step(rows)
        ends += [row.sample for row in rows]
    return torch.stack(ends)


class FrechetMeter:
    """Measures the Fréchet distance of a sampler's pictures to real ones, on two pictures of each concept."""

    def __init__(self, pipe: StudioTextToImagePipeline, sprites: Sprites, cache: Path) -> None:
        self.pipe, self.classifier = pipe, cached_classifier(sprites, cache, ClassifierConfig())[0]
        labels = concept_labels(sprites, find_concepts(pipe, sprites))
        number = torch.arange(len(labels.concept))
        half = (number // PICTURES + number % PICTURES) % 2 == 0  # two of each concept, every style equally often
        labels = Labels(labels.concept[half], labels.style[half], labels.background[half])
        self.prompts = label_prompts(labels, sprites)
        source, size = LabelledPictures(sprites, REAL_SEED), (pipe.sample_size,) * 2
        real, other = (F.interpolate(source.render(labels), size=size, mode="area") for _ in range(2))
        self.real = classify(self.classifier, real).features
        self.floor = frechet_distance(self.real, classify(self.classifier, other).features)

    def measure(self, sampler: Any, evaluations: int, scale: float) -> float:
        """Return the distance of a sampler's pictures; sampler: a name or a scheduler."""
        options = {"sampler": sampler, "num_inference_steps": evaluations, "guidance_scale": scale}
        pictures = to_tensor(generate(self.pipe, self.prompts, SEED, size=self.pipe.sample_size, **options))
        return frechet_distance(classify(self.classifier, pictures).features, self.real)


@dataclass(frozen=True)
class Options:
    """What is measured for each guidance scale."""

    evaluations: Sequence[int]
    pictures: int
    reference_steps: int
    backgrounds: bool  # in the prompts


@dataclass(frozen=True)
class BestSetting:
    """The best setting of a family: its distances (B,), its settings as text, and its scheduler."""

    distances: torch.Tensor
    words: str
    scheduler: Any


def find_best_setting(
    family: str, problem: TextToImageProblem, config: dict[str, Any], end: torch.Tensor, evaluations: int
) -> BestSetting:
    """Sweep a family's settings on a quarter of the pictures, and measure the best on all."""
    swept = max(len(end) // 4, 1)
    candidates = []
    for words, scheduler, quadratic in family_schedulers(family, config):
        pictures = run_scheduler(scheduler, problem, evaluations, swept, quadratic=quadratic)
        error = rms_distance(pictures, end[:swept]).mean().item()
        candidates.append((math.inf if math.isnan(error) else error, words, scheduler, quadratic))
    _, words, scheduler, quadratic = min(candidates, key=lambda candidate: candidate[0])
    pictures = run_scheduler(scheduler, problem, evaluations, len(end), quadratic=quadratic)
    return BestSetting(rms_distance(pictures, end), words, scheduler)


def compare(pipe: StudioTextToImagePipeline, scale: float, options: Options, meter: FrechetMeter | None = None) -> str:
    """Return a table of distances by number of evaluations, at one guidance scale."""
    scheduler, count = pipe.scheduler, options.pictures
    assert isinstance(scheduler, StudioScheduler) and pipe.vocabulary is not None
    prompts = fitting_prompts(pipe.vocabulary, count, SEED, held_out=True, backgrounds=options.backgrounds)
    problem = TextToImageProblem(pipe, prompts, range(SEED, SEED + count), scale)
    end = solve_reference(problem, scheduler, options.reference_steps).end
    half_steps = options.reference_steps // 2
    half = rms_distance(solve_reference(problem, scheduler, half_steps).end, end).mean().item()
    rows = []
    for evaluations in options.evaluations:
        config = dict(scheduler.config)
        best = {family: find_best_setting(family, problem, config, end, evaluations) for family in FAMILIES}
        winner = min(best, key=lambda family: best[family].distances.mean().item())
        baseline = dpm_solver(scheduler, end, num_inference_steps=evaluations)
        baseline_distance = rms_distance(solve(problem, scheduler, baseline, range(count)), end).mean().item()
        pictures = run_fitted(pipe, prompts, scale, evaluations)
        fitted, ratio = "no table", ""
        if pictures is not None:
            distances = rms_distance(pictures, end)
            fitted = format_figure(mean(distances, ""))
            ratio = f"{(distances.mean() / best[winner].distances.mean()).item():.2f}"
        others = [f"{setting.distances.mean().item():.4f} ({setting.words})" for setting in best.values()]
        row = [evaluations, fitted, f"{baseline_distance:.4f}", *others, winner, ratio]
        if meter is not None:
            samplers = (None if pictures is None else "studio", None if winner == "Heun" else best[winner].scheduler)
            for sampler in samplers:
                row.append("" if sampler is None else f"{meter.measure(sampler, evaluations, scale):.1f}")
        rows.append(row)
        print(f"{evaluations} evaluations: {fitted}, {ratio} of {winner}", file=sys.stderr, flush=True)
    head = ["evaluations", "fitted", "DPM-Solver++, unfitted", *FAMILIES, "best other sampler", "fitted / best other"]
    text = (
        f"{count} pictures. The reference has {options.reference_steps} steps; a run of {half_steps} steps is "
        f"{half:.4f} from it."
    )
    if meter is not None:
        head += ["Fréchet distance, fitted", "Fréchet distance, best other"]
        converged = meter.measure("dpm++2m", CONVERGED_STEPS, scale)
        text += (
            f" Fréchet distances of {len(meter.prompts)} pictures each: {meter.floor:.1f} between two real sets, "
            f"{converged:.1f} by {CONVERGED_STEPS} steps of DPM++ 2M."
        )
    return f"#### Guidance {scale:g}\n\n{text}\n\n" + table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="assets/model", help="pipeline folder")
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    parser.add_argument("--guidance", type=float, nargs="+", default=(3.0,))
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--open-background", "--open-ground", action="store_true", help="prompts without a background")
    parser.add_argument("--reference-steps", "--teacher", type=int, default=128, help="steps of the reference")
    parser.add_argument("--sample", action="store_true", help="a quick look: 16 pictures, 5 and 6 evaluations")
    parser.add_argument("--sprites", type=Path, help="for Fréchet distances: as for the evaluation")
    parser.add_argument("--cache", type=Path, help="with --sprites: folder for the classifier")
    args = parser.parse_args()
    if (args.sprites is None) != (args.cache is None):
        parser.error("--sprites and --cache go together")
    options = Options(args.evaluations, args.pictures, args.reference_steps, not args.open_background)
    if args.sample:
        options = replace(options, evaluations=(5, 6), pictures=16, reference_steps=64)
    print(f"`python -m tests.benchmarks.solver {shlex.join(sys.argv[1:])}`\n\n{describe()}\n")
    pipe = StudioTextToImagePipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    meter = None if args.sprites is None else FrechetMeter(pipe, Sprites.load(args.sprites), args.cache)
    for scale in args.guidance:
        print(compare(pipe, scale, options, meter), flush=True)


if __name__ == "__main__":
    main()
