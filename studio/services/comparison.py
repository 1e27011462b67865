"""What a finished picture was made from, for the slider, and how many pixels outside a mask have changed.

Knows the library and pictures; knows nothing of Gradio or markup.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from PIL import Image

from studio.engine.job import JobRejected, Picture
from studio.engine.requests import Inpaint
from studio.imaging.masks import ChangeCount, count_changes_outside, mask_to_hole
from studio.services.context import AppContext
from studio.ui.components.result import ImageCard

COMPARED = ("inpaint", "super-resolution", "denoise")  # tasks whose results stand beside what they were made from
REMEMBERED = 512  # counts, by picture: neither it nor its mask ever changes
_counts: OrderedDict[str, ChangeCount] = OrderedDict()
_lock = threading.Lock()


def comparison_card(studio: AppContext, owner: str, picture: Picture) -> ImageCard:
    """A picture of the library, with the one it was made from where the two belong side by side."""
    if picture.settings.get("task") not in COMPARED:
        return ImageCard.of(picture)
    path = studio.library.inputs(owner, picture.id).get("image")
    return ImageCard.of(picture, str(path) if path and path.exists() else "")


def outside_notes(studio: AppContext, owner: str, pictures: Sequence[Picture]) -> tuple[str, ...]:
    """How many pixels outside the mask have changed in these results of one job: counted, not believed."""
    if not pictures or pictures[0].settings.get("task") != Inpaint.task:
        return ()
    try:
        counts = [_count(studio, owner, picture) for picture in pictures]
    except (JobRejected, OSError, ValueError, SyntaxError):
        return ()
    feather = pictures[0].settings.get("feather")
    return (change_sentence(max(count.changed for count in counts), counts[0].of, feather, len(counts)),)


def change_sentence(changed: int, of: int, feather: int | None = 0, pictures: int = 1) -> str:
    each = f" in each of {pictures} results" if pictures > 1 and not changed else ""
    text = f"{changed:,} of {of:,} pixels outside the mask changed{each}"
    return f"{text}, within the feather of {feather} px." if feather and changed else f"{text}."


def _count(studio: AppContext, owner: str, picture: Picture) -> ChangeCount:
    with _lock:
        if picture.id in _counts:
            return _counts[picture.id]
    request = studio.library.request(owner, picture.id)
    with Image.open(picture.path) as file:
        count = count_changes(request, file)
    with _lock:
        _counts[picture.id] = count
        while len(_counts) > REMEMBERED:
            _counts.popitem(last=False)
    return count


def count_changes(request: Inpaint, result: Image.Image) -> ChangeCount:
    """Against the picture as it was given, at the hole that its mask means."""
    hole = mask_to_hole(request.mask, request.invert, request.grow)
    return count_changes_outside(request.image, result.convert(request.image.mode), hole)
