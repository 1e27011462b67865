"""The tab "Library" in a real browser: looking, choosing and deleting, with the mouse and with keys alone."""

from __future__ import annotations

import io

from studio.engine.requests import TextToImage
from studio.library.metadata import read_png_settings
from tests.ui.journeys.visitor import download, open_tab

NEWEST = ["a red apple", "a red apple", "a cat", "a blue fish"]


def names(page) -> list[str]:
    return [button.get_attribute("title") for button in page.locator(".piece .open").all()]


def wait_for_pieces(page, count: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('.piece').length === {count}")


def pick(page, *indices: int) -> None:
    for index in indices:
        page.hover(f".piece >> nth={index}")
        page.click(f".piece >> nth={index} >> .pick")


def paint(studio, owner: str, prompt: str, count: int = 1) -> None:
    """Put pictures into an owner's library."""
    request = TextToImage(prompt, count=count, steps=2, seed=3)
    *_, last = studio.context.engine.follow(studio.context.engine.submit(request, owner), owner)
    assert last.state == "done"


def test_many_pictures_with_mouse_and_keys(studio_url, open_page):
    page = open_page(studio_url)
    open_tab(page, "Library")
    page.wait_for_selector("#album .empty")
    assert not page.is_visible("#filters")
    studio = studio_url.studio
    owner = studio.last_owner
    for number in range(8):
        paint(studio, owner, f"a cat and {number} fish", count=9)
    for prompt, count in (("a blue fish", 1), ("a cat", 1), ("a red apple", 2)):
        paint(studio, owner, prompt, count)
    open_tab(page, "Text to image")
    open_tab(page, "Library")
    wait_for_pieces(page, 60)  # they come by the page
    page.click("[data-act=more]")
    wait_for_pieces(page, 76)
    assert page.locator("[data-act=more]").count() == 0 and names(page)[:4] == NEWEST
    # Down is the next row.
    page.focus(".piece .open[tabindex='0']")
    page.keyboard.press("ArrowDown")
    first, second = page.evaluate(
        """() => [document.querySelector(".piece"), document.activeElement.closest(".piece")]
        .map((piece) => piece.getBoundingClientRect()).map((box) => [box.left, box.top])"""
    )
    assert abs(first[0] - second[0]) < 4 and second[1] > first[1] + 4
    # Search, and a favourite.
    page.fill("#search input", "RED")
    wait_for_pieces(page, 2)
    page.fill("#search input", "zebra")
    page.click("[data-act=clear]")
    wait_for_pieces(page, 60)
    assert page.input_value("#search input") == ""
    page.hover(".piece >> nth=2")
    page.click(".piece >> nth=2 >> .star")
    page.wait_for_selector(".piece >> nth=2 >> .star[aria-pressed=true]")
    page.check("#favourites input")
    wait_for_pieces(page, 1)
    page.click(".piece .star")  # which takes it out of what is searched for
    page.wait_for_selector("#album .none")
    page.uncheck("#favourites input")
    wait_for_pieces(page, 60)
    # What is deleted can be brought back.
    pick(page, 0, 3)
    assert page.inner_text("#chosen p") == "2 selected"
    page.click("#chosen [data-do=delete]")
    page.wait_for_selector("#notice [role=status] span:text-is('2 pictures deleted.')")
    assert names(page)[:2] == ["a red apple", "a cat"] and not page.is_visible("#chosen")
    page.click("#notice [data-act=undo]")
    page.wait_for_selector("#notice .notice", state="detached")
    assert names(page)[:4] == NEWEST
    # Keys alone move, choose, open, mark and delete.
    page.fill("#search input", "a")  # all, the newest first in sight
    page.fill("#search input", "")
    page.focus(".piece .open[tabindex='0']")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    assert page.inner_text("#viewer .title") == "a cat"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer .title") == "a blue fish"
    page.keyboard.press("f")
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    assert page.evaluate("document.activeElement.title") == "a blue fish"
    page.wait_for_selector(".piece >> nth=3 >> .star[aria-pressed=true]")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    assert page.is_disabled("#viewer [data-do=older]")  # the last one in sight
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text("#chosen p") == "2 selected"
    page.keyboard.press("Delete")
    page.wait_for_selector("#notice span:text-is('2 pictures deleted.')")
    page.wait_for_function("document.activeElement.title === 'a cat'")  # the next one
    page.keyboard.press("Delete")
    page.wait_for_selector("#notice span:text-is('3 pictures deleted.')")
    page.click("#notice [data-act=undo]")
    page.wait_for_selector("#notice .notice", state="detached")
    assert names(page)[:4] == NEWEST
    # A picture opens and sends its settings.
    page.click(".piece >> nth=1 >> .open")
    seed = page.inner_text("#viewer [data-slot=seed]")
    assert read_png_settings(io.BytesIO(download(page, "#viewer")))["seed"] == int(seed)
    page.click("#viewer [data-act=send] >> nth=0")
    page.wait_for_selector("#generate:visible")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a red apple'")
    assert not page.is_visible("#viewer") and page.input_value("#seed input") == seed
    assert page.input_value("#steps input") == "2" and not page.is_checked("#randomize input")
