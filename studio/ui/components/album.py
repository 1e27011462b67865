"""The library as HTML: pictures by day, what is said of each, and what is said where there are none.

Pure functions from pictures to markup; every text from outside is escaped here. What is in sight is moved, chosen and
enlarged in the browser alone (album.js); what changes anything says its data-act.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from studio.engine.job import Picture
from studio.ui.components import result as show
from studio.ui.components.formatting import format_bytes, format_count, format_day, format_time, local_day
from studio.ui.components.result import ImageCard
from studio.ui.components.send_to import SendTarget

ALT = 200  # characters of a prompt


def album(pictures: Sequence[Picture], destinations: Sequence[SendTarget], *, more: bool) -> str:
    """Pictures, newest first, under their days. more: whether there are older ones to ask for."""
    days = "".join(
        f'<section class="day"><h3>{escape(format_day(day))}</h3><ul>'
        + "".join(_piece(picture, destinations) for picture in of_day)
        + "</ul></section>"
        for day, of_day in groupby(pictures, key=lambda picture: local_day(picture.created))
    )
    older = '<p class="older"><button type="button" class="act" data-act="more">More</button></p>' if more else ""
    return f'<div class="album">{days}{older}</div>'


def nothing_found() -> str:
    return (
        '<div class="album"><p class="none">No picture of yours is like that. '
        '<button type="button" class="act" data-act="clear">Show all pictures</button></p></div>'
    )


def nothing_yet(examples: Sequence[ImageCard]) -> str:
    """What an empty library says: how pictures get here, and some to begin with."""
    return (
        '<div class="album empty"><h2>Your pictures will be here</h2>'
        "<p>Whatever you paint is kept here with its settings, also when you leave the page before it is done. "
        "Nobody else sees it.</p>"
        "<p>To begin with, take one of the examples: a click brings its settings to the tab Text to image.</p>"
        f'<div class="thumbnails">{show.small_pictures(examples)}</div></div>'
    )


def deleted(ids: Sequence[str]) -> str:
    """What is said after pictures were deleted, with the way back for all of them."""
    return (
        f'<p class="notice" role="status"><span>{format_count(len(ids), "picture")} deleted.</span>'
        f'<button type="button" data-act="undo" data-ids="{escape(" ".join(ids))}">Undo</button>{_CLOSE}</p>'
    )


def problem(sentence: str) -> str:
    return f'<p class="notice" role="alert"><span>{escape(sentence)}</span>{_CLOSE}</p>'


def usage(used: int, quota: int) -> str:
    return f'<p class="usage">{format_bytes(used)} of {format_bytes(quota)} used</p>'


_CLOSE = '<button type="button" class="close" data-act="dismiss" aria-label="Close" title="Close"></button>'


def _piece(picture: Picture, destinations: Sequence[SendTarget]) -> str:
    shown = ImageCard.of(picture)
    name = escape(str(picture.settings.get("caption") or "No prompt")[:ALT])
    star = str(picture.favourite).lower()
    # The label lies ready in each piece, so that a picture opens without asking the server.
    return (
        f'<li class="piece" data-id="{escape(picture.id)}">'
        f'<button type="button" class="open" title="{name}" aria-label="{name}, seed {picture.seed}">'
        f'<img src="{escape(shown.url)}" alt="" width="{picture.width}" height="{picture.height}" loading="lazy" '
        'draggable="false"></button>'
        '<button type="button" class="pick" role="checkbox" aria-checked="false" aria-label="Select" title="Select">'
        "</button>"
        f'<button type="button" class="star" aria-pressed="{star}" aria-label="Favourite" title="Favourite"></button>'
        f'<div class="sheet" hidden>{_sheet(picture, shown, destinations)}</div></li>'
    )


def _sheet(picture: Picture, shown: ImageCard, destinations: Sequence[SendTarget]) -> str:
    """The wall label of an opened picture."""
    sends = "".join(
        f'<button type="button" class="act" data-act="send" data-to="{number}">{escape(destination.label)}</button>'
        for number, destination in enumerate(destinations)
        if destination.takes(picture)
    )
    facts = [("Painted", format_time(picture.created)), *show.facts(picture.settings)]
    return (
        show.title(picture.settings)
        + show.fact_list(facts)
        + f'<p class="acts">{show.download(shown)}{sends}'
        + '<button type="button" class="act" data-act="delete">Delete</button></p>'
    )
