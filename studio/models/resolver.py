"""Find the model of a request in the catalog, then check and resolve the request by what that model can do."""

from __future__ import annotations

import threading
from dataclasses import replace

from studio.engine.checks import InvalidRequest
from studio.engine.requests import Request
from studio.engine.resolved import ResolvedRequest
from studio.models.capabilities import Capabilities
from studio.models.catalog import Catalog, ModelEntry
from studio.models.families import stable_diffusion, studio

HASH_DIGITS = 10  # of a SHA-256, as other studios shorten it


class ModelResolver:
    """The capabilities of a catalog's models. Thread-safe."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._lock = catalog, threading.Lock()
        # By model id, with what they were read from.
        self._known: dict[str, tuple[ModelEntry, tuple[str, ...], str, Capabilities]] = {}

    def capabilities_of(self, model_id: str = "") -> Capabilities:
        """Return what a model can do, also one with problems; "" is the default model. Raises InvalidRequest."""
        entry = self._catalog.get(model_id)
        refiners = self._refiners() if entry.identity.family == "sdxl" else ()
        model_hash = (self._catalog.sha256(entry) or "")[:HASH_DIGITS]
        with self._lock:
            known = self._known.get(entry.id)
            if known is None or known[0] is not entry or known[1:3] != (refiners, model_hash):
                capabilities = _read_capabilities(entry, refiners, model_hash)
                known = self._known[entry.id] = (entry, refiners, model_hash, capabilities)
            return known[3]

    def resolve(self, request: Request) -> ResolvedRequest:
        """Check a request by its model and derive its values. One without a model gets the id of the default model.

        Raises InvalidRequest, also if the catalog does not have the model, or the model cannot be loaded.
        """
        entry = self._catalog.get(request.model_id)
        if entry.problems:
            raise InvalidRequest(f"The model {entry.id} cannot be used: {' '.join(entry.problems)}")
        return self.capabilities_of(entry.id).resolve(request.with_model(entry.id))

    def _refiners(self) -> tuple[str, ...]:
        """Return the ids of the SDXL refiners that can be loaded."""
        is_refiner = [entry.identity.family == "sdxl-refiner" and not entry.problems for entry in self._catalog.entries]
        return tuple(entry.id for entry, chosen in zip(self._catalog.entries, is_refiner, strict=True) if chosen)


def _read_capabilities(entry: ModelEntry, refiners: tuple[str, ...], model_hash: str) -> Capabilities:
    if entry.identity.family != "studio":
        return stable_diffusion.read_capabilities(entry, refiners=refiners, model_hash=model_hash)
    capabilities = studio.read_capabilities(entry.path)
    return replace(
        capabilities,
        model_id=entry.id,
        name=entry.name,
        model_hash=model_hash,
        trigger_words=entry.trigger_words,
    )
