"""The tab "Text to image" in a real browser. Each journey goes through several things on one page."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from studio.library.metadata import read_png_settings, write_png
from tests.ui.journeys.visitor import (
    DONE,
    RUNNING,
    choose,
    download,
    drop,
    generate,
    open_tab,
    set_steps,
)

SAME_PIXELS = """async ([a, b]) => { const load = async (u) => { const i = new Image(); i.src = u; await i.decode();
  const c = new OffscreenCanvas(i.naturalWidth, i.naturalHeight).getContext("2d"); c.drawImage(i, 0, 0);
  return c.getImageData(0, 0, i.naturalWidth, i.naturalHeight).data.join(); };
  return (await load(a)) === (await load(b)); }"""


def is_a_picture(pixels: np.ndarray) -> bool:
    """Neither flat nor noise: it varies, and neighbours are much more alike than pixels apart."""
    steps = np.abs(np.diff(pixels, axis=1)).mean()
    return pixels.std() > 10 and steps < 0.35 * pixels.std()


def test_the_statistic_tells_pictures_from_noise_and_flat():
    noise = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
    assert not is_a_picture(noise) and not is_a_picture(np.full((64, 64, 3), 120.0))


def test_a_first_visit(studio_url, open_page):
    page = open_page(studio_url)
    # What is typed as soon as there is a field stays, although Gradio sets first values a moment after mounting.
    page.evaluate("""() => document.addEventListener("click", () => {
      const field = document.querySelector("#steps input");
      field.value = "17";
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }, { once: true })""")
    page.click("[data-fold]")
    # Nothing is empty on first sight.
    assert page.is_visible("#stage .stage[data-kind=example] img") and page.locator("#strip .small img").count() >= 6
    assert (
        page.inner_text("#header h1") == "Diffusion Studio"
        and page.eval_on_selector("[data-model]", "menu => menu.value") == "model"
    )
    page.click("#footer summary")
    assert f'Client("{studio_url}/")' in page.inner_text("#footer pre")
    page.wait_for_selector("#header [role=status]:text-is('ready')")
    assert "CPU" in page.inner_text("#header .model")
    # Words become a picture. Markup among them stays text.
    words = "a red apple <img src=x onerror=alert(1)> ${alert(2)} {{alert}} `</textarea>"
    dialogs: list[str] = []
    page.once("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.click("#background label:has-text('Blue')")
    page.click("#style label:has-text('Glossy')")
    generate(page, words)
    assert dialogs == [] and page.inner_text("#stage .title").startswith(words)
    assert page.inner_text("[data-slot=steps]") == "17" and page.input_value("#steps input") == "17"
    shown = page.eval_on_selector("#stage .wall img", "i => [i.naturalWidth, getComputedStyle(i).imageRendering]")
    assert shown == [64, "pixelated"]
    png = download(page)
    assert is_a_picture(np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float32))
    settings = read_png_settings(io.BytesIO(png))
    assert settings["seed"] == int(page.inner_text("[data-slot=seed]"))
    assert (settings["prompt"], settings["style"], settings["background"]) == (words, "glossy", "blue")
    page.wait_for_selector("#strip [data-pick^='picture:']")
    # A refresh finds the picture, and an example fills the page in.
    page.reload()
    page.wait_for_selector(f"#stage {DONE}")
    assert page.inner_text("[data-slot=steps]") == "17"
    page.click("#strip [data-pick='example:1']")
    page.wait_for_selector("#stage .stage[data-kind=example]")
    page.wait_for_function("!document.querySelector('#prompt textarea').value.includes('apple <img')")
    assert page.input_value("#prompt textarea") in page.inner_text("#stage .title")


def test_words_and_keys(studio_url, open_page):
    page = open_page(studio_url)
    page.wait_for_selector("#header [role=status]:text-is('ready')")
    # Typing asks the server for nothing but the hints.
    bodies: list[str] = []
    listener = lambda request: bodies.append(request.post_data or "") if request.method == "POST" else None  # noqa: E731
    page.on("request", listener)
    page.click("#prompt textarea")
    page.keyboard.type("a red Castle by a tree")
    page.wait_for_function("localStorage['studio-draft:text-to-image:']?.includes('by a tree')")
    page.remove_listener("request", listener)
    ticks = [body for body in bodies if '"trigger_id"' in body and "a red" not in body]
    hints = [body for body in bodies if re.search(r'"data":\["a[^"]*","any","any",""\]', body)]
    assert len(bodies) - len(hints) <= len(ticks) and hints
    # An unknown word gets the nearest known one to click.
    page.click("#hints .chip:text-is('candle')")
    assert page.input_value("#prompt textarea") == "a red candle by a tree"
    page.wait_for_selector("#hints .unknown", state="detached")
    # Words of the vocabulary go into the prompt.
    page.fill("#prompt textarea", "")
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
    assert page.is_visible("#vocabulary .none")
    # Keys run and stop; the picture forms before one's eyes.
    set_steps(page, 1000)
    page.fill("#prompt textarea", "a green pear")
    page.focus("#prompt textarea")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f"{RUNNING} img[src^='data:image/png']")
    early = page.get_attribute("#stage .wall img", "src")
    page.wait_for_function("src => document.querySelector('#stage .wall img').src != src", arg=early)
    assert "of 1000" in page.inner_text("#stage .busy")
    page.focus("[data-find]")
    page.keyboard.press("Escape")  # which empties this field
    page.wait_for_timeout(300)
    assert page.is_visible(RUNNING)
    page.focus("#prompt textarea")
    page.keyboard.press("Escape")
    page.wait_for_selector("#stage .stage[data-kind=stopped]")
    assert re.search(r"Stopped at step \d+ of 1000", page.inner_text("#stage .label"))
    assert page.input_value("#prompt textarea") == "a green pear"  # the key ran it and added no line
    page.wait_for_selector("#stop:disabled")
    page.focus("#style input[value=any]")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#hints:has-text('a green pear, noto style')")
    # Numbers out of range reach the server as they were typed: the browser does not cut them silently.
    for control, value, sentence in (
        ("#steps", "10000", "it was 10000."),
        ("#steps", "1.5", "it was 1.5"),
        ("#guidance", "", "it was empty."),
    ):
        good = page.input_value(f"{control} input")
        page.fill(f"{control} input", value)
        page.click("#generate")
        page.wait_for_selector(f"#message [role=alert]:has-text('{sentence}')")
        page.fill(f"{control} input", good)
    set_steps(page, 2)
    generate(page)
    assert not page.is_visible("#message [role=alert]")


def test_live_paints_as_one_types_and_keeps_nothing_until_generate(studio_url, open_page):
    page = open_page(studio_url)
    page.click("#preset label:has-text('Live')")
    page.wait_for_function("() => document.querySelector('#steps input').value == 3")
    page.locator("#prompt textarea").press_sequentially("a red", delay=20)
    page.wait_for_selector(".stage[data-kind=sketch] .title:text-is('a red')")
    page.keyboard.insert_text(" apple")  # as pasted: no key is pressed
    page.wait_for_selector(".stage[data-kind=sketch] .title:text-is('a red apple')")
    assert not page.locator("#strip [data-pick^='picture:']").count()
    page.click("#vocabulary [data-word='a cat']")  # as written, too
    page.wait_for_selector(".stage[data-kind=sketch] .title:text-is('a red apple and a cat')")
    page.click("#background label:has-text('Blue')")
    page.wait_for_selector(".stage[data-kind=sketch] .title:text-is('a red apple and a cat on a blue background')")
    live = page.get_attribute("#stage .wall img", "src")
    assert live.startswith("data:image/png")
    page.click("#generate")
    page.wait_for_selector(DONE)
    assert page.evaluate(SAME_PIXELS, [live, page.get_attribute("#stage .wall img", "src")])
    page.wait_for_selector("#strip [data-pick^='picture:']")


def title_of(page, number: int) -> str:
    """The title of one of several pictures, which is selected; a second click would show it alone."""
    cell = page.locator("#stage [data-cell]").nth(number)
    if cell.get_attribute("aria-pressed") == "false":
        cell.click()
    return page.inner_text("#stage .title")


def test_several_pictures_and_their_variations(studio_url, open_page):
    page = open_page(studio_url)
    page.click("#count label:has-text('9')")
    generate(page, "a cat")
    cells = page.locator("#stage [data-cell]").all()
    seeds = [int(cell.get_attribute("data-seed")) for cell in cells]
    titles = [cell.get_attribute("data-title") for cell in cells]
    assert len(seeds) == 9 and [title_of(page, number) for number in range(9)] == titles
    page.click("#stage [data-cell] >> nth=4")
    assert read_png_settings(io.BytesIO(download(page)))["seed"] == seeds[4]
    page.click("#stage [data-pick=use]")
    page.wait_for_function(f"document.querySelector('#seed input')?.value == '{seeds[4]}'")
    page.wait_for_function("!document.querySelector('#randomize input').checked")
    page.click("#stage [data-pick='vary:subtle']")
    page.wait_for_function("document.querySelectorAll('#stage [data-cell]').length === 4")
    assert [title_of(page, number) for number in range(4)] == [titles[4]] * 4
    page.wait_for_selector("#strip [data-pick^='picture:'] >> nth=12")  # the strip follows once a second


def test_drafts_and_settings_from_files(studio_url, open_page, tmp_path):
    page = open_page(studio_url)
    page.fill("#prompt textarea", "a half written")
    page.click("#style label:has-text('Flat')")
    page.click("#background label:has-text('Pink')")
    page.click("#count label:has-text('3')")
    set_steps(page, 33)
    page.fill("#negative textarea", "clouds")
    page.uncheck("#randomize input")
    page.fill("#seed input", "99")
    page.click("#sampler input")
    page.click("[role=option]:has-text('Heun')")
    page.wait_for_function("localStorage['studio-draft:text-to-image:']?.includes('heun')")
    page.reload()
    for tab in (page, open_page(studio_url, context=page.context)):
        tab.wait_for_function("document.querySelector('#prompt textarea')?.value === 'a half written'")
        tab.wait_for_selector("#hints:has-text('a half written, flat style, on a pink background')")
        assert tab.input_value("#steps input") == "33" and tab.input_value("#seed input") == "99"
        assert tab.input_value("#negative textarea") == "clouds" and not tab.is_checked("#randomize input")
        assert tab.input_value("#sampler input") == "Heun" and tab.is_checked("#count input[value='3']")
    # A picture dropped anywhere brings its settings.
    settings = {"prompt": "a <b>fox</b>", "style": "flat", "background": "blue", "steps": 9, "sampler": "euler"}
    settings |= {"seed": 77, "task": "text-to-image"}
    write_png(Image.new("RGB", (8, 8)), tmp_path / "fox.png", settings)
    open_tab(page, "Library")
    page.wait_for_selector("#album .empty")
    drop(page, "fox.png", (tmp_path / "fox.png").read_bytes(), "#album")
    page.wait_for_selector("#generate:visible")  # it went to the tab
    page.wait_for_selector("#message:has-text('fox.png')")
    assert page.input_value("#prompt textarea") == "a <b>fox</b>" and page.input_value("#sampler input") == "Euler"
    assert page.is_checked("#style input[value=flat]") and page.is_checked("#background input[value=blue]")
    assert page.input_value("#steps input") == "9" and page.input_value("#seed input") == "77"
    # A file may be chosen, too; one without settings changes nothing.
    choose(page, "#restore", b"no picture at all", "x.png")
    page.wait_for_selector("#message [role=alert]:has-text('x.png')")
    assert page.input_value("#prompt textarea") == "a <b>fox</b>"
