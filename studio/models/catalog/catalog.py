"""The models of a studio: those found in folders, with a person's settings and the hashes of their weights."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.engine.checks import InvalidRequest, quote_value
from studio.models.catalog.hashing import Hasher
from studio.models.catalog.scan import ModelEntry, find_models, read_entry
from studio.models.catalog.settings import ModelSettings, check_overrides
from studio.models.formats import ModelError, quote_name
from studio.models.identify import STUDIO, default_settings, with_overrides

MAX_NAMED = 10  # ids in a sentence


class Catalog:
    """The models of a studio. Safe to use from several threads.

    model: folder or file of the default model, always the first entry.
    folders: where other models are looked for.
    settings_file: JSON file that keeps overrides and hashes; None: they are lost at the end.
    """

    def __init__(self, model: str | Path, folders: Sequence[str | Path] = (), *, settings_file: Path | None = None):
        self.folders = tuple(map(Path, folders))
        self._model = Path(os.path.abspath(model))  # a link keeps its name
        self._settings = ModelSettings(settings_file)
        self._hasher = Hasher(self._settings)
        self._lock = threading.Lock()  # one change at a time
        self._detected: list[ModelEntry] = []
        self._entries: tuple[ModelEntry, ...] = ()
        self.rescan()

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """All models found by the last scan, the default model first."""
        return self._entries

    def get(self, model_id: str = "") -> ModelEntry:
        """Return the entry of an id; "" is the default model. Raises InvalidRequest."""
        entries = self._entries
        for entry in entries:
            if model_id in ("", entry.id):
                return entry
        allowed = [entry.id for entry in entries if not entry.problems]
        others = f" or one of {len(allowed) - MAX_NAMED} others" if len(allowed) > MAX_NAMED else ""
        raise InvalidRequest(
            f"The model must be one of {', '.join(allowed[:MAX_NAMED])}{others}; it was {quote_value(model_id)}."
        )

    def rescan(self) -> None:
        """Look at the folders again."""
        with self._lock:
            paths = {os.path.realpath(self._model): self._model}
            for path in find_models(self.folders):  # a model that is found on two ways is listed once
                paths.setdefault(os.path.realpath(path), Path(os.path.abspath(path)))
            self._detected = _with_ids(map(read_entry, paths.values()))
            self._update()

    def override(self, model_id: str, **fields: Any) -> ModelEntry:
        """Keep what a person sets for a model, and return its new entry; None takes a field back.

        fields: family, variant, prediction_type, trigger_words (texts), defaults (a mapping).

        Raises InvalidRequest, and OSError if the settings cannot be written.
        """
        entry = self.get(model_id)
        if entry.identity.family == STUDIO and fields.keys() & {"family", "variant", "prediction_type"}:
            raise InvalidRequest(f"The kind of {entry.name} cannot be set: it is this studio's own.")
        check_overrides({name: value for name, value in fields.items() if value is not None})
        with self._lock:
            kept = {**self._settings.overrides(entry.path), **fields}
            self._settings.set_overrides(entry.path, {name: value for name, value in kept.items() if value is not None})
            self._update()
        return self.get(entry.id)

    def sha256(self, entry: ModelEntry) -> str | None:
        """Return the SHA-256 of a model's file, or of a folder's U-Net weights, as 64 hexadecimal digits.

        None while it is computed: the first call starts that in the background.
        """
        try:
            return None if entry.problems else self._hasher.sha256(entry.weights)
        except ModelError:  # its files have changed since the scan
            return None

    def close(self) -> None:
        """Stop computing hashes."""
        self._hasher.close()

    def _update(self) -> None:
        """Apply the overrides to what was detected."""
        self._entries = tuple(_with_settings(entry, self._settings.overrides(entry.path)) for entry in self._detected)


def _with_settings(entry: ModelEntry, overrides: Mapping[str, Any]) -> ModelEntry:
    identity = entry.identity if entry.identity.family == STUDIO else with_overrides(entry.identity, overrides)
    return replace(
        entry,
        identity=identity,
        overrides=overrides,
        defaults={**default_settings(identity), **overrides.get("defaults", {})},
        trigger_words=overrides.get("trigger_words", entry.trigger_words),
        problems=(*entry.problems, *identity.problems),
    )


def _with_ids(entries: Iterable[ModelEntry]) -> list[ModelEntry]:
    """Give each entry an id of its own."""
    named: dict[str, ModelEntry] = {}
    for entry in entries:
        model_id = quote_name(entry.path.stem if entry.layout == "file" else entry.path.name)
        if model_id in named:
            model_id = f"{quote_name(entry.path.parent.name)}/{model_id}"
        number = 2
        while model_id in named:
            model_id, number = f"{model_id.removesuffix(f' ({number - 1})')} ({number})", number + 1
        named[model_id] = replace(entry, id=model_id)
    return list(named.values())
