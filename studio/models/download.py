"""Fetch models from the Hugging Face hub: safetensors, configs and tokenizers only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """What a download would fetch.

    id: "owner/name", or "owner/name/file.safetensors" for a single file.
    revision: the commit that the sizes are of.
    files: path within the repository -> size in bytes.
    """

    id: str
    revision: str
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(self.files.values())


def look_up(hub_id: str) -> HubModel:
    """Ask the hub which files a model has. Raises ModelError with one sentence."""
    raise NotImplementedError


class Download:
    """A download that runs in a thread of its own.

    state: "running", "done", "cancelled" or "failed"; error: the sentence of a failed one.
    done_bytes: of model.bytes, those that are there.
    path: where the model is once it is done.
    """

    def __init__(self, model: HubModel, folder: Path):
        """Start to fetch a model into a models folder. One that was interrupted goes on where it stopped."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop; what is there is kept for the next try."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> None:
        """Return when the download has ended, or after `timeout` seconds."""
        raise NotImplementedError
