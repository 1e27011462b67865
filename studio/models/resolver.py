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
from studio.models.identify import STUDIO, UNKNOWN

HASH_DIGITS = 10  # of a SHA-256, as other studios shorten it


class ModelResolver:
    """The capabilities of a catalog's models. Thread-safe."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self._lock = catalog, threading.Lock()
        # By model id, with what they were read from.
        self._known: dict[str, tuple[ModelEntry, tuple[str, ...], Capabilities]] = {}

    def capabilities_of(self, model_id: str = "") -> Capabilities:
        """Return what a model can do, also one with problems; "" is the default model.

        The default model counts as one of the bundled kind if its files say nothing, so that the page can open.

        Raises InvalidRequest if the catalog does not have the model.
        """
        entries, entry = self.catalog.entries, self.catalog.get(model_id)
        refiners = tuple(
            other.id for other in entries if other.identity.family == "sdxl-refiner" and not other.problems
        )
        with self._lock:
            known = self._known.get(entry.id)
            if known is None or known[0] is not entry or known[1] != refiners:
                is_studio = entry.identity.family == STUDIO
                if is_studio or (entry is entries[0] and entry.identity.family == UNKNOWN):
                    capabilities = _studio_capabilities(entry)
                else:
                    capabilities = stable_diffusion.read_capabilities(entry, refiners=refiners)
                known = self._known[entry.id] = (entry, refiners, capabilities)
            return known[2]

    def resolve(self, request: Request) -> ResolvedRequest:
        """Check a request by its model and derive its values. One without a model gets the id of the default model.

        Raises InvalidRequest, also if the catalog does not have the model, or the model cannot be loaded.
        """
        entry = self.catalog.get(request.model_id)
        if entry.problems:
            raise InvalidRequest(f"The model {entry.id} cannot be used: {' '.join(entry.problems)}")
        resolved = self.capabilities_of(entry.id).resolve(request.with_model(entry.id))
        return replace(resolved, model_hash=(self.catalog.sha256(entry) or "")[:HASH_DIGITS])


def _studio_capabilities(entry: ModelEntry) -> Capabilities:
    capabilities = studio.read_capabilities(entry.path)
    name = entry.name if entry.identity.family == STUDIO else capabilities.name
    return replace(capabilities, model_id=entry.id, name=name, trigger_words=entry.trigger_words)
