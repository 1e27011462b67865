"""The library tab in a real browser."""

from __future__ import annotations

import io

import pytest

from studio.library.metadata import read_png_settings
from tests.ui.conftest import generate, open_tab, set_steps
from tests.ui.test_page import LOW_CONTRAST


@pytest.fixture
def library(studio_url, open_page):
    """A visitor with four pictures, newest first: two red apples, a cat and a fish."""

    def open_(**options):
        page = open_page(studio_url, **options)
        set_steps(page, 2)
        page.uncheck("#randomize-style input")  # so that the words looked for are these alone
        generate(page, "a blue fish")
        generate(page, "a cat")
        page.click("#count label:has-text('2')")
        generate(page, "a red apple")
        open_tab(page, "Library")
        page.wait_for_selector(".piece >> nth=3")
        return page

    return open_


def names(page) -> list[str]:
    return [button.get_attribute("title") for button in page.locator(".piece .open").all()]


def wait_for_pieces(page, count: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('.piece').length === {count}")


def test_an_empty_library_says_how_pictures_come_and_offers_some(studio_url, open_page):
    page = open_page(studio_url)
    open_tab(page, "Library")
    page.wait_for_selector("#album .empty:has-text('Your pictures will be here')")
    assert not page.is_visible("#filters")
    page.click("#album .small >> nth=1")
    page.wait_for_selector(".stage[data-kind=example]:visible")
    page.wait_for_function("document.querySelector('#prompt textarea').value !== ''")


def test_search_task_day_and_favourites(library):
    page = library()
    assert names(page) == ["a red apple"] * 2 + ["a cat", "a blue fish"]
    assert page.inner_text(".day h3") == "Today" and "of 1 GB used" in page.inner_text("#usage")
    page.fill("#search input", "RED")
    wait_for_pieces(page, 2)
    page.fill("#search input", "zebra")
    page.click("text=Show all pictures")
    wait_for_pieces(page, 4)
    assert page.input_value("#search input") == ""
    page.hover(".piece >> nth=2")
    page.click(".piece >> nth=2 >> .star")
    page.wait_for_selector(".piece >> nth=2 >> .star[aria-pressed=true]")
    page.check("#favourites input")
    wait_for_pieces(page, 1)
    assert names(page) == ["a cat"]
    page.click(".piece .star")  # which takes it out of what is asked for
    page.wait_for_selector("text=No pictures match.")
    page.uncheck("#favourites input")
    wait_for_pieces(page, 4)
    page.click("#task input")
    page.click("[role=option]:has-text('Text to image')")
    page.click("#day input")
    page.click("[role=option]:has-text('Today (4)')")
    wait_for_pieces(page, 4)


def test_what_is_deleted_can_be_brought_back(library):
    page = library()
    for index in (0, 3):
        page.hover(f".piece >> nth={index}")
        page.click(f".piece >> nth={index} >> .pick")
    assert page.inner_text("#chosen p") == "2 selected"
    page.click("#chosen [data-do=delete]")
    wait_for_pieces(page, 2)
    assert page.inner_text("#notice [role=status] span") == "2 pictures deleted."
    assert not page.is_visible("#chosen")
    page.click("#notice [data-act=undo]")
    wait_for_pieces(page, 4)
    assert names(page) == ["a red apple"] * 2 + ["a cat", "a blue fish"]
    assert not page.is_visible("#notice .notice")


def test_the_keyboard_moves_chooses_opens_and_deletes(library):
    page = library()
    page.focus(".piece .open[tabindex='0']")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    assert page.inner_text("#viewer .title") == "a cat"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer .title") == "a blue fish" and page.is_disabled("#viewer [data-do=older]")
    page.keyboard.press("f")
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    assert page.evaluate("document.activeElement.title") == "a blue fish"
    page.wait_for_selector(".piece >> nth=3 >> .star[aria-pressed=true]")
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text("#chosen p") == "2 selected"
    page.keyboard.press("Delete")
    wait_for_pieces(page, 2)
    page.wait_for_function("document.activeElement.title === 'a cat'")  # the next one
    page.keyboard.press("Delete")
    wait_for_pieces(page, 1)
    page.wait_for_selector("#notice span:text-is('3 pictures deleted.')")
    page.click("#notice [data-act=undo]")
    wait_for_pieces(page, 4)


def test_a_picture_opens_and_sends_its_settings(library):
    page = library()
    page.click(".piece >> nth=1 >> .open")
    seed = page.inner_text("#viewer [data-slot=seed]")
    with page.expect_download() as wait:
        page.click("#viewer >> text=Download PNG")
    assert read_png_settings(io.BytesIO(wait.value.path().read_bytes()))["seed"] == int(seed)
    page.click("#viewer >> text=Use these settings")
    page.wait_for_selector("#generate:visible")
    assert not page.is_visible("#viewer")
    assert page.input_value("#prompt textarea") == "a red apple" and page.input_value("#seed input") == seed
    assert page.input_value("#steps input") == "2" and not page.is_checked("#randomize input")


def test_many_pictures_come_by_the_page(studio_url, open_page):
    page = open_page(studio_url)
    set_steps(page, 1)
    page.uncheck("#randomize-style input")
    page.click("#count label:has-text('9')")
    for number in range(8):
        generate(page, f"a cat and {number} fish")
    open_tab(page, "Library")
    wait_for_pieces(page, 60)
    page.click("[data-act=more]")
    wait_for_pieces(page, 72)
    assert page.locator("[data-act=more]").count() == 0
    page.focus(".piece .open[tabindex='0']")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.title") in ("a cat and 7 fish", "a cat and 6 fish")
    assert page.evaluate("document.activeElement.closest('.piece').previousElementSibling !== null")


@pytest.mark.parametrize("shade", ["light", "dark"])
def test_at_390_pixels_nothing_sticks_out_and_all_can_be_read(library, shade):
    page = library(width=390, height=844, color_scheme=shade, has_touch=True)
    assert page.evaluate(LOW_CONTRAST) == []
    page.click(".piece >> nth=0 >> .pick")
    page.click("#chosen [data-do=delete]")
    page.wait_for_selector("#notice .notice")
    page.click(".piece >> nth=0 >> .open")
    page.wait_for_selector("#viewer[open]")
    assert page.evaluate(LOW_CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= 390
