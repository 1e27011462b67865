"""The tab "Library" without a browser: what its filters and buttons answer."""

from __future__ import annotations

import re

import pytest

from studio.library.metadata import read_png_settings
from tests.ui.harness import OpenPage, attributes, paint, text_of

ALL = ["a red apple", "a red apple", "a cat", "a blue fish"]


def open_library(page: OpenPage) -> None:
    page.fire("tab-library", "select")


def names(page: OpenPage) -> list[str]:
    return re.findall(r'class="open" title="(.*?)"', page["album"])


def ids(page: OpenPage) -> list[str]:
    return attributes(page["album"], "data-id")


@pytest.fixture
def library(page) -> OpenPage:
    """A visitor with four pictures, newest first: two red apples, a cat and a fish."""
    page.type(steps=2, randomize_style=False)
    paint(page, "a blue fish")
    paint(page, "a cat")
    paint(page, "a red apple", count=2)
    open_library(page)
    return page


def test_an_empty_library_says_how_pictures_come_and_offers_some(page):
    open_library(page)
    assert "Your pictures will be here" in page.text("album") and page["usage"] == ""
    page.fire("album", act="example", number="1")
    assert page.setting("tabs", "selected") == "text-to-image"
    assert 'data-kind="example"' in page["stage"] and page["prompt"]


def test_search_task_day_and_favourites(library):
    assert names(library) == ALL
    assert text_of(re.findall(r"<h3>.*?</h3>", library["album"])[0]) == "Today"
    assert "of 1 GB used" in library.text("usage")
    library.type(search="RED")
    assert names(library) == ["a red apple"] * 2
    library.type(search="zebra")
    assert names(library) == [] and 'data-act="clear"' in library["album"]
    library.fire("album", act="clear")
    assert names(library) == ALL and library["search"] == ""
    cat = ids(library)[2]
    library.fire("album", act="star", ids=[cat], on=True)
    library.type(favourites=True)
    assert names(library) == ["a cat"]
    library.fire("album", act="star", ids=[cat], on=False)  # which takes it out of what is searched for
    assert names(library) == []
    library.type(favourites=False)
    tasks, days = (library.setting(name, "choices") for name in ("task", "day"))
    assert [value for _, value in tasks] == ["", "text-to-image"] and days[1][0] == "Today (4)"
    library.type(task="text-to-image", day=days[1][1])
    assert names(library) == ALL


def test_deleted_pictures_can_be_restored(library):
    first, *_, last = ids(library)
    library.fire("album", act="delete", ids=[first], before=[])
    assert "1 picture deleted." in library.text("notice")
    library.fire("album", act="delete", ids=[last], before=[first])
    assert len(names(library)) == 2 and "2 pictures deleted." in library.text("notice")
    (undo,) = attributes(library["notice"], "data-ids")
    library.fire("notice", act="undo", ids=undo.split())
    assert names(library) == ALL and library["notice"] == ""


def test_a_picture_sends_its_settings_and_itself_to_the_tabs(library):
    apple = ids(library)[1]
    targets = dict(re.findall(r'data-act="send" data-to="(\d)">(.*?)<', library["album"].split('class="piece"')[2]))
    by_label = {label: number for number, label in targets.items()}
    picture = library.pictures()[1]
    library.fire("album", act="send", ids=[apple], number=by_label["Use these settings"])
    assert library.setting("tabs", "selected") == "text-to-image"
    assert (
        library["prompt"] == "a red apple"
        and library["seed"] == picture.seed == read_png_settings(picture.path)["seed"]
    )
    assert library["steps"] == 2 and library["randomize"] is False
    library.fire("album", act="send", ids=[apple], number=by_label["Open in Inpaint"])
    assert library.setting("tabs", "selected") == "inpaint" and "64 × 64 px" in library.text("inpaint-editor")
    library.fire("album", act="send", ids=[apple], number=by_label["Open in Super-resolution"])
    assert "64 × 64 px" in library.text("super-resolution-small")
    library.fire("album", act="send", ids=[apple], number=by_label["See how it was made"])
    assert library.setting("tabs", "selected") == "noise"
    library.fire("album", act="send", ids=["nothing"], number=0)
    assert 'role="alert"' in library["notice"]


def test_many_pictures_come_by_the_page(page):
    page.type(steps=1, randomize_style=False, count=9)
    for number in range(8):
        paint(page, f"a cat and {number} fish")
    open_library(page)
    assert len(names(page)) == 60 and 'data-act="more"' in page["album"]
    page.fire("album", act="more")
    assert len(names(page)) == 72 and 'data-act="more"' not in page["album"]
