"""Turn the settings stored in a picture into values for the page's controls.

Anyone may have written what a file holds, so each value is checked as a request would check it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.engine.requests import InvalidRequest, TextToImage, with_current_names
from studio.library.metadata import read_png_settings
from studio.models.capabilities import Capabilities
from studio.models.resolver import ModelResolver
from studio.prompts.captions import ANY
from studio.services.build_request import as_int, convert_values
from studio.services.naming import TASK_NAMES

# The number of pictures is left out: it says nothing about one picture. A sampler comes before its spacing.
_FIELDS = (
    *("prompt", "negative_prompt", "style", "background", "sampler", "spacing", "steps", "guidance"),
    *("guidance_rescale", "clip_skip", "width", "height", "seed"),
)
_LATENT_FIELDS = ("spacing", "guidance_rescale", "clip_skip")  # which the bundled model has no controls for
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
MAX_NAME = 60  # characters of a name in a sentence


@dataclass(frozen=True)
class ImportedSettings:
    """Values by the fields of TextToImage, the model that can run them, and sentences about what was left out."""

    values: dict[str, Any]
    notes: tuple[str, ...] = ()
    model_id: str = ""


def import_settings(settings: Mapping[str, Any], models: ModelResolver, model_id: str = "") -> ImportedSettings:
    """Return the settings that a text-to-image request accepts. The page keeps its own values for the others.

    They are those of the model that made the picture, if the catalog has it; else those that the model in use can run.

    model_id: the model in use.
    """
    settings = with_current_names(settings)
    painter = _find_painter(settings, models)
    capabilities = models.capabilities_of(model_id if painter is None else painter)
    stored = {name: as_int(settings[name]) for name in _FIELDS if settings.get(name) is not None}
    if capabilities.size and (size := _SIZE.fullmatch(str(settings.get("size", "")))):
        stored |= {"width": int(size[1]), "height": int(size[2])}
    if "prompt" in stored:  # the page's own style and background must not be added to it
        stored = {"style": ANY, "background": ANY} | stored
    values: dict[str, Any] = {}
    notes: list[str] = []
    for name, value in stored.items():
        try:
            given = {"sampler": values["sampler"]} if name == "spacing" and "sampler" in values else {}
            capabilities.check_settings(convert_values(given | {name: value}))
        except InvalidRequest as problem:
            notes.append(f"Not loaded: {str(problem)[0].lower()}{str(problem)[1:]}")
        else:
            if value or capabilities.size or name not in _LATENT_FIELDS:
                values[name] = value
    task = settings.get("task", TextToImage.task)
    values |= _switches(settings, values, capabilities)
    if task != TextToImage.task:
        name = TASK_NAMES.get(task) if isinstance(task, str) else None
        made_with = f"the task “{name}”" if name else "another task"
        notes.append(f"This picture was made with {made_with}. Its settings alone do not reproduce it.")
    made_by = settings.get("model")
    if painter is None and isinstance(made_by, str) and made_by.strip():
        notes.append(f"Another model made the picture, {_short(made_by)}, so the same settings give another picture.")
    unknown = settings.get("not_understood")
    if isinstance(unknown, list) and unknown:
        notes.append(f"Not understood: {_short(', '.join(map(str, unknown)))}.")
    return ImportedSettings(values, tuple(notes), capabilities.model_id)


def read_settings(path: str | Path, models: ModelResolver, model_id: str = "") -> ImportedSettings:
    """Return the settings in a PNG file of this studio, or of another one that writes `parameters`.

    Raises ValueError with one sentence if the file is no PNG picture or holds no settings.
    """
    name = _short(Path(path).name)
    try:
        settings = read_png_settings(path)
    except OSError as problem:
        raise ValueError(f"{name} could not be read: {problem.strerror}.") from problem
    except ValueError as problem:
        raise ValueError(f"{name}: {problem}") from problem
    imported = import_settings(settings, models, model_id) if settings else ImportedSettings({})
    if not imported.values:
        raise ValueError(
            f"{name} holds no settings. Pictures of this studio do, and PNG files of studios that write “parameters”."
        )
    return imported


def _find_painter(settings: Mapping[str, Any], models: ModelResolver) -> str | None:
    """Return the id of the model that made a picture; None if the catalog does not have it, or it cannot be loaded."""
    name = str(settings.get("model", "")).strip().lower()
    for entry in models.catalog.entries:
        names = {entry.id.lower(), entry.name.lower(), models.capabilities_of(entry.id).name.lower()}
        if name in names and (not entry.problems or entry is models.catalog.entries[0]):
            return entry.id
    return None


def _switches(settings: Mapping[str, Any], values: Mapping[str, Any], capabilities: Capabilities) -> dict[str, Any]:
    """Return the output size and the switches that make the same picture again, as far as the settings tell them."""
    switches: dict[str, Any] = {}
    if settings.get("task", TextToImage.task) == TextToImage.task:
        resolution = as_int(settings["resolution"]) or 0 if "resolution" in settings else None
        if resolution in (0, *capabilities.resolutions):
            switches["resolution"] = resolution
        if isinstance(settings.get("one_pass"), bool):
            switches["one_pass"] = settings["one_pass"]
    if "prompt" in values and ANY in (values.get("style"), values.get("background")):
        switches["randomize_style"] = settings.get("randomize_style") is True
    if settings.get("task") == TextToImage.task:  # pictures made before this switch existed have no emphasis
        switches["style_emphasis"] = settings.get("style_emphasis") is True
    return switches


def _short(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"
