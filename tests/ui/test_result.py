import base64
import io
from pathlib import Path

from PIL import Image

from studio.engine.job import Job, JobView
from studio.engine.requests import TextToImage
from studio.library.metadata import write_png
from studio.ui.components.examples import example_cards
from studio.ui.components.formatting import format_progress
from studio.ui.components.image_card import ImageCard, data_uri
from studio.ui.components.label import done_label, waiting_label
from studio.ui.components.result import result_html, thumbnails_html
from tests.fakes import resolve

SETTINGS = {"caption": "a <b>red</b> & apple", "seed": 7, "steps": 15, "guidance": 3.0, "sampler": "studio"}


def test_words_from_outside_never_become_markup():
    picture = ImageCard('/x/"><script>.png', SETTINGS | {"negative_prompt": "<i>", "size": "<u>", "sampler": "<s>"})
    label = done_label(picture, heading="<h>", notes=["<n>"])
    for markup in (result_html([picture] * 2, label), thumbnails_html([("<h>", [picture])])):
        for tag in ("<b>", "<i>", "<u>", "<s>", "<n>", "<h>", "<script"):
            assert tag not in markup


def test_pictures_stand_in_the_squarest_grid():
    picture = ImageCard("/x/a.png", SETTINGS)
    for count, columns in ((1, 1), (2, 2), (4, 2), (5, 3), (9, 3)):
        assert f"--columns:{columns}" in result_html([picture] * count, "")


def test_a_file_is_named_after_its_words_and_seed():
    assert ImageCard("/x/a.png", SETTINGS).file_name == "a-b-red-b-apple-7.png"
    assert ImageCard("/x/a.png", {"caption": "日本", "seed": 1}).file_name == "picture-1.png"


def test_data_uris_hold_the_picture():
    image = Image.effect_noise((16, 16), 50).convert("RGB")
    data = base64.b64decode(data_uri(image).partition(",")[2])
    assert Image.open(io.BytesIO(data)).tobytes() == image.tobytes()


def test_shipped_examples_bring_their_settings(tmp_path: Path):
    write_png(Image.new("RGB", (8, 8)), tmp_path / "1.png", {"prompt": "a cat", "seed": 3})
    Image.new("RGB", (8, 8)).save(tmp_path / "2.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    (example,) = example_cards(tmp_path, [{"prompt": "unused"}])
    assert example.settings == {"prompt": "a cat", "seed": 3, "caption": "a cat"}


def test_placeholders_stand_in_for_missing_examples(tmp_path: Path):
    (example,) = example_cards(tmp_path, [{"prompt": "a cat"}])
    assert example.url.startswith("data:image/png") and example.settings["prompt"] == "a cat"


def test_what_waits_for_its_first_sight_shows_how_far_it_is():
    assert "value=" not in waiting_label(SETTINGS, "Next in line.")
    assert 'max="100" value="12"' in waiting_label(SETTINGS, "Step 1 of 2, about 3 min.", 0.12)


def test_where_a_job_is_in_words():
    job = Job(resolve(TextToImage("a cat", steps=12)), "me", state="running")
    assert format_progress(JobView.of(job)) == "Starting"
    job.share = 0.02  # in the midst of the first step
    assert format_progress(JobView.of(job, eta_seconds=130.0)) == "Step 1 of 12, about 2 min"
    job.step, job.share = 3, 0.25
    assert format_progress(JobView.of(job, eta_seconds=1.0)) == "Step 3 of 12"
