"""Record the steps of rows for their traces, within bounds of memory.

Recording a step keeps references only. Arrays are made when the run has ended.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from studio.engine.backend import Row, StageInfo, StepRecord
from studio.engine.trace import Floats, Trace, TraceModel, TraceStage

MAX_KEPT_STEPS = 64  # of a run; of a longer one every second, fourth, ... and the ends of its stages
MAX_TRACE_BYTES = 32_000_000  # of one picture; RGB of more than about 0.4 megapixels leaves no trace
MAX_TOTAL_BYTES = 256_000_000  # of all traces in progress; a row that would exceed it is not recorded
FLOAT_BYTES = 4


class ByteBudget:
    """Bytes that all recorders together may hold. Thread-safe."""

    def __init__(self, limit: int = MAX_TOTAL_BYTES) -> None:
        self._lock = threading.Lock()
        self._left = limit

    def take(self, amount: int) -> bool:
        """Take that many bytes, or none and return False."""
        with self._lock:
            if amount > self._left:
                return False
            self._left -= amount
            return True

    def give_back(self, amount: int) -> None:
        """Return bytes that were taken."""
        with self._lock:
            self._left += amount

    @property
    def left(self) -> int:
        with self._lock:
            return self._left


@dataclass(frozen=True, slots=True)
class _KeptStep:
    """A recorded step: its arrays in memory of their own, and its numbers."""

    stage: int
    step: int
    x_t: Any
    x0: Any
    guidance_difference: Any | None
    timestep: float
    alpha: float
    sigma: float
    guidance_scale: float
    bytes: int


@dataclass(frozen=True, slots=True)
class _KeptStage:
    """What the network calls of a stage are conditioned on."""

    condition: Any | None  # (K, H, W)
    task: int | None
    noise_level: float
    component: str
    bytes: int


class TraceRecorder:
    """Records one row: call `record` after each of its steps, `trace` at the end, and `close` in any case.

    model: that denoises the row.
    """

    def __init__(self, row: Row, budget: ByteBudget, model: TraceModel | None = None) -> None:
        self._row = row
        self._budget = budget
        self._model = model or TraceModel()
        self._kept: list[_KeptStep] = []
        self._stages: list[_KeptStage] = []
        self._last_stage: StageInfo | None = None
        self._shape: tuple[int, ...] = ()  # of the last step: rows without stages still change shape
        self._next_stage = row.stage_info
        self._stride = 1
        self._held_bytes = self._taken_bytes = 0  # of what is kept, and from the budget
        self._is_closed = False

    def record(self) -> None:
        """Keep the row's last step. If that takes too many bytes, stop recording the row."""
        record, stage = self._row.record, self._next_stage
        self._next_stage = self._row.stage_info
        if record is None or self._is_closed:
            return
        shape = tuple(record.x_t.shape)
        if not self._stages or stage is not self._last_stage or shape != self._shape:
            self._last_stage, self._shape = stage, shape
            self._stages.append(_keep_stage(stage))
            self._held_bytes += self._stages[-1].bytes
        self._add(_keep_step(record, len(self._stages) - 1, self._row.step - 1))
        while len(self._kept) > MAX_KEPT_STEPS or self._held_bytes > MAX_TRACE_BYTES:
            if self._stride > self._row.num_steps:  # only the ends of the stages are left
                return self.close()
            self._thin()
        # Taken at once for the rest of the run, so that what does not fit is refused at its beginning.
        rest = min(self._row.num_steps - self._row.step, MAX_KEPT_STEPS - len(self._kept))
        planned = min(self._held_bytes + rest * self._kept[-1].bytes, MAX_TRACE_BYTES)
        if planned > self._taken_bytes:
            if not self._budget.take(planned - self._taken_bytes):
                return self.close()
            self._taken_bytes = planned

    def _add(self, new: _KeptStep) -> None:
        """Keep the newest step, and drop the one before it unless the stride or the end of a stage keeps it."""
        if len(self._kept) > 1:
            before, last = self._kept[-2:]
            if before.stage == last.stage == new.stage and last.step % self._stride:
                self._held_bytes -= self._kept.pop().bytes
        self._kept.append(new)
        self._held_bytes += new.bytes

    def _thin(self) -> None:
        """Drop every second step, but no stage's first or last."""
        self._stride *= 2
        kept, end = self._kept, len(self._kept) - 1
        thinned: list[_KeptStep] = []
        for i, step in enumerate(kept):
            is_end = i in (0, end) or not kept[i - 1].stage == step.stage == kept[i + 1].stage
            if is_end or step.step % self._stride == 0:
                thinned.append(step)
        self._kept = thinned
        self._held_bytes = sum(stage.bytes for stage in self._stages) + sum(step.bytes for step in thinned)

    def trace(self) -> Trace | None:
        """Return all that was kept, as arrays; None if it was too much."""
        if not self._kept:
            return None
        stages: list[TraceStage] = []
        for number, stage in enumerate(self._stages):
            kept = [step for step in self._kept if step.stage == number]
            differences = [_floats(k.guidance_difference) for k in kept if k.guidance_difference is not None]
            no_differences = np.empty((0, *kept[0].x_t.shape), np.float32)
            condition = None if stage.condition is None else _floats(stage.condition)
            stages.append(
                TraceStage(
                    step=np.array([step.step for step in kept], np.int64),
                    timestep=np.array([step.timestep for step in kept], np.float64),
                    alpha=np.array([step.alpha for step in kept], np.float64),
                    sigma=np.array([step.sigma for step in kept], np.float64),
                    guidance_scale=np.array([step.guidance_scale for step in kept], np.float64),
                    x_t=np.stack([_floats(step.x_t) for step in kept]),
                    x0=np.stack([_floats(step.x0) for step in kept]),
                    guided=np.array([step.guidance_difference is not None for step in kept]),
                    guidance_difference=np.stack(differences) if differences else no_differences,
                    condition=condition if condition is not None and condition.any() else None,
                    task=stage.task,
                    noise_level=stage.noise_level,
                    component=stage.component,
                )
            )
        return Trace(tuple(stages), self._row.num_steps, self._row.seed, self._model)

    def close(self) -> None:
        """Forget all steps and return their bytes to the budget."""
        self._is_closed = True
        self._kept, self._stages, self._last_stage, self._next_stage = [], [], None, None
        self._budget.give_back(self._taken_bytes)
        self._taken_bytes = self._held_bytes = 0


def _keep_step(record: StepRecord, stage: int, step: int) -> _KeptStep:
    x_t, x0 = _own(record.x_t), _own(record.pred_original_sample)
    difference = None if record.guidance_difference is None else _own(record.guidance_difference)
    size = FLOAT_BYTES * (2 if difference is None else 3) * math.prod(x_t.shape)
    # Not the record itself: its arrays may be views.
    return _KeptStep(
        stage=stage,
        step=step,
        x_t=x_t,
        x0=x0,
        guidance_difference=difference,
        timestep=record.timestep,
        alpha=record.alpha,
        sigma=record.sigma,
        guidance_scale=record.guidance_scale,
        bytes=size,
    )


def _keep_stage(stage: StageInfo | None) -> _KeptStage:
    """Read what a stage is conditioned on."""
    if stage is None:
        return _KeptStage(None, None, 0.0, "unet", 0)
    condition = stage.condition
    size = 0 if condition is None else FLOAT_BYTES * math.prod(condition.shape)
    task = None if stage.task is None else int(stage.task)
    return _KeptStage(condition, task, float(stage.noise_level), stage.component, size)


def _own(values: Any) -> Any:
    """Return the array itself, or a copy if it is a view: a view would keep the whole batch that it is a part of."""
    if hasattr(values, "untyped_storage"):  # torch
        return values.clone() if values.untyped_storage().nbytes() > values.nbytes else values
    return values.copy() if values.base is not None else values


def _floats(values: Any) -> Floats:
    """Return a tensor on any device, or an array, as float32."""
    if hasattr(values, "detach"):  # torch
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)
