"""The compare view: several runs over one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studio.lab.latents import preview_rgb
from studio.lab.pack import picture_sheet
from studio.lab.reverse import distance_to_reference, explain_steps
from studio.lab.trace_protocol import Model, Stage


@dataclass(frozen=True)
class ComparedRun:
    """One of several runs from words.

    stage: the first of its trace. model: of its trace.
    reference: (C, H, W), the end of a run of many steps from the same noise.
    picture_id: of the library.
    tiles: of the picture that the network sees separately.
    passes: network rows for each tile where guidance acts.
    """

    label: str
    stage: Stage
    reference: np.ndarray
    model: Model
    sampler: str = "studio"
    picture_id: str = ""
    tiles: int = 1
    passes: int = 2


def compare_view(runs: Sequence[ComparedRun], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the predictions, distances and costs of several runs.

    config: of the model's scheduler, where a trace has none.
    Raises ValueError if a reference has another size than its run.
    """
    return {"runs": [_run_entry(run, config) for run in runs]}


def _run_entry(run: ComparedRun, config: Mapping[str, Any] | None) -> dict[str, Any]:
    steps = list(run.stage)
    last = explain_steps(run.stage, run.sampler, run.model.scheduler_config or config)[-1]
    end = steps[-1].x0 if last.x_next is None else last.x_next
    curve = distance_to_reference(run.stage, end, run.reference)
    predictions, calls = np.stack([*(step.x0 for step in steps), end]), int(curve.calls[-1])
    if run.model.preview is not None:
        predictions = preview_rgb(predictions, run.model.preview)
    passes = sum(1 if step.guidance_difference is None else run.passes for step in steps)
    return {
        "label": run.label,
        "fitted": last.coefficients.source == "fitted",
        "picture": run.picture_id,
        "calls": calls,
        # With guidance a call has several rows per tile. The sum is unknown if steps are missing.
        "rows": run.tiles * passes if len(steps) == calls else None,
        "t": curve.timesteps.tolist(),
        "called": curve.calls.tolist(),
        "distance": curve.distance.tolist(),
        "width": predictions.shape[3],
        "height": predictions.shape[2],
        "x0": picture_sheet(predictions),
    }
