"""The shape of the traces that the lab explains: attributes of `studio.engine.trace.Trace`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np


class Step(Protocol):
    """One network call; arrays (C, H, W) float32."""

    step: int
    timestep: float
    alpha: float
    sigma: float
    guidance_scale: float
    x_t: np.ndarray
    x0: np.ndarray
    guidance_difference: np.ndarray | None
    next_x_t: np.ndarray | None

    @property
    def eps(self) -> np.ndarray: ...


class Model(Protocol):
    """The model of a trace. preview: (C + 1, 3) of a latent space, None for pictures in RGB."""

    @property
    def preview(self) -> np.ndarray | None: ...

    @property
    def scheduler_config(self) -> Mapping[str, Any] | None: ...


class Stage(Protocol):
    """The steps of a run in which the picture has one size."""

    condition: np.ndarray | None
    task: int | None
    noise_level: float
    component: str  # of the pipeline: the network

    @property
    def step(self) -> np.ndarray: ...

    @property
    def timestep(self) -> np.ndarray: ...

    def __iter__(self) -> Iterator[Any]: ...
