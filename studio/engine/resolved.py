"""A request together with everything that follows from it and its model, computed once when it is submitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from studio.engine.requests import Request, TextToImage

MAX_QUOTE = 120  # characters of a prompt's end in a note


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """A request that its model has checked, with all values derived from it.

    Nothing downstream recomputes these values: the journal, the metadata, the backend and the page read them here.
    """

    request: Request
    model_id: str  # of the model that runs it
    model_ids: tuple[str, ...]  # of all models that it needs: this one first, then the refiner
    model_name: str  # for people
    model_hash: str = ""  # the first ten hexadecimal digits of the SHA-256 of its weights; "" until it is known
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

    def notes(self, truncated: Callable[[str], str]) -> tuple[str, ...]:
        """Return sentences about what the model does not read. truncated: returns the end of a text that it skips."""
        notes: list[str] = []
        if not self.caption and isinstance(self.request, TextToImage):
            notes.append("The prompt was empty, so the model chose what to paint.")
        for name, text in (("prompt", self.captions[0]), ("negative prompt", self.request.negative_prompt)):
            if unread := truncated(text).strip():
                notes.append(f"The {name} is longer than the model reads. It did not read: “{_shorten(unread)}”.")
        return tuple(notes)


# Check a request against its model and derive its values. Raises InvalidRequest.
Resolve = Callable[[Request], ResolvedRequest]


def _shorten(text: str) -> str:
    """Return both ends of a long text, with the number of characters between them."""
    if len(text) <= MAX_QUOTE:
        return text
    start, end = text[: MAX_QUOTE // 2].rstrip(), text[-MAX_QUOTE // 2 :].lstrip()
    return f"{start} … ({len(text) - len(start) - len(end):,} characters more) … {end}"
