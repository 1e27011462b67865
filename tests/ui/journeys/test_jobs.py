"""Jobs in a real browser: one that outlives its page, the queue, a restart of the studio."""

from __future__ import annotations

import signal

from tests.serving import free_port, serving_fake
from tests.ui.journeys.visitor import DONE, RUNNING, open_tab, start, stop


def rows(page) -> list[str]:
    """The captions in the queue, from the top."""
    return [row.split(" × ")[0] for row in page.locator("#queue .what").all_inner_texts()]


def wait_for_rows(page, *captions: str) -> None:
    page.wait_for_function(
        """captions => [...document.querySelectorAll("#queue .what")].map((row) => row.innerText.trim()).join()
        === captions""",
        arg=",".join(captions),
    )


def act(page, what: str, caption: str) -> None:
    page.click(f"#queue li:has(.what:text-is('{caption}')) [data-act={what}]")


def test_a_job_outlives_its_page(studio_url, open_page):
    page = open_page(studio_url)
    start(page, "a tall giraffe", 1000)
    page.wait_for_selector(RUNNING)
    page.reload()
    page.wait_for_selector(f"{RUNNING}:has-text('of 1000')")
    assert page.is_enabled("#stop") and page.inner_text("#stage .title") == "a tall giraffe"
    # Looking at something else leaves the job alone.
    page.click("#strip [data-pick='example:2']")
    page.wait_for_selector("#stage .stage[data-kind=example]")
    assert page.is_disabled("#stop")
    wait_for_rows(page, "a tall giraffe")
    share = page.eval_on_selector("#queue progress", "bar => bar.value")
    page.wait_for_function(f"document.querySelector('#queue progress').value > {share}")
    assert page.is_visible("#stage .stage[data-kind=example]")
    act(page, "show", "a tall giraffe")
    page.wait_for_selector(RUNNING)
    # A second tab sees the same, and what it does.
    other = open_page(studio_url, context=page.context)
    other.wait_for_selector(f"{RUNNING}:has-text('of 1000')")
    stop(other)
    page.wait_for_selector("#stage .stage[data-kind=stopped] .title:text-is('a tall giraffe')")


def test_the_queue(narrow_url, open_page):
    page = open_page(narrow_url)
    assert not page.is_visible("#queue .tray")
    for caption in ("a red apple", "a cat", "a blue fish"):
        start(page, caption, 1000)
    wait_for_rows(page, "a red apple", "a cat", "a blue fish")
    page.wait_for_selector("#queue .tray:visible")
    page.reload()  # what waits is found again, too
    page.wait_for_selector("#stage .stage[data-kind=waiting] .title:text-is('a blue fish')")
    wait_for_rows(page, "a red apple", "a cat", "a blue fish")
    act(page, "up", "a blue fish")
    wait_for_rows(page, "a red apple", "a blue fish", "a cat")
    act(page, "cancel", "a red apple")
    page.wait_for_selector(f"{RUNNING} .title:text-is('a blue fish')")
    act(page, "show", "a cat")
    page.wait_for_selector("#stage .stage[data-kind=waiting] .title:text-is('a cat')")
    stop(page)  # what is shown, not what runs
    wait_for_rows(page, "a blue fish")
    assert page.is_visible("#queue .tray")  # a job is running that the stage does not show
    act(page, "show", "a blue fish")
    page.wait_for_selector(f"{RUNNING} .title:text-is('a blue fish')")
    page.wait_for_selector("#queue .tray", state="hidden")
    page.click("[data-tray=toggle]")
    act(page, "cancel", "a blue fish")
    page.wait_for_selector("#queue .none:visible")
    page.click("[data-tray=fold]")
    assert not page.is_visible("#queue .tray")


def test_a_restart_in_mid_run_is_survived_by_the_job_and_the_page(tmp_path, open_page):
    port = free_port()
    with serving_fake(tmp_path, port=port, end=signal.SIGINT) as url:
        page = open_page(url)
        start(page, "a green pear", 120)
        page.wait_for_selector(f"{RUNNING}:has-text('Step')")
        page.evaluate("window.before = true")
    gate = tmp_path / "gate"
    with serving_fake(tmp_path, "--gate", str(gate), port=port):
        page.wait_for_function("!window.before")  # Gradio loads the page again as soon as there is a server
        page.wait_for_selector("#stage .title:text-is('a green pear')")  # before the model is loaded
        gate.touch()
        page.wait_for_selector(f"{RUNNING}:has-text('of 120')")
        page.wait_for_selector(DONE)
        assert page.inner_text("#stage .title").startswith("a green pear, ")
        open_tab(page, "Library")
        page.wait_for_selector(".piece")
        assert page.locator(".piece").count() == 1
