"""A picture as the page shows it: where its file is, what made it, and its address in HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from studio.engine.job import Picture
from studio.engine.requests import TextToImage
from studio.services.naming import TASK_NAMES, download_name
from studio.ui.components.formatting import shorten

MAX_TITLE = 96  # characters of a prompt beside its picture
MAX_ALT = 200  # characters of a prompt in an alternative text


@dataclass(frozen=True)
class ImageCard:
    """A picture on the page: its file or data URI, and the settings that made it.

    key: "picture:ID" or "example:NUMBER", which a click sends; "" for a picture that cannot be clicked.
    before: the file or data URI of the picture to compare it with; "" for none.
    before_name: the name of that one.
    """

    source: str
    settings: Mapping[str, Any]
    key: str = ""
    before: str = ""
    before_name: str = "Before"

    @classmethod
    def of(cls, picture: Picture, before: str = "") -> ImageCard:
        """Return the card of a picture in the library."""
        return cls(picture.path, picture.settings, f"picture:{picture.id}", before)

    @property
    def url(self) -> str:
        return image_url(self.source)

    @property
    def before_url(self) -> str:
        return image_url(self.before)

    @property
    def is_file(self) -> bool:
        return not self.source.startswith("data:")

    @property
    def is_kept(self) -> bool:
        """Whether the picture is in the library."""
        return self.key.startswith("picture:")

    @property
    def file_name(self) -> str:
        """The name of the downloaded file."""
        return download_name(self.settings)

    @property
    def task(self) -> str:
        return task_of(self.settings)

    @property
    def seed(self) -> str:
        return str(self.settings.get("seed", ""))

    @property
    def title(self) -> str:
        return title_of(self.settings)

    @property
    def alt(self) -> str:
        """The alternative text: the caption."""
        return str(self.settings.get("caption") or "no prompt")[:MAX_ALT]


def task_of(settings: Mapping[str, Any]) -> str:
    """Return the task of a picture; text to image if the settings name none that exists."""
    task = settings.get("task")
    return task if isinstance(task, str) and task in TASK_NAMES else TextToImage.task


def title_of(settings: Mapping[str, Any]) -> str:
    """Return the caption, shortened. Without one, return the task's name, or "No prompt" for text to image."""
    task = task_of(settings)
    name = "No prompt" if task == TextToImage.task else TASK_NAMES[task]
    return shorten(str(settings.get("caption") or ""), MAX_TITLE) or name


def image_url(source: str) -> str:
    """Return the address of a file or data URI, relative, so that the page also works below a path.

    Gradio serves files of its allowed paths only.
    """
    return source if source.startswith(("data:", "gradio_api/")) else f"gradio_api/file={quote(source)}"


def versioned_url(path: Path | None) -> str:
    """Return the address of a file that changes, with its time of change; "" for None."""
    return f"{image_url(str(path))}?v={path.stat().st_mtime_ns}" if path else ""


def data_uri(image: Image.Image) -> str:
    """Return a small picture as a PNG inside a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
