"""Traces: what each step of a run computed, as arrays, and their form as safetensors bytes.

What follows from the rest, the predicted noise, is computed when a trace is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

FORMAT = "diffusion-studio-trace-1"
Floats = NDArray[np.float32]
_TYPES: dict[str, type[np.generic]] = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "BOOL": np.bool_}
_NUMBERS = ("timestep", "alpha", "sigma", "guidance_scale")


@dataclass(frozen=True)
class TraceStep:
    """One network call. Arrays (3, H, W), float32; x_t = alpha x0 + sigma eps."""

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
    x_t: Floats  # (N, 3, H, W)
    x0: Floats  # (N, 3, H, W)
    guided: NDArray[np.bool_]  # (N,) whether the step has a guidance difference
    guidance_difference: Floats  # (number of guided steps, 3, H, W)
    condition: Floats | None = None  # (7, H, W); None if it is zero everywhere
    task: int | None = None
    noise_level: float = 0.0  # of the low-resolution picture

    def __post_init__(self) -> None:
        n, (h, w) = len(self.step), self.x_t.shape[-2:]
        expected: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "step": (np.int64, (n,)),
            **dict.fromkeys(_NUMBERS, (np.float64, (n,))),
            **dict.fromkeys(("x_t", "x0"), (np.float32, (n, 3, h, w))),
            "guided": (np.bool_, (n,)),
            "guidance_difference": (np.float32, (int(self.guided.sum()), 3, h, w)),
            "condition": (np.float32, (7, h, w)),
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
    """The run that made one picture, stage by stage."""

    stages: tuple[TraceStage, ...]
    num_steps: int  # network calls of the run, stored or not
    seed: int | None = None

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
            stages.append({"task": stage.task, "noise_level": stage.noise_level})
            for name, array in stage.arrays().items():
                arrays[f"{number}.{name}"] = np.ascontiguousarray(array)
        header = {"format": FORMAT, "num_steps": self.num_steps, "seed": self.seed, "stages": stages}
        return save(arrays, {"trace": json.dumps(header)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Trace:
        """Return the trace that `to_bytes` wrote. Raises ValueError for anything else."""
        try:
            tensors = _deserialize(data)  # checks the header and that the arrays fill the file exactly
            length = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["trace"])
            if header["format"] != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            stages: list[TraceStage] = []
            for number, stage in enumerate(header["stages"]):
                arrays: dict[str, Any] = {}
                for key, tensor in tensors.items():
                    prefix, _, name = key.partition(".")
                    if prefix == str(number):
                        arrays[name] = _array(tensor)
                task = None if stage["task"] is None else int(stage["task"])
                stages.append(TraceStage(**arrays, task=task, noise_level=float(stage["noise_level"])))
            seed = None if header["seed"] is None else int(header["seed"])
            return cls(tuple(stages), int(header["num_steps"]), seed)
        except (SafetensorError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as problem:
            raise ValueError(f"not a trace: {type(problem).__name__}: {problem}") from problem


def _deserialize(data: bytes) -> dict[str, dict[str, Any]]:
    untyped: Any = safetensors
    return dict(untyped.deserialize(data))


def _array(tensor: dict[str, Any]) -> NDArray[Any]:
    """Return a tensor of `safetensors.deserialize` as an array. Raises KeyError for a type that no trace has."""
    return np.frombuffer(tensor["data"], dtype=_TYPES[tensor["dtype"]]).reshape(tensor["shape"])
