"""The page in a real browser, over a pipeline that paints blobs."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from studio.engine.requests import TextToImage
from studio.library.metadata import read_png_settings
from tests.fakes import resolve
from tests.ui.conftest import DONE, free_port, generate, serving, serving_fake, set_steps


def download(page) -> bytes:
    with page.expect_download() as wait:
        page.click("text=Download PNG")
    return wait.value.path().read_bytes()


def picture_in(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float32)  # (H, W, 3)


def is_a_picture(pixels: np.ndarray) -> bool:
    """Neither flat nor noise: it varies, and neighbours are much more alike than pixels apart."""
    steps = np.abs(np.diff(pixels, axis=1)).mean()
    return pixels.std() > 10 and steps < 0.35 * pixels.std()


def test_words_become_a_picture(studio_url, open_page):
    page = open_page(studio_url)
    page.click("#background label:has-text('Blue')")
    page.click("#style label:has-text('Glossy')")
    generate(page, "a red apple")
    assert page.inner_text(".label .title") == "a red apple, glossy style, on a blue background"
    assert re.search(r"Time\s+\d+\.\d\d s", page.inner_text(".label"))
    shown = page.eval_on_selector(".wall img", "i => [i.naturalWidth, getComputedStyle(i).imageRendering]")
    assert shown == [64, "pixelated"]
    png = download(page)
    assert is_a_picture(picture_in(png))
    settings = read_png_settings(io.BytesIO(png))
    assert settings["seed"] == int(page.inner_text("[data-slot=seed]"))
    assert (settings["prompt"], settings["style"], settings["background"]) == ("a red apple", "glossy", "blue")


def test_the_statistic_tells_pictures_from_noise_and_flat():
    noise = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
    assert not is_a_picture(noise) and not is_a_picture(np.full((64, 64, 3), 120.0))


def test_nothing_is_empty_on_first_sight(studio_url, open_page):
    page = open_page(studio_url)
    assert page.is_visible(".stage[data-kind=example] img")
    assert page.locator("#strip .small img").count() >= 6
    assert page.inner_text("#header h1") == "Diffusion Studio"
    page.click("text=Use it from a program")
    assert f'Client("{studio_url}/")' in page.inner_text("#footer pre")
    assert "Blob 64" in page.inner_text("#header .model")
    page.wait_for_selector("#header [role=status]:text-is('ready')")
    assert "CPU" in page.inner_text("#header .model")


def test_the_picture_forms_before_ones_eyes(studio_url, open_page):
    page = open_page(studio_url)
    set_steps(page, 1000)
    page.click("#generate")
    page.wait_for_selector(".stage[data-kind=running] img[src^='data:image/png']")
    early = page.get_attribute(".wall img", "src")
    page.wait_for_function("src => document.querySelector('.wall img').src != src", arg=early)
    assert "of 1000" in page.inner_text(".busy")
    page.keyboard.press("Escape")


def test_stop_ends_a_long_run(studio_url, open_page):
    page = open_page(studio_url)
    set_steps(page, 1000)
    page.click("#generate")
    page.wait_for_selector(".stage[data-kind=running]")
    page.click("#stop")
    page.wait_for_selector(".stage[data-kind=stopped]")
    assert re.search(r"Stopped at step \d+ of 1000", page.inner_text(".label"))
    page.wait_for_selector("#stop:disabled")
    set_steps(page, 2)
    generate(page)


def test_what_is_typed_as_soon_as_there_is_a_field_stays(studio_url, open_page):
    """Gradio sets what was in a closed accordion to its first values a moment after it appears."""
    page = open_page(studio_url)
    page.evaluate("""() => document.addEventListener("click", () => {
      const field = document.querySelector("#steps input");
      field.value = "77";
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }, { once: true })""")
    page.click("[data-fold]")
    generate(page)
    assert page.inner_text("[data-slot=steps]") == "77" and page.input_value("#steps input") == "77"


def test_live_paints_as_one_types_and_keeps_nothing_before_it_is_told_to(studio_url, open_page):
    page = open_page(studio_url)
    page.click("#preset label:has-text('Live')")
    page.wait_for_function("() => document.querySelector('#steps input').value == 3")
    page.locator("#prompt textarea").press_sequentially("a red", delay=20)
    page.wait_for_selector(".stage[data-kind=sketch] .title:text-is('a red')")
    page.keyboard.insert_text(" apple")  # as pasted: no key is pressed
    page.wait_for_selector(".stage[data-kind=sketch] .title:text-is('a red apple')")
    assert "not kept" in page.inner_text(".label") and not page.locator("#strip [data-pick^='picture:']").count()
    page.click("#vocabulary [data-word='a cat']")  # as written, too
    page.wait_for_selector(".stage[data-kind=sketch] .title:text-is('a red apple and a cat')")
    page.click("#background label:has-text('Blue')")
    page.wait_for_selector(".stage[data-kind=sketch] .title:text-is('a red apple and a cat on a blue background')")
    live = page.get_attribute(".wall img", "src")
    assert live.startswith("data:image/png")
    page.click("#generate")
    page.wait_for_selector(DONE)
    same = """async ([a, b]) => { const load = async (u) => { const i = new Image(); i.src = u; await i.decode();
      const c = new OffscreenCanvas(i.naturalWidth, i.naturalHeight).getContext("2d"); c.drawImage(i, 0, 0);
      return c.getImageData(0, 0, i.naturalWidth, i.naturalHeight).data.join(); };
      return (await load(a)) === (await load(b)); }"""
    assert page.evaluate(same, [live, page.get_attribute(".wall img", "src")])
    page.wait_for_selector("#strip [data-pick^='picture:']")


def test_a_preset_is_its_numbers(studio_url, open_page):
    page = open_page(studio_url)
    page.click("#preset label:has-text('Best')")
    page.wait_for_function("() => Number(document.querySelector('#steps input').value) > 10")
    set_steps(page, 7)
    page.wait_for_function("() => !document.querySelector('#preset input:checked')")
    page.click("#preset label:has-text('Live')")
    page.wait_for_function("() => document.querySelector('#steps input').value == 3")


def test_the_keyboard_runs_and_stops(studio_url, open_page):
    page = open_page(studio_url)
    set_steps(page, 1000)
    page.focus("#prompt textarea")
    page.keyboard.type("a green pear")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".stage[data-kind=running]")
    page.focus("[data-find]")
    page.keyboard.press("Escape")  # which empties this field
    page.wait_for_timeout(500)
    assert page.is_visible(".stage[data-kind=running]")
    page.focus("#prompt textarea")
    page.keyboard.press("Escape")
    page.wait_for_selector(".stage[data-kind=stopped]")
    assert page.input_value("#prompt textarea") == "a green pear"  # the key ran it and added no line
    page.focus("#style input[value=any]")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("text=Full prompt: a green pear, noto style")


def title_of(page, number: int) -> str:
    """Of that picture of several, which is chosen; one that is already would be shown alone."""
    cell = page.locator("[data-cell]").nth(number)
    if cell.get_attribute("aria-pressed") == "false":
        cell.click()
    return page.inner_text(".label .title")


def test_nine_pictures_each_with_its_seed(studio_url, open_page):
    page = open_page(studio_url)
    page.click("#count label:has-text('9')")
    generate(page, "a cat")
    seeds = [int(cell.get_attribute("data-seed")) for cell in page.locator("[data-cell]").all()]
    assert seeds == [(seeds[0] + i) % 2**32 for i in range(9)]
    titles = [title_of(page, number) for number in range(9)]
    captions = resolve(TextToImage("a cat", count=9, seed=seeds[0], randomize_style=True)).captions
    assert tuple(titles) == captions and len(set(titles)) > 3
    page.click("[data-cell] >> nth=4")
    assert read_png_settings(io.BytesIO(download(page)))["seed"] == seeds[4]
    page.click("text=Use these settings")
    page.wait_for_function(f"document.querySelector('#seed input')?.value == '{seeds[4]}'")
    assert not page.is_checked("#randomize input")
    page.wait_for_selector("#strip h2 >> nth=0 >> text=Latest")  # renewed a moment later


def test_what_is_left_open_may_be_left_to_the_model(studio_url, open_page):
    page = open_page(studio_url)
    set_steps(page, 2)
    generate(page, "a cat")
    assert re.fullmatch(r"a cat, \w+ style, on a \w+ background", page.inner_text(".label .title"))
    page.click("text=Use these settings")
    page.wait_for_function("!document.querySelector('#randomize input').checked")
    assert page.is_checked("#randomize-style input") and page.is_checked("#style input[value=any]")
    page.uncheck("#randomize-style input")
    generate(page)
    assert page.inner_text(".label .title") == "a cat"
    assert read_png_settings(io.BytesIO(download(page)))["randomize_style"] is False


def test_variations_are_of_the_same_words(studio_url, open_page):
    page = open_page(studio_url)
    set_steps(page, 4)
    generate(page, "a cat")
    words = page.inner_text(".label .title")
    page.click("text=Vary subtly")
    page.wait_for_selector("[data-cell] >> nth=3")
    assert [title_of(page, number) for number in range(4)] == [words] * 4
    settings = read_png_settings(io.BytesIO(download(page)))
    assert (settings["prompt"], settings["strength"], settings["randomize_style"]) == ("a cat", 0.35, False)


def test_the_same_seed_gives_the_same_picture(studio_url, open_page):
    page = open_page(studio_url)
    page.click("[data-fold]")
    page.uncheck("#randomize input")
    page.fill("#seed input", "1234")
    sources = []
    for _ in range(2):
        generate(page, "a blue fish")
        assert page.inner_text("[data-slot=seed]") == "1234"
        sources.append(picture_in(download(page)))
    assert np.array_equal(*sources)


def test_an_example_fills_the_page_in(studio_url, open_page):
    page = open_page(studio_url)
    page.click("#strip .small >> nth=1")
    page.wait_for_function("document.querySelector('#prompt textarea').value != ''")
    prompt = page.input_value("#prompt textarea")
    page.wait_for_selector(f".label .title:has-text('{prompt}')")


def test_a_word_of_the_vocabulary_goes_into_the_prompt(studio_url, open_page):
    page = open_page(studio_url)
    page.click(".word:text-is('apple')")
    assert page.input_value("#prompt textarea") == "an apple"
    page.click(".word:text-is('boots')")  # nothing was written in between: the next word takes its place
    assert page.input_value("#prompt textarea") == "boots"
    page.fill("#prompt textarea", "a red house")
    page.click(".word:text-is('tree')")
    assert page.input_value("#prompt textarea") == "a red house and a tree"
    page.fill("[data-find]", "post")
    assert page.locator(".word:visible").all_inner_texts() == ["post office"]
    page.fill("[data-find]", "qqq")
    assert page.is_visible("text=No such word here.")


def test_an_unknown_word_gets_the_nearest_known_to_click(studio_url, open_page):
    page = open_page(studio_url)
    page.fill("#prompt textarea", "a red Castle by a tree")
    page.click(".chip:text-is('candle')")
    assert page.input_value("#prompt textarea") == "a red candle by a tree"
    page.wait_for_selector("#hints .unknown", state="detached")


def test_bad_input_is_answered_with_a_sentence_and_the_server_goes_on(studio_url, open_page):
    page = open_page(studio_url)
    page.click("[data-fold]")
    page.uncheck("#randomize input")
    for field, value, says in [
        ("#steps", "0", "The steps must be a whole number from 1 to 1000; it was 0."),
        ("#steps", "10000", "The steps must be a whole number from 1 to 1000; it was 10000."),
        ("#steps", "1.5", "it was 1.5"),
        ("#guidance", "31", "The guidance must be a number from 0 to 30; it was 31"),
        ("#guidance", "", "The guidance must be a number from 0 to 30; it was empty."),
        ("#seed", "-1", "The seed must be a whole number from 0 to 4294967295; it was -1."),
        ("#seed", "4294967296", "The seed must be a whole number from 0 to 4294967295"),
    ]:
        good = page.input_value(f"{field} input")
        page.fill(f"{field} input", value)
        page.click("#generate")
        page.wait_for_selector(f"#message [role=alert]:has-text('{says}')")
        page.fill(f"{field} input", good)
    page.fill("#prompt textarea", "x" * 10_001)
    page.click("#generate")
    page.wait_for_selector("text=The prompt may have at most 10,000 characters; this one has 10,001.")
    generate(page, "")
    page.wait_for_selector("text=The prompt was empty")
    assert not page.is_visible("#message [role=alert]")


def test_a_long_prompt_is_cut_and_the_page_says_where(studio_url, open_page):
    page = open_page(studio_url)
    generate(page, "a red apple " * 800)
    page.wait_for_selector("text=It did not read: “a red apple a red")


def test_markup_in_a_prompt_stays_text(studio_url, open_page):
    page = open_page(studio_url)
    nasty = "<img src=x onerror=alert(1)> ${alert(2)} {{alert}} `</textarea>"
    page.on("dialog", lambda dialog: pytest.fail("a prompt was run"))
    generate(page, nasty)
    assert page.inner_text(".label .title").startswith(nasty)


@pytest.mark.parametrize("shade", ["light", "dark"])
def test_one_column_at_390_pixels_without_sideways_scroll(studio_url, open_page, shade):
    page = open_page(studio_url, 390, 844, color_scheme=shade, has_touch=True)
    page.click("#count label:has-text('9')")
    generate(page, "W" * 300 + " castle zeppelin")
    page.click("[data-fold]")
    page.wait_for_selector("#seed")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    boxes = [page.locator(part).bounding_box() for part in ("#controls", "#stage", "#strip", "#vocabulary")]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)


def test_light_and_dark_follow_the_system_and_the_button(studio_url, open_page):
    def background(page) -> int:
        colour = page.evaluate("getComputedStyle(document.querySelector('gradio-app')).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3])

    page = open_page(studio_url, color_scheme="dark")
    assert background(page) < 100
    page.click("[data-shade]")
    assert background(page) > 700
    page.reload()
    page.wait_for_selector("#prompt textarea")
    assert background(page) > 700


def test_the_text_is_readable_in_light_and_dark(studio_url, open_page):
    """WCAG AA: 4.5 to 1 for every text in sight that is not disabled."""
    for shade in ("light", "dark"):
        page = open_page(studio_url, color_scheme=shade)
        page.fill("#prompt textarea", "a red castle")
        page.wait_for_selector("#hints .chip")
        page.click("[data-fold]")
        page.wait_for_selector("#seed")
        assert page.evaluate(LOW_CONTRAST) == []


LOW_CONTRAST = """() => {
  const parse = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = new Set();
  for (const element of document.querySelectorAll(".gradio-container *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const seen = { opacityProperty: true, visibilityProperty: true };
    if (!own || !element.checkVisibility(seen)) continue;
    if (element.closest("button:disabled") || element.tagName === "OPTION") continue;
    const style = getComputedStyle(element);
    if (parseFloat(style.fontSize) === 0) continue;
    let ground = null;
    for (let up = element; up && !ground; up = up.parentElement) {
      const colour = parse(getComputedStyle(up).backgroundColor);
      if (colour[3] === 1) ground = colour;
    }
    const [a, b] = [light(parse(style.color)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const text = element.textContent.trim().slice(0, 40);
    if (ratio < 4.5) found.add(`${ratio.toFixed(2)} ${element.tagName} ${text}`);
  }
  return [...found];
}"""


def test_generate_waits_for_the_model_and_says_so(tmp_path, open_page):
    gate = tmp_path / "go"
    with serving_fake(tmp_path, "--gate", str(gate), "--plain") as url:
        page = open_page(url)
        assert page.inner_text("#header [role=status]") == "model is loading"
        page.fill("#prompt textarea", "a red apple")
        page.click("#generate")
        page.wait_for_selector("text=The model is loading. Your picture starts by itself")
        gate.touch()
        page.wait_for_selector(DONE)
        page.wait_for_selector("#header [role=status]:text-is('ready')")
        assert page.locator(".word").count() > 100 and page.locator(".word i").count() == 0


@pytest.mark.parametrize("harm", ["does not exist", "is cut short", "holds a pickle"])
def test_a_bad_model_is_said_and_the_server_goes_on(tmp_path, open_page, harm):
    folder, port = tmp_path / "model", free_port()
    if harm != "does not exist":
        folder.mkdir()
        (folder / "model_index.json").write_text("{" if harm == "is cut short" else "{}")
    if harm == "holds a pickle":
        (folder / "weights.ckpt").write_bytes(b"never opened")
    arguments = ("--model", str(folder), "--port", str(port), "--data-dir", str(tmp_path / "data"))
    with serving("app.py", *arguments, port=port) as url:
        page = open_page(url)
        page.wait_for_selector(f"#header [role=alert]:has-text('{harm}')")
        sentence = page.inner_text("#header [role=alert]")
        assert str(folder) in sentence and sentence.endswith(".")
        page.click("#generate")
        page.wait_for_selector(f"#message [role=alert]:has-text('{harm}')")
