"""The tab "Super-resolution" without a browser: what its buttons answer."""

from __future__ import annotations

from PIL import Image

from tests.ui.harness import OpenPage, attributes, drawing, photograph, png, title_of

TAB = "super-resolution"


def open_picture(page: OpenPage, picture: Image.Image) -> None:
    page.upload(f"{TAB}-open", png(picture))
    assert f"{picture.width} × {picture.height} px" in page.text(f"{TAB}-small")


def run(page: OpenPage) -> Image.Image:
    """Press the button; return the newest result."""
    page.fire(f"{TAB}-generate")
    assert 'data-kind="done"' in page[f"{TAB}-stage"], page[f"{TAB}-message"]
    (picture,) = page.pictures(limit=1)
    with Image.open(picture.path) as result:
        return result.copy()


def assert_alert(page: OpenPage, sentence: str) -> None:
    page.fire(f"{TAB}-generate")
    assert 'role="alert"' in page[f"{TAB}-message"] and sentence in page.text(f"{TAB}-message")


def test_a_new_page_shows_an_example_and_its_result(page):
    assert 'class="after"' in page[f"{TAB}-stage"] and "<img" in page[f"{TAB}-small"]
    assert "px, about " in page.text(f"{TAB}-expected")


def test_a_small_picture_becomes_large(studio, page):
    picture = drawing((24, 16), "RGBA")
    picture.putalpha(128)
    open_picture(page, picture)
    page.type(super_resolution_way="x4")
    assert "96 × 64 px, about " in page.text(f"{TAB}-expected")
    assert run(page).size == (96, 64)
    stage = page[f"{TAB}-stage"]
    key = attributes(stage, "data-key")[0]
    assert '<span class="tag">Before</span>' in stage
    page.fire(f"{TAB}-stage", pick="lanczos", key=key)
    assert '<span class="tag">Lanczos</span>' in page[f"{TAB}-stage"]
    page.fire(f"{TAB}-stage", pick="before", key=key)
    assert '<span class="tag">Before</span>' in page[f"{TAB}-stage"]
    page.type(super_resolution_way="size")
    page.type(super_resolution_width=999)
    assert page.setting(f"{TAB}-size", "visible") is True
    assert_alert(page, "The target width may be at most 4 times the picture's, 96 px; it was 999.")
    page.upload(f"{TAB}-open", b"GIF89a", "x.gif")
    assert "x.gif is damaged or is not a picture" in page.text(f"{TAB}-message")
    again = studio.open(page.browser_token)  # a refresh
    assert "24 × 16 px" in again.text(f"{TAB}-small") and 'data-kind="done"' in again[f"{TAB}-stage"]


def test_noise_is_removed(page):
    open_picture(page, photograph())
    assert "This looks like a photograph." in page.text(f"{TAB}-small")
    page.type(super_resolution_way="noise")
    assert page.setting(f"{TAB}-noise", "visible") is True and page.setting(f"{TAB}-creativity", "visible") == "hidden"
    measured = page.text(f"{TAB}-expected")
    page.type(super_resolution_sigma="loud")
    assert_alert(page, "The noise must be a number above 0 and at most 100")
    page.type(super_resolution_sigma="")
    assert page.text(f"{TAB}-expected") == measured and "96 × 96 px" in measured and "noise" in measured.lower()
    run(page)
    (picture,) = page.pictures(limit=1)
    assert picture.settings["task"] == "denoise" and "oise" in title_of(page[f"{TAB}-stage"])


def test_a_picture_that_another_tab_has_changed_is_not_worked_on_unseen(studio, page):
    open_picture(page, drawing((24, 16)))
    other = studio.open(page.browser_token)
    open_picture(other, drawing((16, 24)))
    assert_alert(page, "The picture was changed in another tab")
    assert run(other).size == (32, 48)


def test_a_picture_goes_from_tab_to_tab(studio, page):
    page.type(prompt="a red apple")
    page.fire("generate")
    key = attributes(page["stage"], "data-key")[0]
    page.fire("stage", pick="to:super-resolution", key=key)
    assert page.setting("tabs", "selected") == TAB and "64 × 64 px" in page.text(f"{TAB}-small")
    page.fire("stage", pick="to:inpaint", key=key)
    assert page.setting("tabs", "selected") == "inpaint"
    assert attributes(page["inpaint-editor"], "data-width") == ["64"]
