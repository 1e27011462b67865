"""Load models in the background, one after another, while the rows of other models go on."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence, Set
from contextlib import contextmanager

from studio.engine.backend import Backend, Models
from studio.engine.checks import describe_exception

log = logging.getLogger(__name__)


class ModelLoader:
    """Loads models on a thread of their own, and lends them to pages.

    on_failure: called with a model's id and a sentence where it was not loaded.
    on_change: called when a load has ended, or when a model may be evicted again.
    """

    def __init__(self, models: Models, on_failure: Callable[[str, str], None], on_change: Callable[[], None]) -> None:
        self._models, self._on_failure, self._on_change = models, on_failure, on_change
        self._lock = threading.RLock()  # a model is not lent while it is evicted
        self._borrowed: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}  # that loading a model took the last time
        self._thread: threading.Thread | None = None
        self.is_busy = False
        self.loading = ""  # id of the model that is being loaded
        self.problems: dict[str, str] = {}  # model id -> why it was not loaded the last time

    def start(self, model_ids: Sequence[str], in_use: Set[str]) -> None:
        """Make room for these models, and load those that are not loaded in the background. Not while it is busy."""
        self.is_busy = True
        with self._lock:
            self._models.make_room(model_ids, in_use | self.borrowed)
        self._thread = threading.Thread(target=self._load, args=(model_ids,), name="model-loader", daemon=True)
        self._thread.start()

    def join(self, timeout: float | None) -> bool:
        """Wait until the load in progress has ended, for at most `timeout` seconds. Return whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.is_busy

    def seconds(self, model_id: str) -> float:
        """Return how long it takes until a model is loaded: 0 if it is, or if that was never measured."""
        return 0.0 if model_id in self._models.loaded else self._seconds.get(model_id, 0.0)

    @property
    def borrowed(self) -> set[str]:
        """The ids of the models that are lent."""
        with self._lock:
            return set(+self._borrowed)

    @contextmanager
    def borrow(self, model_id: str) -> Generator[Backend | None]:
        """Give a loaded model, which is not evicted meanwhile; None if it is not loaded."""
        with self._lock:
            backend = self._models.get(model_id)
            self._borrowed[model_id] += 1
        try:
            yield backend
        finally:
            with self._lock:
                self._borrowed[model_id] -= 1
            self._on_change()

    def _load(self, model_ids: Sequence[str]) -> None:
        for model_id in model_ids:
            if model_id in self._models.loaded:
                continue
            self.loading, start = model_id, time.perf_counter()
            try:
                self._models.load(model_id)
                self._seconds[model_id] = time.perf_counter() - start
                self.problems.pop(model_id, None)
            except Exception as problem:  # whatever is wrong with a model must not end the page
                log.warning("the model %s was not loaded", model_id, exc_info=problem)
                text = str(problem) or f"The model was not loaded: {describe_exception(problem)}."
                self.problems[model_id] = text
                self._on_failure(model_id, text)
                break
        self.loading, self.is_busy = "", False
        self._on_change()
