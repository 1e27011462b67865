"""What is shown, as HTML: pictures large, the wall label beside them, the strip of small ones.

Pure functions from values to markup; every text from outside is escaped here. A gr.HTML shows them with its
default template, which sets them as they are; one with `{{value}}` would run any `${...}` inside them.
"""

from __future__ import annotations

import base64
import io
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from math import ceil, sqrt
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from studio.engine.job import Picture
from studio.engine.requests import AREAS
from studio.models.samplers import SAMPLER_LABELS
from studio.services.naming import TASK_NAMES, download_name

LANCZOS = "Lanczos"
TITLE = 96  # characters of a prompt that stand beside its picture


@dataclass(frozen=True)
class ImageCard:
    """A picture on the page: its file, or a data URI, and the settings that made it.

    key: what a click on it says, "picture:ID" or "example:NUMBER"; "" for one that cannot be clicked.
    before: the file, or a data URI, of the picture that it was made from, where the two are to be compared.
    before_name: what that one is called.
    """

    source: str
    settings: dict[str, Any]
    key: str = ""
    before: str = ""
    before_name: str = "Before"

    @classmethod
    def of(cls, picture: Picture, before: str = "") -> ImageCard:
        """A picture of the library."""
        return cls(picture.path, picture.settings, f"picture:{picture.id}", before)

    @property
    def url(self) -> str:
        return url_of(self.source)

    @property
    def file_name(self) -> str:
        return download_name(self.settings)


def url_of(source: str) -> str:
    """Relative, so that the page also works below a path. Gradio serves files of its allowed paths only."""
    return source if source.startswith(("data:", "gradio_api/")) else f"gradio_api/file={quote(source)}"


def data_uri(image: Image.Image) -> str:
    """A small picture as a PNG inside a URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def result_html(pictures: Sequence[ImageCard], label: str, *, kind: str = "done", selected: int = 0) -> str:
    """Pictures in a square grid, a label beside them. kind: done, example, running, waiting, stopped or sketch."""
    columns = max(1, ceil(sqrt(len(pictures))))
    if pictures and pictures[selected].before and kind in ("done", "example"):
        return (
            f'<section class="stage" data-kind="{kind}" data-key="{escape(pictures[selected].key)}" '
            f'aria-label="Result">{compare(pictures, selected)}<div class="label">{label}</div></section>'
        )
    cells = "".join(_cell(picture, index, len(pictures), selected, kind) for index, picture in enumerate(pictures))
    key = escape(pictures[selected].key) if pictures else ""
    return (
        f'<section class="stage" data-kind="{kind}" data-key="{key}" aria-label="Result">'
        f'<div class="wall" style="--columns:{columns}">{cells}</div>'
        f'<div class="label">{label}</div></section>'
    )


def compare(pictures: Sequence[ImageCard], selected: int = 0) -> str:
    """Before and after under a slider, with zoom; more than one result stand below it to be chosen."""
    picture = pictures[selected]
    shape = re.sub(r"[^0-9/]", "", str(picture.settings.get("size", "")).replace("x", "/")) or "1/1"
    alt = escape(_alt(picture, "done"))
    zooms = "".join(
        f'<button type="button" data-zoom="{zoom}" aria-pressed="{str(zoom == 1).lower()}">'
        f"{'Fit' if zoom == 1 else f'{zoom}×'}</button>"
        for zoom in (1, 2, 4, 8)
    )
    choices, before_name = "", escape(picture.before_name)
    if len(pictures) > 1:
        cells = "".join(_cell(other, index, len(pictures), selected, "done") for index, other in enumerate(pictures))
        choices = f'<div class="choices" role="group" aria-label="Results to choose from">{cells}</div>'
    return (
        '<div class="wall compared" style="--columns:1">'
        f'<div class="compare" style="aspect-ratio:{shape}" data-compare>'
        f'<img class="after" src="{escape(picture.url)}" alt="{alt}" decoding="sync" draggable="false">'
        f'<div class="before"><img src="{escape(url_of(picture.before))}" alt="" draggable="false"></div>'
        f'<i class="split" aria-hidden="true"></i><span class="tag">{before_name}</span><span class="tag">After</span>'
        '<input type="range" min="0" max="100" step="0.5" value="50" aria-label="Before and after"></div>'
        f'<div class="zooms" role="group" aria-label="Zoom">{zooms}</div>{choices}</div>'
    )


def _cell(picture: ImageCard, index: int, count: int, selected: int, kind: str) -> str:
    alt = escape(_alt(picture, kind))
    # Decoded at once, so that a new preview takes the place of the old one without a flicker.
    image = f'<img src="{escape(picture.url)}" alt="{alt}" decoding="sync" draggable="false">'
    if count == 1 or kind not in ("done", "example"):
        return f'<span class="cell">{image}</span>'
    seed = picture.settings.get("seed", "")
    return (
        f'<button type="button" class="cell" data-cell data-key="{escape(picture.key)}" data-seed="{seed}" '
        f'data-url="{escape(picture.url)}" data-title="{escape(titled(picture.settings))}" '
        f'data-file="{escape(picture.file_name)}" aria-pressed="{str(index == selected).lower()}" '
        f'title="Seed {seed}">{image}</button>'
    )


def _alt(picture: ImageCard, kind: str) -> str:
    name = str(picture.settings.get("caption") or "no prompt")
    return {"running": f"Forming: {name}", "waiting": "Noise"}.get(kind, name)[:200]


def lanczos_html(picture: Picture, lanczos: str) -> str:
    """Ours under the slider with plain enlargement, whose URL is given."""
    shown = replace(ImageCard.of(picture, lanczos), before_name=LANCZOS)
    notes = ["On the left is plain enlargement by Lanczos."]
    return result_html([shown], done_label(shown, heading="Beside Lanczos", notes=notes))


def done_label(picture: ImageCard, *, heading: str = "", notes: Iterable[str] = (), count: int = 1) -> str:
    """The wall label of a finished picture: what was asked, how it was made, and what can be done with it."""
    return (
        (f'<p class="heading">{escape(heading)}</p>' if heading else "")
        + title(picture.settings)
        + fact_list(facts(picture.settings, count))
        + _notes(notes)
        + f'<div class="acts">{_acts(picture)}</div>'
    )


def _acts(picture: ImageCard) -> str:
    kept, painted = picture.key.startswith("picture:"), task_of(picture.settings) == "text-to-image"
    look = _act("to:noise", "See how it was made") if kept else ""
    again = _act("use", "Use these settings") if painted else ""
    if kept and task_of(picture.settings) == "inpaint":
        again = _act("input", "Use as input")
    acts = download(picture) + look + again
    if kept and painted:
        acts += f'<div class="pair">{_act("vary:subtle", "Vary subtly")}{_act("vary:strong", "Vary strongly")}</div>'
    if kept and task_of(picture.settings) != "inpaint":  # where it is "Use as input"
        acts += _act("to:inpaint", "Open in Inpaint")
    if kept:
        acts += _act("to:super-resolution", "Open in Super-resolution")
    if kept and task_of(picture.settings) == "super-resolution":
        other = ("before", "Compare with the small picture"), ("lanczos", "Compare with Lanczos")
        acts += _act(*other[picture.before_name != LANCZOS])
    return acts


def _act(pick: str, name: str) -> str:
    return f'<button type="button" class="act" data-pick="{pick}">{name}</button>'


def task_of(settings: Mapping[str, Any]) -> str:
    task = settings.get("task")
    return task if isinstance(task, str) and task in TASK_NAMES else "text-to-image"


def titled(settings: Mapping[str, Any]) -> str:
    """The whole prompt, as far as there is room; without one, the task, which for a picture from words says little."""
    task = task_of(settings)
    name = "No prompt" if task == "text-to-image" else TASK_NAMES[task]
    return _clipped(str(settings.get("caption") or ""), TITLE) or name


def title(settings: Mapping[str, Any]) -> str:
    return f'<p class="title">{escape(titled(settings))}</p>'


def facts(settings: Mapping[str, Any], count: int = 1) -> list[tuple[str, str]]:
    """How a picture was made: names, and values as text or "" where there is none."""
    sigma = settings.get("sigma")
    return [
        ("Without", _clipped(str(settings.get("negative_prompt") or ""), 120)),
        ("Seed", _plain(settings.get("seed", 0))),
        ("Steps", _plain(settings.get("steps"))),
        ("Guidance", _plain(settings.get("guidance"))),
        ("Sampler", SAMPLER_LABELS.get(settings.get("sampler", ""), _plain(settings.get("sampler")))),
        ("Area", AREAS.get(settings.get("area", ""), "")),
        ("Grown by", f"{settings['grow']} px" if settings.get("grow") else ""),
        ("Feather", f"{settings['feather']} px" if settings.get("feather") else ""),
        ("Creativity", _plain(settings.get("noise_level"))),
        ("Noise", f"{_plain(sigma)} of 255" if sigma else ""),
        ("Size", _plain(settings.get("size", "")).replace("x", " × ")),
        ("Time", _seconds(settings.get("seconds"), count)),
    ]


def fact_list(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f'<div><dt>{escape(name)}</dt><dd data-slot="{escape(name.lower())}">{escape(value)}</dd></div>'
        for name, value in facts
        if value
    )
    return f"<dl>{rows}</dl>"


def download(picture: ImageCard) -> str:
    """The link to a picture's file; "" if it has none."""
    if picture.source.startswith("data:"):
        return ""
    return (
        f'<a class="act" data-slot="download" href="{escape(picture.url)}" '
        f'download="{escape(picture.file_name)}">Download PNG</a>'
    )


def running_label(settings: Mapping[str, Any], share: int, place: str) -> str:
    """share: of the steps that are taken, in percent."""
    return (
        f'{title(settings)}<p class="busy"><progress max="100" value="{share}" aria-label="Progress"></progress>'
        f"<span>{escape(place)}</span></p>"
        '<p class="aside">This is what the model takes the finished picture to be, at this step.</p>'
    )


def waiting_label(settings: Mapping[str, Any], message: str, share: int | None = None) -> str:
    """share: of the first step or more, in percent, where there is nothing to see of it yet."""
    known = 'aria-label="Waiting"' if share is None else f'max="100" value="{share}" aria-label="Progress"'
    return f'{title(settings)}<p class="busy"><progress {known}></progress><span>{escape(message)}</span></p>'


def stopped_label(settings: Mapping[str, Any], step: int, steps: int) -> str:
    where = f"Stopped at step {step} of {steps}." if step else "Stopped before its first step."
    aside = "What you see is how far the picture had come. It was not kept." if step else ""
    return f'{title(settings)}<p class="note">{where}</p>' + (f'<p class="aside">{aside}</p>' if aside else "")


def sketch_label(settings: Mapping[str, Any], seconds: float) -> str:
    return (
        f'<p class="heading">Live</p>{title(settings)}{fact_list([("Time", _seconds(seconds, 1))])}'
        '<p class="aside">Painted as you type, and not kept: Generate keeps it.</p>'
    )


def failed_label(settings: Mapping[str, Any], problem: str) -> str:
    return f'{title(settings)}<p class="note" role="alert">{escape(problem)}</p>'


def strip(groups: Sequence[tuple[str, Sequence[ImageCard]]]) -> str:
    """Rows of small pictures to click: (heading, pictures). A click says the picture's key as data-pick."""
    rows = []
    for heading, pictures in groups:
        if not pictures:
            continue
        items = small_pictures(pictures)
        rows.append(f'<div class="row"><h2>{escape(heading)}</h2><div class="thumbnails">{items}</div></div>')
    return f'<div class="strip">{"".join(rows)}</div>'


def small_pictures(pictures: Sequence[ImageCard]) -> str:
    """Buttons for a strip."""
    return "".join(
        f'<button type="button" class="small" data-pick="{escape(picture.key)}" title="{alt}">'
        f'<img src="{escape(picture.url)}" alt="{alt}" loading="lazy" draggable="false"></button>'
        for picture, alt in ((picture, escape(_alt(picture, ""))) for picture in pictures)
    )


@cache
def noise(size: int = 64) -> str:
    """Plain gray-centred noise, which is where every picture starts."""
    return data_uri(Image.frombytes("RGB", (size, size), _noise(random.Random(7), size)))


@cache
def placeholder(seed: int, size: int = 32) -> str:
    """Stands where a shipped example is missing: a disc that comes out of noise from left to right."""
    generator = random.Random(seed)
    palette = [(214, 74, 66), (58, 120, 214), (70, 160, 96), (240, 178, 50), (150, 92, 196), (236, 124, 160)]
    disc, background = palette[seed % 6], palette[(seed * 2 + 1) % 6]
    background = tuple(round(0.35 * c + 0.65 * 245) for c in background)
    speckle = _noise(generator, size)
    values = bytearray()
    for y in range(size):
        for x in range(size):
            inside = (x - size / 2 + 0.5) ** 2 + (y - size / 2 + 0.5) ** 2 < (size * 0.34) ** 2
            clean = min(1.0, max(0.0, (x + generator.uniform(-3, 3)) / (0.8 * size)))  # 0 is noise, 1 is picture
            for channel in range(3):
                value = (disc if inside else background)[channel]
                values.append(round(clean * value + (1 - clean) * speckle[3 * (y * size + x) + channel]))
    return data_uri(Image.frombytes("RGB", (size, size), bytes(values)))


def _noise(generator: random.Random, size: int) -> bytes:
    return bytes(min(255, max(0, round(generator.gauss(128, 52)))) for _ in range(3 * size * size))


def examples(folder: Path, prompts: Sequence[dict[str, Any]]) -> list[ImageCard]:
    """The shipped pictures with the settings in their metadata, else a placeholder for each of `prompts`."""
    from studio.library.metadata import read_png_settings

    found = []
    for path in sorted(folder.glob("*.png")):
        try:
            settings = read_png_settings(path)
        except (OSError, ValueError):
            continue
        if settings and settings.get("prompt"):
            settings.setdefault("caption", settings["prompt"])
            found.append(ImageCard(str(path.resolve()), settings, f"example:{len(found)}"))
    return found or [
        ImageCard(placeholder(index), dict(settings), f"example:{index}") for index, settings in enumerate(prompts)
    ]


def shipped_example(folder: Path, before: str, after: str) -> ImageCard:
    """A shipped pair: what was there, and what came of it with its settings; a placeholder where it is missing."""
    from studio.library.metadata import read_png_settings

    files = [(folder / f"{name}.png").resolve() for name in (before, after)]
    try:
        settings = read_png_settings(files[1])
    except (OSError, ValueError):
        settings = None
    if not settings or not files[0].exists():
        return ImageCard(placeholder(3), {"caption": "", "task": folder.name}, "example:0")
    settings.setdefault("caption", settings.get("prompt", ""))
    return ImageCard(str(files[1]), settings, "example:0", str(files[0]))


def _notes(notes: Iterable[str]) -> str:
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _seconds(seconds: Any, count: int) -> str:
    if not isinstance(seconds, int | float):
        return ""
    return f"{seconds:.2f} s" + (f" for {count}" if count > 1 else "")


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
