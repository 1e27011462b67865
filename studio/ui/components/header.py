"""The page's header and footer as HTML."""

from __future__ import annotations

from urllib.parse import quote

from studio.engine.engine import Status
from studio.services.context import AppContext
from studio.ui.components.templates import render

_MARK_ROWS = ("05030000", "20506910", "03719993", "50639997", "04259997", "30714993", "05260910", "20030000")
# A disc in noise, 8 px a side: each pixel's column, row and opacity.
_MARK_PIXELS = [
    (x, y, round(int(digit) / 9, 3)) for y, row in enumerate(_MARK_ROWS) for x, digit in enumerate(row) if digit != "0"
]


def header_html(context: AppContext) -> str:
    """Return the header: the model, the device, and what the engine does."""
    model, status = context.model, context.engine.status
    facts = [model.name]
    if model.parameters:
        facts.append(f"{model.size} parameters")
    if model.picture_size:
        facts.append(f"{model.picture_size} × {model.picture_size} px")
    facts.append(context.device_name)
    return render(
        "header.html",
        mark_pixels=_MARK_PIXELS,
        facts=[fact for fact in facts if fact],
        phase=status.phase,
        state=_state(status),
        problem=status.problem,
    )


def footer_html() -> str:
    """Return the footer: credits, and how a program calls the studio."""
    return render("footer.html")


def icon_uri() -> str:
    """Return the page's icon as a data URI."""
    return "data:image/svg+xml," + quote(render("mark.html", mark_pixels=_MARK_PIXELS))


def _state(status: Status) -> str:
    if status.phase == "loading":
        return "model is loading"
    if status.phase == "failed":
        return "no model"
    if status.phase == "idle":
        return "ready"
    state = f"{status.running} running" if status.running > 1 or status.queued else "painting"
    return f"{state}, {status.queued} waiting" if status.queued else state
