"""Settings that came with a picture, as values for the tab's controls, and what could not be taken of them.

Knows requests and PNG files; knows nothing of pages. What is in a file was written by anyone: each value is checked as
a request would check it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from studio.engine.requests import RESOLUTIONS, InvalidRequest, TextToImage, with_current_names
from studio.library.metadata import read_png
from studio.models.folder import ModelInfo
from studio.prompts.captions import ANY
from studio.ui.components.formatting import TASKS
from studio.ui.components.parts import as_int

# Of one's own choosing, not of the picture.
_NOT_TAKEN = ("count",)
NAMES = tuple(field.name for field in fields(TextToImage) if not field.kw_only and field.name not in _NOT_TAKEN)


@dataclass(frozen=True)
class ImportedSettings:
    """values: by the fields of TextToImage.  notes: sentences about what was not taken."""

    values: dict[str, Any]
    notes: tuple[str, ...] = ()


def import_settings(settings: Mapping[str, Any], model: ModelInfo | None = None) -> ImportedSettings:
    """The settings as a request for text to image would have them. What it would refuse stays as it is on the page."""
    settings = with_current_names(settings)
    given = {name: as_int(settings[name]) for name in NAMES if settings.get(name) is not None}
    if "prompt" in given:  # a style or ground of before must not be added to it
        given = {"style": ANY, "background": ANY} | given
    values, notes = {}, []
    for name, value in given.items():
        try:
            TextToImage(**({"prompt": ""} | {name: value}))
        except InvalidRequest as problem:
            notes.append(f"Not taken: {str(problem)[0].lower()}{str(problem)[1:]}")
        else:
            values[name] = value
    task = settings.get("task", TextToImage.task)
    if task == TextToImage.task and "resolution" in settings:
        size = as_int(settings["resolution"]) or 0
        if size in (0, *RESOLUTIONS):
            values["resolution"] = size
    if task == TextToImage.task and isinstance(settings.get("one_pass"), bool):
        values["one_pass"] = settings["one_pass"]
    if "prompt" in values and ANY in (values.get("style"), values.get("background")):  # nor one by the seed
        values["randomize_style"] = settings.get("randomize_style") is True
    if settings.get("task") == TextToImage.task:  # of ours; before there was a choice, no style was emphasized
        values["style_emphasis"] = settings.get("style_emphasis") is True
    if task != TextToImage.task:
        name = TASKS.get(task) if isinstance(task, str) else None
        notes.append(f"The picture was made by {name.lower() if name else 'another task'}; its words and numbers alone "
                     "do not give it again.")  # fmt: skip
    other = settings.get("model")
    if model and isinstance(other, str) and other.strip() and other != model.name:
        notes.append(f"The picture is by another model, {_short(other)}, so that the same settings give another one.")
    return ImportedSettings(values, tuple(notes))


def read_settings(path: str | Path, model: ModelInfo | None = None) -> ImportedSettings:
    """The settings in a picture file of ours, or of a studio that writes `parameters`.

    Raises ValueError with one sentence if it is no PNG picture or holds none.
    """
    name = _short(Path(path).name)
    try:
        settings = read_png(path)
    except OSError as problem:
        raise ValueError(f"{name} could not be read: {problem.strerror}.") from problem
    except ValueError as problem:
        raise ValueError(f"{name}: {problem}") from problem
    found = import_settings(settings, model) if settings else ImportedSettings({})
    if not found.values:
        raise ValueError(
            f"{name} holds no settings. Pictures painted here do, and PNG files of studios that write “parameters”."
        )
    return found


def _short(text: str, most: int = 60) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= most else text[: most - 1] + "…"
