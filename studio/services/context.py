"""What the page and the web API share: engine, library, models, and owners."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from studio.engine.checks import InvalidRequest
from studio.engine.engine import Engine
from studio.engine.job import JobView
from studio.library.drafts import Drafts
from studio.library.store import JobRecord, Library
from studio.models.capabilities import Capabilities
from studio.models.catalog import Catalog
from studio.models.folders import ModelInfo
from studio.models.resolver import ModelResolver
from studio.prompts.vocabulary import Vocabulary
from studio.services.noise.service import NoiseService
from studio.services.owners import Owners

ASSETS = Path(__file__).resolve().parents[2] / "assets"
_DEVICE_NAMES = {"cpu": "CPU", "cuda": "GPU", "cuda:0": "GPU", "mps": "Apple GPU"}


@dataclass(frozen=True)
class AppContext:
    """The studio that one process serves.

    models: the models of the catalog and what each can do.
    examples: the folder of shipped pictures.
    manages_models: whether people may change what is known of the models, and download others.
    """

    engine: Engine
    library: Library
    models: ModelResolver
    examples: Path = ASSETS / "examples"
    owners: Owners = field(default_factory=Owners)
    manages_models: bool = True

    @property
    def catalog(self) -> Catalog:
        """The models that the studio has."""
        return self.models.catalog

    def capabilities_of(self, model_id: str = "") -> Capabilities:
        """Return what a model can do; "" is the default model. Raises InvalidRequest if there is no such model."""
        return self.models.capabilities_of(model_id)

    @property
    def capabilities(self) -> Capabilities:
        """What the default model can do."""
        return self.models.capabilities_of()

    @property
    def model(self) -> ModelInfo:
        """The default model's name and size."""
        entry = self.catalog.get()
        picture_size = None if entry.problems else entry.identity.sample_size[0]
        return ModelInfo(self.capabilities.name, entry.parameters, picture_size)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that the default model has learned; None for a model that reads free text."""
        return self.capabilities.vocabulary

    @cached_property
    def drafts(self) -> Drafts:
        """The pictures and masks that owners work on."""
        return Drafts(self.library.folder, self.library.key)

    @cached_property
    def noise(self) -> NoiseService:
        """The service of the noise tab and the noise endpoints."""
        return NoiseService(self.engine, self.library, self.examples, self.capabilities_of)

    @property
    def device_name(self) -> str:
        """The device in use, for people; empty until the model is loaded."""
        device = str(getattr(self.engine.backend(), "device", ""))
        return _DEVICE_NAMES.get(device, device)

    def notes(self, job: JobView | JobRecord) -> tuple[str, ...]:
        """Return sentences about the words of a job's prompt that the model did not read or does not know."""
        settings = job.settings if isinstance(job, JobRecord) else job.request.settings() if job.request else {}
        prompt = settings.get("prompt")
        try:
            vocabulary = self.capabilities_of(settings.get("model_id", "")).vocabulary
        except InvalidRequest:  # the model is gone
            vocabulary = None
        unknown_words = vocabulary.unknown(prompt) if vocabulary and prompt else ()
        return (*job.notes, *map(str, unknown_words))
