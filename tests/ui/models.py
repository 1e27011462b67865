"""Entries of a catalog without files, and a download without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studio.engine.checks import InvalidRequest
from studio.models.catalog import ModelEntry
from studio.models.download import HubModel
from studio.models.identify import Identity, default_settings


class FakeCatalog:
    """The entries that it was given. next_entries: those that the next scan finds; overridden: what was set."""

    def __init__(self, entries: Sequence[ModelEntry], folders: Sequence[Path]) -> None:
        self.entries = self.next_entries = tuple(entries)
        self.folders = tuple(folders)
        self.overridden: dict[str, dict[str, Any]] = {}

    def get(self, model_id: str = "") -> ModelEntry:
        for entry in self.entries:
            if model_id in ("", entry.id):
                return entry
        ids = ", ".join(entry.id for entry in self.entries)
        raise InvalidRequest(f'The model must be one of {ids}; it was "{model_id}".')

    def rescan(self) -> None:
        self.entries = tuple(self.next_entries)

    def override(self, model_id: str, **fields: Any) -> ModelEntry:
        self.overridden[model_id] = fields
        return self.get(model_id)

    def sha256(self, entry: ModelEntry) -> str | None:
        return None


def fake_entry(model_id: str, family: str, **changes: Any) -> ModelEntry:
    """A latent model of 1.1 G parameters. changes: fields of the entry, or of its identity."""
    own = {name: changes.pop(name) for name in ("variant", "version", "sample_size", "evidence") if name in changes}
    identity = Identity(
        family=family, **({"version": "SD 1.x", "evidence": ("The U-Net has 4 input channels.",)} | own)
    )
    entry = ModelEntry(
        id=model_id,
        name=model_id.upper(),
        path=Path("models") / model_id,
        layout="folder",
        bytes=2_130_000_000,
        parameters=1_066_000_000,
        dtype="F16",
        identity=identity,
        overrides=MappingProxyType({}),
        defaults=MappingProxyType(default_settings(identity)),
        trigger_words="",
        problems=(),
    )
    return replace(entry, **changes)


def fake_entries() -> list[ModelEntry]:
    return [
        fake_entry("sd", "stable-diffusion", name="SD tiny"),
        fake_entry("xl", "sdxl", version="SDXL", sample_size=(1024, 1024), parameters=2_600_000_000),
        fake_entry("refiner", "sdxl-refiner", version="SDXL refiner", sample_size=(1024, 1024)),
        fake_entry("x4", "upscaler-x4", name="Upscaler", version="×4 upscaler"),
        fake_entry("broken", "unknown", version="LoRA", problems=("This file is a LoRA, cannot paint alone.",)),
    ]


class FakeDownload:
    """A download that goes on as a test says. last: the newest one."""

    last: FakeDownload

    def __init__(self, model: HubModel, folder: Path) -> None:
        self.state, self.error, self.done_bytes = "running", "", 0
        FakeDownload.last = self

    def cancel(self) -> None:
        self.state = "cancelled"
