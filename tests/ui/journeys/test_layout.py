"""How the page looks in a real browser: one column on a telephone, light and dark, contrast."""

from __future__ import annotations

import re

from tests.ui.journeys.visitor import LOW_CONTRAST, generate, open_tab, set_shade


def background(page) -> int:
    colour = page.evaluate("getComputedStyle(document.querySelector('gradio-app')).backgroundColor")
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3])


def assert_readable(page) -> None:
    """In light and dark, every text in sight has the contrast of WCAG AA."""
    for shade in ("light", "dark"):
        set_shade(page, shade)
        assert page.evaluate(LOW_CONTRAST) == [], shade


def assert_narrow(page, *parts: str) -> None:
    """Nothing sticks out of 390 px, and the parts are in sight, one below the other."""
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    boxes = [page.locator(part).bounding_box() for part in parts]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)


def unfold_all(page) -> None:
    for button in page.query_selector_all("[data-fold][aria-expanded=false]:visible"):
        button.click()


def test_light_and_dark_follow_the_system_and_the_button(studio_url, open_page):
    page = open_page(studio_url)
    assert background(page) > 700
    page.fill("#prompt textarea", "a red castle")
    page.wait_for_selector("#hints .chip")
    unfold_all(page)
    page.wait_for_selector("#seed:visible")
    assert_readable(page)
    assert background(page) < 100  # dark, as the system
    page.click("[data-shade]")
    assert background(page) > 700
    page.reload()
    page.wait_for_selector("#prompt textarea")
    page.wait_for_function("!document.body.classList.contains('dark')")
    assert background(page) > 700
    page.evaluate("location.hash = '#noise?view=forward&t=300'")  # a link to a view opens its tab
    page.wait_for_selector("role=tab[name='Noise'][selected]")


def test_a_telephone_shows_one_column_without_sideways_scroll(studio_url, open_page):
    page = open_page(studio_url, 390, 844, has_touch=True)
    page.click("#count label:has-text('9')")
    generate(page, "W" * 300 + " castle zeppelin")
    unfold_all(page)
    page.wait_for_selector("#seed:visible")
    assert_narrow(page, "#controls", "#stage", "#strip", "#vocabulary")
    assert_readable(page)
    open_tab(page, "Inpaint")
    page.wait_for_selector("#inpaint-editor .board[data-ready=yes]")
    unfold_all(page)
    assert_narrow(page, ".board")
    assert_readable(page)
    open_tab(page, "Super-resolution")
    page.wait_for_selector("#super-resolution-small img")
    unfold_all(page)
    assert_narrow(page, "#super-resolution-small")
    assert_readable(page)
    open_tab(page, "Library")
    page.wait_for_selector(".piece >> nth=8")
    assert_readable(page)
    page.click(".piece >> nth=0 >> .pick")
    page.click("#chosen [data-do=delete]")
    page.wait_for_selector("#notice .notice")
    page.click(".piece >> nth=0 >> .open")
    page.wait_for_selector("#viewer[open]")
    assert_narrow(page, "#viewer")
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= 390
    assert_readable(page)
