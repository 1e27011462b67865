"""Jobs outlive the page: a second tab, another visitor, users who signed in; and the queue. Without a browser."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.fakes import FakeBackend
from tests.serving import launched
from tests.ui.harness import OpenPage, attributes, fake_studio, paint, slot, text_of, title_of

RUNNING, STOPPED, WAITING = ('data-kind="running"', 'data-kind="stopped"', 'data-kind="waiting"')


def start(page: OpenPage, prompt: str, steps: int = 1000) -> str:
    """Generate without waiting for the picture; return the job's id."""
    page.type(prompt=prompt, steps=steps, randomize_style=False)
    page.fire("generate", follow=False)
    return max(page.studio.context.engine.jobs(page.owner), key=lambda job: job.created).id


def rows(page: OpenPage) -> list[str]:
    """The captions in the queue, from the top."""
    return [text_of(row).split(" × ")[0] for row in re.findall(r'class="what"[^>]*>(.*?)</button>', page["queue"])]


def cancel_all(page: OpenPage) -> None:
    for job in page.studio.context.engine.jobs(page.owner):
        page.studio.context.engine.cancel(job.id, page.owner)


def test_a_second_tab_and_a_refresh_find_the_job_and_can_stop_it(studio, page, slow):
    start(page, "a cat")
    page.follow("stage", until=RUNNING)
    other = studio.open(page.browser_token, follow=False)
    assert other.setting("stop", "interactive") is True
    other.follow("stage", until=RUNNING)
    assert title_of(other["stage"]) == "a cat" and "of 1000" in other.text("stage")
    other.fire("stop")
    for tab in (other, page):
        tab.follow("stage", until=STOPPED)
        assert title_of(tab["stage"]) == "a cat"


def test_a_refresh_after_the_end_finds_the_picture(studio, page):
    paint(page, "a red apple", steps=24)
    again = studio.open(page.browser_token)
    assert 'data-kind="done"' in again["stage"] and slot(again["stage"], "steps") == "24"
    assert len([pick for pick in attributes(again["strip"], "data-pick") if pick.startswith("picture:")]) == 1


def test_another_visitor_sees_nothing_of_it(studio, page, slow):
    paint(page, "a walrus in a hat", steps=2)
    start(page, "a second walrus")
    page.follow("stage", until=RUNNING)
    stranger = studio.open()
    stranger.tick()
    assert "painting" in stranger.text("header")
    assert 'data-kind="example"' in stranger["stage"] and rows(stranger) == []
    stranger.fire("tab-library", "select")
    assert 'class="album empty"' in stranger["album"]
    assert "walrus" not in stranger.everything()
    for picture in page.pictures():  # not even by its id
        stranger.fire("stage", pick="to:inpaint", key=f"picture:{picture.id}")
        assert 'role="alert"' in stranger["message"]
        stranger.fire("album", act="delete", ids=[picture.id])
        assert picture in page.pictures()
    cancel_all(page)


def test_pictures_belong_to_the_user_who_signed_in(tmp_path):
    """Whatever browser they come from; to another user, and to who has not signed in, they are not there."""
    with fake_studio(tmp_path, FakeBackend) as studio:
        ann = studio.open(username="ann")
        paint(ann, "a red apple")
        again, bob = studio.open(username="ann"), studio.open(username="bob")
        assert 'data-kind="done"' in again["stage"] and title_of(again["stage"]).startswith("a red apple, ")
        bob.fire("tab-library", "select")
        assert 'class="album empty"' in bob["album"] and "picture:" not in bob["strip"]
        (path,) = (source for source in attributes(again["stage"], "src"))
        with launched(studio, auth=[("ann", "secret"), ("bob", "other")]) as url:
            with httpx.Client(base_url=url) as client:
                assert client.get(f"/{path}").status_code == 401
                assert client.post("/login", data={"username": "ann", "password": "wrong"}).status_code == 400
                assert client.post("/login", data={"username": "ann", "password": "secret"}).status_code == 200
                assert client.get(f"/{path}").headers["content-type"] == "image/png"


@pytest.fixture
def narrow(tmp_path):
    """A page where one job runs at a time."""
    backend = FakeBackend(delay=0.02)
    with fake_studio(tmp_path, lambda: backend, max_active=1) as studio:
        page = studio.open()
        yield page
        cancel_all(page)


def test_jobs_in_the_queue_wait_move_and_end(narrow):
    page = narrow
    jobs = {caption: start(page, caption) for caption in ("a red apple", "a cat", "a blue fish")}
    page.tick()
    assert rows(page) == ["a red apple", "a cat", "a blue fish"] and 'data-sight="busy"' in page["queue"]
    page.follow("stage", until=WAITING)
    assert title_of(page["stage"]) == "a blue fish"  # the page follows the newest
    assert "2nd in line" in page.text("queue") and "1 running, 2 waiting" in page.text("queue")
    assert "1 running, 2 waiting" in page.text("header")
    page.fire("queue", act="up", job=jobs["a blue fish"])
    assert rows(page) == ["a red apple", "a blue fish", "a cat"]
    page.fire("queue", act="cancel", job=jobs["a red apple"])
    page.follow("stage", until=RUNNING)
    page.tick()
    assert rows(page) == ["a blue fish", "a cat"]
    page.fire("queue", follow=False, act="show", job=jobs["a cat"])
    page.follow("stage", until=WAITING)
    page.fire("stop")  # what is shown, not what runs
    page.follow("stage", until=STOPPED)
    assert title_of(page["stage"]) == "a cat"
    page.tick()
    assert rows(page) == ["a blue fish"] and 'data-sight="busy"' in page["queue"]  # the stage shows another job
    page.fire("queue", follow=False, act="show", job=jobs["a blue fish"])
    page.follow("stage", until=RUNNING)
    page.tick()
    assert 'data-sight="quiet"' in page["queue"]
    page.fire("queue", act="cancel", job=jobs["a blue fish"])
    assert rows(page) == []


def test_a_job_that_waits_is_found_again_too(narrow):
    start(narrow, "a red apple")
    start(narrow, "a cat")
    again = narrow.studio.open(narrow.browser_token, follow=False)
    again.follow("stage", until=WAITING)
    assert title_of(again["stage"]) == "a cat" and rows(again) == ["a red apple", "a cat"]


def test_looking_at_something_else_leaves_the_job_alone(page, slow):
    id = start(page, "a tall giraffe")
    page.follow("stage", until=RUNNING)
    (stream,) = page.streams
    page.fire("strip", pick="example:2")
    example = page["stage"]
    assert 'data-kind="example"' in example and page.setting("stop", "interactive") is False
    page.drain(stream)  # what it still yields has no place on the stage any more
    assert page["stage"] == example
    page.tick()
    assert rows(page) == ["a tall giraffe"]
    page.fire("queue", follow=False, act="show", job=id)
    page.follow("stage", until=RUNNING)
    page.fire("stop")
    page.follow("stage", until=STOPPED)
