"""The loaded models, within a budget of memory: the least recently used ones go before the next one is loaded."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

from studio.engine.backend import Backend
from studio.engine.checks import InvalidRequest
from studio.models.formats import ModelError


class ModelCache:
    """The engine's `Models` protocol.

    default_id: of the model that is loaded first.
    load: returns the backend of a model's id. Raises ModelError or InvalidRequest.
    size: returns the bytes that a model takes in memory, from its headers. Raises InvalidRequest where it is gone.
    budget: returns the bytes that all loaded models together may take.
    claim_thread: called once in the thread that makes the network calls.
    """

    def __init__(
        self,
        default_id: str,
        load: Callable[[str], Backend],
        *,
        size: Callable[[str], int],
        budget: Callable[[], int],
        claim_thread: Callable[[], None] = lambda: None,
    ) -> None:
        self.default_id, self.claim_thread = default_id, claim_thread
        self._load, self._size, self._budget = load, size, budget
        self._lock = threading.RLock()
        self._backends: dict[str, Backend] = {}  # the least recently used first
        self._bytes: dict[str, int] = {}  # of the loaded models

    @property
    def loaded(self) -> tuple[str, ...]:
        """The ids of the loaded models, the least recently used first."""
        with self._lock:
            return tuple(self._backends)

    @property
    def bytes(self) -> int:
        """The bytes that the loaded models take."""
        with self._lock:
            return sum(self._bytes.values())

    def get(self, model_id: str) -> Backend | None:
        """Return a loaded model, None if it is not loaded."""
        return self._backends.get(model_id)

    def use(self, model_ids: Sequence[str]) -> Backend:
        """Return the first of these models, which are loaded, and note that all of them are used now."""
        with self._lock:
            for model_id in model_ids:
                self._backends[model_id] = self._backends.pop(model_id)
            return self._backends[model_ids[0]]

    def fits(self, model_ids: Collection[str], in_use: Collection[str]) -> bool:
        """Return whether these models can be loaded beside those in use; also where `load` would refuse one."""
        with self._lock:
            try:
                sizes = {model_id: self._size_of(model_id) for model_id in model_ids}
            except InvalidRequest:
                return True
            kept = {model_id: size for model_id, size in self._bytes.items() if model_id in in_use}
            budget = self._budget()
            return sum((sizes | kept).values()) <= budget or sum(sizes.values()) > budget

    def make_room(self, model_ids: Collection[str], in_use: Collection[str]) -> None:
        """Evict models until these fit: the least recently used first, none of these, and none in use."""
        with self._lock:
            try:
                needed = sum(self._size_of(model_id) for model_id in model_ids)
            except InvalidRequest:
                return
            budget = self._budget()
            if needed > budget:
                return
            for model_id in self.loaded:
                others = sum(size for loaded, size in self._bytes.items() if loaded not in model_ids)
                if needed + others <= budget:
                    return
                if model_id not in model_ids and model_id not in in_use:
                    del self._backends[model_id], self._bytes[model_id]

    def load(self, model_id: str) -> None:
        """Load a model. Raises ModelError if it does not fit beside the loaded ones, or is not a model that runs."""
        _free_memory()
        size, budget, loaded = self._size(model_id), self._budget(), self.bytes
        if loaded + size > budget:
            others = f", the loaded ones take {_gb(loaded)}" if loaded else ""
            raise ModelError(
                f"The model {model_id} takes {_gb(size)} of memory, and models may take {_gb(budget)}{others}: "
                "give them more with --memory, or choose a smaller one."
            )
        try:
            backend = self._load(model_id)
        except BaseException:
            _free_memory()
            raise
        with self._lock:
            self._backends[model_id], self._bytes[model_id] = backend, size

    def _size_of(self, model_id: str) -> int:
        return self._bytes[model_id] if model_id in self._bytes else self._size(model_id)


def _free_memory() -> None:
    """Free what evicted models have left: cycles of objects, and the blocks that CUDA keeps."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
