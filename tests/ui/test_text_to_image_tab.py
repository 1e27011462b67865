"""The tab "Text to image" without a browser: what its buttons answer."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.library.metadata import read_png_settings, write_png
from studio.models.families.studio import load_backend
from tests.fakes import FakeBackend
from tests.ui.harness import OpenPage, attributes, fake_studio, paint, png, slot, title_of


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float32)


def click_on_stage(page: OpenPage, pick: str, key: str | None = None) -> None:
    page.fire("stage", pick=pick, key=key or attributes(page["stage"], "data-key")[0])


def test_words_become_a_picture(page):
    paint(page, "a red apple", style="glossy", background="blue")
    assert title_of(page["stage"]) == "a red apple, glossy style, on a blue background"
    assert re.search(r"Time \d+\.\d\d s", page.text("stage"))
    (picture,) = page.pictures(1)
    settings = read_png_settings(picture.path)
    assert settings["seed"] == int(slot(page["stage"], "seed")) == page["seed"]
    assert (settings["prompt"], settings["style"], settings["background"]) == ("a red apple", "glossy", "blue")
    assert page.setting("stop", "interactive") is False
    page.tick()
    assert attributes(page["strip"], "data-pick")[0] == f"picture:{picture.id}"


def test_a_new_page_shows_examples_the_model_and_its_words(page):
    assert 'data-kind="example"' in page["stage"] and page["strip"].count("<img") >= 6
    page.tick()
    header = page.text("header")
    assert (
        "Diffusion Studio" in header and "Blob 64" in page.text("model-menu") and "CPU" in header and "ready" in header
    )


def test_stop_ends_a_long_run(page, slow):
    page.type(prompt="a cat", steps=1000)
    page.fire("generate", follow=False)
    assert page.setting("stop", "interactive") is True
    page.follow("stage", until='data-kind="running"')
    assert "of 1000" in page.text("stage") and 'src="data:image/png' in page["stage"]
    page.fire("stop")
    page.follow("stage")
    assert re.search(r"Stopped at step \d+ of 1000", page.text("stage"))
    assert page.setting("stop", "interactive") is False and page.pictures(1) == []


def test_a_preset_sets_its_numbers_and_other_numbers_are_no_preset(page):
    assert page["preset"] == "balanced"
    page.type(preset="best")
    assert page["steps"] > 10 and page["preset"] == "best"
    page.type(steps=7)
    assert page["preset"] is None
    page.type(preset="live")
    assert page["steps"] == 3 and page["preset"] == "live"


def test_nine_pictures_each_with_its_seed_and_its_words(page):
    paint(page, "a cat", count=9)
    stage = page["stage"]
    seeds, titles = [int(seed) for seed in attributes(stage, "data-seed")], attributes(stage, "data-title")
    assert seeds == [(seeds[0] + index) % 2**32 for index in range(9)] and len(set(titles)) > 3
    kept = {picture.seed: picture for picture in page.pictures(9)}
    assert titles == [kept[seed].settings["caption"] for seed in seeds]
    click_on_stage(page, "use", f"picture:{kept[seeds[4]].id}")
    assert page["seed"] == seeds[4] and page["randomize"] is False
    paint(page, count=1)  # alone, it is the same
    assert title_of(page["stage"]) == titles[4]
    assert np.array_equal(pixels(page.pictures(1)[0].path), pixels(kept[seeds[4]].path))


def test_style_and_background_may_be_left_to_the_model(page):
    paint(page, "a cat")
    assert re.fullmatch(r"a cat, \w+ style, on a \w+ background", title_of(page["stage"]))
    click_on_stage(page, "use")
    assert page["randomize-style"] is True and page["style"] == "any" and page["randomize"] is False
    paint(page, randomize_style=False)
    assert title_of(page["stage"]) == "a cat"
    assert read_png_settings(page.pictures(1)[0].path)["randomize_style"] is False


def test_variations_have_the_words_of_their_picture(page):
    paint(page, "a cat")
    words = title_of(page["stage"])
    click_on_stage(page, "vary:subtle")
    assert attributes(page["stage"], "data-title") == [words] * 4
    settings = read_png_settings(page.pictures(1)[0].path)
    assert (settings["prompt"], settings["strength"], settings["randomize_style"]) == ("a cat", 0.35, False)


def test_the_same_seed_gives_the_same_picture(page):
    page.type(randomize=False, seed=1234)
    paths = []
    for _ in range(2):
        paint(page, "a blue fish")
        assert slot(page["stage"], "seed") == "1234"
        paths.append(page.pictures(1)[0].path)
    assert paths[0] != paths[1] and np.array_equal(*map(pixels, paths))


def test_an_example_is_shown_and_fills_the_page_in(page):
    page.fire("strip", pick="example:1")
    assert 'data-kind="example"' in page["stage"]
    assert page["prompt"] and page["prompt"] in title_of(page["stage"])


def test_hints_give_the_full_prompt_and_the_nearest_known_word(page):
    page.type(prompt="a red Castle by a tree", style="flat")
    assert "Full prompt: a red Castle by a tree, flat style" in page.text("hints")
    assert 'data-swap="castle" data-for="candle"' in page["hints"]
    page.type(prompt="a red candle by a tree")
    assert "data-swap" not in page["hints"]


@pytest.mark.parametrize(
    ("control", "value", "sentence"),
    [
        ("steps", 0, "The steps must be a whole number from 1 to 1000; it was 0."),
        ("steps", 10000, "The steps must be a whole number from 1 to 1000; it was 10000."),
        ("steps", 1.5, "it was 1.5"),
        ("guidance", 31, "The guidance must be a number from 0 to 30; it was 31"),
        ("guidance", None, "The guidance must be a number from 0 to 30; it was empty."),
        ("seed", -1, "The seed must be a whole number from 0 to 4294967295; it was -1."),
        ("seed", 4294967296, "The seed must be a whole number from 0 to 4294967295"),
        ("prompt", "x" * 10_001, "The prompt may have at most 10,000 characters; this one has 10,001."),
    ],
)
def test_a_wrong_value_is_answered_with_a_sentence_and_the_next_picture_comes(page, control, value, sentence):
    good = page[control]
    page.type(randomize=False)
    page.type(**{control: value})
    page.fire("generate")
    assert 'role="alert"' in page["message"] and sentence in page.text("message")
    page.type(**{control: good})
    paint(page, "")
    assert "The prompt was empty" in page.text("stage") and page["message"] == ""


def test_a_long_prompt_is_cut_and_the_page_says_where(page):
    paint(page, "a red apple " * 800)
    assert "It did not read: “a red apple a red" in page.text("stage")


def test_what_waits_for_the_model_says_so_and_starts_by_itself(tmp_path):
    gate = threading.Event()

    def load() -> FakeBackend:
        gate.wait(60)
        return FakeBackend()

    with fake_studio(tmp_path, load, thumbnails=False) as studio:
        page = studio.open()
        assert "Blob 64 is loading" in page.text("header")
        page.type(prompt="a red apple")
        page.fire("generate", follow=False)
        page.follow("stage", until="The model is loading. Your picture starts by itself")
        gate.set()
        page.follow("stage", until='data-kind="done"')
        page.tick()
        assert "ready" in page.text("header")
        words = next(part for part in studio.page.blocks.values() if part.elem_id == "vocabulary").value
        assert words.count('class="word"') > 100 and "<i " not in words  # without thumbnails, no empty squares


@pytest.mark.parametrize("harm", ["does not exist", "is cut short", "holds a pickle"])
def test_a_bad_model_is_reported_and_the_page_stays(tmp_path, harm):
    folder = tmp_path / "model"
    if harm != "does not exist":
        folder.mkdir()
        (folder / "model_index.json").write_text("{" if harm == "is cut short" else "{}")
    if harm == "holds a pickle":
        (folder / "weights.ckpt").write_bytes(b"never opened")
    with fake_studio(tmp_path / "studio", lambda: load_backend(folder, "cpu")) as studio:
        studio.context.engine.wait_until_ready(60)
        page = studio.open()
        assert re.search(r'<p class="problem" role="alert">[^<]*\.</p>', page["header"])
        assert harm in page.text("header")
        page.fire("generate")
        assert harm in page.text("stage") and 'data-kind="stopped"' in page["stage"]


# ---- settings from files ----


def png_with(text: str) -> bytes:
    info = PngInfo()
    info.add_text("parameters", text)
    return png(Image.new("RGB", (8, 8)), pnginfo=info)


def test_a_picture_of_ours_brings_its_settings(page, tmp_path):
    settings = {
        "prompt": "a <b>fox</b>",
        "negative_prompt": "snow",
        "style": "flat",
        "background": "blue",
        "steps": 9,
        "guidance": 4.5,
        "sampler": "euler",
        "seed": 77,
        "task": "text-to-image",
    }
    write_png(Image.new("RGB", (8, 8)), tmp_path / "fox.png", settings)
    page.upload("restore", (tmp_path / "fox.png").read_bytes(), "fox.png")
    assert "fox.png" in page.text("message") and 'role="alert"' not in page["message"]
    assert page.setting("tabs", "selected") == "text-to-image"
    controls = {"negative_prompt": "negative"}
    for name, value in settings.items():
        assert name == "task" or page[controls.get(name, name)] == value
    assert page["randomize"] is False


def test_a_picture_of_another_studio_brings_what_can_be_taken(page):
    page.type(style="noto")
    text = "a castle\nNegative prompt: fog\nSteps: 28, Sampler: DPM++ SDE Karras, CFG scale: 7, Seed: 5, Model: dream"
    page.upload("restore", png_with(text), "castle.png")
    message = page.text("message")
    assert "castle.png" in message and "DPM++ SDE Karras" in message and "dream" in message
    assert "the sampler must be one of studio" in message
    assert page["prompt"] == "a castle" and page["style"] == "any" and page["negative"] == "fog"
    assert page["steps"] == 28 and page["guidance"] == 7 and page["seed"] == 5 and page["sampler"] == "studio"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no picture at all", "x.png: The file is not a PNG picture, or it is cut short."),
        (png(Image.new("RGB", (8, 8))), "x.png holds no settings."),
    ],
)
def test_a_file_without_settings_is_answered_with_a_sentence(page, content, sentence):
    page.type(prompt="mine")
    page.upload("restore", content, "x.png")
    assert 'role="alert"' in page["message"] and sentence in page.text("message")
    assert page["prompt"] == "mine"
