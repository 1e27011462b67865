"""The noise tab in a real browser, over a tiny network with random weights."""

from __future__ import annotations

import base64
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from studio.engine import trace
from tests.ui.conftest import free_port, serving
from tests.ui.test_page import LOW_CONTRAST

FORMAT = trace.FORMAT.encode()
PIXELS = """name => { const c = document.querySelector(`#noise canvas[data-draw="${name}"]`);
  const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height), parts = [];
  for (let i = 0; i < data.length; i += 32768) parts.push(String.fromCharCode(...data.subarray(i, i + 32768)));
  return btoa(parts.join("")); }"""  # as a string: a list of numbers takes seconds on its way here


@pytest.fixture(scope="module")
def noise_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("noise")


@pytest.fixture(scope="module")
def noise_url(noise_folder) -> Iterator[str]:
    port = free_port()
    with serving("-m", "tests.ui.serve_noise", str(noise_folder), str(port), port=port) as url:
        yield url


@pytest.fixture
def noise(noise_url, open_page):
    page = open_page(noise_url)
    page.click("button[role=tab]:has-text('Noise')")
    page.wait_for_selector("#noise[data-ready], #noise [data-ready]", state="attached")
    return page


def at(page, t: int) -> None:
    """Move the time slider there, and wait until the view is drawn."""
    page.evaluate(
        """t => { const slider = document.querySelector('#noise [data-slot=time-slider]');
        slider.value = t; slider.dispatchEvent(new Event('input', { bubbles: true }));
        return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))); }""",
        t,
    )


def pixels(page, name: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(page.evaluate(PIXELS, name)), np.uint8)


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def message(page) -> str:
    page.wait_for_function("document.querySelector('#noise [data-slot=message]').hasAttribute('data-bad')")
    return page.inner_text("#noise [data-slot=message]")


def test_the_time_slider_moves_the_forward_view_without_a_request(noise):
    assert pixels(noise, "x_t").std() > 10  # nothing is empty on first sight
    asked = []
    noise.on("request", lambda request: asked.append(request.url))
    for t in range(0, 1000, 37):
        at(noise, t)
        alpha, sigma = map(float, re.findall(r"[\d.]{6}", noise.inner_text("[data-slot=formula]")))
        assert alpha**2 + sigma**2 == pytest.approx(1, abs=2e-4)
    assert not [url for url in asked if "component_server" in url or "join" in url]
    at(noise, 0)
    assert np.abs(pixels(noise, "x_t").astype(int) - pixels(noise, "signal")).mean() < 3
    at(noise, 999)
    assert np.abs(pixels(noise, "x_t").astype(int) - pixels(noise, "noise")).mean() < 3


@pytest.mark.parametrize("panel", ["forward", "reverse", "compare", "plane"])
def test_drawing_a_time_takes_less_than_a_frame_of_the_screen(noise, panel):
    noise.click(f"[data-go={panel}]")
    if panel == "compare":
        compare(noise)
    if panel == "reverse":
        noise.wait_for_function("document.querySelector('#noise [data-slot=maps]').children.length > 4")
    costs = []  # ms, of all that a tick computes and draws
    for t in range(0, 1000, 37):
        at(noise, t)
        costs.append(float(noise.evaluate("document.querySelector('#noise [data-cost]').dataset.cost")))
    # What else runs here is in them too, so that the cheapest say what a tick costs; the benchmark has the median.
    assert statistics.quantiles(costs, n=10)[0] < 16


def press(noise, key: str) -> None:
    """Presses a key, and waits until what it changes is drawn."""
    noise.keyboard.press(key)
    noise.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_the_keyboard_moves_the_time(noise):
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


def test_ones_own_picture_and_what_is_not_one(noise, tmp_path):
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


def test_a_run_step_by_step(noise):
    noise.click("[data-go=reverse]")
    noise.wait_for_function("document.querySelector('#noise [data-slot=maps]').children.length > 4")  # the shipped run
    noise.fill("[data-form=run] [name=prompt]", "a red boat")
    noise.fill("[data-form=run] [name=steps]", "6")
    noise.click("[data-form=run] [type=submit]")
    noise.wait_for_function("document.querySelector('#noise [data-slot=caption]').innerText == 'a red boat'")
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


def test_every_call_of_heun_has_a_time_and_one_pass_is_named(noise):
    noise.click("[data-go=reverse]")
    noise.fill("[data-form=run] [name=prompt]", "a blue boat")
    noise.fill("[data-form=run] [name=steps]", "3")
    noise.select_option("[data-form=run] [name=sampler]", "heun")
    noise.check("[data-form=run] [name=one_pass]")
    noise.click("[data-form=run] [type=submit]")
    noise.wait_for_function("document.querySelector('#noise [data-slot=caption]').innerText == 'a blue boat'")
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


def compare(page) -> list[str]:
    """Presses Compare; what is said of each run."""
    page.eval_on_selector("[data-slot=runs]", "runs => runs.replaceChildren()")
    page.click("[data-form=compare] [type=submit]")
    page.wait_for_selector("[data-slot=runs] canvas")
    return page.locator("[data-slot=runs] figcaption").all_inner_texts()


def test_runs_compared(noise):
    noise.click("[data-go=compare]")
    noise.select_option("[name=compare_by]", "steps")
    captions = compare(noise)
    assert [text.splitlines()[0] for text in captions] == ["4 steps", "8 steps", "16 steps", "50 steps"]
    assert [re.search(r"(\d+) network calls", text).group(1) for text in captions] == ["4", "8", "16", "50"]
    ends = [float(re.search(r"final error ([\d.]+)", text).group(1)) for text in captions]
    assert ends[0] > ends[1] > ends[3]


def test_two_runs_freely_chosen_each_against_the_end_of_its_own_flow(noise):
    noise.click("[data-go=compare]")
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


def test_one_point_and_what_is_no_drawing(noise_url, open_page):
    page = open_page(f"{noise_url}#noise?view=plane&t=0&shape=drawing&strokes=0,0.5,0.5")
    page.click("button[role=tab]:has-text('Noise')")
    page.wait_for_function("/^[1-9]/.test(document.querySelector('#noise [data-slot=trained]')?.innerText)")
    page.wait_for_function("document.querySelector('#noise canvas[data-draw=plane]').width > 1")
    assert pixels(page, "plane").any()
    other = open_page(f"{noise_url}#noise?view=plane&t=0&shape=drawing&strokes=7,0,0")
    other.click("button[role=tab]:has-text('Noise')")
    assert "a drawing is a list of" in message(other)


def test_a_huge_picture_is_made_small_and_a_narrow_one_shown(noise, tmp_path):
    Image.new("1", (12_000, 9_000), 1).save(tmp_path / "huge.png")
    Image.new("RGB", (5_000, 1), "blue").save(tmp_path / "narrow.png")
    for name, mean in (("huge", "1.000"), ("narrow", "0.333")):
        noise.set_input_files("[data-slot=file]", tmp_path / f"{name}.png")
        noise.wait_for_selector(f"[data-slot=preparation]:has-text('{mean}')")


@pytest.mark.parametrize(
    "harm",
    [lambda data: data[: len(data) // 2], lambda data: data.replace(FORMAT, FORMAT[:-1] + b"9")],
    ids=["cut short", "of another version"],
)
def test_a_trace_that_cannot_be_read_is_a_sentence_and_the_view_stays(noise, noise_folder, harm):
    noise.click("[data-go=reverse]")
    noise.fill("[data-form=run] [name=prompt]", "a red boat")
    noise.fill("[data-form=run] [name=steps]", "3")
    noise.click("[data-form=run] [type=submit]")
    noise.wait_for_function("document.querySelector('#noise [data-slot=caption]').innerText == 'a red boat'")
    before = pixels(noise, "rx0")
    noise.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    noise.click("[data-export=link]")
    noise.wait_for_function("window.copied")
    picture = parse_qs(noise.evaluate("window.copied").partition("?")[2])["run"][0]
    (path,) = (noise_folder / "traces").glob(f"*{picture}*")
    damaged = harm(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    noise.evaluate("run => { location.hash = `#noise?view=reverse&run=${run}`; }", picture)
    assert "The trace of this picture cannot be read" in message(noise)
    assert noise.inner_text("[data-slot=caption]") == "a red boat"
    assert np.array_equal(pixels(noise, "rx0"), before)


def test_no_trace_no_view(noise):
    noise.fill("#picture textarea, #picture input", "nothing")
    noise.click("#open")
    assert message(noise) == "No trace was kept of how this picture was made."


def test_a_letter_that_comes_before_the_tab_was_ever_opened(noise_url, open_page):
    page = open_page(noise_url)
    page.fill("#picture textarea, #picture input", "nothing")
    page.click("#open")
    page.click("button[role=tab]:has-text('Noise')")
    assert message(page) == "No trace was kept of how this picture was made."


def test_endpoints(noise_url, tmp_path):
    client = Client(noise_url, verbose=False)
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    file, numbers = client.predict(
        image=handle_file(path), t=300, schedule="linear", size=32, api_name="/forward_noise"
    )
    assert size_of(file) == (32, 32)
    assert numbers["alpha"] ** 2 + numbers["sigma"] ** 2 == pytest.approx(1)
    assert numbers["measured"]["variance"] == pytest.approx(numbers["expected"]["variance"], rel=0.1)
    for change, sentence in (
        ({"t": 1000}, "t is 1000; it must be a whole number from 0 to 999"),
        ({"schedule": "sigmoid"}, "schedule is 'sigmoid'; it must be one of"),
        ({"size": 7}, "size is 7; it must be one of 16, 32"),
        ({"seed": -1}, "The seed must be a whole number from 0 to 4294967295; it was -1."),
        ({"image": {"path": "assets/examples/1.png"}}, "The image must be an uploaded file"),
    ):
        with pytest.raises(AppError, match=re.escape(sentence)):
            client.predict(**{"image": handle_file(path), **change}, api_name="/forward_noise")
    strip, info = client.predict(prompt="a red apple", steps=3, seed=5, api_name="/reverse_trace")
    assert size_of(strip) == (48, 16) and info["seed"] == 5
    assert [len(stage["steps"]) for stage in info["stages"]] == [3, 1]
    assert info["stages"][0]["steps"][2]["arithmetic"] == "x_next = 1.0000 · x̂0"
    with pytest.raises(AppError, match="sampler"):
        client.predict(prompt="x", sampler="plms", api_name="/reverse_trace")


def test_a_telephone_shows_every_view_in_its_width(noise_url, open_page):
    page = open_page(noise_url, width=390, height=800)
    page.click("button[role=tab]:has-text('Noise')")
    page.wait_for_selector("#noise[data-ready], #noise [data-ready]", state="attached")
    for panel in ("forward", "reverse", "compare", "plane"):
        page.click(f"[data-go={panel}]")
        widths = page.eval_on_selector_all(
            f"[data-panel={panel}], [data-panel={panel}] > *",
            "parts => parts.map(p => p.getBoundingClientRect().right)",
        )
        assert max(widths) <= 390


UNNAMED = """panel => [...document.querySelectorAll("#noise .nv-bar *, #noise [data-panel=" + panel + "] *")]
  .filter(e => e.matches("input, select, button, summary, canvas, [role]") && e.checkVisibility())
  .filter(e => !(e.ariaLabel || e.getAttribute("aria-labelledby") || e.innerText?.trim() && !e.matches("select")
    || [...(e.labels ?? [])].some(label => label.innerText.trim())))
  .map(e => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("shade", ["light", "dark"])
def test_every_view_can_be_read_and_every_control_has_a_name(noise_url, open_page, shade):
    page = open_page(noise_url, color_scheme=shade)
    page.click("button[role=tab]:has-text('Noise')")
    page.wait_for_selector("#noise[data-ready], #noise [data-ready]", state="attached")
    for panel in ("forward", "reverse", "compare", "plane"):
        page.click(f"[data-go={panel}]")
        if panel == "reverse":
            page.wait_for_selector("[data-slot=unet] canvas")
        for summary in page.locator(f"[data-panel={panel}] summary").all():
            summary.click()
        assert page.evaluate(LOW_CONTRAST) == []
        assert page.evaluate(UNNAMED, panel) == []


def test_a_view_is_taken_along(noise, tmp_path):
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


def test_a_link_restores_the_view_for_whoever_made_it(noise, noise_url, open_page):
    noise.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    noise.select_option("[data-slot=schedule]", "linear")
    at(noise, 300)
    noise.click("[data-export=link]")
    noise.wait_for_function("window.copied")
    page = open_page(noise.evaluate("window.copied"))
    page.click("button[role=tab]:has-text('Noise')")
    page.wait_for_function("document.querySelector('#noise [data-slot=time]')?.innerText === 't = 300'")
    assert page.eval_on_selector("[data-slot=schedule]", "select => select.value") == "linear"
    settings = "prompt=a+boat&steps=4&guidance=2&seed=9"
    again = open_page(f"{noise_url}#noise?view=reverse&t=500&stage=1&run=nobodys&{settings}")
    again.click("button[role=tab]:has-text('Noise')")  # not kept for a stranger, who gets it made again
    again.wait_for_function("document.querySelector('#noise [data-slot=caption]')?.innerText === 'a boat'")
    again.wait_for_function("document.querySelector('#noise [data-slot=time]')?.innerText === 't = 500'")
    again.wait_for_selector("[data-slot=stages] button[aria-pressed=true] >> nth=0 >> text=32 × 32 px")
    compared = open_page(f"{noise_url}#noise?view=compare&t=0&prompt=a+boat&runs=ddim,3,2,1;studio,4,2,5")
    compared.click("button[role=tab]:has-text('Noise')")
    compared.wait_for_selector("[data-slot=runs] figcaption >> nth=1 >> text=Studio, 4 steps, seed 5")
    stranger = open_page(f"{noise_url}#noise?view=reverse&t=500&run=nobodys")
    stranger.click("button[role=tab]:has-text('Noise')")
    assert message(stranger) == "No trace was kept of how this picture was made."
    nonsense = open_page(f"{noise_url}#noise?view=sideways")
    nonsense.click("button[role=tab]:has-text('Noise')")
    assert message(nonsense) == "This link names a view that does not exist."


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
