"""What the engine needs of a model: the sampler protocol, and how to tell that the memory was full.

Knows names and shapes; knows nothing of a particular network, and imports no torch: tensors and NumPy arrays both do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from studio.engine.requests import Request


class StepRecord(Protocol):
    """What one network call saw and said of a picture. Arrays (3, H, W), float32, never written to again."""

    @property
    def x_t(self) -> Any: ...
    @property
    def pred_original_sample(self) -> Any: ...
    @property
    def guidance_difference(self) -> Any | None: ...  # conditional minus what guidance leads away from
    @property
    def timestep(self) -> float: ...  # in train steps
    @property
    def alpha(self) -> float: ...
    @property
    def sigma(self) -> float: ...
    @property
    def guidance_scale(self) -> float: ...


class Row(Protocol):
    """One picture under way. A row may also have a `stage` with `condition`, `task` and `noise_level`, for its trace;
    the stage, and with it the shape, may change once or more on the way."""

    seed: int | None
    record: StepRecord | None  # of the last step

    @property
    def step(self) -> int: ...  # steps taken
    @property
    def progress(self) -> float: ...  # steps taken, with what is done of one that takes several network calls
    @property
    def num_steps(self) -> int: ...  # steps in all
    @property
    def finished(self) -> bool: ...
    @property
    def call_shape(self) -> tuple[int, int]: ...  # only rows of one shape share a call
    @property
    def call_rows(self) -> int: ...  # network rows that this picture takes in the next call
    @property
    def pred_original_sample(self) -> Any | None: ...  # (3, H, W) in [-1, 1], x0 as last predicted


class Backend(Protocol):
    """A model that pictures are made with, step by step."""

    device: str

    def prepare(self, request: Request) -> list[Row]:
        """One row a picture, `request.seeds` in order."""
        ...

    def denoise_step(self, rows: Sequence[Row]) -> None:
        """One network call for rows of one `call_shape`; they change in place: a step, or what a call can do of one.

        Returns when it is done, on a GPU too: its time is measured. When the memory is full it raises what
        `is_out_of_memory` knows and leaves the rows as they were.
        """
        ...

    def decode(self, row: Row) -> Image.Image:
        """The picture of a finished row. Is called on another thread than `denoise_step`, for other rows."""
        ...

    def truncated(self, text: str) -> str:
        """The end of the text that the model does not read, "" if it reads all."""
        ...


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether a smaller call might have succeeded: Python's, torch's and CUDA's ways to say that memory is full."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    text = str(problem).lower()
    says = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(problem, RuntimeError) and any(words in text for words in says)
