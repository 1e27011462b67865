"""The tabs Inpaint and Super-resolution in a real browser, over the fake sampler."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.ui.conftest import ROOT, generate, open_tab

DONE = "#inpaint-stage .stage[data-kind=done]"
LARGER = "#super-resolution-stage .stage[data-kind=done]"
MASK = """async () => { const page = document.querySelector("script[type=module][src*=modules]").src;
const { addMask } = await import(page.replace("page.js", "mask_editor.js"));
return JSON.parse(addMask([""])[0]).mask; }"""


def drawing(size=(96, 72), mode="RGB") -> Image.Image:
    picture = Image.new(mode, size, "skyblue")
    ImageDraw.Draw(picture).ellipse((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill="crimson")
    return picture


def photograph() -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 40, (96, 96, 3))
    return Image.fromarray((noise + 120).clip(0, 255).astype(np.uint8))


def png(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def choose(page, button: str, content: bytes, name: str = "picture.png") -> None:
    with page.expect_file_chooser() as chooser:
        page.click(button)
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def inpaint_page(open_page, url: str, picture: Image.Image | None = None, **options):
    page = open_page(url, **options)
    open_tab(page, "Inpaint")
    page.wait_for_selector("#inpaint-editor .board[data-ready=yes]")
    if picture is not None:
        choose(page, "#inpaint-open", png(picture))
        width, height = picture.size
        page.wait_for_selector(f"#inpaint-editor .board[data-width='{width}'][data-height='{height}'][data-ready=yes]")
    return page


def paint(page, *points: tuple[float, float]) -> None:
    """A stroke with the mouse through points given in shares of the picture; it ends when the server has it."""
    page.locator(".board").scroll_into_view_if_needed()
    box = page.locator(".board").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    with kept(page):
        stroke(page, *places)


def stroke(page, *places: tuple[float, float]) -> None:
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def kept(page):
    """Waits until the server has a mask."""
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
    page.wait_for_selector(DONE)


def download(page, stage: str) -> Image.Image:
    with page.expect_download() as wait:
        page.click(f"{stage} >> text=Download PNG")
    return Image.open(io.BytesIO(wait.value.path().read_bytes()))


def alert(page, says: str, tab: str = "inpaint") -> None:
    page.wait_for_selector(f"#{tab}-message [role=alert]:has-text('{says}')")


def test_nothing_is_empty_at_first_sight(studio_url, open_page):
    page = inpaint_page(open_page, studio_url)
    assert 0.02 < painted(page) < 0.9
    assert page.is_visible("#inpaint-stage .compare .after")
    with Image.open(ROOT / "assets" / "examples" / "inpaint" / "mask.png") as mask:
        outside = int((np.asarray(mask) < 128).sum())
    assert f"0 of {outside:,} pixels outside the mask changed." in page.inner_text("#inpaint-stage")
    open_tab(page, "Super-resolution")
    page.wait_for_selector("#super-resolution-stage .compare .after")
    page.wait_for_selector("#super-resolution-small img")


def test_a_mask_is_painted_and_nothing_outside_it_changes(studio_url, open_page):
    picture = drawing()
    page = inpaint_page(open_page, studio_url, picture)
    assert painted(page) == 0
    paint(page, (0.6, 0.5), (0.8, 0.7))
    share = painted(page)
    assert 0.02 < share < 0.3
    fill(page, "a red apple")
    page.wait_for_selector("#inpaint-stage:has-text('pixels outside the mask changed.')")
    result = np.asarray(download(page, "#inpaint-stage").convert("RGB"))
    changed = (result != np.asarray(picture)).any(-1)
    height, width = changed.shape
    assert 0.3 * share < changed.mean() < 2 * share
    rows, columns = np.nonzero(changed)  # all of it is where the stroke went
    assert columns.min() > 0.45 * width and rows.min() > 0.3 * height
    outside = int(page.inner_text("#inpaint-stage .note").split(" of ")[1].split(" ")[0].replace(",", ""))
    assert page.inner_text("#inpaint-stage .note").startswith("0 of ")
    assert width * height * (1 - 1.6 * share) < outside < width * height


def test_undo_redo_eraser_and_clear(studio_url, open_page):
    page = inpaint_page(open_page, studio_url, drawing())
    paint(page, (0.2, 0.2), (0.8, 0.2))
    share = painted(page)
    with kept(page):
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
    alert(page, "Paint over the part you want to change first. The mask is all black.")


def test_strokes_that_follow_at_once_are_all_kept(studio_url, open_page):
    page = inpaint_page(open_page, studio_url, drawing())
    page.locator(".board").scroll_into_view_if_needed()
    box = page.locator(".board").bounding_box()
    sent: list[str] = []
    page.on("requestfinished", lambda request: sent.append(request.post_data or ""))
    for step in range(6):  # while the first are on their way
        x = box["x"] + (0.1 + 0.15 * step) * box["width"]
        stroke(page, (x, box["y"] + 0.2 * box["height"]), (x, box["y"] + 0.8 * box["height"]))
    share = painted(page)
    mask = page.evaluate(MASK)
    for _ in range(200):
        if any(mask in body for body in sent):
            break
        page.wait_for_timeout(50)
    page.reload()
    page.click("role=tab[name='Inpaint']")
    page.wait_for_selector(".board[data-width='96'][data-mask*='v='][data-ready=yes]")
    assert painted(page) == pytest.approx(share, abs=0.03)


def test_a_picture_that_another_tab_has_changed_is_not_worked_on_unseen(studio_url, open_page):
    page = inpaint_page(open_page, studio_url, drawing())
    paint(page, (0.4, 0.5), (0.8, 0.5))
    other = inpaint_page(open_page, studio_url, drawing((50, 40)), context=page.context)
    page.click("#inpaint-generate")
    alert(page, "The picture was changed in another tab of the browser; load this page again to see it.")
    for one, size in ((page, (24, 16)), (other, (16, 24))):
        open_tab(one, "Super-resolution")
        choose(one, "#super-resolution-open", png(drawing(size)))
        one.wait_for_selector(f"#super-resolution-small:has-text('{size[0]} × {size[1]} px')")
    page.click("#super-resolution-generate")
    alert(page, "The picture was changed in another tab", "super-resolution")
    other.click("#super-resolution-generate")
    other.wait_for_selector(LARGER)
    assert download(other, "#super-resolution-stage").size == (32, 48)


def test_picture_and_mask_survive_a_refresh_and_bad_files(studio_url, open_page):
    page = inpaint_page(open_page, studio_url, drawing((40, 30)))
    paint(page, (0.3, 0.5), (0.7, 0.5))
    share = painted(page)
    animation = [drawing((9, 9)), drawing((9, 9)).rotate(90)]
    for content, says in [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x.png is not a whole picture"),
        (b"<html><script>alert(1)</script></html>", "x.png is not a whole picture"),
        (png(photograph())[:2000], "x.png is not a whole picture"),
        (b"", "x.png is not a whole picture"),
        (png(Image.new("1", (5000, 4000))), "x.png has 5000 x 4000 px"),
    ]:
        choose(page, "#inpaint-open", content, "x.png")
        alert(page, says)
    choose(page, "#inpaint-load", png(Image.new("L", (10, 10), 255)), "mask.png")
    alert(page, "The mask is 10 x 10 px and the picture 40 x 30 px; both must be of one size.")
    page.reload()
    page.click("role=tab[name='Inpaint']")
    page.wait_for_selector(".board[data-width='40'][data-height='30'][data-ready=yes]")
    assert painted(page) == pytest.approx(share, abs=0.05)
    choose(page, "#inpaint-open", png(animation[0], "GIF", save_all=True, append_images=animation[1:]), "x.gif")
    page.wait_for_selector("#inpaint-message:has-text('x.gif is animated: its first picture was taken.')")
    choose(page, "#inpaint-open", png(Image.new("RGB", (1, 1))), "dot.png")
    page.wait_for_selector(".board[data-width='1'][data-ready=yes]")
    page.click("#inpaint-back")
    page.wait_for_selector(".board[data-width='9']")


def test_a_mask_from_a_file_and_its_numbers(studio_url, open_page):
    page = inpaint_page(open_page, studio_url, drawing((40, 30)))
    mask = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    mask.paste((9, 9, 9, 255), (10, 10, 20, 20))  # of a transparent mask, what is opaque
    choose(page, "#inpaint-load", png(mask), "mask.png")
    page.wait_for_function("document.querySelector('.board').dataset.mask && document.querySelector('.board').dataset.ready === 'yes'")  # fmt: skip # noqa: E501
    assert painted(page) == pytest.approx(100 / 1200, abs=0.01)
    page.click("#inpaint-mask [data-fold]")
    page.fill("#inpaint-grow input", "300")
    page.click("#inpaint-generate")
    alert(page, "The growth of the mask must be a whole number from -256 to 256; it was 300.")
    page.fill("#inpaint-grow input", "1")
    page.check("#inpaint-invert input")
    fill(page)
    result = np.asarray(download(page, "#inpaint-stage").convert("RGB"))
    assert result.shape == (30, 40, 3)


def test_the_canvas_grows_and_what_is_new_is_marked(studio_url, open_page):
    picture = drawing((40, 30))
    page = inpaint_page(open_page, studio_url, picture)
    page.click("#inpaint-extend [data-fold]")
    page.fill("#inpaint-right input", "half")
    page.click("#inpaint-extend-by")
    alert(page, "A length must be whole pixels or a percentage")
    page.fill("#inpaint-right input", "99999999")
    page.click("#inpaint-extend-by")
    alert(page, "The larger canvas has 100000039 x 30 px; a picture may have from one pixel to 16 megapixels.")
    page.fill("#inpaint-right input", "50%")
    page.click("#inpaint-extend-by")
    page.wait_for_selector(".board[data-width='60'][data-height='30'][data-ready=yes]")
    assert painted(page) == pytest.approx(1 / 3, abs=0.02)
    fill(page)
    result = download(page, "#inpaint-stage").convert("RGB")
    assert result.size == (60, 30) and result.crop((0, 0, 40, 30)).tobytes() == picture.tobytes()
    page.click("#inpaint-stage >> text=Use as input")
    page.wait_for_selector(".board[data-width='60'][data-mask=''][data-ready=yes]")
    page.fill("#inpaint-factor input", "2")
    page.click("#inpaint-zoom")
    page.wait_for_selector(".board[data-width='120'][data-height='60']")
    page.click("#inpaint-pan")
    page.wait_for_selector(".board[data-width='120'][data-height='60'][data-ready=yes]")


def test_several_candidates_to_choose_from(studio_url, open_page):
    page = inpaint_page(open_page, studio_url, drawing())
    paint(page, (0.4, 0.5), (0.8, 0.5))
    page.click("#inpaint-count label:has-text('3')")
    fill(page)
    page.wait_for_selector("#inpaint-stage:has-text('changed in each of 3 results.')")
    cells = page.locator("#inpaint-stage [data-cell]")
    assert cells.count() == 3
    cells.nth(2).click()
    assert page.get_attribute("#inpaint-stage .after", "src") == cells.nth(2).get_attribute("data-url")
    assert page.inner_text("#inpaint-stage [data-slot=seed]") == cells.nth(2).get_attribute("data-seed")


def test_the_slider_shows_more_of_before_or_after(studio_url, open_page):
    page = inpaint_page(open_page, studio_url)
    slider = page.locator("#inpaint-stage .compare")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    split = float(slider.evaluate("part => part.style.getPropertyValue('--split')").rstrip("%"))
    assert 80 < split <= 100
    page.keyboard.press("Home")
    assert slider.evaluate("part => part.style.getPropertyValue('--split')") == "0%"
    page.click("#inpaint-stage [data-zoom='4']")
    assert "matrix(4," in page.eval_on_selector("#inpaint-stage .after", "i => getComputedStyle(i).transform")


def test_a_photograph_is_said_to_be_one(studio_url, open_page):
    page = inpaint_page(open_page, studio_url, photograph())
    page.wait_for_selector(".editor .note:has-text('This looks like a photograph.')")
    assert "Stable Diffusion XL inpainting" in page.inner_text(".editor .note")
    choose(page, "#inpaint-open", png(drawing()))
    page.wait_for_selector(".editor .note", state="detached")
    choose(page, "#inpaint-open", png(photograph()))
    page.wait_for_selector(".editor .note")
    choose(page, "#inpaint-open", (ROOT / "assets" / "examples" / "1.png").read_bytes())  # grainy, but painted here
    page.wait_for_selector(".editor .note", state="detached")


def test_a_small_picture_becomes_large(studio_url, open_page):
    page = open_page(studio_url)
    open_tab(page, "Super-resolution")
    picture = drawing((24, 16), "RGBA")
    picture.putalpha(128)
    choose(page, "#super-resolution-open", png(picture))
    page.wait_for_selector("#super-resolution-small:has-text('24 × 16 px')")
    page.click("#super-resolution-way label:has-text('×4')")
    page.wait_for_selector("#super-resolution-expected:has-text('96 × 64 px, about ')")
    page.click("#super-resolution-generate")
    page.wait_for_selector(LARGER)
    assert download(page, "#super-resolution-stage").size == (96, 64)
    page.click("#super-resolution-stage >> text=Compare with Lanczos")
    page.wait_for_selector("#super-resolution-stage .tag:text-is('Lanczos')")
    page.click("#super-resolution-stage >> text=Compare with the small picture")
    page.wait_for_selector("#super-resolution-stage .tag:text-is('Before')")
    page.click("#super-resolution-way label:has-text('To a size')")
    page.fill("#super-resolution-width input", "999")
    page.click("#super-resolution-generate")
    alert(page, "The target width may be at most 4 times the picture's, 96 px; it was 999.".replace("'", "\\'"), "super-resolution")  # fmt: skip # noqa: E501
    choose(page, "#super-resolution-open", b"GIF89a", "x.gif")
    alert(page, "x.gif is not a whole picture", "super-resolution")
    assert "24 × 16 px" in page.inner_text("#super-resolution-small")
    page.reload()
    open_tab(page, "Super-resolution")
    page.wait_for_selector("#super-resolution-small:has-text('24 × 16 px')")
    page.wait_for_selector(LARGER)


def test_noise_is_taken_out(studio_url, open_page):
    page = open_page(studio_url)
    open_tab(page, "Super-resolution")
    choose(page, "#super-resolution-open", png(photograph()))
    page.wait_for_selector("#super-resolution-small .note:has-text('This looks like a photograph.')")
    page.click("#super-resolution-way label:has-text('Remove noise')")
    page.wait_for_selector("#super-resolution-expected:has-text('Measured noise:')")
    page.fill("#super-resolution-sigma input", "loud")
    page.click("#super-resolution-generate:has-text('Remove noise')")
    alert(page, "The noise must be a number from 0 to 100", "super-resolution")
    page.fill("#super-resolution-sigma input", "")
    page.click("#super-resolution-generate")
    page.wait_for_selector(LARGER)
    assert "Noise removed" in page.inner_text("#super-resolution-stage .title")


def test_pictures_go_from_tab_to_tab(studio_url, open_page):
    page = open_page(studio_url)
    generate(page, "a red apple")
    page.click("#stage >> text=Open in Inpaint")
    page.wait_for_selector(".board[data-width='64'][data-mask=''][data-ready=yes]")
    open_tab(page, "Text to image")
    page.click("#stage >> text=Open in Super-resolution")
    page.wait_for_selector("#super-resolution-small:has-text('64 × 64 px')")
    open_tab(page, "Library")
    page.click(".piece .open")
    page.click("#viewer >> text=Open in Inpaint")
    page.wait_for_selector(".board[data-width='64'][data-ready=yes]")
    open_tab(page, "Text to image")
    page.click("#stage >> text=Vary subtly")
    page.wait_for_selector("#stage .stage[data-kind=done] [data-cell] >> nth=3")
    page.wait_for_selector("#strip [data-pick^='picture:'] >> nth=4")  # the strip follows once a second
    assert page.locator("#strip [data-pick^='picture:']").count() == 5


def test_how_a_hole_was_filled_can_be_seen_step_by_step(studio_url, open_page):
    page = inpaint_page(open_page, studio_url, drawing())
    paint(page, (0.4, 0.5), (0.8, 0.5))
    fill(page, "a tall giraffe")
    page.click("#inpaint-stage >> text=See how it was made")
    page.wait_for_selector("#noise:has-text('a tall giraffe')")


def test_a_picture_dropped_or_pasted_is_opened(studio_url, open_page):
    from tests.ui.test_jobs import drop

    page = inpaint_page(open_page, studio_url)
    drop(page, "x.png", png(drawing((50, 20))))
    page.wait_for_selector(".board[data-width='50'][data-height='20']")
    page.evaluate(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "x.png", { type: "image/png" }));
          dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        }""",
        list(png(drawing((20, 50)))),
    )
    page.wait_for_selector(".board[data-width='20'][data-height='50']")


@pytest.mark.parametrize("shade", ["light", "dark"])
def test_one_column_at_390_pixels(studio_url, open_page, shade):
    from tests.ui.test_page import LOW_CONTRAST

    page = inpaint_page(open_page, studio_url, width=390, height=844, color_scheme=shade, has_touch=True)
    for button in page.locator("#tab-inpaint [data-fold], [data-fold]:visible").all():
        button.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator(".board").bounding_box()
    assert 0 <= box["x"] and box["x"] + box["width"] <= 390
    assert page.evaluate(LOW_CONTRAST) == []
    open_tab(page, "Super-resolution")
    page.wait_for_selector("#super-resolution-small img")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(LOW_CONTRAST) == []
