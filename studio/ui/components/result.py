"""The result of a job as HTML: its pictures in a grid or beside their original, and small pictures to click.

A gr.HTML with the default template sets this HTML as it is. A template with `{{value}}` would run any `${...}` in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import ceil, sqrt

from studio.engine.job import Picture
from studio.ui.components.image_card import ImageCard
from studio.ui.components.label import LANCZOS, done_label
from studio.ui.components.templates import render

_FINISHED = ("done", "example")


def result_html(cards: Sequence[ImageCard], label: str, *, kind: str = "done") -> str:
    """Return pictures in a square grid with a label beside them; the first one is selected.

    A finished picture with an original is under a slider that compares the two.
    label: HTML.  kind: done, example, running, waiting, stopped or sketch.
    """
    is_compared = bool(cards) and bool(cards[0].before) and kind in _FINISHED
    return render(
        "result.html",
        cards=cards,
        label_html=label,
        kind=kind,
        columns=max(1, ceil(sqrt(len(cards)))),
        is_compared=is_compared,
        can_select=len(cards) > 1 and kind in _FINISHED,
        shape=_aspect_ratio(cards[0]) if is_compared else "",
        alts=[_alt(card, kind) for card in cards],
        zooms=(1, 2, 4, 8),
    )


def lanczos_html(picture: Picture, lanczos: str) -> str:
    """Return an enlarged picture beside a plain enlargement, whose URL is given."""
    card = replace(ImageCard.of(picture, lanczos), before_name=LANCZOS)
    label = done_label(card, heading="Compare with Lanczos", notes=["On the left is the Lanczos enlargement."])
    return result_html([card], label)


def thumbnails_html(groups: Sequence[tuple[str, Sequence[ImageCard]]]) -> str:
    """Return rows of small pictures with headings. A click on one sends its key."""
    return render("thumbnails.html", groups=[(heading, cards) for heading, cards in groups if cards])


def _aspect_ratio(card: ImageCard) -> str:
    return re.sub(r"[^0-9/]", "", str(card.settings.get("size", "")).replace("x", "/")) or "1/1"


def _alt(card: ImageCard, kind: str) -> str:
    return {"running": f"Preview: {card.alt}", "waiting": "Noise"}.get(kind, card.alt)
