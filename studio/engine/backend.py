"""The interface between the engine and a model: rows, and the backend that advances them.

Arrays may be tensors or NumPy arrays; this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from PIL import Image

from studio.engine.resolved import ResolvedRequest
from studio.engine.trace import TraceModel


class StepRecord(Protocol):
    """What one step of a picture computed, x_t = alpha x0 + sigma eps with alpha^2 + sigma^2 = 1.

    Arrays (C, H, W) in the model's own space, float32, never written to again.
    """

    @property
    def x_t(self) -> Any: ...
    @property
    def pred_original_sample(self) -> Any: ...
    @property
    def guidance_difference(self) -> Any | None: ...  # conditional minus the guidance baseline; None in one pass
    @property
    def timestep(self) -> float: ...  # in train steps
    @property
    def alpha(self) -> float: ...
    @property
    def sigma(self) -> float: ...
    @property
    def guidance_scale(self) -> float: ...


class StageInfo(Protocol):
    """What a trace stores of a stage: a part of the run with one size, task and condition."""

    @property
    def condition(self) -> Any | None: ...  # (K, H, W), further channels of the network's input; None: there are none
    @property
    def task(self) -> int | None: ...
    @property
    def noise_level(self) -> float: ...  # of the low-resolution picture


class Row(Protocol):
    """One picture in progress. Its stage, and with it its size, may change between steps."""

    @property
    def seed(self) -> int | None: ...
    @property
    def step(self) -> int: ...  # steps taken
    @property
    def progress(self) -> float: ...  # steps taken, with the finished part of a step that takes several network calls
    @property
    def num_steps(self) -> int: ...  # steps in all
    @property
    def finished(self) -> bool: ...
    @property
    def call_key(self) -> Hashable: ...  # opaque: only rows with equal keys share a network call
    @property
    def call_rows(self) -> int: ...  # network rows of this picture in the next call
    @property
    def record(self) -> StepRecord | None: ...  # of the last step
    @property
    def stage_info(self) -> StageInfo | None: ...  # of the next step; the same object for as long as the stage lasts

    def preview(self) -> Any | None:
        """Return the picture as predicted now, RGB (3, H, W) in about [-1, 1]; None before the first step. Cheap."""
        ...


class Backend(Protocol):
    """A model that runs requests step by step."""

    @property
    def device(self) -> str: ...  # "cpu", "cuda:0" ...
    @property
    def trace_model(self) -> TraceModel: ...  # what the arrays of its rows' records mean

    def prepare(self, resolved: ResolvedRequest) -> Sequence[Row]:
        """Return one row per picture, in the order of `resolved.seeds`."""
        ...

    def denoise_step(self, rows: Sequence[Any]) -> None:
        """Make one network call for rows with one `call_key`. Each row advances by a step, or by a part of one.

        Returns when the call is done, also on a GPU, because its time is measured. If it raises, the rows are as
        before the call; `is_out_of_memory` recognizes the exception where a smaller call may succeed.
        """
        ...

    def decode(self, row: Any) -> Image.Image:
        """Return the picture of a finished row. Called on another thread than `denoise_step`, for other rows."""
        ...

    def truncated(self, text: str) -> str:
        """Return the end of the text that the model does not read, "" if it reads all of it."""
        ...


def is_out_of_memory(problem: BaseException) -> bool:
    """Return whether memory was full, so that a smaller call may succeed: by the exceptions of Python, torch, CUDA."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    text = str(problem).lower()
    says = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(problem, RuntimeError) and any(words in text for words in says)
