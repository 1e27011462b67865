"""The engine's `Backend` over one loaded latent model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from studio.engine.resolved import ResolvedRequest
from studio.models.latent.calls import make_call
from studio.models.latent.row import LatentRow


class LatentBackend:
    """Runs the requests of one latent model.

    loaded: the model. find: gives the backend of another loaded model by its id, such as the refiner's.
    """

    def __init__(self, loaded: Any, find: Callable[[str], LatentBackend]) -> None:
        self.loaded, self._find = loaded, find

    def prepare(self, resolved: ResolvedRequest) -> list[LatentRow]:
        """Return one row per picture, in the order of `resolved.seeds`."""
        raise NotImplementedError

    def denoise_step(self, rows: Sequence[LatentRow]) -> None:
        """Make one network call for rows of one `call_key`: of the U-Net, or of the VAE."""
        make_call(rows)

    def decode(self, row: LatentRow) -> Image.Image:
        """Return the picture of a finished row."""
        raise NotImplementedError

    def truncated(self, text: str) -> str:
        """Return the end of the text that the model does not read, "" if it reads all of it."""
        raise NotImplementedError

    def reduce_memory(self) -> str | None:
        """Choose the next setting that needs less memory, and return a sentence about it; None if there is none."""
        raise NotImplementedError
