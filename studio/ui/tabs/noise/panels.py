"""The noise tab's HTML, from the templates in templates/noise. The scripts in static/noise draw into it."""

from __future__ import annotations

from collections.abc import Mapping

from studio.services.noise.params import MAX_COMPARED
from studio.ui.components.templates import render

VIEWS = {"forward": "Forward", "reverse": "Reverse", "compare": "Compare", "plane": "In 2D"}
_EXPORT_KINDS = (
    ("webp", "WebP", "animation, lossless"),
    ("gif", "GIF", "animation"),
    ("mp4", "MP4", "film; takes as long as it plays"),
    ("strip", "PNG", "all moments side by side"),
    ("csv", "CSV", "the numbers, as a table"),
    ("json", "JSON", "the numbers, and the link to this view"),
)
_EXAMPLE_PROMPT = "a red apple, glossy style, on a blue background"  # of the shipped run


def panels_html(samplers: Mapping[str, str]) -> str:
    """Return the whole tab, before anything is drawn. samplers: labels by name."""
    return render(
        "noise/panels.html",
        views=VIEWS,
        export_kinds=_EXPORT_KINDS,
        samplers=samplers,
        prompt=_EXAMPLE_PROMPT,
        max_compared=MAX_COMPARED,
    )
