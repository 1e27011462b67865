"""The interfaces between the engine and models: rows, the backend that advances them, and the loaded models.

Arrays may be tensors or NumPy arrays; this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
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
    @property
    def component(self) -> str: ...  # of the pipeline: the network that makes the steps


class Row(Protocol):
    """One picture in progress. Its stage, and with it its size, may change between steps."""

    @property
    def seed(self) -> int | None: ...
    @property
    def step(self) -> int: ...  # denoising steps taken
    @property
    def num_steps(self) -> int: ...  # denoising steps in all
    @property
    def progress(self) -> float: ...  # finished share of all calls, encoding and decoding included: 0 to 1, rising
    @property
    def finished(self) -> bool: ...  # all calls are made
    @property
    def call_key(self) -> Hashable: ...  # opaque: only rows with equal keys share a network call; not of two models
    @property
    def call_rows(self) -> int: ...  # network rows of this picture in the next call
    @property
    def record(self) -> StepRecord | None: ...  # of the last step
    @property
    def stage_info(self) -> StageInfo | None: ...  # of the next step; the same object for as long as the stage lasts
    @property
    def notes(self) -> Sequence[str]: ...  # a sentence for its owner about each thing that went another way

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
        """Make one network call for rows with one `call_key`. The progress of each row rises.

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

    def reduce_memory(self) -> str | None:
        """Choose the next setting that needs less memory, and return a sentence about it; None if there is none.

        Called after a call for a single row that did not fit into memory. Rows in progress go on.
        """
        ...


class Models(Protocol):
    """The models that the engine runs, some of them loaded. The engine decides which, and when.

    All methods but `load` take moments. `load` is called by one thread at a time, the others by any.
    """

    @property
    def default_id(self) -> str: ...  # of the model that is loaded first

    @property
    def loaded(self) -> Sequence[str]: ...  # ids of the loaded models

    def claim_thread(self) -> None:
        """Called once, before anything is loaded, in the thread that will make the network calls."""
        ...

    def get(self, model_id: str) -> Backend | None:
        """Return a loaded model, None if it is not loaded."""
        ...

    def use(self, model_ids: Sequence[str]) -> Backend:
        """Return the first of these models, which are loaded, and note that all of them are used now."""
        ...

    def fits(self, model_ids: Collection[str], in_use: Collection[str]) -> bool:
        """Return whether these models can be loaded together beside those in use.

        False only if that changes once fewer models are in use.
        """
        ...

    def make_room(self, model_ids: Collection[str], in_use: Collection[str]) -> None:
        """Evict models until these fit: the least recently used first, none of these, and none in use."""
        ...

    def load(self, model_id: str) -> None:
        """Load a model that there is room for. It may take minutes. Raises an exception whose text is a sentence."""
        ...


def is_out_of_memory(problem: BaseException) -> bool:
    """Return whether memory was full, so that a smaller call may succeed: by the exceptions of Python, torch, CUDA."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    text = str(problem).lower()
    says = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(problem, RuntimeError) and any(words in text for words in says)
