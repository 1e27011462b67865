"""The models found in folders, what a person has set differently for them, and the hashes of their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.models.identify import Identity


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model of the catalog.

    id: its folder's name, or its file's name without ".safetensors"; a second one has its parent's name in front.
    name: for people.
    path: the folder in diffusers layout, or the single file.
    layout: "folder" or "file".
    bytes: of the weights that would be loaded, as stored. parameters: their number.
    dtype: of most of these bytes, as safetensors names it: "F32", "F16", "BF16" ...; "" if there are none.
    identity: as detected, with the person's overrides applied.
    overrides: what the person has set: family, variant, prediction_type, defaults, trigger_words.
    defaults: request fields -> values: sampler, spacing, steps, guidance, width, height, clip_skip.
    trigger_words: words for the prompt that the model was trained on.
    problems: a sentence for each reason why it cannot be loaded.
    """

    id: str
    name: str
    path: Path
    layout: str
    bytes: int
    parameters: int
    dtype: str
    identity: Identity
    overrides: Mapping[str, Any]
    defaults: Mapping[str, Any]
    trigger_words: str
    problems: tuple[str, ...]


class Catalog:
    """The models of a studio. Safe to use from several threads.

    model: folder or file of the default model, always the first entry.
    folders: where other models are looked for.
    settings_file: JSON file that keeps overrides and hashes; None: they are lost at the end.
    """

    def __init__(self, model: str | Path, folders: Sequence[str | Path] = (), *, settings_file: Path | None = None):
        self.folders = tuple(map(Path, folders))
        raise NotImplementedError

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """All models found by the last scan, the default model first."""
        raise NotImplementedError

    def get(self, model_id: str = "") -> ModelEntry:
        """Return the entry of an id; "" is the default model. Raises InvalidRequest."""
        raise NotImplementedError

    def rescan(self) -> None:
        """Look at the folders again."""
        raise NotImplementedError

    def override(self, model_id: str, **fields: Any) -> ModelEntry:
        """Keep what a person sets for a model, and return its new entry; None takes a field back.

        fields: family, variant, prediction_type, trigger_words (texts), defaults (a mapping).

        Raises InvalidRequest.
        """
        raise NotImplementedError

    def sha256(self, entry: ModelEntry) -> str | None:
        """Return the SHA-256 of a model's file, or of a folder's U-Net weights, as 64 hexadecimal digits.

        None while it is computed: the first call starts that in the background.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Stop computing hashes."""
        raise NotImplementedError
