"""What owners find in the library, and what they may change."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from studio.engine.job import Job, JobRejected
from studio.engine.requests import TextToImage
from studio.library.store import Library
from tests.library.helpers import (
    INPAINT,
    ME,
    PAINT,
    UPSCALE,
    YOU,
    finish,
    list_files,
    make_picture,
    submit,
)


def test_owners_cannot_read_or_change_each_others_pictures(library):
    mine, yours = finish(library, INPAINT), finish(library, "a boat", YOU)
    waiting = submit(library, "a house")
    (first, second), (theirs,) = mine.pictures, yours.pictures

    def read_mine() -> tuple:
        return library.find_pictures(ME), library.get_usage(ME), library.find_ended_jobs(ME), library.count_days(ME)

    before = read_mine()
    assert library.find_pictures(YOU) == [theirs] and library.find_pictures("user:nobody") == []
    for id in (first.id, second.id):
        assert library.get_picture(YOU, id) is None
        assert library.load_trace(YOU, id) is None
        assert library.load_request(YOU, id) is None
        assert library.set_favourite(YOU, id, True) is False
        assert library.find_pictures(YOU, before=id) == []
    assert library.delete(YOU, [first.id, second.id]) == 0
    assert library.get_job(YOU, mine.id) is None and library.get_job(YOU, waiting.id) is None
    assert [record.id for record in library.find_ended_jobs(YOU)] == [yours.id]
    assert library.get_usage("user:nobody")[0] == 0 and library.count_days("user:nobody") == []
    with pytest.raises(JobRejected):
        library.journal.save_results(Job(waiting.resolved, YOU, id=waiting.id), [make_picture()], [None])
    assert read_mine() == before
    library.delete(ME, [first.id])
    assert library.undo_delete(YOU, [first.id]) == 0 and library.get_picture(ME, first.id) is None


def test_request_with_a_damaged_input_is_rejected(library):
    job = finish(library, INPAINT)
    next((library.folder / "inputs").glob("*.png")).write_bytes(b"no picture")
    with pytest.raises(JobRejected, match="The input pictures of this picture can no longer be read."):
        library.load_request(ME, job.pictures[0].id)


def test_missing_or_damaged_trace_is_none(library):
    first, second = finish(library, TextToImage("a cat", count=2)).pictures
    (library.folder / "traces" / f"{first.id}.safetensors").unlink()
    (library.folder / "traces" / f"{second.id}.safetensors").write_bytes(b"torn")
    assert library.load_trace(ME, first.id) is None and library.load_trace(ME, second.id) is None


PROMPTS = {"a Red Apple", "100% cat_face", 'it\'s a "cat"', "CAFÉ au lait", "ﬁne Straße"}


@pytest.fixture(scope="module")
def searchable(tmp_path_factory):
    """A library with one picture for each prompt."""
    library = Library(tmp_path_factory.mktemp("searchable"))
    for prompt in PROMPTS:
        finish(library, prompt, traced=False)
    yield library
    library.close()


@pytest.mark.parametrize(
    ("search", "prompts"),
    [
        ("", PROMPTS),
        ("apple red", {"a Red Apple"}),
        ("  RED   ", {"a Red Apple"}),
        ("red boat", set()),
        ("%", {"100% cat_face"}),
        ("_", {"100% cat_face"}),
        ("'", {'it\'s a "cat"'}),
        ('"cat"', {'it\'s a "cat"'}),
        ("cat", {"100% cat_face", 'it\'s a "cat"'}),
        ("café", {"CAFÉ au lait"}),
        ("cafe\u0301", {"CAFÉ au lait"}),
        ("FINE STRASSE", {"ﬁne Straße"}),
        ("\\", set()),
        ("\ud800", set()),
        ("a " * 5000, PROMPTS),
    ],
)
def test_search_requires_all_words_in_any_order(searchable, search, prompts):
    assert {picture.settings["prompt"] for picture in searchable.find_pictures(ME, search=search)} == prompts


def test_filters_combine(library):
    for request in (PAINT, INPAINT, UPSCALE):
        finish(library, request, traced=False)
    favourite = library.find_pictures(ME, task="inpaint")[0]
    assert library.set_favourite(ME, favourite.id, True) and library.get_picture(ME, favourite.id).favourite
    assert [picture.id for picture in library.find_pictures(ME, favourites=True)] == [favourite.id]
    tasks = [picture.settings["task"] for picture in library.find_pictures(ME, task="text-to-image")]
    assert tasks == ["text-to-image"] * 3
    assert len(library.find_pictures(ME, task="inpaint", search="cat")) == 2
    assert library.find_pictures(ME, task="inpaint", search="apple") == []
    assert library.find_pictures(ME, task="dance") == []
    assert library.set_favourite(ME, favourite.id, False) and library.find_pictures(ME, favourites=True) == []


def test_pages_cover_all_pictures_once(library):
    for number in range(7):
        finish(library, TextToImage("a cat", count=2, seed=number), traced=False)
    everything, pages, before = library.find_pictures(ME), [], None
    while page := library.find_pictures(ME, limit=4, before=before):
        assert len(page) <= 4
        pages += page
        before = page[-1].id
    assert pages == everything and len(everything) == 14
    assert library.find_pictures(ME, limit=-5) == everything[:1]
    assert library.find_pictures(ME, before="no such picture") == []


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_days_are_local_across_daylight_saving(library, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        moments = [
            datetime(2026, 3, 7, 23, 59),
            datetime(2026, 3, 8, 0, 0),  # 23 hours in New York
            datetime(2026, 3, 8, 23, 59),
            datetime(2026, 3, 9, 0, 0),
            datetime(2026, 11, 1, 1, 30),  # 25 hours there
            datetime(2026, 11, 1, 23, 30),
        ]
        for moment in moments:
            monkeypatch.setattr(time, "time", moment.timestamp)
            finish(library, f"at {moment}", traced=False)
        counts = [("2026-11-01", 2), ("2026-03-09", 1), ("2026-03-08", 2), ("2026-03-07", 1)]
        assert library.count_days(ME) == counts
        for day, count in counts:
            assert len(library.find_pictures(ME, day=day)) == count
        assert library.find_pictures(ME, day="2026-03-10") == []
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("day", ["", "yesterday", "2026-02-30", "9999-12-31", "2026-03-08'; --"])
def test_invalid_days_are_refused(library, day):
    with pytest.raises(ValueError, match="The day must be a date such as 2026-11-21; it was"):
        library.find_pictures(ME, day=day)


def test_deleted_picture_is_hidden_and_can_be_restored(library):
    job = finish(library, PAINT)
    deleted, visible, _ = job.pictures
    everything, files = library.find_pictures(ME), list_files(library)
    assert library.delete(ME, [deleted.id, deleted.id, "no such picture"]) == 1
    assert library.delete(ME, [deleted.id]) == 0
    assert (
        deleted.id not in {picture.id for picture in library.find_pictures(ME)} and len(library.find_pictures(ME)) == 2
    )
    assert library.get_picture(ME, deleted.id) is None and library.load_trace(ME, deleted.id) is None
    assert library.set_favourite(ME, deleted.id, True) is False
    assert library.get_job(ME, job.id).pictures == job.pictures[1:]
    assert library.count_days(ME)[0][1] == 2
    library.purge()
    assert list_files(library) == files
    assert library.undo_delete(ME, [deleted.id, visible.id]) == 1
    assert library.find_pictures(ME) == everything
