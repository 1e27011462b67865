"""What the noise service answers, without a browser: parameters, traces and drawings that are not as they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from studio.diffusion.guidance import STYLE_EMPHASIS
from studio.engine.engine import Engine
from studio.engine.requests import TextToImage
from studio.library.store import Library
from studio.models.families.studio import StudioBackend
from studio.services.noise.data_uris import image_from_uri
from studio.services.noise.service import NoiseService
from studio.ui.tabs.noise.panels import panels_html
from tests.diffusion.conftest import random_pipeline
from tests.fakes import CAPABILITIES, single_model

OWNER = "me"
ODD_VALUES = [None, True, 0, -1, 2.5, float("nan"), 10**400, "", "x", "\ud800", [], [[]], {}, {"a": 1}]


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[NoiseService]:
    folder = tmp_path_factory.mktemp("noise")
    library = Library(folder)
    engine = Engine(
        single_model(lambda: StudioBackend(random_pipeline())), library.journal, resolve=CAPABILITIES.resolve
    ).start()
    yield NoiseService(engine, library, folder, lambda model_id: CAPABILITIES)
    engine.shutdown(None)
    library.close()


def new_picture(service: NoiseService) -> str:
    """Return the id of a picture that was generated just now."""
    request = TextToImage("a red apple", steps=2, seed=3)
    *_, view = service.runs.engine.follow(service.runs.engine.submit(request, OWNER), OWNER)
    return view.pictures[0].id


def test_a_trace_opens_only_for_its_owner(service):
    id = new_picture(service)
    view = json.loads(service.runs.open(OWNER, id))["view"]
    assert view["picture"] == id and view["caption"] == "a red apple" and len(view["stages"][0]["steps"]) == 2
    assert json.loads(service.runs.open("another", id))["problem"] == "No trace was kept of how this picture was made."


def test_a_run_tells_whether_its_style_was_emphasized(service):
    for style, emphasis, is_emphasized in (("flat", True, True), ("flat", False, False), ("any", True, False)):
        run = service.runs.run_and_wait(
            TextToImage("a red apple", style=style, steps=1, style_emphasis=emphasis), OWNER
        )
        view = json.loads(service.runs.message(run))["view"]
        assert view["emphasized"] == is_emphasized and view["params"]["style_emphasis"] == emphasis
    text = " ".join(panels_html(CAPABILITIES).split())
    assert f"counts {1 + STYLE_EMPHASIS:g} times in the difference" in text


@pytest.mark.parametrize("harm", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"{}" + data])
def test_a_damaged_trace_is_a_sentence(service, harm):
    id = new_picture(service)
    (path,) = Path(service.runs.library.folder, "traces").glob(f"*{id}*")
    path.write_bytes(harm(path.read_bytes()))
    assert "cannot be read" in json.loads(service.runs.open(OWNER, id))["problem"]


def test_a_library_picture_opens_in_the_forward_view(service):
    id = new_picture(service)
    message = json.loads(service.runs.open_forward(OWNER, id))
    with Image.open(service.runs.library.get_picture(OWNER, id).path) as file:
        assert image_from_uri(message["source"]).tobytes() == file.convert("RGB").tobytes()
    assert service.forward({"picture": message["source"], "size": 16.0})["size"] == 16
    assert "does not exist any more" in json.loads(service.runs.open_forward("another", id))["problem"]


# ---- parameters ----


@pytest.mark.parametrize(
    ("method", "params", "sentence"),
    [
        ("forward", None, "The parameters must be an object, not empty."),
        ("forward", {}, "The picture is missing."),
        ("forward", {"picture": 0, "side": 3}, '"side" is not a parameter; the parameters are picture, size, seed'),
        ("forward", {"picture": 0, "seed": -1}, "The seed must be a whole number from 0 to 4294967295; it was -1."),
        ("forward", {"picture": [], "seed": 1}, "The picture must be the number of an example or a data URI, not []."),
        ("forward", {"picture": "data:,%%"}, "The picture did not arrive completely."),
        ("plane_start", {"shape": "circle"}, "shape is 'circle'; it must be one of two moons"),
        ("plane_start", {"shape": "drawing", "strokes": []}, "The drawing is empty: draw at least one point."),
        ("plane_start", {"shape": "drawing", "strokes": [{"points": "no"}]}, "a drawing is a list of"),
        ("plane_train", {"key": "gone"}, "This training is no longer kept. Please start it again."),
        ("plane_train", {"key": "k", "seconds": 99}, "The seconds must be a number from 0 to 3; it was 99."),
        ("plane_train", {"key": "k", "label": 2}, "The label must be a whole number from 0 to 1; it was 2."),
        ("inspect", {"key": "gone"}, "This run is no longer kept. Please open it again."),
        ("animate", {"frames": "no"}, 'The frames must be a list of data URIs, not "no".'),
        ("animate", {"frames": [""] * 131}, "An animation may have at most 130 frames; this one has 131."),
        ("animate", {"frames": ["data:,%%"] * 2, "kind": "gif"}, "The picture did not arrive completely."),
        ("animate", {"frames": []}, "needs pictures"),
        ("animate", {"frames": [], "kind": "avi"}, 'The kind must be one of webp, gif; it was "avi".'),
    ],
)
def test_wrong_parameters_are_sentences_with_field_value_and_range(service, method, params, sentence):
    assert sentence in getattr(service, method)(params)["problem"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("forward", {"picture": 0, "size": 16, "seed": 0, "standardize": True}),
        ("plane_start", {"shape": "two moons", "text": "a", "strokes": []}),
        ("plane_start", {"shape": "drawing", "strokes": [{"points": [[0, 0]], "label": 0}]}),
        ("plane_train", {"key": "k", "seconds": 0, "label": 0, "away": 1, "guidance": 2}),
        ("inspect", {"key": "k", "stage": 0}),
        ("animate", {"frames": [""], "kind": "webp", "seconds": 1}),
    ],
)
def test_no_odd_value_of_any_parameter_raises(service, method, params):
    for odd in ODD_VALUES:
        assert isinstance(getattr(service, method)(odd), dict)
        for name in params:
            assert isinstance(getattr(service, method)(params | {name: odd}), dict)
    for odd in ODD_VALUES:
        for part in (
            {"points": odd, "label": 0},
            {"points": [[0, odd]], "label": 0},
            {"points": [[0, 0]], "label": odd},
        ):
            assert isinstance(service.plane_start({"shape": "drawing", "strokes": [part]}), dict)


RUN_FIELDS = [
    "prompt",
    "negative_prompt",
    "steps",
    "guidance",
    "sampler",
    "seed",
    "one_pass",
    "style_emphasis",
    "label",
]


@pytest.mark.parametrize("field", RUN_FIELDS)
def test_no_odd_value_of_a_run_raises(service, field):
    run = {"prompt": "x", "steps": 1}
    for odd in ODD_VALUES:
        *_, last = (json.loads(text) for text in service.runs.run(run | {field: odd}, OWNER))
        assert "view" in last or "problem" in last
        if "problem" in last:
            *_, last = (json.loads(text) for text in service.runs.compare({"runs": [run, run | {field: odd}]}, OWNER))
            assert "problem" in last


@pytest.mark.parametrize("params", [None, {}, {"runs": []}, {"runs": [{}]}, {"runs": [{}] * 5}, {"runs": [1, 2]}])
def test_a_comparison_is_of_two_to_four_runs(service, params):
    (message,) = service.runs.compare(params, OWNER)
    assert "problem" in json.loads(message)


def test_equal_runs_of_a_comparison_are_run_once(service):
    params = {"runs": [{"prompt": "a boat", "steps": 2, "seed": 1, "label": "one"}] * 2}
    *progress, last = (json.loads(text) for text in service.runs.compare(params, OWNER))
    assert [message["of"] for message in progress] == [2, 2]  # one run and its reference
    assert [run["label"] for run in last["view"]["runs"]] == ["one", "one"]


def test_a_single_point_can_be_learned(service):
    plane = service.plane_start({"shape": "drawing", "strokes": [{"label": 0, "points": [[0.5, 0.5]]}]})
    assert service.plane_train({"key": plane["key"], "seconds": 0.1})["steps"] > 0
