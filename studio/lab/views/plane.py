"""The view in 2D: points to learn, and the flow of the network that learns them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from studio.lab.pack import gray_sheet, pack_array
from studio.lab.plane import EXTENT, SHAPES, PointCloud, cloud_from_letters, cloud_from_strokes, density, make_cloud
from studio.lab.point_model import ANY_POINT, GuidanceTarget, PointModel, flow_arrows, forward_paths, reverse_paths

STEPS = 40
PARTICLES = 400
SHOWN_POINTS = 700
DENSITY_SIDE = 48  # px
SHOWN_LOSSES = 200


def parse_cloud(shape: str, text: str = "", strokes: Any = ()) -> PointCloud:
    """Return a shape by name, "letters" of a text, or a "drawing" of strokes. Raises ValueError."""
    if shape == "letters":
        return cloud_from_letters(text)
    if shape == "drawing":
        return cloud_from_strokes(strokes)
    if shape not in SHAPES:
        raise ValueError(f"shape is {shape!r}; it must be one of {', '.join((*SHAPES, 'letters', 'drawing'))}")
    return make_cloud(shape)


def plane_view(model: PointModel) -> dict[str, Any]:
    """Return what training does not change: the points, their density, and their random walks to noise."""
    plan, cloud = model.scheduler.plan(STEPS), model.cloud
    walkers = torch.from_numpy(cloud.points[:PARTICLES])
    walks = forward_paths(plan, walkers, torch.Generator().manual_seed(1))
    return {
        "name": cloud.name,
        "extent": EXTENT,
        "times": [*plan.timesteps.tolist(), 0.0],
        "alphas": plan.alphas.tolist(),
        "sigmas": plan.sigmas.tolist(),
        "points": pack_array(cloud.points[:SHOWN_POINTS]),
        "labels": cloud.labels[:SHOWN_POINTS].tolist(),
        "forward": pack_array(walks.flip(0)),  # (N + 1, P, 2), noise first, as in the reverse direction
        "density": gray_sheet(density(cloud, plan.alphas.numpy(), plan.sigmas.numpy(), DENSITY_SIDE)),
        "side": DENSITY_SIDE,
    }


def flow_view(model: PointModel, target: GuidanceTarget = ANY_POINT) -> dict[str, Any]:
    """Return what the network makes of noise now: paths, arrows, and the losses so far."""
    plan = model.scheduler.plan(STEPS)
    start = torch.randn(PARTICLES, 2, generator=torch.Generator().manual_seed(2))
    paths, _ = reverse_paths(model.velocity, plan, start, target)
    grid, flow = flow_arrows(model.velocity, plan, target=target)
    losses = np.array(model.losses or [0.0])
    block = max(1, len(losses) // SHOWN_LOSSES)
    return {
        "steps": model.steps,
        "losses": [float(losses[i : i + block].mean()) for i in range(0, len(losses), block)],
        "reverse": pack_array(paths.clamp(-4, 4)),
        "grid": pack_array(grid),
        "arrows": pack_array(flow.clamp(-8, 8)),
    }
