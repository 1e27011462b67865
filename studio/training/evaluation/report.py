"""What an evaluation writes down: figures with their uncertainty, a Markdown report, sheets of pictures.

Knows neither models nor judges.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

Z = 1.96  # standard deviations on either side that hold 95 %
TILE, CAPTION = 128, 30  # px: side of a picture on a sheet, and the room under it for two lines


def share(hits: torch.Tensor) -> dict[str, float]:
    """Of (N,) bool: the share that is true and Wilson's 95 % interval, which stays inside [0, 1] and has a width even
    where all are true."""
    n, p = len(hits), hits.double().mean().item()
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return {"value": p, "low": max(0.0, middle - half), "high": min(1.0, middle + half), "count": n, "unit": "%"}


def mean(values: torch.Tensor, unit: str) -> dict[str, float | str]:
    """Of (N,): the mean and the 95 % interval of a normal mean."""
    n, centre = len(values), values.double().mean().item()
    half = Z * values.double().std().item() / math.sqrt(n) if n > 1 else math.inf
    return {"value": centre, "low": centre - half, "high": centre + half, "count": n, "unit": unit}


def of_a_set(value: float, count: int) -> dict[str, float | str]:
    """A figure of `count` pictures together, which has no interval."""
    return {"value": value, "count": count, "unit": ""}


def in_words(figure: dict[str, Any]) -> str:
    """ "61.2 % (58.7 to 63.6)" """
    scale = 100 if figure["unit"] == "%" else 1
    digits = 3 if figure["unit"] == "" else 2 if figure["unit"] == "dB" else 1
    value, *ends = (f"{scale * figure[name]:.{digits}f}" for name in ("value", "low", "high") if name in figure)
    interval = f" ({' to '.join(ends)})" if ends else ""
    return f"{value}{' ' * bool(figure['unit'])}{figure['unit']}{interval}"


def table(columns: dict[str, dict[str, dict]]) -> str:
    """A Markdown table of figures: {column: {row: figure}}; figures that a column lacks are left empty."""
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    lines = [
        "| | " + " | ".join(f"{name} (n = {next(iter(column.values()))['count']})" for name, column in columns.items()),
        "|---" * (len(columns) + 1),
    ]
    for row in rows:
        cells = (in_words(column[row]) if row in column else "" for column in columns.values())
        lines.append(f"| {row} | " + " | ".join(cells))
    return "\n".join(f"{line} |" for line in lines)


def beside(after: dict[str, dict], before: dict[str, dict]) -> dict[str, dict]:
    """The tables of two models as one, {task: {column: ...}}; columns of real pictures are those of both."""
    whole = {}
    for task, columns in after.items():
        theirs = {name: column for name, column in before[task].items() if not name.startswith("real")}
        whole[task] = columns | {f"{name}, before": column for name, column in theirs.items()}
    return whole


def markdown(report: dict[str, Any]) -> str:
    """The report as a page: what was run, then a table for each task."""
    models = f"Model {report['model']}, " + (f"before it {report['before']}, " if report.get("before") else "")
    lines = [
        "# Evaluation",
        "",
        f"    {report['command']}",
        "",
        f"{models}judge {report['classifier']}. In brackets: 95 % intervals, pictures counted as "
        "independent. PSNR is per picture, at most 58.9 dB (rounding to 8 bits); distances are between the judge's "
        "features, 0 to 2, but for Fréchet distances, which are from another real set of the same labels: that of "
        "real pictures is the floor. The nearest scene is that of many composed as training composes them, in pixels "
        "(root mean square at 32 px, of the range) and in features: if pictures were copies of what training showed, "
        "they would lie nearer than real scenes do that are made anew from the same labels, and more than 5 % of them "
        "nearer than the nearest 5 % of those.",
    ]
    for task, columns in report["tasks"].items():
        lines += ["", f"## {task}", "", table(columns)]
    worst = ", ".join(f"{w['concept']} (for {w['taken_for']})" for w in report["worst_concepts"] if w["taken_for"])
    lines += ["", f"Least often recognized, and what the judge took them for: {worst}."]
    return "\n".join(lines) + "\n"


def captioned_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    """Pictures row by row, enlarged pixel by pixel, each over its words."""
    font = ImageFont.load_default(11)
    whole = Image.new("RGB", (columns * TILE, -(-len(pictures) // columns) * (TILE + CAPTION)), "white")
    pen = ImageDraw.Draw(whole)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % columns * TILE, number // columns * (TILE + CAPTION)
        whole.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
        lines = textwrap.wrap(caption, 24)[:2]
        pen.multiline_text((left + 2, top + TILE + 1), "\n".join(lines), fill="black", font=font, spacing=1)
    return whole
