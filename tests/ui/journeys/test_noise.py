"""The noise tab in a real browser, over a tiny network with random weights. Journeys: several things on one page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from PIL import Image

from studio.engine import trace
from tests.serving import free_port
from tests.ui.journeys.noise_page import (
    assert_quick,
    at,
    choose_model,
    compare,
    copy_link,
    go_to,
    message,
    offline,
    open_tab,
    pixels,
    press,
    run,
    serving_noise,
    size,
)
from tests.ui.journeys.visitor import LOW_CONTRAST, set_shade

FORMAT = trace.FORMAT.encode()


@pytest.fixture(scope="module")
def noise_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("noise")


@pytest.fixture(scope="module")
def noise_url(noise_folder) -> Iterator[str]:
    with serving_noise(noise_folder, free_port()) as url:
        yield url


@pytest.fixture
def noise(noise_url, open_page):
    page = open_page(noise_url)
    open_tab(page)
    return page


def test_the_forward_view(noise, tmp_path):
    assert pixels(noise, "x_t").std() > 10  # nothing is empty on first sight
    with offline(noise):
        for t in range(0, 1000, 37):
            at(noise, t)
            alpha, sigma = map(float, re.findall(r"[\d.]{6}", noise.inner_text("[data-slot=formula]")))
            assert alpha**2 + sigma**2 == pytest.approx(1, abs=2e-4)
        at(noise, 0)
        assert np.abs(pixels(noise, "x_t").astype(int) - pixels(noise, "signal")).mean() < 3
        at(noise, 999)
        assert np.abs(pixels(noise, "x_t").astype(int) - pixels(noise, "noise")).mean() < 3
        assert_quick(noise)
    # Keys move the time.
    at(noise, 500)
    noise.focus("[data-slot=time-slider]")
    press(noise, "ArrowRight")
    assert noise.inner_text("[data-slot=time]") == "t = 510"
    press(noise, "Shift+ArrowLeft")
    assert noise.inner_text("[data-slot=time]") == "t = 509"
    press(noise, "End")
    assert noise.get_attribute("[data-slot=time-slider]", "aria-valuetext") == "t = 999"
    press(noise, "Home")
    noise.check("[data-slot=loop]")  # where the machine is slow, it would be at the end before the next key is pressed
    noise.focus("[data-slot=time-slider]")
    press(noise, " ")
    noise.wait_for_function("Number(document.querySelector('#noise [data-slot=time-slider]').value) > 20")
    press(noise, " ")
    assert noise.get_attribute("[data-act=play]", "aria-pressed") == "false"
    # A view can be exported.
    noise.uncheck("[data-slot=loop]")
    at(noise, 300)
    for kind in ("strip", "webp", "gif", "csv", "json"):
        with noise.expect_download() as coming:
            noise.click(f"[data-export={kind}]")
        path = tmp_path / coming.value.suggested_filename
        coming.value.save_as(path)
        if kind == "csv":
            lines = path.read_text("utf-8").splitlines()
            assert lines[0] == "t,alpha,sigma,alpha_bar,beta,log_snr" and len(lines) == 1001
        elif kind == "json":
            rows = json.loads(path.read_text("utf-8"))["rows"]
            assert all(abs(row["alpha"] ** 2 + row["sigma"] ** 2 - 1) < 1e-6 for row in rows)
        else:
            with Image.open(path) as made:
                assert getattr(made, "n_frames", 1) == (1 if kind == "strip" else 41)
    assert noise.inner_text("#noise [data-slot=time]") == "t = 300"  # as before the export
    # One's own picture, and what is none.
    (tmp_path / "no.png").write_bytes(b"not a picture")
    noise.set_input_files("[data-slot=file]", tmp_path / "no.png")
    assert "not a picture" in message(noise)
    before = pixels(noise, "signal")
    Image.new("RGB", (300, 200), (255, 0, 0)).save(tmp_path / "red.png")
    noise.set_input_files("[data-slot=file]", tmp_path / "red.png")
    noise.wait_for_function("document.querySelector('#noise [data-slot=preparation]').innerText.includes('0.333')")
    at(noise, 0)
    assert not np.array_equal(before, pixels(noise, "signal"))
    assert pixels(noise, "signal")[:3].tolist()[0] > 250
    noise.check("[data-slot=standardize]")
    noise.wait_for_function("document.querySelector('#noise [data-slot=facts]').innerText.includes('1.000')")
    noise.uncheck("[data-slot=standardize]")
    Image.new("1", (12_000, 9_000), 1).save(tmp_path / "huge.png")
    Image.new("RGB", (5_000, 1), "blue").save(tmp_path / "narrow.png")
    for name, mean in (("huge", "1.000"), ("narrow", "0.333")):
        noise.set_input_files("[data-slot=file]", tmp_path / f"{name}.png")
        noise.wait_for_selector(f"[data-slot=preparation]:has-text('{mean}')")


def test_the_reverse_view(noise, noise_folder):
    noise.click("[data-go=reverse]")
    noise.wait_for_function("document.querySelector('#noise [data-slot=maps]').children.length > 4")  # the shipped run
    assert_quick(noise)
    run(noise, "a red boat", 6)
    noise.wait_for_function("document.querySelector('#noise [data-slot=maps]').children.length == 5")
    noise.wait_for_function("document.querySelector('#noise [data-slot=maps]').lastChild.innerText.includes('%')")
    names = [text.split()[0] for text in noise.locator("[data-slot=maps] figcaption").all_inner_texts()]
    assert names == ["(start)", "a", "red", "boat", "(end)"]
    shares = [float(text.split()[-2]) for text in noise.locator("[data-slot=maps] figcaption").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    seen = []
    noise.focus("[data-slot=time-slider]")
    press(noise, "End")
    for _ in range(6):
        seen.append(noise.inner_text("[data-slot=arithmetic]").splitlines()[0])
        press(noise, "ArrowLeft")
    assert [line.partition(",")[0] for line in seen] == [f"step {n}" for n in range(1, 7)]
    text = noise.inner_text("[data-slot=arithmetic]")
    assert "xnext = 1.0000 · x̂0" in text and "left over: nothing" in text
    drawn = noise.locator("[data-slot=unet] .nv-level").all_inner_texts()
    assert drawn[0].split("\n")[:2] == ["in", "10 × 16 × 16"] and drawn[-1].split("\n")[:2] == ["out", "3 × 16 × 16"]
    assert drawn[1].split("\n") == ["down 0", "16 × 8 × 8"] and noise.locator("[data-slot=unet] .nv-skip").count() == 2
    assert np.array_equal(pixels(noise, "rx0"), pixels(noise, "rx_next"))  # the last prediction is the picture
    assert noise.locator("[data-slot=stages] button").count() == 2
    noise.click("[data-slot=stages] button >> nth=1")
    noise.wait_for_selector("text=also given: low-resolution picture")
    noise.fill("[data-form=run] [name=prompt]", "x" * 400)
    noise.eval_on_selector(
        "[data-form=run] [name=steps]", "field => { field.removeAttribute('min'); field.value = 0; }"
    )
    noise.click("[data-form=run] [type=submit]")
    assert "steps" in message(noise).lower()
    assert noise.inner_text("[data-slot=caption]") == "a red boat"  # the view stays
    # Every call of Heun has a time, and one pass is named.
    noise.select_option("[data-form=run] [name=sampler]", "heun")
    noise.check("[data-form=run] [name=one_pass]")
    run(noise, "a blue boat", 3)
    assert noise.is_checked("[data-form=run] [name=one_pass]")  # the form says what was run
    noise.focus("[data-slot=time-slider]")
    press(noise, "End")
    seen = []
    for _ in range(5):
        text = noise.inner_text("[data-slot=arithmetic]")
        assert "an input of the network" in text
        seen.append(text.partition(",")[0])
        press(noise, "ArrowLeft")
    assert seen == [f"step {number}" for number in range(1, 6)]
    # A trace that cannot be read is a sentence, and the view stays.
    before = pixels(noise, "rx0")
    picture = parse_qs(copy_link(noise).partition("?")[2])["run"][0]
    (path,) = (noise_folder / "traces").glob(f"*{picture}*")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole.replace(FORMAT, FORMAT[:-1] + b"9")):
        assert damaged != whole
        path.write_bytes(damaged)
        noise.evaluate("document.querySelector('#noise [data-slot=message]').removeAttribute('data-bad')")
        go_to(noise, f"#noise?view=reverse&t=0&run={picture}&n={len(damaged)}")
        assert "The trace of this picture cannot be read" in message(noise)
        assert noise.inner_text("[data-slot=caption]") == "a blue boat"
        assert np.array_equal(pixels(noise, "rx0"), before)


def test_the_compare_view(noise):
    noise.click("[data-go=compare]")
    noise.select_option("[name=compare_by]", "steps")
    captions = compare(noise)
    assert [text.splitlines()[0] for text in captions] == ["4 steps", "8 steps", "16 steps", "50 steps"]
    assert [re.search(r"(\d+) network calls", text).group(1) for text in captions] == ["4", "8", "16", "50"]
    ends = [float(re.search(r"final error ([\d.]+)", text).group(1)) for text in captions]
    assert ends[0] > ends[1] > ends[3]
    assert_quick(noise)
    # Two runs freely chosen, each against the end of its own flow.
    noise.click("[data-act=drop] >> nth=3")
    noise.click("[data-act=drop] >> nth=1")
    lanes = "fieldset[data-entry]:visible"
    assert noise.locator(lanes).count() == 2 and noise.locator("[data-act=drop]:enabled:visible").count() == 0
    noise.click("[data-act=add]")
    assert noise.locator(lanes).count() == 3
    noise.click("[data-act=drop] >> nth=2")
    for lane, sampler, steps, guidance in ((0, "heun", 5, 1), (1, "ddim", 40, 4)):
        noise.select_option(f"{lanes} >> nth={lane} >> [name=sampler]", sampler)
        noise.fill(f"{lanes} >> nth={lane} >> [name=steps]", str(steps))
        noise.fill(f"{lanes} >> nth={lane} >> [name=guidance]", str(guidance))
    assert noise.input_value("[name=compare_by]") == "own"
    one, other = compare(noise)
    assert one.startswith("Heun, 5 steps, guidance 1") and "9 network calls;" in one  # two of a step, but of the last
    assert "40 network calls on 80 pictures" in other
    assert all(float(re.search(r"final error ([\d.]+)", text).group(1)) < 0.2 for text in (one, other))
    noise.click("[data-slot=runs] button >> nth=1")
    noise.wait_for_function("document.querySelector('#noise [data-form=run] [name=guidance]').value === '4'")
    assert noise.get_attribute("#noise [data-go][aria-selected=true]", "data-go") == "reverse"


def test_the_plane_learns_a_drawing(noise):
    noise.click("[data-go=plane]")
    noise.wait_for_function(
        """() => { const c = document.querySelector("canvas[data-draw=plane]");
        return c.width && c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some(Boolean); }"""
    )
    assert_quick(noise)
    moons = pixels(noise, "plane")
    noise.select_option("[data-slot=shape]", "spiral")
    noise.wait_for_selector("[data-slot=trained]:text-is('not trained yet')")
    noise.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert not np.array_equal(moons, pixels(noise, "plane"))  # what is to be learned is seen before it is
    noise.select_option("[data-slot=shape]", "drawing")
    noise.click("[data-act=train]")
    assert "The drawing is empty" in message(noise)
    box = noise.locator("canvas[data-draw=plane]").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    noise.mouse.move(*middle)
    noise.mouse.down()
    noise.mouse.move(middle[0] + 60, middle[1] - 40, steps=6)
    noise.mouse.up()
    noise.click("[data-act=train]")
    noise.wait_for_function("/^[1-9]/.test(document.querySelector('#noise [data-slot=trained]').innerText)")
    noise.wait_for_selector("[data-act=train]:has-text('Stop')")
    noise.click("[data-act=train]")
    noise.wait_for_selector("[data-act=train]:has-text('Train on')")


def test_links_and_messages_from_other_tabs(noise_url, open_page):
    page = open_page(noise_url)
    page.fill("#picture textarea, #picture input", "nothing")
    page.click("#open")  # before the tab was ever opened
    open_tab(page)
    assert message(page) == "No trace was kept of how this picture was made."
    page.select_option("[data-slot=schedule]", "linear")
    at(page, 300)
    link = copy_link(page)
    # A link restores the view for another visitor.
    page = open_page(link)
    open_tab(page)
    page.wait_for_function("document.querySelector('#noise [data-slot=time]')?.innerText === 't = 300'")
    assert page.eval_on_selector("[data-slot=schedule]", "select => select.value") == "linear"
    # What was not kept for this visitor is made again from the link's settings.
    settings = "prompt=a+boat&steps=4&guidance=2&seed=9"
    page = open_page(f"{noise_url}#noise?view=reverse&t=500&stage=1&run=nobodys&{settings}")
    open_tab(page)
    page.wait_for_function("document.querySelector('#noise [data-slot=caption]')?.innerText === 'a boat'")
    page.wait_for_function("document.querySelector('#noise [data-slot=time]')?.innerText === 't = 500'")
    page.wait_for_selector("[data-slot=stages] button[aria-pressed=true] >> nth=0 >> text=32 × 32 px")
    go_to(page, "#noise?view=compare&t=0&prompt=a+boat&runs=ddim,3,2,1;studio,4,2,5")
    page.wait_for_selector("[data-slot=runs] figcaption >> nth=1 >> text=Studio, 4 steps, seed 5")
    go_to(page, "#noise?view=plane&t=0&shape=drawing&strokes=0,0.5,0.5")  # one point
    page.wait_for_function("/^[1-9]/.test(document.querySelector('#noise [data-slot=trained]')?.innerText)")
    page.wait_for_function("document.querySelector('#noise canvas[data-draw=plane]').width > 1")
    assert pixels(page, "plane").any()
    for hash, sentence in (
        ("view=plane&t=0&shape=drawing&strokes=7,0,0", "a drawing is a list of"),
        ("view=reverse&t=500&run=nobodys", "No trace was kept of how this picture was made."),
        ("view=sideways", "This link names a view that does not exist."),
    ):
        go_to(page, f"#noise?{hash}")
        page.wait_for_selector(f"#noise [data-slot=message][data-bad]:has-text('{sentence}')")


UNNAMED = """panel => [...document.querySelectorAll("#noise .nv-bar *, #noise [data-panel=" + panel + "] *")]
  .filter(e => e.matches("input, select, button, summary, canvas, [role]") && e.checkVisibility())
  .filter(e => !(e.ariaLabel || e.getAttribute("aria-labelledby") || e.innerText?.trim() && !e.matches("select")
    || [...(e.labels ?? [])].some(label => label.innerText.trim())))
  .map(e => e.outerHTML.slice(0, 120))"""


def test_every_view_fits_can_be_read_and_names_its_controls(noise_url, open_page):
    page = open_page(noise_url, width=390, height=800)
    open_tab(page)
    for panel in ("forward", "reverse", "compare", "latents", "plane"):
        page.click(f"[data-go={panel}]")
        if panel == "reverse":
            page.wait_for_selector("[data-slot=unet] canvas")
        widths = page.eval_on_selector_all(
            f"[data-panel={panel}], [data-panel={panel}] > *",
            "parts => parts.map(p => p.getBoundingClientRect().right)",
        )
        assert max(widths) <= 390
        page.set_viewport_size({"width": 1280, "height": 860})
        for summary in page.locator(f"[data-panel={panel}] summary").all():
            summary.click()
        for shade in ("light", "dark"):
            set_shade(page, shade)
            assert page.evaluate(LOW_CONTRAST) == []
        assert page.evaluate(UNNAMED, panel) == []
        page.set_viewport_size({"width": 390, "height": 800})


def test_a_latent_model(noise):
    """Its samplers; a run in colours, by channel and decoded; attention at a step; a picture beside its latents."""
    noise.click("[data-go=latents]")
    assert "has no latents" in noise.inner_text("[data-slot=latents-note]")
    choose_model(noise, "sd15")
    assert noise.locator("[data-form=run] [name=sampler] option[value=pndm]").count() == 1
    noise.click("[data-go=reverse]")
    assert not noise.is_visible("[data-form=run] [name=one_pass]")
    run(noise, "a cat on a boat", 3)
    noise.wait_for_selector("[data-slot=stages] >> text=32 × 32 × 4 latents")
    assert size(noise, "rx0") == [32, 32]
    noise.click("[data-show-as=channels]")
    noise.wait_for_selector("[data-show-as=channels][aria-pressed=true]")
    at(noise, 0)
    assert size(noise, "rx0") == [64, 64] and len(np.unique(pixels(noise, "rx0").reshape(-1, 4), axis=0)) > 50
    noise.click("[data-act=decode][data-array=x0]")
    noise.wait_for_selector("[data-show-as=colours][aria-pressed=true]")
    at(noise, 0)
    assert size(noise, "rx0") == [64, 64] and size(noise, "rx_t") == [32, 32]
    noise.click("[data-act=inspect]")
    noise.wait_for_selector("[data-slot=unet] canvas")
    assert noise.locator("[data-slot=maps] b").all_inner_texts() == ["(start)", "a", "cat", "on", "a", "boat", "(end)"]
    noise.click("[data-go=latents]")
    noise.select_option("[data-slot=latents-size]", "128")
    noise.click("[data-act=encode]")
    noise.wait_for_selector("[data-slot=latents-channels] img >> nth=3")
    assert "3.0 : 1" in noise.inner_text("[data-slot=latents-facts]")
    noise.click("[data-go=forward]")
    noise.select_option("[data-slot=space]", "latents")
    noise.wait_for_selector("[data-slot=preparation] >> text=channel 4")
    assert pixels(noise, "x_t").std() > 10
    choose_model(noise, "")


def test_the_tour_leads_through_all_views(noise):
    noise.click("[data-tour=begin]")
    seen = set()
    for number in range(1, 12):
        noise.wait_for_selector(f"[data-slot=tour] >> text={number} of 11")
        seen.add(noise.get_attribute("#noise [data-go][aria-selected=true]", "data-go"))
        noise.wait_for_selector("[data-pointed]")  # seen once its view has come
        assert noise.locator("[data-pointed]:visible").count() == 1
        noise.keyboard.press("ArrowRight")
    assert seen == {"forward", "reverse", "compare", "plane"}
    noise.wait_for_selector("[data-slot=tour]", state="hidden")
    noise.click("[data-tour=begin]")
    noise.keyboard.press("Escape")
    noise.wait_for_selector("[data-slot=tour]", state="hidden")
