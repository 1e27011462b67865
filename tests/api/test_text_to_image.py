"""The endpoints, called as another program would."""

from __future__ import annotations

import io
import json
import re
import urllib.error
import urllib.request

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from studio.library.metadata import read_png_settings
from studio.models.families.studio import BACKGROUNDS
from tests.serving import ROOT


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


TORN, BOMB = png(Image.effect_noise((64, 64), 90))[:1500], png(Image.new("1", (5000, 4000)))


@pytest.fixture(scope="module")
def client(studio_url, tmp_path_factory):
    client = Client(studio_url, download_files=str(tmp_path_factory.mktemp("files")), verbose=False)
    yield client
    client.close()


def test_words_become_files_and_facts(client):
    files, info = client.predict("a red apple", style="glossy", count=2, seed=7, api_name="/text_to_image")
    assert info["seeds"] == [7, 8] and info["seed"] == 7 and info["seconds"] > 0
    assert info["prompt"] == "a red apple, glossy style" and info["notes"] == []
    look = r"a red apple, glossy style, on a (\w+) background"
    backgrounds = {re.fullmatch(look, prompt)[1] for prompt in info["prompts"]}
    assert backgrounds <= set(BACKGROUNDS) - {"red"} and len(backgrounds) == 2
    assert [read_png_settings(file)["seed"] for file in files] == [7, 8]
    with Image.open(files[0]) as picture:
        assert picture.size == (64, 64)


def test_only_the_prompt_is_needed(client):
    seeds = {client.predict(prompt="a cat", api_name="/text_to_image")[1]["seed"] for _ in range(2)}
    assert len(seeds) == 2


def test_notes_tell_what_was_not_understood(client):
    _, info = client.predict("a castle", api_name="/text_to_image")
    assert info["notes"][0].startswith("The model does not know “castle”")
    _, info = client.predict("a red apple " * 800, api_name="/text_to_image")
    assert "It did not read" in info["notes"][0]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "The steps must be a whole number from 1 to 1000; it was 0."),
        ({"steps": 10_000}, "from 1 to 1000; it was 10000"),
        ({"count": 1000}, "The number of pictures must be a whole number from 1 to 9; it was 1000."),
        ({"guidance": "NaN"}, "The guidance must be a number from 0 to 30"),
        ({"seed": -1}, "The seed must be a whole number from 0 to 4294967295; it was -1."),
        ({"seed": 1.5}, "it was 1.5"),
        ({"sampler": "magic"}, "The sampler must be one of studio, ddim"),
        ({"style": {"a": 1}}, "The style must be text, not"),
        ({"background": "plaid"}, "The background must be one of any, white"),
        ({"background": None}, "The background must be text, not empty."),
        ({"prompt": 3}, "The prompt must be text, not 3."),
    ],
)
def test_wrong_values_are_refused_by_name_and_range(client, wrong, says):
    with pytest.raises(AppError) as problem:
        client.predict(**({"prompt": "a cat"} | wrong), api_name="/text_to_image")
    assert says in str(problem.value)
    client.predict("a cat", steps=1, api_name="/text_to_image")


def test_the_readmes_calls_run_as_written(studio_url, monkeypatch):
    monkeypatch.chdir(ROOT)
    calls = [block for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
             if "studio.predict(" in block]  # fmt: skip
    assert len(calls) == 1
    names: dict = {}
    exec("\n".join(calls).replace("http://127.0.0.1:7860", studio_url), names)
    names["studio"].close()
    assert names["info"]["size"] == [256, 256] and names["numbers"]["t"] == 400
    assert len(names["run"]["stages"][0]["steps"]) == 8


def test_nothing_else_is_public(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == [
        "/text_to_image",
        "/inpaint",
        "/super_resolution",
        "/forward_noise",
        "/reverse_trace",
        "/models",
    ]


def test_other_files_are_not_served(studio_url):
    for path in ("app.py", "/etc/passwd", "studio/ui/page.py", "assets/../app.py"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{studio_url}/gradio_api/file={path}")
        assert refused.value.code in (403, 404)
        refused.value.close()


def test_other_origins_are_refused(studio_url):
    request = urllib.request.Request(f"{studio_url}/config", headers={"Origin": "http://evil.example"})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers.get("Access-Control-Allow-Origin") != "http://evil.example"
        assert json.load(answer)["title"] == "Diffusion Studio"


def picture_file(folder, name: str, picture: Image.Image):
    picture.save(folder / name)
    return handle_file(folder / name)


def test_a_picture_is_painted_anew_inside_its_mask(client, tmp_path):
    picture = Image.effect_noise((40, 30), 60).convert("RGB")
    mask = Image.new("L", picture.size)
    mask.paste(255, (10, 5, 30, 20))
    files, info = client.predict(
        picture_file(tmp_path, "a.png", picture), picture_file(tmp_path, "m.png", mask), prompt="a red apple", count=2,
        seed=7, api_name="/inpaint",
    )  # fmt: skip
    assert info["seeds"] == [7, 8] and info["prompt"] == "a red apple"
    assert (info["changed_outside"], info["outside"]) == (0, 40 * 30 - 20 * 15)
    for file in files:
        with Image.open(file) as result:
            assert result.size == (40, 30)
            result.paste(picture.crop((10, 5, 30, 20)), (10, 5))
            assert result.convert("RGB").tobytes() == picture.tobytes()


def odd_picture(kind: str) -> tuple[bytes, tuple[int, int]]:
    """A file of a kind that is not often met, and its size when it stands upright."""
    picture, options = Image.effect_noise((40, 30), 60).convert("RGB"), {}
    format, size = "PNG", picture.size
    if kind == "CMYK":
        picture, format = picture.convert("CMYK"), "JPEG"
    elif kind == "16-bit":
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (30, 40), dtype=np.uint16))
    elif kind == "palette with transparency":
        picture, options = picture.convert("P"), {"transparency": 3}
    elif kind == "animated":
        format, options = "GIF", {"save_all": True, "append_images": [picture.rotate(180)]}
    elif kind == "EXIF-rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        format, options, size = "JPEG", {"exif": exif}, (30, 40)
    else:
        size = tuple(map(int, kind.split(" x ")))
        picture = Image.new("RGB", size, "teal")
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue(), size


@pytest.mark.parametrize(
    "kind", ["CMYK", "16-bit", "palette with transparency", "animated", "EXIF-rotated", "1 x 1", "16000 x 1"]
)
def test_pictures_of_every_kind_are_worked_on(client, tmp_path, kind):
    content, size = odd_picture(kind)
    (tmp_path / "odd").write_bytes(content)
    mask = Image.new("L", size)
    mask.putpixel((0, 0), 255)
    files, info = client.predict(
        handle_file(tmp_path / "odd"), picture_file(tmp_path, "m.png", mask), api_name="/inpaint"
    )
    with Image.open(files[0]) as result:
        assert result.size == size
    assert (info["changed_outside"], info["outside"]) == (0, size[0] * size[1] - 1)
    files, info = client.predict(handle_file(tmp_path / "odd"), scale=2, api_name="/super_resolution")
    with Image.open(files[0]) as result:
        assert result.size == (2 * size[0], 2 * size[1])


def test_a_small_picture_is_painted_larger(client, tmp_path):
    small = picture_file(tmp_path, "a.png", Image.new("RGB", (20, 10), "teal"))
    files, info = client.predict(small, scale=4, api_name="/super_resolution")
    with Image.open(files[0]) as result:
        assert result.size == (80, 40) and info["size"] == [80, 40]
    files, info = client.predict(small, width=50, height=33, api_name="/super_resolution")
    with Image.open(files[0]) as result:
        assert result.size == (50, 33)


@pytest.mark.parametrize(
    ("endpoint", "wrong", "says"),
    [
        ("/inpaint", {"mask": (9, 9)}, "The mask is 9 x 9 px and the picture 20 x 10 px; both must be of one size."),
        ("/inpaint", {"mask": b"<svg/>"}, "The mask is damaged or is not a picture"),
        ("/inpaint", {"image": b""}, "The image is damaged or is not a picture"),
        ("/inpaint", {"image": b"<!doctype html><script>1</script>"}, "The image is damaged or is not a picture"),
        ("/inpaint", {"image": TORN}, "The image is damaged or is not a picture"),
        ("/super_resolution", {"image": BOMB}, "The image has 5000 x 4000 px; a picture may have"),
        ("/inpaint", {"feather": 300}, "The feather must be a whole number from 0 to 256; it was 300."),
        ("/inpaint", {"area": "all"}, "The area must be one of painted, whole"),
        ("/inpaint", {"invert": True}, "The mask is all white and inverted, so there is nothing to paint"),
        ("/super_resolution", {"scale": 3}, "The scale must be 2 or 4; it was 3."),
        ("/super_resolution", {"creativity": 1}, "The creativity must be a number from 0 to 0.3; it was 1"),
        ("/super_resolution", {"width": 40}, "The target height must be a whole number from 1 to 20000; it was empty."),
        ("/super_resolution", {"image": (3000, 2000)}, "The larger pictures may have 16 megapixels together"),
    ],
)
def test_restoring_refuses_by_name_and_range(client, tmp_path, endpoint, wrong, says):
    given = {"image": (20, 10)} | ({"mask": (20, 10)} if endpoint == "/inpaint" else {}) | wrong
    for name in ("image", "mask"):
        if isinstance(given.get(name), tuple):
            given[name] = picture_file(tmp_path, f"{name}.png", Image.new("RGB", given[name], "white"))
        elif isinstance(given.get(name), bytes):
            (tmp_path / f"{name}.png").write_bytes(given[name])
            given[name] = handle_file(tmp_path / f"{name}.png")
    with pytest.raises(AppError) as problem:
        client.predict(**given, api_name=endpoint)
    assert says in str(problem.value)
