"""Backends over tiny models, and runs of them and of the stock pipelines, compared as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from studio.engine.requests import Request
from studio.engine.resolved import ResolvedRequest
from studio.models.catalog import ModelEntry
from studio.models.identify import Identity
from studio.models.latent.backend import LatentBackend
from studio.models.latent.row import LatentRow
from studio.models.loader import LoadedModel
from studio.models.placement import Placement
from tests.models import tiny

MIXED = 5e-6  # difference of pictures in [0, 1] between a row in a batch and the stock pipeline


SIDE = 32  # px of the pictures, unless a test says otherwise


def entry(model_id: str) -> ModelEntry:
    identity = Identity(family="unknown", version="tiny", sample_size=(tiny.SIDE, tiny.SIDE))
    return ModelEntry(
        id=model_id,
        name=model_id,
        path=Path(),
        layout="folder",
        bytes=0,
        parameters=0,
        dtype="F32",
        identity=identity,
        overrides={},
        defaults={},
        trigger_words="",
        problems=(),
    )


def backend(pipeline: Any, model_id: str = "tiny", *, dtype: str = "float32", **others: LatentBackend) -> LatentBackend:
    """Return a backend that shares the networks of a stock pipeline. others: backends that it may find."""
    pairs = [
        (getattr(pipeline, f"text_encoder{n}", None), getattr(pipeline, f"tokenizer{n}", None)) for n in ("", "_2")
    ]
    pairs = [pair for pair in pairs if pair[0] is not None]
    loaded = LoadedModel(
        entry=entry(model_id),
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoders=tuple(pair[0] for pair in pairs),
        tokenizers=tuple(pair[1] for pair in pairs),
        scheduler_class=type(pipeline.scheduler),
        scheduler_config={name: value for name, value in pipeline.scheduler.config.items() if not name.startswith("_")},
        extra={
            **{name: value for name, value in pipeline.config.items() if isinstance(value, bool)},
            "low_res_scheduler": getattr(pipeline, "low_res_scheduler", None),
        },
        placement=Placement(device="cpu", dtype=dtype),
        bytes=0,
    )
    return LatentBackend(loaded, others.__getitem__)


def resolve(request: Request, width: int = SIDE, height: int = SIDE) -> ResolvedRequest:
    """Resolve a request as the catalog's resolver does, for a picture of any size."""
    refiners = [request.refiner] if getattr(request, "refiner", "") else []
    return ResolvedRequest(
        request=request,
        model_id=request.model_id or "tiny",
        model_ids=(request.model_id or "tiny", *refiners),
        model_name="tiny",
        settings=request.settings(),
        caption=request.prompt,
        captions=(request.prompt,) * request.count,
        styles_and_backgrounds=(("any", "any"),) * request.count,
        seeds=tuple(request.seed + i for i in range(request.count)),
        width=width,
        height=height,
        pixels=0,
        passes=1,
        rows=request.steps,
        seconds=0.0,
    )


def finish(model: LatentBackend, rows: Sequence[LatentRow]) -> np.ndarray:
    """Make all calls of rows, each row in calls of its own; return the pictures (N, H, W, 3) in [0, 1]."""
    for row in rows:
        while not row.finished:
            model.denoise_step([row])
    return arrays(rows)


def run(model: LatentBackend, request: Request, width: int = SIDE, height: int = SIDE) -> np.ndarray:
    """Return the pictures (N, H, W, 3) in [0, 1] of a request alone."""
    return finish(model, model.prepare(resolve(request, width, height)))


def run_staggered(model: LatentBackend, requests: Sequence[Request]) -> np.ndarray:
    """Return the first picture of each request. A row joins after each call, and all rows of one key share calls."""
    rows = [model.prepare(resolve(request))[0] for request in requests]
    joined = 1
    while not all(row.finished for row in rows):
        going = [row for row in rows[:joined] if not row.finished]
        joined += 1
        for key in {row.call_key for row in going}:
            model.denoise_step([row for row in going if not row.finished and row.call_key == key])
    return arrays(rows)


def arrays(rows: Sequence[LatentRow]) -> np.ndarray:
    """Return the pictures (N, H, W, 3) of finished rows in [0, 1], not rounded."""
    return np.stack([(row.picture * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy() for row in rows])


def stock(pipeline: Any, seed: int, prompt: str = "a cat", **arguments: Any) -> np.ndarray:
    """Return the picture (1, H, W, 3) in [0, 1] of a stock pipeline."""
    return pipeline(prompt=prompt, generator=torch.Generator().manual_seed(seed), output_type="np", **arguments).images


def stock_input(picture: Image.Image) -> torch.Tensor:
    """Return a picture as (1, 3, H, W) in [0, 1]; of Pillow's own, stock pipelines make another memory layout."""
    return torch.from_numpy(np.asarray(picture, np.float32) / 255.0).permute(2, 0, 1)[None].contiguous()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference of two arrays of one shape."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.float64) - b).max())
