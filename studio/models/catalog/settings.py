"""What is kept about models between two starts, in one JSON file: what a person has set, and hashes of weights."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from studio.engine.checks import InvalidRequest, check_choice, check_int, check_number, check_text, quote_value
from studio.engine.requests import MAX_CLIP_SKIP, MAX_GUIDANCE, MAX_STEPS
from studio.models.capabilities import SizeRange
from studio.models.formats import read_json
from studio.models.identify import FAMILIES, PREDICTION_TYPES, STUDIO, VARIANTS

DEFAULT_FIELDS = (
    "sampler",
    "spacing",
    "steps",
    "guidance",
    "guidance_rescale",
    "clip_skip",
    "width",
    "height",
)


class ModelSettings:
    """The file, and its content in memory. Safe to use from several threads.

    path: of the file; None keeps everything in memory only. Models are named by their paths in it, since an id changes
        when another model of the same name is added.
    """

    def __init__(self, path: Path | None):
        self._path, self._lock = path, threading.Lock()
        self._overrides: dict[str, Mapping[str, Any]] = {}
        self._hashes: dict[str, tuple[list[Any], str]] = {}
        if path is None or not path.exists():
            return
        try:
            content = read_json(path)
            for model, fields in content["overrides"].items():
                check_overrides(fields)
                self._overrides[model] = fields
            for file, (stamp, digest) in content["hashes"].items():
                self._hashes[file] = stamp, str(digest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Edited by hand or damaged: kept beside the new file.
            os.replace(path, path.with_suffix(".damaged.json"))

    def overrides(self, model: Path) -> Mapping[str, Any]:
        """Return what a person has set for a model."""
        with self._lock:
            return self._overrides.get(str(model), {})

    def set_overrides(self, model: Path, fields: Mapping[str, Any]) -> None:
        """Keep what a person has set for a model, in place of what was set before."""
        with self._lock:
            self._overrides.pop(str(model), None)
            if fields:
                self._overrides[str(model)] = dict(fields)
            self._write()

    def find_hash(self, file: Path, stamp: list[Any]) -> str | None:
        """Return the hash of a file that had this stamp (sizes and times of change) when it was hashed."""
        with self._lock:
            known, digest = self._hashes.get(str(file), (None, None))
            return digest if known == stamp else None

    def set_hash(self, file: Path, stamp: list[Any], digest: str) -> None:
        """Keep the hash of a file."""
        with self._lock:
            self._hashes[str(file)] = stamp, digest
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"overrides": self._overrides, "hashes": self._hashes}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def check_overrides(fields: Mapping[str, Any]) -> None:
    """Raise InvalidRequest, with one sentence, for a field or a value that cannot be set for a model."""
    for name, value in fields.items():
        if name == "family":
            check_choice("family", value, tuple(family for family in FAMILIES if family != STUDIO))
        elif name == "variant":
            check_choice("variant", value, VARIANTS)
        elif name == "prediction_type":
            check_choice("prediction type", value, PREDICTION_TYPES)
        elif name == "trigger_words":
            check_text("trigger words", value)
        elif name == "defaults":
            if not isinstance(value, Mapping):
                raise InvalidRequest(f"The default settings must be a mapping; they were {quote_value(value)}.")
            for setting, default in cast("Mapping[str, Any]", value).items():
                _check_default(setting, default)
        else:
            raise InvalidRequest(
                "Of a model, family, variant, prediction_type, trigger_words and defaults can be set; "
                f"not {quote_value(name)}."
            )


def _check_default(name: str, value: Any) -> None:
    """Check the type and the widest range of a default setting. A request is checked for what the model allows."""
    check_choice("default setting", name, DEFAULT_FIELDS)
    text = f"default {name.replace('_', ' ')}"
    if name in ("sampler", "spacing"):
        check_text(text, value)
    elif name == "guidance":
        check_number(text, value, 0, MAX_GUIDANCE)
    elif name == "guidance_rescale":
        check_number(text, value, 0, 1)
    elif name == "steps":
        check_int(text, value, 1, MAX_STEPS)
    elif name == "clip_skip":
        check_int(text, value, 0, MAX_CLIP_SKIP)
    else:
        check_int(text, value, SizeRange.minimum, SizeRange.maximum)
        SizeRange(default=(value, value)).check(text, value)
