"""Compare a finished picture with the one that it was made from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from PIL import Image

from studio.engine.job import JobRejected, Picture
from studio.engine.requests import Denoise, Inpaint, SuperResolve
from studio.imaging.masks import ChangeCount, count_changes_outside, mask_to_hole
from studio.services.context import AppContext

COMPARED_TASKS = (Inpaint.task, SuperResolve.task, Denoise.task)  # their results are shown beside the original
MAX_COUNTS = 512
_counts: OrderedDict[str, ChangeCount] = OrderedDict()  # by picture: neither it nor its mask ever changes
_lock = threading.Lock()


def original_path(context: AppContext, owner: str, picture: Picture) -> str:
    """Return the file that a picture was made from; "" if there is none to compare it with."""
    if picture.settings.get("task") not in COMPARED_TASKS:
        return ""
    path = context.library.find_inputs(owner, picture.id).get("image")
    return str(path) if path and path.exists() else ""


def outside_notes(context: AppContext, owner: str, pictures: Sequence[Picture]) -> tuple[str, ...]:
    """Return a sentence with the number of pixels outside the mask that changed.

    pictures: the results of one job. For other tasks, and where a file is gone, there is no sentence.
    """
    if not pictures or pictures[0].settings.get("task") != Inpaint.task:
        return ()
    try:
        counts = [_count(context, owner, picture) for picture in pictures]
    except (JobRejected, OSError, ValueError, SyntaxError):
        return ()
    feather = pictures[0].settings.get("feather")
    return (change_sentence(max(count.changed for count in counts), counts[0].of, feather, len(counts)),)


def change_sentence(changed: int, total: int, feather: int | None = 0, pictures: int = 1) -> str:
    """Return how many of all pixels outside a mask changed, as a sentence."""
    each = f" in each of {pictures} results" if pictures > 1 and not changed else ""
    text = f"{changed:,} of {total:,} pixels outside the mask changed{each}"
    return f"{text}, within the feather of {feather} px." if feather and changed else f"{text}."


def count_changes(request: Inpaint, result: Image.Image) -> ChangeCount:
    """Count the pixels outside the hole of a request in which its result differs from its picture."""
    hole = mask_to_hole(request.mask, request.invert, request.grow)
    return count_changes_outside(request.image, result.convert(request.image.mode), hole)


def _count(context: AppContext, owner: str, picture: Picture) -> ChangeCount:
    with _lock:
        if picture.id in _counts:
            return _counts[picture.id]
    request = context.library.load_request(owner, picture.id)
    if not isinstance(request, Inpaint):
        raise ValueError("This picture was not inpainted.")
    with Image.open(picture.path) as file:
        count = count_changes(request, file)
    with _lock:
        _counts[picture.id] = count
        while len(_counts) > MAX_COUNTS:
            _counts.popitem(last=False)
    return count
