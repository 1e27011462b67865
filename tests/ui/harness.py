"""The page without a browser: events run through Gradio's own processing, in this process.

An `OpenPage` stands for one page in one visitor's browser. It keeps what the controls hold, sends it with each event,
takes in the answer, and fires the `change` events and the `then` events that follow from it. Scripts do not run.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import numpy as np
from gradio.block_function import BlockFunction
from gradio.state_holder import SessionState
from gradio.utils import get_upload_folder
from PIL import Image, ImageDraw

from studio.engine.backend import Backend
from studio.engine.engine import Engine
from studio.engine.job import Picture
from studio.library.store import Library
from studio.models.catalog import Catalog, ModelEntry
from studio.models.resolver import ModelResolver
from studio.server import build_app
from studio.services.context import AppContext
from studio.services.owners import Owners
from tests.fakes import single_model, write_model_folder
from tests.ui.models import FakeCatalog, fake_entry


class ObservedOwners(Owners):
    """Owners that remember who asked last, for tests that put something into a visitor's library."""

    last = ""

    def of_page(self, request: Any, token: object) -> tuple[str, str]:
        self.last, known = super().of_page(request, token)
        return self.last, known


@contextlib.contextmanager
def fake_context(
    folder: Path,
    load: Callable[[], Backend],
    *,
    max_active: int = 24,
    thumbnails: bool = True,
    others: Sequence[ModelEntry] = (),
    manages_models: bool = True,
) -> Iterator[AppContext]:
    """A studio over the folder `data` in `folder`, with a running engine.

    max_active: jobs that run at once.  others: models beside the default one.
    """
    model = write_model_folder(folder / "model", thumbnails=thumbnails)
    library = Library(folder / "data")
    default = fake_entry("model", "studio", name="Blob 64", path=model)
    models = ModelResolver(cast("Catalog", FakeCatalog([default, *others], [folder / "models"])))
    engine = Engine(single_model(load, "model"), library.journal, resolve=models.resolve, max_active=max_active)
    try:
        context = AppContext(engine.start(), library, models)
        yield replace(context, owners=ObservedOwners(), manages_models=manages_models)
    finally:
        engine.shutdown(8.0)
        library.close()


class LoopThread:
    """An event loop in a thread of its own, for Gradio: a browser's driver has one in the main thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="page", daemon=True)
        self._thread.start()

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function of Gradio's in the loop. Without one, some make loops of their own that nobody closes."""

        async def call() -> Any:
            return function(*arguments, **options)

        return self.wait_for(call())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Studio(LoopThread):
    """A page and the studio behind it: `context` is what its handlers work on."""

    def __init__(self, context: AppContext) -> None:
        super().__init__()
        self.context = context
        self.page = self.call(build_app, context)
        parts = self.page.get_config_file()["components"]
        self.first_values = {part["id"]: part["props"].get("value") for part in parts}
        self.ids = {part["props"]["elem_id"]: part["id"] for part in parts if part["props"].get("elem_id")}
        self.token_id = next(part["id"] for part in parts if part["type"] == "browserstate")

    @property
    def last_owner(self) -> str:
        """Who asked for something last."""
        return self.context.owners.last

    def open(self, token: str = "", username: str | None = None, follow: bool = True) -> OpenPage:
        """Open the page as a new visitor, as one whose browser has a token, or as a user who signed in.

        follow: whether a job that the page finds is followed to its end at once, or left to `follow`.
        """
        return OpenPage(self, token, username, follow)


@contextlib.contextmanager
def fake_studio(folder: Path, load: Callable[[], Backend], **options: Any) -> Iterator[Studio]:
    """A page over a studio in a folder; options as of `fake_context`."""
    with fake_context(folder, load, **options) as context, contextlib.closing(Studio(context)) as studio:
        yield studio


@dataclass
class Stream:
    """An event whose handler yields values."""

    function: BlockFunction
    iterator: Any = None
    has_ended: bool = False


class OpenPage:
    """One page in one browser. `streams`: those that have not ended, the oldest first."""

    def __init__(self, studio: Studio, token: str, username: str | None, follow: bool) -> None:
        self.studio, self.username = studio, username
        self.session = secrets.token_hex(8)
        self.streams: list[Stream] = []
        self._values = studio.first_values | {studio.token_id: token}
        self._properties: dict[int, dict[str, Any]] = {}
        self._state = SessionState(studio.page)
        self._follows = follow
        self._run(self._targets([(studio.page._id, "load")]))
        self._follows = True

    # ---- what the page holds ----

    def __getitem__(self, elem_id: str) -> Any:
        """What a control holds."""
        return self._values[self.studio.ids[elem_id]]

    def __setitem__(self, elem_id: str, value: Any) -> None:
        """Set a control without any event."""
        self._values[self.studio.ids[elem_id]] = value

    def setting(self, elem_id: str, name: str) -> Any:
        """What a handler last set of a control, such as `interactive`; None if none did."""
        return self._properties.get(self.studio.ids[elem_id], {}).get(name)

    def text(self, elem_id: str) -> str:
        """The text of an HTML part, without its tags."""
        return text_of(self[elem_id] or "")

    def values(self) -> list[Any]:
        """What all parts of the page hold."""
        return list(self._values.values())

    def everything(self) -> str:
        """The whole page as one text, to look for what must not be in it."""
        return json.dumps(self.values(), default=str)

    @property
    def browser_token(self) -> str:
        return self._values[self.studio.token_id]

    @property
    def owner(self) -> str:
        return self.studio.context.owners.of_page(
            SimpleNamespace(username=self.username, session_hash=self.session), self.browser_token
        )[0]

    def pictures(self, limit: int = 60, **filters: Any) -> list[Picture]:
        """The visitor's pictures in the library, the newest first."""
        return self.studio.context.library.find_pictures(self.owner, limit=limit, **filters)

    # ---- what a visitor does ----

    def type(self, **values: Any) -> None:
        """Change controls as by hand; an underscore in a name stands for the dash of an elem_id."""
        for name, value in values.items():
            id = self.studio.ids[name.replace("_", "-")]
            self._values[id] = value
            self._run(self._targets([(id, "input"), (id, "change")]))

    def fire(self, elem_id: str, event: str = "click", follow: bool = True, **data: Any) -> None:
        """Fire an event of a part, with the data that a script would send along.

        follow: whether streams that this starts are followed to their end, or left to `follow`.
        """
        self._follows = follow
        try:
            self._run(self._targets([(self.studio.ids[elem_id], event)]), data)
        finally:
            self._follows = True

    def upload(self, elem_id: str, content: bytes, name: str = "picture.png") -> None:
        """Upload a file with an upload button."""
        folder = Path(get_upload_folder()) / secrets.token_hex(8)
        folder.mkdir(parents=True)
        path = folder / name
        path.write_bytes(content)
        file = {"path": str(path), "orig_name": name, "size": len(content), "meta": {"_type": "gradio.FileData"}}
        self[elem_id] = file
        self.fire(elem_id, "upload")

    def tick(self) -> None:
        """Let the page's timer tick once."""
        timers = [id for id, block in self.studio.page.blocks.items() if isinstance(block, gr.Timer)]
        self._run(self._targets([(id, "tick") for id in timers]))

    def follow(self, elem_id: str, until: str = "") -> None:
        """Take one value after another from the newest stream until a part holds some markup, or to the end."""
        stream = self.streams[-1] if self.streams else None
        while not (until and until in self[elem_id]) and stream and not stream.has_ended:
            self._advance(stream)
        assert not until or until in self[elem_id], f"{elem_id} never held {until!r}"

    def drain(self, stream: Stream) -> None:
        """Take in all that a stream still yields."""
        while not stream.has_ended:
            self._advance(stream)

    # ---- Gradio's part ----

    def _targets(self, targets: Iterable[tuple[int, str]]) -> list[BlockFunction]:
        wanted = set(targets)
        return [fn for fn in self.studio.page.fns.values() if fn.fn and wanted & set(fn.targets)]

    def _run(self, functions: list[BlockFunction], data: dict[str, Any] | None = None) -> None:
        for function in functions:
            stream = Stream(function)
            self._advance(stream, data)
            if not stream.has_ended:
                self.streams.append(stream)
                if self._follows:
                    while not stream.has_ended:
                        self._advance(stream)

    def _advance(self, stream: Stream, data: dict[str, Any] | None = None) -> None:
        """Call a handler, or take its next value; then run what its outputs and its end set off."""
        function = stream.function
        target = self.studio.page.blocks.get(next((id for id, _ in function.targets), None))
        answer = self.studio.wait_for(
            self.studio.page.process_api(
                function,
                [self._values[part._id] for part in function.inputs],
                state=self._state,
                request=gr.Request(username=self.username, session_hash=self.session),
                iterator=stream.iterator,
                event_data=gr.EventData(target, data or {}),
            )
        )
        stream.iterator = answer["iterator"]
        stream.has_ended = not answer["is_generating"]
        if stream.has_ended and stream in self.streams:
            self.streams.remove(stream)
        if not (stream.has_ended and stream.iterator is not None):
            outputs = zip(function.outputs, answer["data"], strict=True)
            changed = [part._id for part, value in outputs if self._take(part, value)]
            self._run(self._targets([(id, "change") for id in changed]))
        if stream.has_ended:
            self._run([fn for fn in self.studio.page.fns.values() if fn.fn and fn.trigger_after == function._id])

    def _take(self, part: Any, value: Any) -> bool:
        """Take in one output; return whether the part's value is another now."""
        if part.stateful:
            return False
        if isinstance(value, dict) and value.get("__type__") == "update":
            self._properties.setdefault(part._id, {}).update(value)
            if "value" not in value:
                return False
            value = value["value"]
        before, self._values[part._id] = self._values.get(part._id), value
        return before != value


# ---- markup ----


def text_of(html: str) -> str:
    """The text of markup: tags become spaces, runs of spaces become one."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def attributes(html: str, name: str) -> list[str]:
    """All values of an attribute, in the order of the markup."""
    return [unescape(value) for value in re.findall(rf'{re.escape(name)}="([^"]*)"', html)]


def title_of(html: str) -> str:
    """The title on a picture's label."""
    (title,) = re.findall(r'<p class="title">(.*?)</p>', html)
    return unescape(title)


def slot(html: str, name: str) -> str:
    """A fact on a picture's label: its seed, its steps."""
    (value,) = re.findall(rf'data-slot="{name}">(.*?)<', html)
    return unescape(value)


def paint(page: OpenPage, prompt: str | None = None, **controls: Any) -> None:
    """Press Generate in the first tab and wait for the picture."""
    page.type(**controls, **({} if prompt is None else {"prompt": prompt}))
    page.fire("generate")
    assert 'data-kind="done"' in page["stage"], page["message"]


# ---- files ----


def drawing(size: tuple[int, int] = (96, 72), mode: str = "RGB") -> Image.Image:
    picture = Image.new(mode, size, "skyblue")
    ImageDraw.Draw(picture).ellipse((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill="crimson")
    return picture


def photograph() -> Image.Image:
    """Noise: nothing that was drawn looks like it."""
    noise = np.random.default_rng(0).normal(0, 40, (96, 96, 3))
    return Image.fromarray((noise + 120).clip(0, 255).astype(np.uint8))


def png(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def painted_mask(page: OpenPage, mask: Image.Image) -> str:
    """What the mask editor sends of a mask that was painted on the page's picture."""
    (key,) = attributes(page["inpaint-editor"], "data-key")
    data = "data:image/png;base64," + base64.b64encode(png(mask)).decode()
    return json.dumps({"mask": data, "key": key})
