"""What the page and the web API share: engine, library, facts about the model, and owners."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from studio.engine.engine import Engine
from studio.engine.job import JobView
from studio.library.drafts import Drafts
from studio.library.store import JobRecord, Library
from studio.models.capabilities import Capabilities
from studio.models.folders import ModelInfo, read_model_info
from studio.prompts.vocabulary import Vocabulary
from studio.services.noise.service import NoiseService
from studio.services.owners import Owners

ASSETS = Path(__file__).resolve().parents[2] / "assets"
_DEVICE_NAMES = {"cpu": "CPU", "cuda": "GPU", "cuda:0": "GPU", "mps": "Apple GPU"}


@dataclass(frozen=True)
class AppContext:
    """The studio that one process serves.

    examples: the folder of shipped pictures.
    """

    engine: Engine
    library: Library
    model: ModelInfo
    capabilities: Capabilities
    examples: Path = ASSETS / "examples"
    owners: Owners = field(default_factory=Owners)

    @classmethod
    def open(cls, folder: Path, engine: Engine, library: Library, capabilities: Capabilities) -> AppContext:
        """Return the context of a model folder. Where it holds no model, the engine reports it."""
        return cls(engine, library, read_model_info(folder), capabilities)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that the model has learned; None for a model that reads free text."""
        return self.capabilities.vocabulary

    @cached_property
    def drafts(self) -> Drafts:
        """The pictures and masks that owners work on."""
        return Drafts(self.library.folder, self.library.key)

    @cached_property
    def noise(self) -> NoiseService:
        """The service of the noise tab and the noise endpoints."""
        return NoiseService(self.engine, self.library, self.examples, lambda model_id: self.capabilities)

    @property
    def device_name(self) -> str:
        """The device in use, for people; empty until the model is loaded."""
        device = str(getattr(self.engine.backend(), "device", ""))
        return _DEVICE_NAMES.get(device, device)

    def notes(self, job: JobView | JobRecord) -> tuple[str, ...]:
        """Return sentences about the words of a job's prompt that the model did not read or does not know."""
        settings = job.settings if isinstance(job, JobRecord) else job.request.settings() if job.request else {}
        prompt = settings.get("prompt")
        unknown_words = self.vocabulary.unknown(prompt) if self.vocabulary and prompt else ()
        return (*job.notes, *map(str, unknown_words))
