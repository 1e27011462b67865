"""What a finished picture was made from, for the slider, and how many pixels outside a mask have changed.

Knows the library and pictures; knows nothing of Gradio or markup.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from PIL import Image

from studio.engine.job import Picture, Refusal
from studio.engine.requests import Inpaint
from studio.pictures.canvas import Count, changed_outside, hole_of
from studio.ui.stage import Shown
from studio.ui.studio import Studio

COMPARED = ("inpaint", "super-resolution", "denoise")  # tasks whose results stand beside what they were made from
REMEMBERED = 512  # counts, by picture: neither it nor its mask ever changes
_counts: OrderedDict[str, Count] = OrderedDict()
_lock = threading.Lock()


def compared(studio: Studio, owner: str, picture: Picture) -> Shown:
    """A picture of the library, with the one it was made from where the two belong side by side."""
    if picture.settings.get("task") not in COMPARED:
        return Shown.of(picture)
    path = studio.library.inputs(owner, picture.id).get("image")
    return Shown.of(picture, str(path) if path and path.exists() else "")


def outside(studio: Studio, owner: str, pictures: Sequence[Picture]) -> tuple[str, ...]:
    """How many pixels outside the mask have changed in these results of one job: counted, not believed."""
    if not pictures or pictures[0].settings.get("task") != Inpaint.task:
        return ()
    try:
        counts = [_count(studio, owner, picture) for picture in pictures]
    except (Refusal, OSError, ValueError, SyntaxError):
        return ()
    feather = pictures[0].settings.get("feather")
    return (sentence(max(count.changed for count in counts), counts[0].of, feather, len(counts)),)


def sentence(changed: int, of: int, feather: int | None = 0, pictures: int = 1) -> str:
    each = f" in each of {pictures} results" if pictures > 1 and not changed else ""
    text = f"{changed:,} of {of:,} pixels outside the mask changed{each}"
    return f"{text}, within the feather of {feather} px." if feather and changed else f"{text}."


def _count(studio: Studio, owner: str, picture: Picture) -> Count:
    with _lock:
        if picture.id in _counts:
            return _counts[picture.id]
    request = studio.library.request(owner, picture.id)
    with Image.open(picture.path) as file:
        count = count_outside(request, file)
    with _lock:
        _counts[picture.id] = count
        while len(_counts) > REMEMBERED:
            _counts.popitem(last=False)
    return count


def count_outside(request: Inpaint, result: Image.Image) -> Count:
    """Against the picture as it was given, at the hole that its mask means."""
    hole = hole_of(request.mask, request.invert, request.grow)
    return changed_outside(request.image, result.convert(request.image.mode), hole)
