"""The page's header and footer as HTML."""

from __future__ import annotations

from urllib.parse import quote

from studio.engine.engine import Status
from studio.services.context import AppContext
from studio.ui.components.formatting import format_number
from studio.ui.components.templates import render

_MARK_ROWS = ("05030000", "20506910", "03719993", "50639997", "04259997", "30714993", "05260910", "20030000")
# A disc in noise, 8 px a side: each pixel's column, row and opacity.
_MARK_PIXELS = [
    (x, y, round(int(digit) / 9, 3)) for y, row in enumerate(_MARK_ROWS) for x, digit in enumerate(row) if digit != "0"
]


def header_html(context: AppContext, model_id: str) -> str:
    """Return the header: facts about the chosen model, the device, and what the engine does.

    model_id: "" for the default model.
    """
    entries, status = context.catalog.entries, context.engine.status
    model = next((entry for entry in entries if entry.id == model_id), entries[0])
    facts: list[str] = []
    if model.parameters:
        facts.append(f"{format_number(model.parameters)} parameters")
    if not model.problems:
        facts.append("{} × {} px".format(*model.identity.sample_size))
    facts.append(context.device_name)
    return render(
        "header.html",
        mark_pixels=_MARK_PIXELS,
        facts=[fact for fact in facts if fact],
        phase=status.phase,
        state=_state(status, next((entry.name for entry in entries if entry.id == status.loading), "")),
        problem=status.problem or " ".join(model.problems),
    )


def footer_html() -> str:
    """Return the footer: credits, and how a program calls the studio."""
    return render("footer.html")


def icon_uri() -> str:
    """Return the page's icon as a data URI."""
    return "data:image/svg+xml," + quote(render("mark.html", mark_pixels=_MARK_PIXELS))


def _state(status: Status, loading: str) -> str:
    """Return what the engine does. loading: the name of the model that is loading, "" for none."""
    if status.phase == "loading":
        return f"{loading} is loading" if loading else "model is loading"
    if status.phase == "failed":
        return "no model"
    if status.phase == "idle":
        return "ready"
    state = f"{status.running} running" if status.running > 1 or status.queued else "painting"
    return f"{state}, {status.queued} waiting" if status.queued else state
