"""What every tab shares: the engine, the library, the model's facts and words, and who is asking.

Knows nothing of Gradio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from studio.engine.engine import Engine
from studio.engine.job import JobView
from studio.library.drafts import Drafts
from studio.library.store import JobRecord, Library
from studio.models.folder import ModelInfo, model_info
from studio.prompts.vocabulary import Vocabulary
from studio.services.owners import Owners

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class AppContext:
    engine: Engine
    library: Library
    model: ModelInfo
    vocabulary: Vocabulary | None
    examples: Path = ASSETS / "examples"
    owners: Owners = field(default_factory=Owners)

    @classmethod
    def open(cls, folder: Path, engine: Engine, library: Library) -> AppContext:
        """A studio over a model folder, which may turn out to be no such thing: the engine will say so."""
        return cls(engine, library, model_info(folder), Vocabulary.read(folder))

    @cached_property
    def drafts(self) -> Drafts:
        return Drafts(self.library.folder, self.library.key())

    @property
    def device_name(self) -> str:
        """The device in use, for people; empty until the model is loaded."""
        device = str(getattr(self.engine.sampler, "device", ""))
        return {"cpu": "CPU", "cuda": "GPU", "cuda:0": "GPU", "mps": "Apple GPU"}.get(device, device)

    def notes(self, job: JobView | JobRecord) -> tuple[str, ...]:
        """What whoever asked for a job should know: what was not read of the words, and what is not known."""
        prompt = (job.request.settings() if job.request else job.settings).get("prompt")
        unknown = self.vocabulary.unknown(prompt) if self.vocabulary and prompt else ()
        return (*job.notes, *map(str, unknown))
