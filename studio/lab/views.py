"""What the noise tab draws, as plain JSON: every frame a rail can reach is in it, so that scrubbing asks nobody.

Knows arrays and their meaning; knows nothing of pages. Numbers stay numbers, arrays are packed (pack.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from studio.lab import pack
from studio.lab.attention import replay_step, stretch_contrast
from studio.lab.forward import Moments, forward, noise_like, prepare
from studio.lab.plane import EXTENT, SHAPES, PointCloud, cloud_from_letters, cloud_from_strokes, density, make_cloud
from studio.lab.reverse import StepExplanation, distance_to_final, explain_steps
from studio.lab.schedules import LABELS, SCHEDULES, SOURCES, curves
from studio.lab.toy import ANY_POINT, GuidanceTarget, PointModel, flow_arrows, forward_paths, reverse_paths

LOOKED_AT = 12  # steps of a stage into which the network is looked
PLANE_STEPS = 40
PARTICLES = 400
SHOWN_POINTS = 700


def forward_view(
    picture: Image.Image,
    size: int = 64,
    seed: int = 0,
    standardize: bool = False,
    model: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A picture, its noise and all schedules: x_t at any t is then one multiplication away. Raises ValueError."""
    made = prepare(picture, size, standardize)
    tables = {name: curves(name, model) for name in SCHEDULES}
    return {
        "size": size,
        "seed": seed,
        "standardized": standardize,
        "x0": pack.packed(made.x0),
        "eps": pack.packed(noise_like(made.x0, seed)),
        "moments": {name: _moments(getattr(made, name)) for name in ("pixels", "scaled", "standardized")},
        "last": len(tables["model"]) - 1,
        "schedules": {
            name: {
                "label": LABELS[name],
                "source": SOURCES[name],
                "log_snr": pack.pack_exact(table.log_snr),
                "beta": pack.pack_exact(table.beta),
            }
            for name, table in tables.items()
        },
    }


def forward_numbers(
    picture: Image.Image,
    t: int,
    schedule: str = "model",
    size: int = 64,
    seed: int = 0,
    standardize: bool = False,
    model: Mapping[str, Any] | None = None,
) -> tuple[Image.Image, dict[str, Any]]:
    """The noised picture at one t, and its numbers. Raises ValueError."""
    made, table = prepare(picture, size, standardize), curves(schedule, model)
    step = forward(made.x0, noise_like(made.x0, seed), table, t)
    numbers = {
        "t": int(step.t),
        "schedule": schedule,
        "seed": seed,
        "alpha": step.alpha,
        "sigma": step.sigma,
        "alpha_bar": step.alpha**2,
        "beta": float(table.beta[t]),
        "log_snr": float(table.log_snr[t]),
        "snr_db": step.snr_db,
        "picture_snr_db": step.picture_snr_db if np.isfinite(step.picture_snr_db) else None,
        "formula": step.formula,
        "preparation": {name: _moments(getattr(made, name)) for name in ("pixels", "scaled", "standardized")},
        "measured": _moments(step.measured),
        "expected": _moments(step.expected),
        "histogram": {"density": step.histogram.tolist(), "normal": step.normal.tolist(), "from": -4, "to": 4},
    }
    return pack.picture(step.x_t), numbers


def _moments(moments: Moments) -> dict[str, float]:
    return {"mean": moments.mean, "variance": moments.variance}


# ---- a run ----


def step_numbers(step: StepExplanation) -> dict[str, Any]:
    return {
        "step": step.step,
        "t": step.timestep,
        "alpha": step.alpha,
        "sigma": step.sigma,
        "guidance": step.guidance_scale,
        "splitting": step.splitting,
        "arithmetic": step.arithmetic,
        "a": step.weights.a,
        "b": list(step.weights.b),
        "coarse": list(step.weights.coarse),
        "how": step.weights.how,
        "rest": step.weights.rest,
        "drawn": step.weights.drawn,
        "next": step.x_next is not None,
        "identity_error": step.identity_error,
        "difference": None if step.difference is None else float(np.sqrt(np.mean(np.square(step.difference)))),
    }


def reverse_view(trace: Any, sampler: str = "studio", config: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The stages of a run, each with its pictures as sheets, a frame a step, and its numbers. Raises ValueError."""
    stages = []
    for number, stage in enumerate(trace.stages):
        steps = explain_steps(stage, sampler if number == 0 else "studio", config)
        height, width = steps[0].x_t.shape[1:]
        nothing = np.zeros_like(steps[0].x_t)
        sheets = {
            "x_t": [step.x_t for step in steps],
            "eps": [step.eps / 2 for step in steps],  # half as strong, so that few values are out of range
            "x0": [step.x0 for step in steps],
            "x_next": [nothing if step.x_next is None else step.x_next for step in steps],
        }
        if any(step.difference is not None for step in steps):
            sheets["difference"] = [_stretched(nothing if s.difference is None else s.difference) for s in steps]
        stages.append(
            {
                "width": width,
                "height": height,
                "task": stage.task or 0,
                "noise_level": stage.noise_level,
                "condition": _condition(stage.condition),
                "steps": [step_numbers(step) for step in steps],
                "sheets": {name: pack.sheet(np.stack(frames)) for name, frames in sheets.items()},
            }
        )
    return stages


def _stretched(values: np.ndarray) -> np.ndarray:
    """Gray where nothing is, as strong as can be."""
    return values / max(float(np.abs(values).max()), 1e-6)


def _condition(condition: np.ndarray | None) -> dict[str, str]:
    """What the network was told besides: the known picture, its mask, the low-resolution picture."""
    if condition is None:
        return {}
    told = {}
    if condition[3].any():
        told["known picture"] = pack.data_uri(pack.picture(condition[:3]))
        told["mask of what is known"] = pack.gray_sheet(condition[3:4])
    if condition[4:].any():
        told["low-resolution picture"] = pack.data_uri(pack.picture(condition[4:]))
    return told


def inspection_view(
    pipe: Any, prompt: str, trace: Any, number: int = 0, most: int = LOOKED_AT, denoised: bool = False
) -> dict[str, Any]:
    """Into the network at up to `most` steps of a trace's stage: attention to each word, and what each level holds.

    denoised: whether the run took the noise out of a picture; see `insight`.
    """
    stage = trace.stages[number]
    from_words = not trace.stages[0].task and not denoised  # text to image is task 0
    steps = list(stage)
    chosen = sorted({round(i) for i in np.linspace(0, len(steps) - 1, min(most, len(steps)))})
    looks, found = [], None
    for index in chosen:
        found = replay_step(pipe, prompt, stage, steps[index], from_words=from_words, denoised=denoised)
        looks.append(
            {
                "index": index,
                "maps": pack.gray_sheet(stretch_contrast(found.merged)),
                "shares": _shares(found.merged),
                "levels": [pack.gray_sheet(level.shown) for level in found.levels],
            }
        )
    height, width = steps[0].x_t.shape[1:]
    return {
        "width": width,
        "height": height,
        "window": found.window,
        "windows": found.windows,
        "words": [word.text for word in found.words],
        "sizes": list(found.maps),
        "levels": [
            {"name": level.name, "shape": [level.channels, level.height, level.width], "shown": len(level.shown)}
            for level in found.levels
        ],
        "looks": looks,
    }


def _shares(maps: np.ndarray) -> list[float]:
    """Of words' maps (words, H, W), each word's part of the whole; where no window is, nothing counts."""
    return [float(value) for value in maps.sum((1, 2)) / maps.sum()]


@dataclass(frozen=True)
class ComparedRun:
    """One of several runs: its name, the stage in which words became a picture, and what it should converge to."""

    label: str
    stage: Any
    goal: np.ndarray  # (3, H, W), where a run of many steps from the same noise ends
    sampler: str = "studio"
    picture: str = ""  # id of the picture that was kept
    windows: int = 1  # of the picture, that the network is shown apart
    passes: int = 2  # how often each of them, where guidance acts


def compare_view(runs: Sequence[ComparedRun], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Several runs on one rail, each up to its picture. Raises ValueError where a goal is of another size than its
    run."""
    entries = []
    for run in runs:
        steps = list(run.stage)
        last = explain_steps(run.stage, run.sampler, config)[-1]
        end = steps[-1].x0 if last.x_next is None else last.x_next
        near = distance_to_final(run.stage, end, run.goal)
        x0s, calls = np.stack([*(step.x0 for step in steps), end]), int(near.calls[-1])
        rows = run.windows * sum(1 if step.guidance_difference is None else run.passes for step in steps)
        entries.append(
            {
                "label": run.label,
                "fitted": last.weights.how == "fitted",
                "picture": run.picture,
                "calls": calls,
                # with guidance a call has several rows a window; not known where not every step was kept
                "rows": rows if len(steps) == calls else None,
                "t": near.timesteps.tolist(),
                "called": near.calls.tolist(),
                "distance": near.distance.tolist(),
                "width": x0s.shape[3],
                "height": x0s.shape[2],
                "x0": pack.sheet(x0s),
            }
        )
    return {"runs": entries}


# ---- the plane ----


def parse_cloud(shape: str, text: str = "", strokes: Any = ()) -> PointCloud:
    """A shape by name, "letters" with their text, or "drawing" with its strokes. Raises ValueError."""
    if shape == "letters":
        return cloud_from_letters(text)
    if shape == "drawing":
        return cloud_from_strokes(strokes)
    if shape not in SHAPES:
        raise ValueError(f"shape is {shape!r}; it must be one of {', '.join((*SHAPES, 'letters', 'drawing'))}")
    return make_cloud(shape)


def plane_view(toy: PointModel) -> dict[str, Any]:
    """What does not change with the training: the points, their density on the way to noise, their random walks."""
    plan, made = toy.scheduler.plan(PLANE_STEPS), toy.cloud
    chosen = torch.from_numpy(made.points[:PARTICLES])
    walk = forward_paths(plan, chosen, torch.Generator().manual_seed(1))
    times = [*plan.timesteps.tolist(), 0.0]
    return {
        "name": made.name,
        "extent": EXTENT,
        "times": times,
        "alphas": plan.alphas.tolist(),
        "sigmas": plan.sigmas.tolist(),
        "points": pack.packed(made.points[:SHOWN_POINTS]),
        "labels": made.labels[:SHOWN_POINTS].tolist(),
        "forward": pack.packed(walk.flip(0)),  # (N + 1, P, 2), noise first, as the rail of the reverse runs
        "density": pack.gray_sheet(density(made, plan.alphas.numpy(), plan.sigmas.numpy())),
        "side": 48,
    }


def flow_view(toy: PointModel, aim: GuidanceTarget = ANY_POINT) -> dict[str, Any]:
    """What the network makes of noise now: paths, arrows, and the losses so far."""
    plan = toy.scheduler.plan(PLANE_STEPS)
    start = torch.randn(PARTICLES, 2, generator=torch.Generator().manual_seed(2))
    paths, _ = reverse_paths(toy.field, plan, start, aim)
    grid, flow = flow_arrows(toy.field, plan, aim=aim)
    losses = np.array(toy.losses or [0.0])
    block = max(1, len(losses) // 200)
    means = [float(losses[i : i + block].mean()) for i in range(0, len(losses), block)]
    return {
        "steps": toy.steps,
        "losses": means,
        "reverse": pack.packed(paths.clamp(-4, 4)),
        "grid": pack.packed(grid),
        "arrows": pack.packed(flow.clamp(-8, 8)),
    }


# ---- what is shipped, so that nothing waits on first sight: python -m studio.lab.views ----


def first_view(pictures: Sequence[Image.Image], training_steps: int = 2500) -> dict[str, Any]:
    """The example pictures, the first of them on its way into noise, and a plane that has been learned."""
    toy = PointModel(make_cloud("two moons"))
    for _ in toy.train(steps=training_steps):
        pass
    return {
        "pictures": [pack.data_uri(picture.convert("RGB")) for picture in pictures],
        "forward": forward_view(pictures[0]),
        "plane": plane_view(toy),
        "flow": flow_view(toy),
    }


def example_run(pipe: Any, prompt: str, seed: int, steps: int = 10) -> dict[str, Any]:
    """A run of the model at its own size, with what the network did at each step."""
    # Not at the head of the file: nothing else here knows how a trace is made.
    from types import SimpleNamespace

    (row,) = pipe.prepare([prompt], num_inference_steps=steps, seeds=[seed], size=pipe.sample_size)
    taken = []
    while not row.finished:
        pipe.denoise_step([row])
        record = row.record
        taken.append(
            SimpleNamespace(
                step=len(taken),
                x_t=record.x_t.numpy(),
                x0=record.pred_original_sample.numpy(),
                eps=((record.x_t - record.alpha * record.pred_original_sample) / record.sigma).numpy(),
                guidance_difference=None if record.guidance_difference is None else record.guidance_difference.numpy(),
                next_x_t=None,
                **{name: getattr(record, name) for name in ("timestep", "alpha", "sigma", "guidance_scale")},
            )
        )
    for step, after in zip(taken, taken[1:], strict=False):
        step.next_x_t = after.x_t
    stage = _Steps(taken)
    trace = SimpleNamespace(stages=(stage,), num_steps=steps)
    looks = inspection_view(pipe, prompt, trace)
    return {
        "caption": prompt,
        "sampler": "Studio",
        "stages": reverse_view(trace, config=pipe.scheduler.config),
        "looks": [looks],
    }


class _Steps(list):
    """Steps in the shape of a trace's stage."""

    condition, task, noise_level = None, 0, 0.0

    @property
    def step(self) -> np.ndarray:
        return np.array([step.step for step in self])

    @property
    def timestep(self) -> np.ndarray:
        return np.array([step.timestep for step in self])


def _ship() -> None:
    import json
    from pathlib import Path

    from studio.diffusion.pipelines import StudioTextToImagePipeline

    assets = Path(__file__).resolve().parents[2] / "assets"
    pictures = [Image.open(path) for path in sorted((assets / "examples").glob("*.png"))]
    (assets / "noise.json").write_text(json.dumps(first_view(pictures)))
    pipe = StudioTextToImagePipeline.from_pretrained(assets / "model")
    run = example_run(pipe, "a red apple, glossy style, on a blue background", seed=1)
    (assets / "noise-run.json").write_text(json.dumps(run))


if __name__ == "__main__":
    _ship()
