"""The library tab as HTML: pictures by day, the details of each, and its notices.

The browser moves about, selects and enlarges by itself (library.js). What changes anything sends its `data-act`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from studio.engine.job import Picture
from studio.ui.components.formatting import format_bytes, format_count, format_day, format_time, local_day
from studio.ui.components.image_card import ImageCard
from studio.ui.components.label import facts
from studio.ui.components.send_to import SendTarget
from studio.ui.components.templates import render


def album_html(pictures: Sequence[Picture], targets: Sequence[SendTarget], *, has_more: bool) -> str:
    """Return pictures, newest first, under their days.

    targets: where a picture can be sent.  has_more: whether there are older pictures to load.
    """
    days = [
        (format_day(day), [_entry(picture, targets) for picture in of_day])
        for day, of_day in groupby(pictures, key=lambda picture: local_day(picture.created))
    ]
    return render("album.html", days=days, has_more=has_more)


def no_match_html() -> str:
    """Return the message of filters that no picture passes."""
    return (
        '<div class="album"><p class="none">No pictures match. '
        '<button type="button" class="act" data-act="clear">Show all pictures</button></p></div>'
    )


def empty_album_html(examples: Sequence[ImageCard]) -> str:
    """Return the introduction of an empty library, with examples to start from."""
    return render("album_empty.html", examples=examples)


def deleted_html(ids: Sequence[str]) -> str:
    """Return the notice after pictures were deleted, with a button that restores all of them."""
    return render("notice.html", sentence=f"{format_count(len(ids), 'picture')} deleted.", role="status", undo_ids=ids)


def problem_html(sentence: str) -> str:
    """Return a notice of something that could not be done."""
    return render("notice.html", sentence=sentence, role="alert", undo_ids=())


def usage_html(used: int, quota: int) -> str:
    """Return how many bytes of the owner's quota are used."""
    return f'<p class="usage">{format_bytes(used)} of {format_bytes(quota)} used</p>'


def _entry(picture: Picture, targets: Sequence[SendTarget]) -> dict[str, object]:
    """Return what the template needs of a picture: its details lie ready, so that it opens without the server."""
    card = ImageCard.of(picture)
    return {
        "picture": picture,
        "card": card,
        "name": card.alt if picture.settings.get("caption") else "No prompt",
        "facts": [("Painted", format_time(picture.created)), *facts(picture.settings)],
        "sends": [(number, target.label) for number, target in enumerate(targets) if target.accepts(picture)],
    }
