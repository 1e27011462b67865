"""What a run leaves behind: for each step what the network saw and said, bounded, to bytes and back.

Knows arrays and `SampledRow.record`; knows nothing of torch, queues or files. Recording a step keeps references only;
arrays are made when the run has ended. What follows from the rest (the predicted noise) is computed on opening.

Bounds: at most MAX_KEPT_STEPS steps and MAX_BYTES a picture, TOTAL_BYTES in all under way at once.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from studio.engine.backend import Row, StepRecord

MAX_KEPT_STEPS = 64  # kept of a run; of a longer one every second, fourth, ... and the ends of its stages
MAX_BYTES = 32_000_000  # of one picture's trace; one of more than about 0.4 megapixels leaves none
TOTAL_BYTES = 256_000_000  # of all traces under way: a row that would exceed it runs without
FORMAT = "diffusion-studio-trace-1"
FLOAT = 4  # bytes of a number
_TYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "BOOL": np.bool_}


@dataclass(frozen=True)
class TraceStep:
    """One network call. Arrays (3, H, W), float32; x_t = alpha x0 + sigma eps."""

    step: int  # network calls made before this one, in the whole run
    timestep: float  # in train steps
    alpha: float
    sigma: float
    guidance_scale: float  # 1 where guidance did not act
    x_t: np.ndarray
    x0: np.ndarray  # as predicted here, with guidance
    guidance_difference: np.ndarray | None  # conditional minus what guidance leads away from; None in one pass
    next_x_t: np.ndarray | None  # None after a stage's last step, and where the next step was not kept

    @property
    def eps(self) -> np.ndarray:
        """The predicted noise."""
        return (self.x_t - np.float32(self.alpha) * self.x0) / np.float32(self.sigma)


@dataclass(frozen=True)
class TraceStage:
    """The kept steps of a part of the run in which the picture had one size."""

    step: np.ndarray  # (N,) int64, rising
    timestep: np.ndarray  # (N,) float64
    alpha: np.ndarray  # (N,) float64
    sigma: np.ndarray  # (N,) float64
    guidance_scale: np.ndarray  # (N,) float64
    x_t: np.ndarray  # (N, 3, H, W) float32
    x0: np.ndarray  # (N, 3, H, W) float32
    guided: np.ndarray  # (N,) bool: whether the step has a guidance difference
    guidance_difference: np.ndarray  # (number of guided, 3, H, W) float32
    condition: np.ndarray | None = None  # (7, H, W) float32; None if it is zero everywhere
    task: int | None = None
    noise_level: float = 0.0  # of the low-resolution picture

    def __post_init__(self) -> None:
        n, (h, w) = len(self.step), self.x_t.shape[-2:]
        expected = {
            "step": (np.int64, (n,)),
            **dict.fromkeys(("timestep", "alpha", "sigma", "guidance_scale"), (np.float64, (n,))),
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

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by the names of their fields."""
        names = ("step", "timestep", "alpha", "sigma", "guidance_scale", "x_t", "x0", "guided", "guidance_difference")
        condition = {} if self.condition is None else {"condition": self.condition}
        return {name: getattr(self, name) for name in names} | condition

    def __iter__(self) -> Iterator[TraceStep]:
        difference_of = np.cumsum(self.guided) - 1
        for i in range(len(self.step)):
            follows = i + 1 < len(self.step) and self.step[i + 1] == self.step[i] + 1
            yield TraceStep(
                int(self.step[i]),
                float(self.timestep[i]),
                float(self.alpha[i]),
                float(self.sigma[i]),
                float(self.guidance_scale[i]),
                self.x_t[i],
                self.x0[i],
                self.guidance_difference[difference_of[i]] if self.guided[i] else None,
                self.x_t[i + 1] if follows else None,
            )


@dataclass(frozen=True)
class Trace:
    """The run that made one picture, stage by stage."""

    stages: tuple[TraceStage, ...]
    num_steps: int  # network calls of the run, kept or not
    seed: int | None = None

    @property
    def steps(self) -> list[TraceStep]:
        """The kept steps in order; the first and the last of every stage are among them."""
        return [step for stage in self.stages for step in stage]

    @property
    def bytes(self) -> int:
        """What the arrays take up."""
        return sum(array.nbytes for stage in self.stages for array in stage.arrays().values())

    def to_bytes(self) -> bytes:
        """A safetensors file: arrays named "stage.field", the rest as JSON in its header."""
        arrays = {
            f"{number}.{name}": np.ascontiguousarray(array)
            for number, stage in enumerate(self.stages)
            for name, array in stage.arrays().items()
        }
        about = {
            "format": FORMAT,
            "num_steps": self.num_steps,
            "seed": self.seed,
            "stages": [{"task": stage.task, "noise_level": stage.noise_level} for stage in self.stages],
        }
        return save(arrays, {"trace": json.dumps(about)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Trace:
        """What `to_bytes` wrote. Raises ValueError for anything else."""
        try:
            tensors = dict(deserialize(data))  # checks the header and that the arrays fill the file exactly
            length = int.from_bytes(data[:8], "little")
            about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["trace"])
            if about["format"] != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            stages = tuple(
                TraceStage(
                    **{
                        name.partition(".")[2]: _array(tensor)
                        for name, tensor in tensors.items()
                        if name.partition(".")[0] == str(number)
                    },
                    task=None if stage["task"] is None else int(stage["task"]),
                    noise_level=float(stage["noise_level"]),
                )
                for number, stage in enumerate(about["stages"])
            )
            seed = None if about["seed"] is None else int(about["seed"])
            return cls(stages, int(about["num_steps"]), seed)
        except (SafetensorError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as problem:
            raise ValueError(f"not a trace: {type(problem).__name__}: {problem}") from problem


class ByteBudget:
    """Bytes that all recorders together may hold. Safe to use from several threads."""

    def __init__(self, most: int = TOTAL_BYTES) -> None:
        self._lock = threading.Lock()
        self._left = most

    def take(self, amount: int) -> bool:
        """Takes that many bytes, or none and returns False."""
        with self._lock:
            if amount > self._left:
                return False
            self._left -= amount
            return True

    def give_back(self, amount: int) -> None:
        with self._lock:
            self._left += amount

    @property
    def left(self) -> int:
        with self._lock:
            return self._left


class _Kept(NamedTuple):
    """One step under way: a `StepRecord`, in memory of its own, and where it belongs."""

    stage: int
    step: int
    x_t: Any
    x0: Any
    guidance_difference: Any | None
    timestep: float
    alpha: float
    sigma: float
    guidance_scale: float

    @classmethod
    def of(cls, record: StepRecord, stage: int, step: int) -> _Kept:
        x_t, x0 = _own(record.x_t), _own(record.pred_original_sample)
        difference = None if record.guidance_difference is None else _own(record.guidance_difference)
        numbers = record.timestep, record.alpha, record.sigma, record.guidance_scale
        return cls(stage, step, x_t, x0, difference, *numbers)

    @property
    def bytes(self) -> int:
        arrays = 2 if self.guidance_difference is None else 3
        return FLOAT * arrays * math.prod(self.x_t.shape)


class _About(NamedTuple):
    """What the network calls of a stage were conditioned on."""

    condition: Any | None  # (7, H, W)
    task: int | None
    noise_level: float

    @classmethod
    def of(cls, stage: Any) -> _About:
        if stage is None:
            return cls(None, None, 0.0)
        return cls(stage.condition, None if stage.task is None else int(stage.task), float(stage.noise_level))

    def bytes(self, shape: tuple[int, ...]) -> int:
        return 0 if self.condition is None else FLOAT * 7 * math.prod(shape[1:])


class TraceRecorder:
    """Follows one row: call `record` after each of its steps, `trace` at the end, and `close` whatever happens."""

    def __init__(self, row: Row, budget: ByteBudget) -> None:
        self._row = row
        self._budget = budget
        self._kept: list[_Kept] = []
        self._stages: list[_About] = []
        self._last: Any = None  # the stage of the last step, and its shape: rows without stages still change shape
        self._shape: tuple[int, ...] = ()
        self._next = row.stage_info  # the stage of the step to come
        self._stride = 1
        self._held = self._taken = 0  # bytes: of what is kept, and of the budget
        self._given_up = False

    def record(self) -> None:
        """Keep the row's last step. Where that takes up too much, the row is followed no more."""
        record, stage = self._row.record, self._next
        self._next = self._row.stage_info
        if record is None or self._given_up:
            return
        if not self._stages or stage is not self._last or tuple(record.x_t.shape) != self._shape:
            self._stages.append(_About.of(stage))
            self._last, self._shape = stage, tuple(record.x_t.shape)
            self._held += self._stages[-1].bytes(self._shape)
        self._add(_Kept.of(record, len(self._stages) - 1, self._row.step - 1))
        while len(self._kept) > MAX_KEPT_STEPS or self._held > MAX_BYTES:
            if self._stride > self._row.num_steps:  # nothing but the ends is left
                return self.close()
            self._thin()
        # Taken at once for the rest of the run, so that what does not fit is refused at its beginning.
        rest = min(self._row.num_steps - self._row.step, MAX_KEPT_STEPS - len(self._kept))
        planned = min(self._held + rest * self._kept[-1].bytes, MAX_BYTES)
        if planned > self._taken:
            if not self._budget.take(planned - self._taken):
                return self.close()
            self._taken = planned

    def _add(self, new: _Kept) -> None:
        """The newest step is always kept, until the next one comes."""
        if len(self._kept) > 1:
            before, last = self._kept[-2:]
            if before.stage == last.stage == new.stage and last.step % self._stride:
                self._held -= self._kept.pop().bytes
        self._kept.append(new)
        self._held += new.bytes

    def _thin(self) -> None:
        """Drops every second step, but no stage's first or last."""
        self._stride *= 2
        before, after = [None, *self._kept[:-1]], [*self._kept[1:], None]
        self._kept = [
            kept
            for left, kept, right in zip(before, self._kept, after, strict=True)
            if kept.step % self._stride == 0
            or left is None
            or right is None
            or not left.stage == kept.stage == right.stage
        ]
        shapes = {kept.stage: kept.x_t.shape for kept in self._kept}
        conditions = sum(self._stages[number].bytes(shape) for number, shape in shapes.items())
        self._held = conditions + sum(kept.bytes for kept in self._kept)

    def trace(self) -> Trace | None:
        """All that was kept, as arrays; None if it was too much."""
        if not self._kept:
            return None
        stages = []
        for number, about in enumerate(self._stages):
            kept = [kept for kept in self._kept if kept.stage == number]
            differences = [_numpy(of.guidance_difference) for of in kept if of.guidance_difference is not None]
            shape = kept[0].x_t.shape
            condition = None if about.condition is None else _numpy(about.condition)
            numbers = ("timestep", "alpha", "sigma", "guidance_scale")
            stages.append(
                TraceStage(
                    step=np.array([of.step for of in kept], np.int64),
                    **{name: np.array([getattr(of, name) for of in kept], np.float64) for name in numbers},
                    x_t=np.stack([_numpy(of.x_t) for of in kept]),
                    x0=np.stack([_numpy(of.x0) for of in kept]),
                    guided=np.array([of.guidance_difference is not None for of in kept]),
                    guidance_difference=np.stack(differences) if differences else np.empty((0, *shape), np.float32),
                    condition=condition if condition is not None and condition.any() else None,
                    task=about.task,
                    noise_level=about.noise_level,
                )
            )
        return Trace(tuple(stages), self._row.num_steps, self._row.seed)

    def close(self) -> None:
        """Forgets everything and gives the bytes back."""
        self._given_up = True
        self._kept, self._stages, self._last, self._next = [], [], None, None
        self._budget.give_back(self._taken)
        self._taken = self._held = 0


def _own(values: Any) -> Any:
    """The array itself, or a copy of what is a view: a view would keep the whole batch that it was cut from."""
    if hasattr(values, "untyped_storage"):  # torch
        return values.clone() if values.untyped_storage().nbytes() > values.nbytes else values
    return values.copy() if values.base is not None else values


def _numpy(values: Any) -> np.ndarray:
    """A tensor on any device, or an array, as float32."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def _array(tensor: dict[str, Any]) -> np.ndarray:
    """What `safetensors.deserialize` gives, as an array. Raises KeyError for a type that a trace does not have."""
    return np.frombuffer(tensor["data"], dtype=_TYPES[tensor["dtype"]]).reshape(tensor["shape"])
