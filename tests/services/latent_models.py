"""A noise service over the bundled kind of model and tiny latent models, all with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.engine.engine import Engine
from studio.engine.requests import Request
from studio.engine.resolved import ResolvedRequest
from studio.library.store import Library
from studio.models.cache import ModelCache
from studio.models.capabilities import Capabilities
from studio.models.families.stable_diffusion import read_capabilities
from studio.models.families.studio import StudioBackend
from studio.models.latent.backend import LatentBackend
from studio.models.loader import load_latent
from studio.models.placement import Placement
from studio.services.noise.service import ASSETS, NoiseService
from tests.diffusion.conftest import random_pipeline
from tests.fakes import CAPABILITIES
from tests.models import tiny


def capabilities_of(model_id: str) -> Capabilities:
    """Return what a model can do; a latent model's id is a kind of `tests.models.tiny`."""
    return CAPABILITIES if model_id in ("", CAPABILITIES.model_id) else read_capabilities(tiny.entry(model_id))


def resolve(request: Request) -> ResolvedRequest:
    capabilities = capabilities_of(request.model_id)
    return capabilities.resolve(request.with_model(capabilities.model_id))


@contextmanager
def noise_service(folder: Path, budget: int = 3) -> Iterator[NoiseService]:
    """Give the service over a library in a folder. Models are loaded when a run needs them. budget: models at once."""

    def load(model_id: str) -> StudioBackend | LatentBackend:
        if model_id == CAPABILITIES.model_id:
            return StudioBackend(random_pipeline(), model_id)
        loaded = load_latent(tiny.entry(model_id), Placement(device="cpu", dtype="float32"))
        return LatentBackend(loaded, lambda other: models.get(other))  # type: ignore[arg-type,return-value]

    models = ModelCache(CAPABILITIES.model_id, load, size=lambda model_id: 1, budget=lambda: budget)
    library = Library(folder)
    engine = Engine(models, library.journal, resolve=resolve).start()
    try:
        yield NoiseService(engine, library, ASSETS / "examples", capabilities_of)
    finally:
        engine.shutdown(8.0)
        library.close()
