"""The loaded models, within a budget of memory: the least recently used ones go before the next one is loaded."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from studio.engine.backend import Backend
from studio.engine.checks import InvalidRequest
from studio.models.formats import ModelError


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A loaded model."""

    backend: Backend
    bytes: int
    version: Hashable


class ModelCache:
    """The engine's `Models` protocol.

    default_id: of the model that is loaded first.
    load: returns the backend of a model's id. Raises ModelError or InvalidRequest.
    size: returns the bytes that a model takes in memory, from its headers. Raises ModelError or InvalidRequest.
    budget: returns the bytes that all loaded models together may take.
    version: returns a value for a model's id; where it is another than when the model was loaded, the model counts as
        not loaded, and is loaded again.
    claim_thread: called once in the thread that makes the network calls.
    """

    def __init__(
        self,
        default_id: str,
        load: Callable[[str], Backend],
        *,
        size: Callable[[str], int],
        budget: Callable[[], int],
        version: Callable[[str], Hashable] = lambda _: None,
        claim_thread: Callable[[], None] = lambda: None,
    ) -> None:
        self.default_id, self.claim_thread = default_id, claim_thread
        self._load, self._size, self._budget, self._version = load, size, budget, version
        self._lock = threading.RLock()
        self._models: dict[str, _Loaded] = {}  # the least recently used first
        self._has_evicted = False  # since memory was freed the last time

    @property
    def loaded(self) -> tuple[str, ...]:
        """The ids of the loaded models, the least recently used first."""
        with self._lock:
            return tuple(model_id for model_id in self._models if self.get(model_id) is not None)

    @property
    def bytes(self) -> int:
        """The bytes that the loaded models take."""
        with self._lock:
            return sum(model.bytes for model in self._models.values())

    def get(self, model_id: str) -> Backend | None:
        """Return a loaded model, None if it is not loaded."""
        model = self._models.get(model_id)
        return model.backend if model is not None and model.version == self._version(model_id) else None

    def use(self, model_ids: Sequence[str]) -> Backend:
        """Return the first of these models, which are loaded, and note that all of them are used now."""
        with self._lock:
            for model_id in reversed(model_ids):  # a refiner goes before its main model
                self._models[model_id] = self._models.pop(model_id)
            return self._models[model_ids[0]].backend

    def fits(self, model_ids: Collection[str], in_use: Collection[str]) -> bool:
        """Return whether these models can be loaded beside those in use; also where `load` would refuse one."""
        with self._lock:
            needed = self._needed(model_ids)
            if needed is None:
                return True
            if any(model_id in in_use and self._is_outdated(model_id) for model_id in model_ids):
                return False
            kept = sum(self._models[other].bytes for other in self._models.keys() & set(in_use) - set(model_ids))
            return needed + kept <= self._budget()

    def make_room(self, model_ids: Collection[str], in_use: Collection[str]) -> None:
        """Evict models until these fit: the least recently used first, none of these, and none in use."""
        with self._lock:
            for model_id in list(self._models):
                if self._is_outdated(model_id) and model_id not in in_use:
                    self._evict(model_id)
            needed = self._needed(model_ids)
            if needed is None:
                return
            for model_id in list(self._models):
                others = sum(self._models[other].bytes for other in self._models.keys() - set(model_ids))
                if needed + others <= self._budget():
                    return
                if model_id not in model_ids and model_id not in in_use:
                    self._evict(model_id)

    def load(self, model_id: str) -> None:
        """Load a model. Raises ModelError if it does not fit beside the loaded ones, or is not a model that runs."""
        if self._has_evicted:  # not always: it stops all threads for a moment
            self._has_evicted = False
            _free_memory()
        size, version, loaded = self._size(model_id), self._version(model_id), self.bytes
        if loaded + size > self._budget():
            others = f", of which others take {_gb(loaded)}" if loaded else ""
            raise ModelError(
                f"The model {model_id} takes {_gb(size)} of memory, and all models together may take "
                f"{_gb(self._budget())}{others}: give them more with --memory, or choose a smaller model."
            )
        try:
            backend = self._load(model_id)
        except BaseException:
            _free_memory()
            raise
        with self._lock:
            self._models[model_id] = _Loaded(backend=backend, bytes=size, version=version)

    def _evict(self, model_id: str) -> None:
        del self._models[model_id]
        self._has_evicted = True

    def _needed(self, model_ids: Collection[str]) -> int | None:
        """Return the bytes of these models together; None if `load` refuses one, so that nothing need be evicted."""
        needed = 0
        try:
            for model_id in model_ids:
                is_loaded = self.get(model_id) is not None
                needed += self._models[model_id].bytes if is_loaded else self._size(model_id)
        except (InvalidRequest, ModelError):
            return None
        return needed if needed <= self._budget() else None

    def _is_outdated(self, model_id: str) -> bool:
        return model_id in self._models and self.get(model_id) is None


def _free_memory() -> None:
    """Free what evicted models have left: cycles of objects, and the blocks that CUDA keeps."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
