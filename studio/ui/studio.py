"""What every tab shares: the engine, the model's facts and words, and where pictures are kept.

Knows nothing of Gradio.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studio.engine.engine import Engine, EngineError, Progress, Result
from studio.engine.requests import TextToImage
from studio.library.metadata import write_png
from studio.library.models import ModelInfo, model_info
from studio.ui.stage import Shown
from studio.ui.vocabulary import Vocabulary

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class Finished:
    """A run's result with its pictures on disk, and all that should be said about it."""

    result: Result
    pictures: tuple[Shown, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Studio:
    engine: Engine
    model: ModelInfo
    vocabulary: Vocabulary | None
    data: Path  # what the studio writes lies below it
    examples: Path = ASSETS / "examples"

    @classmethod
    def open(cls, folder: Path, engine: Engine, data: Path) -> Studio:
        """A studio over a model folder, which may turn out to be no such thing: the engine will say so."""
        return cls(engine, model_info(folder), Vocabulary.read(folder), data)

    @property
    def device_name(self) -> str:
        """The device in use, for people; empty until the model is loaded."""
        device = str(getattr(self.engine.pipeline, "device", ""))
        return {"cpu": "CPU", "cuda": "GPU", "cuda:0": "GPU", "mps": "Apple GPU"}.get(device, device)

    @property
    def pictures(self) -> Path:
        return self.data / "pictures"

    def paint(self, request: TextToImage, run_id: str) -> Iterator[Progress | Finished]:
        """Follows a submitted run; at its end the pictures are kept as PNG files with their settings inside.

        Raises EngineError. Closing the iterator stops the run.
        """
        for event in self.engine.stream(run_id):
            if isinstance(event, Progress):
                yield event
                continue
            pictures = tuple(
                self._keep(image, request, seed, event.seconds)
                for image, seed in zip(event.images, event.seeds, strict=False)
            )
            unknown = map(str, self.vocabulary.unknown(request.prompt)) if self.vocabulary else ()
            yield Finished(event, pictures, (*event.notes, *unknown))

    def _keep(self, image, request: TextToImage, seed: int, seconds: float) -> Shown:
        settings = request.settings() | {
            "task": "text-to-image",
            "caption": request.caption,
            "seed": seed,
            "count": 1,
            "size": f"{image.width}x{image.height}",
            "model": self.model.name,
            "seconds": round(seconds, 3),
        }
        # The name cannot be guessed: who has it was shown the picture.
        path = self.pictures / f"{secrets.token_urlsafe(18)}.png"
        try:
            write_png(image, path, settings)
        except OSError as problem:
            raise EngineError(f"The picture could not be kept in {self.pictures}: {problem.strerror}.") from problem
        return Shown(str(path.resolve()), settings)
