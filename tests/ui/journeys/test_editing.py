"""The tabs "Inpaint" and "Super-resolution" in a real browser. Each journey goes through several things on one page."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.ui.harness import drawing, png
from tests.ui.journeys.visitor import DONE, choose, download, drop, generate, open_tab

FILLED, LARGER = f"#inpaint-stage {DONE}", f"#super-resolution-stage {DONE}"


def open_inpaint(page, picture: Image.Image | None = None) -> None:
    open_tab(page, "Inpaint")
    page.wait_for_selector("#inpaint-editor .board[data-ready=yes]")
    if picture is not None:
        choose(page, "#inpaint-open", png(picture))
        wait_for_board(page, *picture.size)


def wait_for_board(page, width: int, height: int) -> None:
    page.wait_for_selector(f"#inpaint-editor .board[data-width='{width}'][data-height='{height}'][data-ready=yes]")


def places(page, *points: tuple[float, float]) -> list[tuple[float, float]]:
    """Points in shares of the board, in px of the window."""
    page.locator(".board").scroll_into_view_if_needed()
    box = page.locator(".board").bounding_box()
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]


def paint(page, *points: tuple[float, float]) -> None:
    """A stroke with the mouse through points in shares of the board; it ends when the server has the mask."""
    on_window = places(page, *points)
    with sent(page):
        stroke(page, *on_window)


def stroke(page, *points: tuple[float, float]) -> None:
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def sent(page):
    """Wait until the server has a mask."""
    return page.expect_response(lambda answer: "data:image/png" in (answer.request.post_data or ""))


def painted(page) -> float:
    """The share of the board that is painted over."""
    return page.eval_on_selector(
        ".board canvas",
        """canvas => {
          const values = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          let count = 0;
          for (let i = 3; i < values.length; i += 4) count += values[i] > 127;
          return count / (values.length / 4);
        }""",
    )


def fill(page, prompt: str = "") -> None:
    page.eval_on_selector("#inpaint-stage .stage", "stage => { stage.dataset.kind = 'old'; }")
    page.fill("#inpaint-prompt textarea", prompt)
    page.click("#inpaint-generate")
    page.wait_for_selector(FILLED)


def picture_in(page, stage: str) -> Image.Image:
    return Image.open(io.BytesIO(download(page, stage)))


def test_a_mask_is_painted_and_filled(studio_url, open_page):
    page = open_page(studio_url)
    open_inpaint(page)
    assert 0.02 < painted(page) < 0.9 and page.is_visible("#inpaint-stage .compare .after")  # the example
    picture = drawing()
    open_inpaint(page, picture)
    assert painted(page) == 0
    # Undo, redo, eraser and clear.
    paint(page, (0.2, 0.2), (0.8, 0.2))
    share = painted(page)
    with sent(page):
        page.keyboard.press("Control+z")
    assert painted(page) == 0
    page.click(".tools [data-do=redo]")
    assert painted(page) == share
    page.click("[data-tool=eraser]")
    paint(page, (0.2, 0.2), (0.5, 0.2))
    assert 0 < painted(page) < share
    page.click(".tools [data-do=clear]")
    assert painted(page) == 0
    page.click("#inpaint-generate")
    page.wait_for_selector("#inpaint-message [role=alert]")
    # What is painted over changes, and nothing else.
    page.click("[data-tool=brush]")
    paint(page, (0.6, 0.5), (0.8, 0.7))
    share = painted(page)
    assert 0.02 < share < 0.3
    page.click("#inpaint-count label:has-text('3')")
    fill(page, "a tall giraffe")
    changed = (np.asarray(picture_in(page, "#inpaint-stage").convert("RGB")) != np.asarray(picture)).any(-1)
    height, width = changed.shape
    rows, columns = np.nonzero(changed)
    assert 0.3 * share < changed.mean() < 2 * share
    assert columns.min() > 0.45 * width and rows.min() > 0.3 * height  # all of it is where the stroke went
    note = page.inner_text("#inpaint-stage .note")
    outside = int(note.split(" of ")[1].split(" ")[0].replace(",", ""))
    assert note.startswith("0 of ") and width * height * (1 - 1.6 * share) < outside < width * height
    # Three results to choose from, each under the slider.
    cells = page.locator("#inpaint-stage [data-cell]")
    assert cells.count() == 3
    cells.nth(2).click()
    assert page.get_attribute("#inpaint-stage .after", "src") == cells.nth(2).get_attribute("data-url")
    assert page.inner_text("#inpaint-stage [data-slot=seed]") == cells.nth(2).get_attribute("data-seed")
    slider = page.locator("#inpaint-stage .compare")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    stroke(page, *((box["x"] + share * box["width"], box["y"] + box["height"] / 2) for share in (0.5, 0.9)))
    assert 80 < float(slider.evaluate("part => part.style.getPropertyValue('--split')").rstrip("%")) <= 100
    page.keyboard.press("Home")
    assert slider.evaluate("part => part.style.getPropertyValue('--split')") == "0%"
    page.click("#inpaint-stage [data-zoom='4']")
    assert "matrix(4," in page.eval_on_selector("#inpaint-stage .after", "i => getComputedStyle(i).transform")
    # How it was made can be seen step by step.
    page.click("#inpaint-stage [data-pick='to:noise']")
    page.wait_for_selector("#noise:has-text('a tall giraffe')")


def test_pictures_and_masks_survive_a_refresh_and_change_with_the_canvas(studio_url, open_page):
    page = open_page(studio_url)
    open_inpaint(page, drawing())
    requests: list[str] = []
    listener = lambda request: requests.append(request.post_data or "")  # noqa: E731
    page.on("requestfinished", listener)
    for step in range(6):  # while the first are on their way
        x = 0.1 + 0.15 * step
        stroke(page, *places(page, (x, 0.2), (x, 0.8)))
    share, count = painted(page), 0
    while count < 200 and page.locator(".board").get_attribute("data-key") and not page.evaluate(IS_SENT, requests):
        count += 1
        page.wait_for_timeout(50)
    page.remove_listener("requestfinished", listener)
    page.reload()
    open_tab(page, "Inpaint")
    page.wait_for_selector(".board[data-width='96'][data-mask*='v='][data-ready=yes]")
    assert painted(page) == pytest.approx(share, abs=0.03)
    # A dropped picture and a pasted one are opened.
    drop(page, "x.png", png(drawing((50, 20))))
    wait_for_board(page, 50, 20)
    page.evaluate(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "x.png", { type: "image/png" }));
          dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        }""",
        list(png(drawing((40, 30)))),
    )
    wait_for_board(page, 40, 30)
    # A mask from a file; the canvas grows, and the new area is selected.
    mask = Image.new("L", (40, 30))
    mask.paste(255, (10, 10, 20, 20))
    choose(page, "#inpaint-load", png(mask), "mask.png")
    page.wait_for_selector(".board[data-mask*='v='][data-ready=yes]")
    assert painted(page) == pytest.approx(100 / 1200, abs=0.01)
    page.click("#inpaint-extend [data-fold]")
    page.fill("#inpaint-right input", "50%")
    page.click("#inpaint-extend-by")
    wait_for_board(page, 60, 30)
    assert painted(page) == pytest.approx(1 / 3, abs=0.02)
    fill(page)
    assert picture_in(page, "#inpaint-stage").size == (60, 30)
    page.click("#inpaint-stage [data-pick=input]")
    page.wait_for_selector(".board[data-width='60'][data-mask=''][data-ready=yes]")
    page.click("#inpaint-back")
    page.wait_for_selector(".board[data-width='60'][data-mask*='v='][data-ready=yes]")


IS_SENT = """async (bodies) => {
  const page = document.querySelector("script[type=module][src*=modules]").src;
  const { addMask } = await import(page.replace("page.js", "mask_editor.js"));
  const { mask } = JSON.parse(addMask([""])[0]);
  return bodies.some((body) => body.includes(mask));
}"""


def test_a_small_picture_becomes_large_and_goes_from_tab_to_tab(studio_url, open_page):
    page = open_page(studio_url)
    generate(page, "a red apple")
    page.click("#stage [data-pick='to:inpaint']")
    page.wait_for_selector(".board[data-width='64'][data-mask=''][data-ready=yes]")
    open_tab(page, "Text to image")
    page.click("#stage [data-pick='to:super-resolution']")
    page.wait_for_selector("#super-resolution-small:has-text('64 × 64 px')")
    page.wait_for_selector("#super-resolution-stage .compare .after")  # the example
    choose(page, "#super-resolution-open", png(drawing((24, 16))))
    page.wait_for_selector("#super-resolution-small:has-text('24 × 16 px')")
    page.click("#super-resolution-way label:has(input[value=x4])")
    page.wait_for_selector("#super-resolution-expected:has-text('96 × 64 px, about ')")
    page.click("#super-resolution-generate")
    page.wait_for_selector(LARGER)
    assert picture_in(page, "#super-resolution-stage").size == (96, 64)
    page.click("#super-resolution-stage [data-pick=lanczos]")
    page.wait_for_selector("#super-resolution-stage .tag:text-is('Lanczos')")
    page.click("#super-resolution-stage [data-pick=before]")
    page.wait_for_selector("#super-resolution-stage .tag:text-is('Before')")
    page.click("#super-resolution-way label:has(input[value=noise])")
    page.wait_for_selector("#super-resolution-sigma:visible")
    page.fill("#super-resolution-sigma input", "loud")
    page.click("#super-resolution-generate")
    page.wait_for_selector("#super-resolution-message [role=alert]")
    open_tab(page, "Library")
    page.click(".piece >> nth=1 >> .open")
    page.click("#viewer [data-act=send]:has-text('Inpaint')")
    page.wait_for_selector("#tab-inpaint .board[data-width='64'][data-ready=yes]:visible")
