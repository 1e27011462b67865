"""Jobs outlive the page: refresh, second tab, restart, another visitor; and the queue panel. In a real browser."""

from __future__ import annotations

import io
import re
import urllib.error
import urllib.request

import pytest
from PIL import Image

from studio.library.metadata import write_png
from tests.ui.conftest import DONE, free_port, generate, open_tab, serving_fake, set_steps, start

RUNNING = ".stage[data-kind=running]"


def rows(page) -> list[str]:
    """What stands in the queue, from the top."""
    return [row.split(" × ")[0] for row in page.locator("#queue .what").all_inner_texts()]


def wait_for_rows(page, *captions: str) -> None:
    page.wait_for_function(
        """wanted => [...document.querySelectorAll("#queue .what")].map((row) => row.textContent).join() === wanted""",
        arg=",".join(captions),
    )


def act(page, what: str, caption: str) -> None:
    page.click(f"#queue li:has(.what:text-is('{caption}')) [data-act={what}]")


def test_a_refresh_in_mid_run_finds_it_again_and_it_ends(studio_url, open_page):
    page = open_page(studio_url)
    start(page, "a red apple", 240)
    page.wait_for_selector(RUNNING)
    page.reload()
    page.wait_for_selector(f"{RUNNING}:has-text('of 240')")
    assert page.is_enabled("#stop") and page.inner_text(".label .title") == "a red apple"
    page.wait_for_selector(DONE)
    page.wait_for_selector("#stop:disabled")
    assert page.inner_text("[data-slot=steps]") == "240"
    page.reload()  # and what is done is there, too
    page.wait_for_selector(DONE)
    assert page.inner_text("[data-slot=steps]") == "240"
    assert page.locator("#strip [data-pick^='picture:']").count() == 1


def test_a_second_tab_sees_the_same(studio_url, open_page):
    page = open_page(studio_url)
    start(page, "a cat", 1000)
    page.wait_for_selector(RUNNING)
    other = open_page(studio_url, context=page.context)
    other.wait_for_selector(f"{RUNNING}:has-text('of 1000')")
    other.click("#stop")
    for tab in (other, page):
        tab.wait_for_selector(".stage[data-kind=stopped] .title:text-is('a cat')")


def test_another_visitor_sees_nothing_of_it(studio_url, open_page):
    page = open_page(studio_url)
    generate(page, "a walrus in a hat")
    start(page, "a second walrus", 1000)
    stranger = open_page(studio_url)
    stranger.wait_for_selector("#header [role=status]:has-text('painting')")  # the page has heard of the engine since
    assert stranger.is_visible(".stage[data-kind=example]")
    stranger.click("[data-tray=toggle]")
    assert rows(stranger) == []
    open_tab(stranger, "Library")
    stranger.wait_for_selector("#album .empty")
    assert "walrus" not in stranger.content()
    page.click("#stop")
    page.wait_for_selector(".stage[data-kind=stopped]")


def test_pictures_belong_to_the_user_who_signed_in(tmp_path, browser, open_page):
    """Whatever browser they come from; to another user, and to who has not signed in, they are not there."""
    contexts = [browser.new_context() for _ in range(3)]
    with serving_fake(tmp_path, "--auth", "ann:secret,bob:other") as url:
        for context, name, password in zip(contexts, "ann ann bob".split(), "secret secret other".split(), strict=True):
            assert context.request.post(f"{url}/login", form={"username": name, "password": password}).ok
        ann, again, bob = (open_page(url, context=context) for context in contexts)
        generate(ann, "a red apple")
        again.reload()
        again.wait_for_selector(f"{DONE} .title:has-text('a red apple, ')")
        file = again.get_attribute(f"{DONE} img", "src")
        assert again.request.get(f"{url}/{file}").ok
        open_tab(bob, "Library")
        bob.wait_for_selector("text=Your pictures will be here")
        assert bob.locator("#strip [data-pick^='picture:']").count() == 0
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/{file}")
        for context in contexts:
            context.close()


def test_a_restart_in_mid_run_is_survived_by_the_job_and_the_page(tmp_path, open_page):
    port = free_port()
    with serving_fake(tmp_path, port=port) as url:
        page = open_page(url)
        start(page, "a green pear", 120)
        page.wait_for_selector(f"{RUNNING}:has-text('Step')")
        page.evaluate("window.before = true")
    with serving_fake(tmp_path, port=port):
        page.wait_for_function("!window.before")  # Gradio loads the page again as soon as there is a server
        page.wait_for_selector(f"{RUNNING}:has-text('of 120')")
        page.wait_for_selector(DONE)
        assert page.inner_text(".label .title").startswith("a green pear, ")
        open_tab(page, "Library")
        page.wait_for_selector(".piece")
        assert page.locator(".piece").count() == 1


def test_the_queue_in_which_jobs_wait_move_and_end(narrow_url, open_page):
    page = open_page(narrow_url)
    assert not page.is_visible("#queue .tray")
    for caption in ("a red apple", "a cat", "a blue fish"):
        start(page, caption, 1000)
    wait_for_rows(page, "a red apple", "a cat", "a blue fish")
    assert page.is_visible("#queue .tray")
    assert page.inner_text(".stage .title") == "a blue fish"  # the page follows the newest
    assert "2nd in line" in page.inner_text("#queue li:last-child .how")
    assert "1 running, 2 waiting" in page.inner_text("#queue [role=status]")
    page.wait_for_selector("#header [role=status]:has-text('1 running, 2 waiting')")
    act(page, "up", "a blue fish")
    wait_for_rows(page, "a red apple", "a blue fish", "a cat")
    act(page, "cancel", "a red apple")
    wait_for_rows(page, "a blue fish", "a cat")
    page.wait_for_selector(f"{RUNNING} .title:text-is('a blue fish')")
    act(page, "show", "a cat")
    page.wait_for_selector(".stage[data-kind=waiting] .title:text-is('a cat')")
    page.click("#stop")  # what is shown, not what runs
    page.wait_for_selector(".stage[data-kind=stopped] .title:text-is('a cat')")
    wait_for_rows(page, "a blue fish")
    assert page.is_visible("#queue .tray")  # something is under way that the stage does not tell
    act(page, "show", "a blue fish")
    page.wait_for_selector(f"{RUNNING} .title:text-is('a blue fish')")
    page.wait_for_selector("#queue .tray", state="hidden")
    page.click("[data-tray=toggle]")
    act(page, "cancel", "a blue fish")
    page.wait_for_selector("#queue .none:visible")
    page.click("[data-tray=fold]")
    assert not page.is_visible("#queue .tray")


def test_a_job_that_waits_is_found_again_too(narrow_url, open_page):
    page = open_page(narrow_url)
    start(page, "a red apple", 1000)
    start(page, "a cat", 1000)
    page.reload()
    page.wait_for_selector(".stage[data-kind=waiting] .title:text-is('a cat')")
    wait_for_rows(page, "a red apple", "a cat")
    act(page, "cancel", "a red apple")
    page.wait_for_selector(f"{RUNNING} .title:text-is('a cat')")
    page.click("#stop")
    page.wait_for_selector(".stage[data-kind=stopped]")


def test_looking_at_something_else_leaves_the_job_alone(studio_url, open_page):
    page = open_page(studio_url)
    start(page, "a tall giraffe", 1000)
    page.wait_for_selector(RUNNING)
    page.click("#strip .small >> nth=2")
    page.wait_for_selector(".stage[data-kind=example]")
    assert page.is_disabled("#stop")
    wait_for_rows(page, "a tall giraffe")
    page.wait_for_function("document.querySelector('#queue progress').value > 1")  # it goes on,
    assert page.is_visible(".stage[data-kind=example]")  # elsewhere
    act(page, "show", "a tall giraffe")
    page.wait_for_selector(RUNNING)
    page.click("#stop")
    page.wait_for_selector(".stage[data-kind=stopped]")


def test_drafts_survive_a_refresh(studio_url, open_page):
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
    for tab in (page, open_page(studio_url, context=page.context)):
        if tab is page:
            page.reload()
        tab.wait_for_function("document.querySelector('#prompt textarea')?.value === 'a half written'")
        tab.wait_for_selector("#hints:has-text('a half written, flat style, on a pink background')")
        assert tab.input_value("#steps input") == "33" and tab.input_value("#seed input") == "99"
        assert tab.input_value("#negative textarea") == "clouds" and not tab.is_checked("#randomize input")
        assert tab.input_value("#sampler input") == "Heun"
        assert tab.is_checked("#count input[value='3']")


def test_typing_asks_the_server_for_nothing_but_the_hints(studio_url, open_page):
    page = open_page(studio_url)
    page.wait_for_selector("#header [role=status]:text-is('ready')")
    asked = []
    page.on("request", lambda request: asked.append(request.post_data or "") if request.method == "POST" else None)
    page.click("#prompt textarea")
    page.keyboard.type("a red apple")
    page.wait_for_function("localStorage['studio-draft:text-to-image:']?.includes('a red apple')")
    ticks = [body for body in asked if '"trigger_id"' in body and "a red" not in body]
    hints = [body for body in asked if re.search(r'"data":\["a[^"]*","any","any"\]', body)]
    assert len(asked) - len(hints) <= len(ticks) and hints


def png_with(text: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info, file = PngInfo(), io.BytesIO()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def drop(page, name: str, content: bytes, on: str = "#footer") -> None:
    """Drops a file on a part of the page, as a browser would report it."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
          return transfer;
        }""",
        [name, list(content)],
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event(on, kind, {"dataTransfer": transfer})


def test_a_picture_of_ours_brings_its_settings_wherever_it_is_dropped(studio_url, open_page, tmp_path):
    settings = {"prompt": "a <b>fox</b>", "negative_prompt": "snow", "style": "flat", "background": "blue", "steps": 9,
                "guidance": 4.5, "sampler": "euler", "seed": 77, "task": "text-to-image"}  # fmt: skip
    write_png(Image.new("RGB", (8, 8)), tmp_path / "fox.png", settings)
    page = open_page(studio_url)
    open_tab(page, "Library")
    page.wait_for_selector("#album .empty")
    drop(page, "fox.png", (tmp_path / "fox.png").read_bytes(), "#album")
    page.wait_for_selector("#message:has-text('Settings loaded from fox.png.')")
    assert page.is_visible("#generate")  # it went to the tab
    assert page.input_value("#prompt textarea") == "a <b>fox</b>"
    assert page.is_checked("#style input[value=flat]") and page.is_checked("#background input[value=blue]")
    assert page.input_value("#steps input") == "9" and page.input_value("#guidance input") == "4.5"
    assert page.input_value("#seed input") == "77" and not page.is_checked("#randomize input")
    assert page.input_value("#sampler input") == "Euler" and page.input_value("#negative textarea") == "snow"


def test_a_picture_of_another_studio_brings_what_can_be_taken(studio_url, open_page):
    page = open_page(studio_url)
    page.click("#style label:has-text('Noto')")
    text = "a castle\nNegative prompt: fog\nSteps: 28, Sampler: DPM++ SDE Karras, CFG scale: 7, Seed: 5, Model: dream"
    with page.expect_file_chooser() as chooser:  # the button, for those who cannot drop
        page.click("#restore")
    chooser.value.set_files({"name": "castle.png", "mimeType": "image/png", "buffer": png_with(text)})
    page.wait_for_selector("#message:has-text('Settings loaded from castle.png.')")
    said = page.inner_text("#message")
    assert "Not loaded: the sampler must be one of studio" in said and "DPM++ SDE Karras" in said
    assert "Another model made the picture, dream" in said
    assert page.input_value("#prompt textarea") == "a castle" and page.is_checked("#style input[value=any]")
    assert page.input_value("#steps input") == "28" and page.input_value("#sampler input") == "Studio"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no picture at all", "x.png: The file is not a PNG picture, or it is cut short."),
        (None, "x.png holds no settings."),
    ],
)
def test_a_file_without_settings_is_answered_with_a_sentence(studio_url, open_page, content, says):
    if content is None:
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "PNG")
        content = file.getvalue()
    page = open_page(studio_url)
    page.fill("#prompt textarea", "mine")
    drop(page, "x.png", content)
    page.wait_for_selector(f"#message [role=alert]:has-text('{says}')")
    assert page.input_value("#prompt textarea") == "mine"
