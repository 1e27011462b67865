"""Messages to the noise tab's scripts, as JSON. Each has a random number, so that two equal messages differ."""

from __future__ import annotations

import json
import secrets
from typing import Any


def progress_message(kind: str, progress: int, total: int) -> str:
    """Return how far a run ("reverse") or a comparison ("compare") has come."""
    return _message(kind, progress=progress, of=total)


def problem_message(kind: str, problem: str) -> str:
    """Return the sentence for what failed."""
    return _message(kind, problem=problem)


def view_message(kind: str, view: dict[str, Any]) -> str:
    """Return the data of a view."""
    return _message(kind, view=view)


def picture_message(uri: str, picture_id: str) -> str:
    """Return a picture of the library for the view Forward."""
    return _message("forward", source=uri, picture=picture_id)


def model_message(model: dict[str, Any]) -> str:
    """Return what the tab needs to know of the chosen model."""
    return _message("model", model=model)


def _message(kind: str, **contents: Any) -> str:
    return json.dumps({"kind": kind, "number": secrets.token_hex(4), **contents})
