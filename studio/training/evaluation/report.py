"""Reports of an evaluation: figures with their uncertainty, Markdown tables, and contact sheets."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

Z = 1.96  # standard deviations on either side that hold 95 %
TILE, CAPTION_HEIGHT = 128, 30  # px: side of a picture on a contact sheet, and the space below for two lines

Figure = dict[str, Any]  # "value", "count", "unit", and "low" and "high" where there is an interval
Column = dict[str, Figure]  # by row
Table = dict[str, Column]  # by column


def share(hits: torch.Tensor) -> Figure:
    """Return the share of (N,) bool that is true, with Wilson's 95 % interval.

    The interval stays inside [0, 1] and has a width even where all are true.
    """
    n, p = len(hits), hits.double().mean().item()
    center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return {"value": p, "low": max(0.0, center - half), "high": min(1.0, center + half), "count": n, "unit": "%"}


def mean(values: torch.Tensor, unit: str) -> Figure:
    """Return the mean of (N,) and its 95 % interval, by the normal distribution."""
    n, center = len(values), values.double().mean().item()
    half = Z * values.double().std().item() / math.sqrt(n) if n > 1 else math.inf
    return {"value": center, "low": center - half, "high": center + half, "count": n, "unit": unit}


def set_figure(value: float, count: int) -> Figure:
    """Return a figure of `count` pictures together. It has no interval."""
    return {"value": value, "count": count, "unit": ""}


def format_figure(figure: Figure) -> str:
    """Return a figure as text, such as "61.2 % (58.7 to 63.6)"."""
    scale = 100 if figure["unit"] == "%" else 1
    digits = {"": 3, "dB": 2}.get(figure["unit"], 1)
    value, *ends = (f"{scale * figure[name]:.{digits}f}" for name in ("value", "low", "high") if name in figure)
    unit = f" {figure['unit']}" if figure["unit"] else ""
    interval = f" ({' to '.join(ends)})" if ends else ""
    return f"{value}{unit}{interval}"


def markdown_table(columns: Table) -> str:
    """Return a Markdown table of figures. Cells without a figure are empty."""
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    heads = [f"{name} (n = {next(iter(column.values()))['count']})" for name, column in columns.items()]
    lines = [f"| | {' | '.join(heads)}", "|---" * (len(columns) + 1)]
    for row in rows:
        cells = (format_figure(column[row]) if row in column else "" for column in columns.values())
        lines.append(f"| {row} | " + " | ".join(cells))
    return "\n".join(f"{line} |" for line in lines)


def side_by_side(after: Mapping[str, Table], before: Mapping[str, Table]) -> dict[str, Table]:
    """Return the tables of two models as one, by task. Columns of real pictures appear once."""
    tables = {}
    for task, columns in after.items():
        others = {name: column for name, column in before[task].items() if not name.startswith("real")}
        tables[task] = columns | {f"{name}, before": column for name, column in others.items()}
    return tables


def markdown_report(report: Mapping[str, Any]) -> str:
    """Return the report as a Markdown page: the command, then a table for each task."""
    models = f"Model {report['model']}, "
    if report.get("before"):
        models += f"before it {report['before']}, "
    lines = [
        "# Evaluation",
        "",
        f"    {report['command']}",
        "",
        f"{models}classifier {report['classifier']}. In brackets: 95 % intervals; pictures count as independent. PSNR "
        "is per picture, at most 58.9 dB (8-bit rounding). Feature distances are between the classifier's normalized "
        "features, 0 to 2. Fréchet distances are to a real set of the same labels; that of another real set is the "
        "floor. The nearest scene is among many composed as in training: in pixels (root mean square at 32 px, as a "
        "share of the range) and in features. If pictures were copies of training scenes, they would lie nearer than "
        "real scenes composed anew from the same labels, and more than 5 % of them nearer than the nearest 5 % of "
        "those.",
    ]
    for task, columns in report["tasks"].items():
        lines += ["", f"## {task}", "", markdown_table(columns)]
    worst = [entry for entry in report["worst_concepts"] if entry["taken_for"]]
    confusions = ", ".join(f"{entry['concept']} (for {entry['taken_for']})" for entry in worst)
    lines += ["", f"Least often recognized, and what the classifier took them for: {confusions}."]
    return "\n".join(lines) + "\n"


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    """Return pictures row by row, enlarged without smoothing, each above its caption."""
    font = ImageFont.load_default(11)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * TILE, rows * (TILE + CAPTION_HEIGHT)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % columns * TILE, number // columns * (TILE + CAPTION_HEIGHT)
        sheet.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
        lines = textwrap.wrap(caption, 24)[:2]
        pen.multiline_text((left + 2, top + TILE + 1), "\n".join(lines), fill="black", font=font, spacing=1)
    return sheet
