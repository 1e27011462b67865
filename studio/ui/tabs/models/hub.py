"""Downloading models from the Hugging Face hub: look a model up, fetch it, follow how far it is."""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from pathlib import Path

from studio.models.download import Download, HubModel, look_up
from studio.models.formats import ModelError
from studio.ui.components.formatting import format_bytes, format_count
from studio.ui.components.templates import render

MAX_FOUND = 64  # models that were looked up and can be downloaded


class HubDownloads:
    """The downloads of one studio: one at a time. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._found: OrderedDict[str, HubModel] = OrderedDict()
        self._download: Download | None = None
        self._model: HubModel | None = None  # of the download

    @property
    def is_running(self) -> bool:
        return self._download is not None and self._download.state == "running"

    def find(self, hub_id: str) -> str:
        """Look a model up and return what a download would fetch, as HTML. Raises ModelError."""
        model = look_up(hub_id or "")
        with self._lock:
            self._found[model.id] = model
            while len(self._found) > MAX_FOUND:
                self._found.popitem(last=False)
        return render(
            "hub_model.html",
            model=model,
            size=format_bytes(model.bytes),
            count=format_count(len(model.files), "file"),
            files=[(path, format_bytes(size)) for path, size in model.files.items()],
            free=format_bytes(_free_bytes(self._folder)),
            folder=self._folder.resolve(),
        )

    def start(self, model_id: str) -> None:
        """Start to fetch a model that was looked up. Raises ModelError."""
        with self._lock:
            if self.is_running:
                raise ModelError(f"{self._model.id if self._model else 'A model'} is being downloaded; wait for it.")
            model = self._found.get(model_id)
            if model is None:
                raise ModelError("Check the model again before you download it.")
            if model.bytes > _free_bytes(self._folder):
                raise ModelError(
                    f"{model.id} needs {format_bytes(model.bytes)}, and {format_bytes(_free_bytes(self._folder))} are "
                    "free on the disk."
                )
            self._download, self._model = Download(model, self._folder), model

    def cancel(self) -> None:
        """Stop the download. What has arrived is kept for the next try."""
        if self._download is not None:
            self._download.cancel()

    def html(self) -> str:
        """Return how far the download is, or how it ended; "" if there was none."""
        download, model = self._download, self._model
        if download is None or model is None:
            return ""
        return render(
            "hub_download.html",
            model=model,
            state=download.state,
            error=download.error,
            share=download.done_bytes / max(model.bytes, 1),
            done=format_bytes(download.done_bytes),
            size=format_bytes(model.bytes),
        )


def _free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds a folder, which need not exist yet."""
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    return shutil.disk_usage(existing).free
