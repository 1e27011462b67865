"""Traces: what each step of a run computed, as arrays, and their form as safetensors bytes.

What follows from the rest, the predicted noise, is computed when a trace is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

FORMAT = "diffusion-studio-trace-2"
FORMAT_1 = "diffusion-studio-trace-1"  # RGB only, and it names no model
SPACES = ("rgb", "latent")
Floats = NDArray[np.float32]
_TYPES: dict[str, type[np.generic]] = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "BOOL": np.bool_}
_NUMBERS = ("timestep", "alpha", "sigma", "guidance_scale")


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceModel:
    """The model that made a run, and what the arrays of its traces mean.

    id: of the catalog; "" if it is not known.
    space: "rgb": the arrays are pictures in [-1, 1]. "latent": they are latents of the model's VAE.
    preview: (C + 1, 3), float32, of a latent space; RGB in [-1, 1] is about latent @ preview[:C] + preview[C].
    scheduler_config: of the model's scheduler, as JSON; None: of the bundled model.

    Raises ValueError if they misfit.
    """

    id: str = ""
    space: str = "rgb"
    preview: Floats | None = None
    scheduler_config: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise ValueError(f"the space of a trace is {self.space!r}; it must be one of {', '.join(SPACES)}")
        if (self.preview is None) != (self.space == "rgb"):
            raise ValueError("a trace has a preview matrix if and only if its space is latent")
        if self.preview is not None:
            is_matrix = self.preview.ndim == 2 and self.preview.shape[0] > 1 and self.preview.shape[1] == 3
            if not is_matrix or self.preview.dtype != np.float32 or not np.isfinite(self.preview).all():
                raise ValueError("the preview matrix of a trace must be (channels + 1, 3), float32, finite")

    @property
    def channels(self) -> int:
        """The channels of the arrays."""
        return 3 if self.preview is None else len(self.preview) - 1


@dataclass(frozen=True)
class TraceStep:
    """One network call. Arrays (C, H, W), float32; x_t = alpha x0 + sigma eps."""

    step: int  # network calls before this one, in the whole run
    timestep: float  # in train steps
    alpha: float
    sigma: float
    guidance_scale: float  # 1 where guidance did not act
    x_t: Floats
    x0: Floats  # as predicted in this step, with guidance
    guidance_difference: Floats | None  # conditional minus the guidance baseline; None in one pass
    next_x_t: Floats | None  # None after a stage's last step, and where the next step is not stored

    @property
    def eps(self) -> Floats:
        """The predicted noise."""
        eps = (self.x_t - np.float32(self.alpha) * self.x0) / np.float32(self.sigma)
        return eps.astype(np.float32, copy=False)


@dataclass(frozen=True)
class TraceStage:
    """The stored steps of a part of the run in which the picture had one size. Raises ValueError if arrays misfit."""

    step: NDArray[np.int64]  # (N,), rising
    timestep: NDArray[np.float64]  # (N,)
    alpha: NDArray[np.float64]  # (N,)
    sigma: NDArray[np.float64]  # (N,)
    guidance_scale: NDArray[np.float64]  # (N,)
    x_t: Floats  # (N, C, H, W)
    x0: Floats  # (N, C, H, W)
    guided: NDArray[np.bool_]  # (N,) whether the step has a guidance difference
    guidance_difference: Floats  # (number of guided steps, C, H, W)
    condition: Floats | None = None  # (K, H, W), further input channels; None if it is zero everywhere
    task: int | None = None
    noise_level: float = 0.0  # of the low-resolution picture
    component: str = "unet"  # of the pipeline: the network that made the steps

    def __post_init__(self) -> None:
        if self.x_t.ndim != 4:
            raise ValueError(f"x_t of a trace is {self.x_t.shape}; it must be (N, C, H, W)")
        n, (c, h, w) = len(self.step), self.x_t.shape[1:]
        expected: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "step": (np.int64, (n,)),
            **dict.fromkeys(_NUMBERS, (np.float64, (n,))),
            **dict.fromkeys(("x_t", "x0"), (np.float32, (n, c, h, w))),
            "guided": (np.bool_, (n,)),
            "guidance_difference": (np.float32, (int(self.guided.sum()), c, h, w)),
            "condition": (np.float32, (0 if self.condition is None else len(self.condition), h, w)),
        }
        for name, array in self.arrays().items():
            dtype, shape = expected[name]
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name} of a trace is {array.dtype} {array.shape}; it must be {dtype} {shape}")
        if n == 0 or (np.diff(self.step) <= 0).any():
            raise ValueError("the steps of a trace must rise")
        if not (self.sigma > 0).all():
            raise ValueError("sigma of a trace must be above zero")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by the names of their fields."""
        arrays: dict[str, NDArray[Any]] = {}
        for name in ("step", *_NUMBERS, "x_t", "x0", "guided", "guidance_difference"):
            arrays[name] = getattr(self, name)
        if self.condition is not None:
            arrays["condition"] = self.condition
        return arrays

    def __iter__(self) -> Iterator[TraceStep]:
        difference_index = np.cumsum(self.guided) - 1
        for i in range(len(self.step)):
            has_next = i + 1 < len(self.step) and self.step[i + 1] == self.step[i] + 1
            yield TraceStep(
                step=int(self.step[i]),
                timestep=float(self.timestep[i]),
                alpha=float(self.alpha[i]),
                sigma=float(self.sigma[i]),
                guidance_scale=float(self.guidance_scale[i]),
                x_t=self.x_t[i],
                x0=self.x0[i],
                guidance_difference=self.guidance_difference[difference_index[i]] if self.guided[i] else None,
                next_x_t=self.x_t[i + 1] if has_next else None,
            )


@dataclass(frozen=True)
class Trace:
    """The run that made one picture, stage by stage. Raises ValueError if a stage has other channels than its model."""

    stages: tuple[TraceStage, ...]
    num_steps: int  # network calls of the run, stored or not
    seed: int | None = None
    model: TraceModel = TraceModel()

    def __post_init__(self) -> None:
        for stage in self.stages:
            if stage.x_t.shape[1] != self.model.channels:
                raise ValueError(f"a trace has {stage.x_t.shape[1]} channels; it must have {self.model.channels}")

    @property
    def steps(self) -> list[TraceStep]:
        """The stored steps in order. The first and the last step of every stage are among them."""
        return [step for stage in self.stages for step in stage]

    @property
    def bytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for stage in self.stages for array in stage.arrays().values())

    def to_bytes(self) -> bytes:
        """Return a safetensors file: arrays named "stage.field", the rest as JSON in its header."""
        arrays: dict[str, NDArray[Any]] = {}
        stages: list[dict[str, Any]] = []
        for number, stage in enumerate(self.stages):
            stages.append({"task": stage.task, "noise_level": stage.noise_level, "component": stage.component})
            for name, array in stage.arrays().items():
                arrays[f"{number}.{name}"] = np.ascontiguousarray(array)
        model = {
            "id": self.model.id,
            "space": self.model.space,
            "channels": self.model.channels,
            "preview": None if self.model.preview is None else self.model.preview.tolist(),
            "scheduler_config": None if self.model.scheduler_config is None else dict(self.model.scheduler_config),
        }
        header = {
            "format": FORMAT,
            "num_steps": self.num_steps,
            "seed": self.seed,
            "model": model,
            "stages": stages,
        }
        return save(arrays, {"trace": json.dumps(header)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Trace:
        """Return the trace that `to_bytes` wrote, or an earlier version of it. Raises ValueError for anything else."""
        try:
            tensors = _deserialize(data)  # checks the header and that the arrays fill the file exactly
            length = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["trace"])
            if header["format"] not in (FORMAT, FORMAT_1):
                raise ValueError(f"its format is not {FORMAT}")
            model = TraceModel() if header["format"] == FORMAT_1 else _model(header["model"])
            stages: list[TraceStage] = []
            for number, stage in enumerate(header["stages"]):
                arrays: dict[str, Any] = {}
                for key, tensor in tensors.items():
                    prefix, _, name = key.partition(".")
                    if prefix == str(number):
                        arrays[name] = _array(tensor)
                task = None if stage["task"] is None else int(stage["task"])
                component = str(stage.get("component", "unet"))  # traces of earlier versions have none
                noise_level = float(stage["noise_level"])
                stages.append(TraceStage(**arrays, task=task, noise_level=noise_level, component=component))
            seed = None if header["seed"] is None else int(header["seed"])
            return cls(tuple(stages), int(header["num_steps"]), seed, model)
        except (SafetensorError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as problem:
            raise ValueError(f"not a trace: {type(problem).__name__}: {problem}") from problem


def _model(header: dict[str, Any]) -> TraceModel:
    """Return the model of a header. Raises ValueError, KeyError or TypeError."""
    preview, config = header["preview"], header["scheduler_config"]
    return TraceModel(
        id=str(header["id"]),
        space=str(header["space"]),
        preview=None if preview is None else np.array(preview, np.float32),
        scheduler_config=None if config is None else dict(config),
    )


def _deserialize(data: bytes) -> dict[str, dict[str, Any]]:
    untyped: Any = safetensors
    return dict(untyped.deserialize(data))


def _array(tensor: dict[str, Any]) -> NDArray[Any]:
    """Return a tensor of `safetensors.deserialize` as an array. Raises KeyError for a type that no trace has."""
    return np.frombuffer(tensor["data"], dtype=_TYPES[tensor["dtype"]]).reshape(tensor["shape"])
