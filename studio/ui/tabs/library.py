"""The tab "Library": the owner's pictures, to search, look at, mark, delete and send to other tabs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.services.context import AppContext
from studio.services.naming import TASK_NAMES
from studio.ui.components.album import (
    album_html,
    deleted_html,
    empty_album_html,
    no_match_html,
    problem_html,
    usage_html,
)
from studio.ui.components.formatting import format_day
from studio.ui.components.send_to import SendTarget
from studio.ui.events import Events, Updates, Visitor
from studio.ui.scripts import on_load
from studio.ui.tabs.text_to_image import TextToImageTab

TAB = "library"
PAGE_SIZE = 60  # pictures to load at a time
_EVERY_TASK, _EVERY_DAY = ("Every task", ""), ("Every day", "")


@dataclass(frozen=True)
class Filters:
    """Which pictures to show: all fields empty means all pictures."""

    search: str = ""
    task: str = ""
    day: str = ""
    favourites: bool = False

    @property
    def query(self) -> dict[str, Any]:
        """The arguments of `Library.find_pictures`."""
        return {
            "search": self.search or "",
            "task": self.task or None,
            "day": self.day or None,
            "favourites": bool(self.favourites),
        }


class LibraryTab:
    """The tab; create it inside its gr.Tab.

    targets: where pictures can be sent.  text_to_image: the tab that examples open in.
    """

    def __init__(
        self,
        context: AppContext,
        token: gr.BrowserState,
        tabs: gr.Tabs,
        tab: gr.Tab,
        targets: Sequence[SendTarget],
        text_to_image: TextToImageTab,
    ) -> None:
        self._context, self._tabs, self._targets, self._text_to_image = context, tabs, targets, text_to_image
        self._count = gr.State(PAGE_SIZE)  # pictures to show
        with gr.Row(elem_id="filters"):
            self._search = gr.Textbox(
                label="Search", placeholder="words of a prompt", elem_id="search", scale=2, min_width=180, max_lines=1
            )
            self._task = gr.Dropdown([_EVERY_TASK], value="", label="Task", elem_id="task", min_width=140)
            self._day = gr.Dropdown([_EVERY_DAY], value="", label="Day", elem_id="day", min_width=160)
            self._favourites = gr.Checkbox(False, label="Favourites only", elem_id="favourites", min_width=140)
            self._usage = gr.HTML("", elem_id="usage", apply_default_css=False, js_on_load=None, min_width=120)
        self._album = gr.HTML(
            "",
            elem_id="album",
            apply_default_css=False,
            js_on_load=on_load("library.js", "mountLibrary(element, trigger, watch)"),
        )
        self._notice = gr.HTML(
            "",
            elem_id="notice",
            apply_default_css=False,
            js_on_load=on_load("actions.js", "sendActions(element, trigger)"),
        )
        self._actions: dict[str, Callable[..., Updates]] = {
            "star": self._star,
            "delete": self._delete,
            "undo": self._undo_delete,
            "more": self._show_more,
            "clear": self._clear_filters,
            "send": self._send,
            "example": self._use_example,
            "dismiss": self._dismiss,
        }
        self._connect(Events(context, token, self._notice, problem_html), tab)

    # ---- handlers ----

    def refresh(self, visitor: Visitor, *, count: int, **filters: Any) -> Updates:
        """Show the pictures, the filters that match something, and the space used."""
        return self._refresh(visitor.owner, count, Filters(**filters))

    def filter_pictures(self, visitor: Visitor, **filters: Any) -> Updates:
        """Show the first pictures that pass the filters."""
        return {self._count: PAGE_SIZE} | self._show_pictures(visitor.owner, PAGE_SIZE, Filters(**filters))

    def handle_click(self, visitor: Visitor, event: gr.EventData, *, count: int, **filters: Any) -> Updates:
        """Do what a button on a picture, or on the notice, asks for."""
        data = event._data if isinstance(event._data, dict) else {}
        action = self._actions.get(str(data.get("act")))
        return action(visitor.owner, data, count, Filters(**filters)) if action else {}

    # ---- actions of a click ----

    def _star(self, owner: str, data: dict[str, Any], count: int, filters: Filters) -> Updates:
        for picture_id in _ids(data)[:1]:
            self._context.library.set_favourite(owner, picture_id, bool(data.get("on")))
        return self._show_pictures(owner, count, filters) if filters.favourites else {}

    def _delete(self, owner: str, data: dict[str, Any], count: int, filters: Filters) -> Updates:
        ids = _ids(data)
        if not ids:
            return {}
        self._context.library.delete(owner, ids)
        undo_ids = list(dict.fromkeys([*_ids(data, "before"), *ids]))
        return self._refresh(owner, count, filters) | {self._notice: deleted_html(undo_ids)}

    def _undo_delete(self, owner: str, data: dict[str, Any], count: int, filters: Filters) -> Updates:
        self._context.library.undo_delete(owner, _ids(data))
        return self._refresh(owner, count, filters) | {self._notice: ""}

    def _show_more(self, owner: str, data: dict[str, Any], count: int, filters: Filters) -> Updates:
        count += PAGE_SIZE
        return self._show_pictures(owner, count, filters) | {self._count: count}

    def _clear_filters(self, owner: str, data: dict[str, Any], count: int, filters: Filters) -> Updates:
        values = {self._search: "", self._task: "", self._day: "", self._favourites: False, self._count: PAGE_SIZE}
        return self._refresh(owner, PAGE_SIZE, Filters()) | values

    def _send(self, owner: str, data: dict[str, Any], count: int, filters: Filters) -> Updates:
        number, ids = _number(data), _ids(data)
        if not 0 <= number < len(self._targets) or not ids:
            return {}
        target = self._targets[number]
        return target.fill_from(self._context.library, owner, ids[0]) | {self._tabs: gr.update(selected=target.tab)}

    def _use_example(self, owner: str, data: dict[str, Any], count: int, filters: Filters) -> Updates:
        number = _number(data)
        if not 0 <= number < len(self._text_to_image.examples):
            return {}
        selected = gr.update(selected=self._text_to_image.panel.tab)
        return self._text_to_image.use_example(number) | {self._tabs: selected}

    def _dismiss(self, owner: str, data: dict[str, Any], count: int, filters: Filters) -> Updates:
        return {self._notice: ""}

    # ---- helpers ----

    def _show_pictures(self, owner: str, count: int, filters: Filters) -> Updates:
        pictures = self._context.library.find_pictures(owner, **filters.query, limit=count + 1)
        if pictures:
            return {self._album: album_html(pictures[:count], self._targets, has_more=len(pictures) > count)}
        is_filtered = any(filters.query.values())
        return {self._album: no_match_html() if is_filtered else empty_album_html(self._text_to_image.examples)}

    def _refresh(self, owner: str, count: int, filters: Filters) -> Updates:
        library = self._context.library
        days = library.count_days(owner)
        tasks = [task for task in TASK_NAMES if library.find_pictures(owner, task=task, limit=1)]
        filters = Filters(
            search=filters.search,
            task=filters.task if filters.task in tasks else "",
            day=filters.day if filters.day in dict(days) else "",
            favourites=filters.favourites,
        )
        task_choices = [_EVERY_TASK, *((TASK_NAMES[task], task) for task in tasks)]
        day_choices = [_EVERY_DAY, *((f"{format_day(day)} ({number:,})", day) for day, number in days)]
        return self._show_pictures(owner, count, filters) | {
            self._task: gr.update(choices=task_choices, value=filters.task),
            self._day: gr.update(choices=day_choices, value=filters.day),
            self._usage: usage_html(*library.get_usage(owner)) if days else "",
        }

    def _connect(self, events: Events, tab: gr.Tab) -> None:
        filters = {"search": self._search, "task": self._task, "day": self._day, "favourites": self._favourites}
        own_outputs = [self._album, self._usage, self._count, *filters.values()]
        sent_outputs = [output for target in self._targets for output in target.outputs]
        events.on(tab.select, self.refresh, {"count": self._count, **filters}, own_outputs)
        events.on(
            [self._search.change, self._task.input, self._day.input, self._favourites.input],
            self.filter_pictures,
            filters,
            [self._album, self._count],
            trigger_mode="always_last",
        )
        outputs = [*own_outputs, self._tabs, *self._text_to_image.panel.view_outputs, *sent_outputs]
        for place in (self._album, self._notice):
            events.on_click(place, self.handle_click, outputs, {"count": self._count, **filters})


def _ids(data: dict[str, Any], name: str = "ids") -> list[str]:
    """Return the ids of pictures in a click's data."""
    return [picture_id for picture_id in data.get(name) or () if isinstance(picture_id, str)]


def _number(data: dict[str, Any]) -> int:
    """Return the number of a target or an example in a click's data; -1 if there is none."""
    number = str(data.get("number"))
    return int(number) if number.isdigit() else -1
