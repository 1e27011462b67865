"""The tab "Library": what the owner has painted, to find, look at, mark, delete and send to another tab.

Reads the page into questions to the library and the answers into the page (album.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio.engine.job import JobRejected
from studio.services.context import AppContext
from studio.services.naming import TASK_NAMES
from studio.ui.components import album as show
from studio.ui.components.formatting import format_day
from studio.ui.components.parts import QUICK
from studio.ui.components.send_to import SendTarget
from studio.ui.scripts import on_load
from studio.ui.tabs.text_to_image import TAB, TextToImageTab

PAGE = 60  # pictures that come at a time
Asks = tuple[str, str, str, bool]  # words, task, day, favourites: what the filters say
_ALL: Asks = ("", "", "", False)
_EVERY_TASK, _EVERY_DAY = ("Every task", ""), ("Every day", "")


def build_library(
    studio: AppContext,
    token: gr.BrowserState,
    tabs: gr.Tabs,
    tab: gr.Tab,
    destinations: Sequence[SendTarget],
    bench: TextToImageTab,
) -> None:
    """The tab's parts and what they do; call it inside `tab`.

    destinations: the tabs that a picture can be sent to.  bench: where examples are tried.
    """
    asked = gr.State(PAGE)  # how many pictures are wanted
    with gr.Row(elem_id="filters"):
        search = gr.Textbox(
            label="Search", placeholder="words of a prompt", elem_id="search", scale=2, min_width=180, max_lines=1
        )
        task = gr.Dropdown([_EVERY_TASK], value="", label="Task", elem_id="task", min_width=140)
        day = gr.Dropdown([_EVERY_DAY], value="", label="Day", elem_id="day", min_width=160)
        favourites = gr.Checkbox(False, label="Favourites only", elem_id="favourites", min_width=140)
        used = gr.HTML("", elem_id="usage", apply_default_css=False, js_on_load=None, min_width=120)
    gallery = gr.HTML(
        "",
        elem_id="album",
        apply_default_css=False,
        js_on_load=on_load("library.js", "mountLibrary(element, trigger, watch)"),
    )
    act_script = on_load("actions.js", "sendActions(element, trigger)")
    notice = gr.HTML("", elem_id="notice", apply_default_css=False, js_on_load=act_script)
    filters = [search, task, day, favourites]

    def find(owner: str, count: int, asks: Asks) -> dict[Any, Any]:
        """What is to be seen with these filters."""
        words, of_task, of_day, starred = asks
        given = {"search": words or "", "task": of_task or None, "day": of_day or None, "favourites": bool(starred)}
        pictures = studio.library.find_pictures(owner, **given, limit=count + 1)
        if pictures:
            return {gallery: show.album(pictures[:count], destinations, more=len(pictures) > count)}
        return {gallery: show.nothing_found() if any(given.values()) else show.nothing_yet(bench.examples)}

    def refresh(owner: str, count: int, asks: Asks) -> dict[Any, Any]:
        """All of the tab: also the filters that there is something for, and the room that is left."""
        words, of_task, of_day, starred = asks
        days = studio.library.count_days(owner)
        tasks = [name for name in TASK_NAMES if studio.library.find_pictures(owner, task=name, limit=1)]
        of_task, of_day = of_task if of_task in tasks else "", of_day if of_day in dict(days) else ""
        in_days = [(f"{format_day(day)} ({number:,})", day) for day, number in days]
        return find(owner, count, (words, of_task, of_day, starred)) | {
            task: gr.update(choices=[_EVERY_TASK, *((TASK_NAMES[name], name) for name in tasks)], value=of_task),
            day: gr.update(choices=[_EVERY_DAY, *in_days], value=of_day),
            used: show.usage(*studio.library.get_usage(owner)) if days else "",
        }

    def do(owner: str, said: dict[str, Any], count: int, asks: Asks) -> dict[Any, Any]:
        """What a click on a picture, or on what is said below them, asks for."""
        library, what = studio.library, said.get("act")
        ids, before = ([id for id in said.get(name) or () if isinstance(id, str)] for name in ("ids", "before"))
        number = int(said["number"]) if str(said.get("number")).isdigit() else len(ids)
        if what == "star" and ids:
            library.set_favourite(owner, ids[0], bool(said.get("on")))
            return find(owner, count, asks) if asks[-1] else {}
        if what == "delete" and ids:
            library.delete(owner, ids)
            return refresh(owner, count, asks) | {notice: show.deleted(list(dict.fromkeys([*before, *ids])))}
        if what == "undo":
            library.undo_delete(owner, ids)
            return refresh(owner, count, asks) | {notice: ""}
        if what == "more":
            return find(owner, count + PAGE, asks) | {asked: count + PAGE}
        if what == "clear":
            return refresh(owner, PAGE, _ALL) | dict(zip(filters, _ALL, strict=True)) | {asked: PAGE}
        if what == "send" and ids and number < len(destinations):
            to = destinations[number]
            return to.fill_from(library, owner, ids[0]) | {tabs: gr.update(selected=to.tab)}
        if what == "example" and number < len(bench.examples):
            return bench.use_example(number) | {tabs: gr.update(selected=TAB)}
        return {notice: ""} if what == "dismiss" else {}

    def answer(change: Callable[..., dict[Any, Any]], *values: Any) -> dict[Any, Any]:
        try:
            return change(*values) or {asked: gr.skip()}
        except (JobRejected, ValueError) as problem:
            return {notice: show.problem(str(problem))}

    def on_open(request: gr.Request, browser: str, count: int, words: str, task: str, day: str, starred: bool):
        return answer(refresh, studio.owners.of_page(request, browser)[0], count, (words, task, day, starred))

    def on_sift(request: gr.Request, browser: str, words: str, task: str, day: str, starred: bool):
        found = answer(find, studio.owners.of_page(request, browser)[0], PAGE, (words, task, day, starred))
        return {asked: PAGE} | found

    def on_click(
        request: gr.Request, event: gr.EventData,
        browser: str, count: int, words: str, task: str, day: str, starred: bool,
    ):  # fmt: skip
        said = event._data if isinstance(event._data, dict) else {}
        return answer(do, studio.owners.of_page(request, browser)[0], said, count, (words, task, day, starred))

    sent = dict.fromkeys([bench.easel.watched, bench.easel.stop, *(part for to in destinations for part in to.outputs)])
    mine = [gallery, notice, used, asked, *filters]
    tab.select(on_open, [token, asked, *filters], mine, **QUICK)
    gr.on(
        [search.change, task.input, day.input, favourites.input],
        on_sift,
        [token, *filters],
        [gallery, asked, notice],
        trigger_mode="always_last",
        **QUICK,
    )
    for place in (gallery, notice):
        place.click(on_click, [token, asked, *filters], [*mine, tabs, *sent], trigger_mode="multiple", **QUICK)
