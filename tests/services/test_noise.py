"""What the noise tab answers, without a browser: traces and drawings that are not what they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from studio.diffusion.guidance import STYLE_EMPHASIS
from studio.engine.engine import Engine
from studio.engine.requests import TextToImage
from studio.library.store import Library
from studio.models.families.studio import StudioBackend
from studio.services.noise import NoiseService, picture_of
from studio.services.owners import Owners
from studio.ui.tabs.noise.panels import words
from tests.diffusion.conftest import random_pipeline
from tests.fakes import CAPABILITIES

OWNER = "me"


@pytest.fixture
def room(tmp_path) -> Iterator[NoiseService]:
    library = Library(tmp_path)
    engine = Engine(lambda: StudioBackend(random_pipeline()), library.journal, resolve=CAPABILITIES.resolve).start()
    yield NoiseService(SimpleNamespace(engine=engine, library=library, examples=tmp_path, owners=Owners()))
    engine.shutdown(None)
    library.close()


def painted(room: NoiseService) -> str:
    """The id of a picture."""
    engine = room.studio.engine
    *_, view = engine.follow(engine.submit(TextToImage("a red apple", steps=2, seed=3), OWNER), OWNER)
    return view.pictures[0].id


def test_a_trace_opens_for_its_owner_alone(room):
    id = painted(room)
    view = json.loads(room.open(OWNER, id))["view"]
    assert view["picture"] == id and view["caption"] == "a red apple" and len(view["stages"][0]["steps"]) == 2
    assert json.loads(room.open("another", id))["problem"] == "No trace was kept of how this picture was made."


def test_a_run_says_whether_its_style_was_emphasized(room):
    for style, emphasis, said in (("flat", True, True), ("flat", False, False), ("any", True, False)):
        run = room.made(TextToImage("a red apple", style=style, steps=1, style_emphasis=emphasis), OWNER)
        view = json.loads(room._reverse_letter(run))["view"]
        assert view["emphasized"] == said and view["asked"]["style_emphasis"] == emphasis
    told = " ".join(words("reverse").split())
    assert f"counts {1 + STYLE_EMPHASIS:g} times in the difference" in told


@pytest.mark.parametrize("harm", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"{}" + data])
def test_a_damaged_trace_is_a_sentence(room, harm):
    id = painted(room)
    (path,) = Path(room.studio.library.folder, "traces").glob(f"*{id}*")
    path.write_bytes(harm(path.read_bytes()))
    assert "cannot be read" in json.loads(room.open(OWNER, id))["problem"]


def test_a_kept_picture_goes_into_noise(room):
    id = painted(room)
    letter = json.loads(room.drown(OWNER, id))
    with Image.open(room.studio.library.get_picture(OWNER, id).path) as kept:
        assert picture_of(letter["source"]).tobytes() == kept.convert("RGB").tobytes()
    assert room.forward({"picture": letter["source"], "size": 16})["size"] == 16
    assert "not there any more" in json.loads(room.drown("another", id))["problem"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"shape": "drawing", "strokes": []}, "drawing is empty"),
        ({"shape": "drawing", "strokes": [{"label": 0, "points": "no"}]}, ""),
        ({"shape": "circle"}, "circle"),
    ],
)
def test_shapes_that_cannot_be_learned(room, asked, sentence):
    assert sentence in room.plane_start(asked)["problem"]


def test_a_single_point_can_be_learned(room):
    plane = room.plane_start({"shape": "drawing", "strokes": [{"label": 0, "points": [[0.5, 0.5]]}]})
    assert room.plane_train({"key": plane["key"], "seconds": 0.1})["steps"] > 0


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"frames": "no", "kind": "gif"}, "at most"),
        ({"frames": ["data:,%%"] * 2, "kind": "gif"}, "did not arrive whole"),
        ({"frames": [], "kind": "gif"}, "needs pictures"),
        ({"frames": [], "kind": "avi"}, "kind is 'avi'"),
    ],
)
def test_animations_that_cannot_be_made(room, asked, sentence):
    assert sentence in room.animate(asked)["problem"]
