"""A request together with everything that follows from it and its model, computed once when it is submitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from studio.engine.requests import Request


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """A request that its model has checked, with all values derived from it.

    Nothing downstream recomputes these values: the journal, the metadata, the backend and the page read them here.
    """

    request: Request
    model_id: str  # of the model that runs it
    model_ids: tuple[str, ...]  # of all models that it needs: this one first, then the refiner
    model_name: str = ""  # for people
    model_hash: str = ""  # the first ten hexadecimal digits of the SHA-256 of its weights; "" where it is not known
    settings: dict[str, Any]  # `request.settings()`; read only
    caption: str  # the full prompt as requested, style and background included
    captions: tuple[str, ...]  # the text that the model reads, one per picture
    styles_and_backgrounds: tuple[tuple[str, str], ...]  # one pair per picture; "any" for what stays open
    seeds: tuple[int, ...]  # one per picture
    width: int = 0  # of the results, in px
    height: int = 0
    pixels: int  # of all results, or of all inputs if they are larger; 0 where the model chooses the size
    passes: int  # times that a step shows the network each tile, by the strongest guidance of the run
    rows: int  # network rows of the whole job: tiles x network calls x passes x pictures, estimated
    seconds: float  # estimated time of the job alone


# Check a request against its model and derive its values. Raises InvalidRequest.
Resolve = Callable[[Request], ResolvedRequest]
