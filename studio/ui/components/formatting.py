"""Progress, durations, amounts and dates as text."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from studio.engine.job import JobView

# For a picture that the bundled model was not trained for.
PHOTOGRAPH_NOTE = (
    "This looks like a photograph. The bundled model was trained on emoji artwork alone, so do not expect much of it "
    "here. Models for photographs: {models}."
)


def format_progress(job: JobView) -> str:
    """Return where an unfinished job is: "Step 3 of 12", "Next in line", "3rd in line, about 4 s"."""
    if job.state == "running":
        text = f"Step {max(job.step, 1)} of {job.steps}" if job.share else "Starting"
    else:
        text = f"{ordinal(job.ahead + 1)} in line" if job.ahead else "Next in line"
    if job.eta_seconds is not None and (job.state == "queued" or job.eta_seconds >= 2):
        text += f", about {format_duration(job.eta_seconds)}"
    return text


def shorten(text: str, max_length: int) -> str:
    """Return the text, cut off with an ellipsis if it is longer than `max_length` characters."""
    return text if len(text) <= max_length else text[: max_length - 1].rstrip() + "…"


def ordinal(number: int) -> str:
    """Return "1st", "2nd", "3rd", "4th" …"""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def format_duration(seconds: float) -> str:
    """Return "4 s", "3 min" or "2 h": one number, at least a second."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def format_count(number: int, thing: str) -> str:
    """Return "1 picture", "3 pictures" or "1,200 pictures"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def format_number(number: float) -> str:
    """Return a large number with three digits: "840", "11.5 M", "1.07 G"."""
    for unit in ("", " k", " M"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G"


def format_bytes(count: int) -> str:
    """Return an amount of bytes: "840 kB", "1.2 MB", "1 GB"."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f}".removesuffix(".0") + f" {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def format_day(day: str, today: date | None = None) -> str:
    """Return "Today", "Yesterday" or "Friday, 21 November 2025" for a day in ISO format."""
    then, today = date.fromisoformat(day), today or date.today()
    if then == today:
        return "Today"
    if then == today - timedelta(days=1):
        return "Yesterday"
    return f"{then:%A}, {then.day} {then:%B %Y}"


def local_day(created: float) -> str:
    """Return the local day, in ISO format, of a time in seconds since 1970."""
    return datetime.fromtimestamp(created).date().isoformat()


def format_time(created: float) -> str:
    """Return "21 November 2025, 14:03" for a time in seconds since 1970."""
    then = datetime.fromtimestamp(created)
    return f"{then.day} {then:%B %Y, %H:%M}"
