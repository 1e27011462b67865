"""Make the views that the studio ships, so that the tab is filled at once: python -m studio.lab.views.shipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from studio.lab.pack import data_uri
from studio.lab.plane import make_cloud
from studio.lab.point_model import PointModel
from studio.lab.views.forward import forward_view
from studio.lab.views.inspection import inspection_view
from studio.lab.views.plane import flow_view, plane_view
from studio.lab.views.reverse import reverse_view

PROMPT = "a red apple, glossy style, on a blue background"


def first_view(pictures: Sequence[Image.Image], training_steps: int = 2500) -> dict[str, Any]:
    """Return the example pictures, the forward view of the first one, and learned points."""
    model = PointModel(make_cloud("two moons"))
    for _ in model.train(steps=training_steps):
        pass
    return {
        "pictures": [data_uri(picture.convert("RGB")) for picture in pictures],
        "forward": forward_view(pictures[0]),
        "plane": plane_view(model),
        "flow": flow_view(model),
    }


def example_run(pipe: Any, prompt: str, seed: int, steps: int = 10) -> dict[str, Any]:
    """Return a run of the model at its own size, and what the network did at each step."""
    stage = _run_stage(pipe, prompt, seed, steps)
    model = SimpleNamespace(preview=None, scheduler_config=None)
    trace = SimpleNamespace(stages=(stage,), num_steps=steps, model=model)
    return {
        "caption": prompt,
        "sampler": "Studio",
        "stages": reverse_view(trace, config=pipe.scheduler.config),
        "looks": [inspection_view(pipe, prompt, trace)],
    }


def _run_stage(pipe: Any, prompt: str, seed: int, steps: int) -> _Stage:
    """Run once and return the stage of its trace."""
    (row,) = pipe.prepare([prompt], num_inference_steps=steps, seeds=[seed], size=pipe.sample_size)
    stage = _Stage()
    while not row.finished:
        pipe.denoise_step([row])
        record = row.record
        x_t, x0 = record.x_t.numpy(), record.pred_original_sample.numpy()
        if stage:
            stage[-1].next_x_t = x_t
        difference = record.guidance_difference
        stage.append(
            SimpleNamespace(
                step=len(stage),
                timestep=record.timestep,
                alpha=record.alpha,
                sigma=record.sigma,
                guidance_scale=record.guidance_scale,
                x_t=x_t,
                x0=x0,
                eps=(x_t - record.alpha * x0) / record.sigma,
                guidance_difference=None if difference is None else difference.numpy(),
                next_x_t=None,
            )
        )
    return stage


class _Stage(list):
    """Steps in the shape of a trace's stage."""

    condition, task, noise_level = None, 0, 0.0

    @property
    def step(self) -> np.ndarray:
        return np.array([step.step for step in self])

    @property
    def timestep(self) -> np.ndarray:
        return np.array([step.timestep for step in self])


def write_shipped_views() -> None:
    from studio.diffusion.pipelines import StudioTextToImagePipeline

    assets = Path(__file__).resolve().parents[3] / "assets"
    pictures = [Image.open(path) for path in sorted((assets / "examples").glob("*.png"))]
    (assets / "noise.json").write_text(json.dumps(first_view(pictures)))
    pipe = StudioTextToImagePipeline.from_pretrained(assets / "model")
    (assets / "noise-run.json").write_text(json.dumps(example_run(pipe, PROMPT, seed=1)))


if __name__ == "__main__":
    write_shipped_views()
