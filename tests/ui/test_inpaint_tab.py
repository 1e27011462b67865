"""The tab "Inpaint" without a browser: what its buttons answer."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.serving import ROOT
from tests.ui.harness import OpenPage, attributes, drawing, painted_mask, photograph, png

INPAINT_EXAMPLE = ROOT / "assets" / "examples" / "inpaint"


def board(page: OpenPage) -> tuple[int, int]:
    """The size of the picture in the editor."""
    (width,), (height,) = (attributes(page["inpaint-editor"], f"data-{side}") for side in ("width", "height"))
    return int(width), int(height)


def mask_of(page: OpenPage) -> np.ndarray:
    """The mask that the server has, 0 to 255."""
    (url,) = attributes(page["inpaint-editor"], "data-mask")
    if not url:
        return np.zeros(board(page)[::-1])
    with Image.open(url.partition("file=")[2].partition("?")[0]) as mask:
        return np.asarray(mask.convert("L"))


def open_picture(page: OpenPage, picture: Image.Image, name: str = "picture.png") -> None:
    page.upload("inpaint-open", png(picture), name)
    assert board(page) == picture.size


def paint_square(page: OpenPage, box: tuple[int, int, int, int]) -> None:
    """Paint a box of the picture over, as the editor would send it."""
    mask = Image.new("L", board(page))
    mask.paste(255, box)
    page["inpaint-strokes"] = painted_mask(page, mask)
    page.fire("inpaint-editor", "paint")
    assert 'role="alert"' not in page["inpaint-message"]


def fill(page: OpenPage, prompt: str = "") -> Image.Image:
    """Press Fill; return the newest result."""
    page.type(inpaint_prompt=prompt)
    page.fire("inpaint-generate")
    assert 'data-kind="done"' in page["inpaint-stage"], page["inpaint-message"]
    (picture,) = page.pictures(task="inpaint", limit=1)
    with Image.open(picture.path) as result:
        return result.convert("RGB")


def assert_alert(page: OpenPage, sentence: str) -> None:
    assert 'role="alert"' in page["inpaint-message"] and sentence in page.text("inpaint-message")


def test_a_new_page_shows_a_masked_example_and_its_result(page):
    with Image.open(INPAINT_EXAMPLE / "mask.png") as mask:
        outside = int((np.asarray(mask) < 128).sum())
    assert f"0 of {outside:,} pixels outside the mask changed." in page.text("inpaint-stage")
    assert 'class="after"' in page["inpaint-stage"] and 0 < mask_of(page).mean() < 230


def test_nothing_outside_the_mask_changes(page):
    picture = drawing((96, 72))
    open_picture(page, picture)
    assert not mask_of(page).any()
    paint_square(page, (50, 30, 80, 60))
    changed = (np.asarray(fill(page, "a red apple")) != np.asarray(picture)).any(-1)
    rows, columns = np.nonzero(changed)
    assert changed.mean() > 0.05 and (rows.min(), columns.min()) >= (30, 50) and (rows.max(), columns.max()) < (60, 80)
    assert f"0 of {96 * 72 - 30 * 30:,} pixels outside the mask changed." in page.text("inpaint-stage")


def test_without_a_mask_there_is_nothing_to_fill(page):
    open_picture(page, drawing())
    page.fire("inpaint-generate")
    assert 'role="alert"' in page["inpaint-message"]
    assert page.pictures() == []


def test_a_picture_that_another_tab_has_changed_is_not_worked_on_unseen(studio, page):
    open_picture(page, drawing())
    paint_square(page, (20, 20, 60, 60))
    other = studio.open(page.browser_token)
    open_picture(other, drawing((50, 40)))
    page.fire("inpaint-generate")
    assert_alert(page, "The picture was changed in another tab of the browser; load this page again to see it.")


@pytest.mark.parametrize(
    "message", ["{", json.dumps({"mask": "data:,%%", "key": ""}), json.dumps({"mask": 3}), json.dumps([1])]
)
def test_a_mask_that_did_not_arrive_whole_is_a_sentence(page, message):
    page["inpaint-strokes"] = message
    page.fire("inpaint-editor", "paint")
    assert_alert(page, "The mask did not arrive whole; please paint it again.")


def test_bad_files_leave_picture_and_mask_as_they_were(studio, page):
    open_picture(page, drawing((40, 30)))
    paint_square(page, (12, 12, 28, 20))
    for content, sentence in [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x.png is damaged or is not a picture"),
        (b"<html><script>alert(1)</script></html>", "x.png is damaged or is not a picture"),
        (png(photograph())[:2000], "x.png is damaged or is not a picture"),
        (b"", "x.png is damaged or is not a picture"),
        (png(Image.new("1", (5000, 4000))), "x.png has 5000 x 4000 px"),
    ]:
        page.upload("inpaint-open", content, "x.png")
        assert_alert(page, sentence)
    page.upload("inpaint-load", png(Image.new("L", (10, 10), 255)), "mask.png")
    assert_alert(page, "The mask is 10 x 10 px and the picture 40 x 30 px; both must be of one size.")
    again = studio.open(page.browser_token)  # a refresh
    assert board(again) == (40, 30) and (mask_of(again) > 127).sum() == 16 * 8


def test_pictures_of_other_kinds_open_and_the_one_before_comes_back(page):
    animation = [drawing((9, 9)), drawing((9, 9)).rotate(90)]
    page.upload("inpaint-open", png(animation[0], "GIF", save_all=True, append_images=animation[1:]), "x.gif")
    assert "x.gif is animated: its first picture was taken." in page.text("inpaint-message")
    page.upload("inpaint-open", png(Image.new("RGB", (1, 1))), "dot.png")
    assert board(page) == (1, 1)
    page.fire("inpaint-back")
    assert board(page) == (9, 9)


def test_a_mask_from_a_file_and_its_numbers(page):
    open_picture(page, drawing((40, 30)))
    mask = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    mask.paste((9, 9, 9, 255), (10, 10, 20, 20))  # of a transparent mask, what is opaque
    page.upload("inpaint-load", png(mask), "mask.png")
    assert (mask_of(page) > 127).sum() == 100
    page.type(inpaint_grow=300)
    page.fire("inpaint-generate")
    assert_alert(page, "whole number from -256 to 256; it was 300.")
    page.type(inpaint_grow=1, inpaint_invert=True)
    assert fill(page).size == (40, 30)
    (kept,) = page.pictures()
    assert (kept.settings["grow"], kept.settings["invert"]) == (1, True)


def test_the_canvas_grows_and_the_new_area_is_selected(page):
    picture = drawing((40, 30))
    open_picture(page, picture)
    for length, sentence in (
        ("half", "A length must be whole pixels or a percentage"),
        ("99999999", "The larger canvas has 100000039 x 30 px; a picture may have from one pixel to 16 megapixels."),
    ):
        page.type(inpaint_right=length)
        page.fire("inpaint-extend-by")
        assert_alert(page, sentence)
    page.type(inpaint_right="50%")
    page.fire("inpaint-extend-by")
    assert board(page) == (60, 30) and (mask_of(page) > 127).mean() == pytest.approx(1 / 3, abs=0.02)
    result = fill(page)
    assert result.size == (60, 30) and result.crop((0, 0, 40, 30)).tobytes() == picture.tobytes()
    page.fire("inpaint-stage", pick="input", key=attributes(page["inpaint-stage"], "data-key")[0])
    assert board(page) == (60, 30) and not mask_of(page).any()
    page.type(inpaint_factor=2)
    page.fire("inpaint-zoom")
    assert board(page) == (120, 60)
    page.fire("inpaint-pan")
    assert board(page) == (120, 60) and mask_of(page).any()


def test_several_candidates_to_choose_from(page):
    open_picture(page, drawing())
    paint_square(page, (40, 30, 70, 60))
    page.type(inpaint_count=3)
    fill(page)
    assert "changed in each of 3 results." in page.text("inpaint-stage")
    assert len(set(attributes(page["inpaint-stage"], "data-seed"))) == 3


def test_a_photograph_is_recognized(page):
    def is_noted() -> bool:
        return re.search(r'class="note">This looks like a photograph', page["inpaint-editor"]) is not None

    open_picture(page, photograph())
    assert is_noted() and "Stable Diffusion XL inpainting" in page.text("inpaint-editor")
    open_picture(page, drawing())
    assert not is_noted()
    open_picture(page, photograph())
    assert is_noted()
    page.upload("inpaint-open", (ROOT / "assets" / "examples" / "1.png").read_bytes())  # grainy, but painted here
    assert not is_noted()


def test_a_result_shows_how_it_was_made(page):
    open_picture(page, drawing())
    paint_square(page, (40, 30, 70, 60))
    fill(page, "a tall giraffe")
    page.fire("inpaint-stage", pick="to:noise", key=attributes(page["inpaint-stage"], "data-key")[0])
    assert page.setting("tabs", "selected") == "noise"
    (message,) = (json.loads(value) for value in page.values() if str(value).startswith("{") and "caption" in value)
    assert "a tall giraffe" in message["view"]["caption"]
