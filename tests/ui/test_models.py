"""Several models on one page, without a browser: the menu, forms that follow the model, the tab "Models"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from studio.engine.requests import Inpaint, SuperResolve, TextToImage
from studio.models.download import HubModel
from studio.models.formats import ModelError
from studio.ui.controls.size import aspect_of, size_with_aspect
from studio.ui.tabs.models import hub
from tests.fakes import FakeBackend
from tests.ui.harness import OpenPage, Studio, attributes, drawing, fake_studio, paint, png, slot
from tests.ui.models import FakeDownload, fake_entries


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Iterator[Studio]:
    """A page over the bundled kind and five latent models, all with the fake backend."""
    with fake_studio(tmp_path_factory.mktemp("several"), FakeBackend, others=fake_entries()) as studio:
        yield studio


@pytest.fixture
def page(several) -> OpenPage:
    return several.open()


def choose(page: OpenPage, model_id: str) -> None:
    page.fire("model-menu", model=model_id)
    assert page["model-id"] == model_id


def last_request(page: OpenPage):
    return page.studio.context.library.load_request(page.owner, page.pictures(1)[0].id)


def keys(page: OpenPage, elem_id: str) -> list[str]:
    return [key for _, key in page.setting(elem_id, "choices")]


# ---- the menu ----


def test_the_menu_lists_the_models_and_disables_those_that_cannot_be_loaded(page):
    menu = page["model-menu"]
    assert attributes(menu, "value") == ["model", "sd", "xl", "refiner", "x4", "broken"]
    assert '<option value="model" selected>' in menu and '<option value="broken" disabled>' in menu
    choose(page, "xl")
    assert '<option value="xl" selected>' in page["model-menu"]
    page.tick()
    assert '<option value="xl" selected>' in page["model-menu"]
    assert "2.6 G parameters" in page.text("header") and "1024 × 1024 px" in page.text("header")


def test_a_remembered_model_that_is_gone_is_the_default_one(page):
    page.type(model_id="was-here")
    assert page["model-id"] == "" and '<option value="model" selected>' in page["model-menu"]
    paint(page, "a cat", steps=2)
    assert last_request(page).model_id in ("", "model")


# ---- forms that follow the model ----


def test_a_form_shows_what_the_model_can_do_and_loses_nothing(page):
    page.type(prompt="a castle", style="flat", negative="rain")
    choose(page, "sd")
    for hidden in ("style", "background", "resolution", "one-pass", "emphasis", "randomize-style", "preset"):
        assert page.setting(hidden, "visible") == "hidden", hidden
    for shown in ("width", "height", "aspect", "spacing", "clip-skip", "rescale"):
        assert page.setting(shown, "visible") is True, shown
    assert page["vocabulary"] == "" and (page["width"], page["height"]) == (512, 512)
    assert "euler_a" in keys(page, "sampler") and "karras" in keys(page, "spacing")
    paint(page)
    request = last_request(page)
    assert (request.model_id, request.prompt, request.negative_prompt) == ("sd", "a castle", "rain")
    assert (request.style, request.resolution, request.width, request.height) == ("any", None, 512, 512)
    choose(page, "model")
    assert (page["style"], page["prompt"], page["negative"]) == ("flat", "a castle", "rain")
    assert page.setting("style", "visible") is True and "apple" in page["vocabulary"]
    paint(page)
    assert last_request(page).style == "flat" and last_request(page).width is None


def test_untouched_numbers_become_the_models_own_and_typed_ones_stay(page):
    page.type(guidance=5)
    choose(page, "sd")
    own = page.studio.context.capabilities_of("sd").defaults[TextToImage.task]
    assert page["steps"] == own["steps"] and page["guidance"] == 5
    assert page.setting("text-to-image-offer", "visible") is True
    offer = page.setting("text-to-image-offer", "value")
    assert offer.startswith("Use this model's settings: ") and f"{own['steps']} steps, guidance 7" in offer
    page.fire("text-to-image-offer")
    assert page["guidance"] == own["guidance"] and page.setting("text-to-image-offer", "visible") == "hidden"


def test_a_choice_that_the_model_does_not_have_is_said(page):
    choose(page, "sd")
    page.type(sampler="euler_a")
    choose(page, "model")
    assert page["sampler"] == "studio"
    assert "does not have the sampler that was chosen" in page.text("message")


def test_spacings_belong_to_the_sampler(page):
    choose(page, "sd")
    page.type(sampler="euler")
    page.type(spacing="karras")
    page.type(sampler="ddim")
    assert "karras" not in keys(page, "spacing") and page["spacing"] == ""
    assert "does not have the spacing of the steps that was chosen" in page.text("message")


def test_aspect_buttons_keep_the_area_and_multiples(page):
    choose(page, "sd")
    assert page["aspect"] == "1:1"
    page.type(aspect="16:9")
    width, height = page["width"], page["height"]
    assert width % 8 == height % 8 == 0 and width / height == pytest.approx(16 / 9, rel=0.02)
    assert width * height == pytest.approx(512 * 512, rel=0.05)
    page.type(width=200)
    assert page["aspect"] is None
    size = page.studio.context.capabilities_of("xl").size
    for aspect in ("9:16", "2:3", "1:1", "3:2", "16:9"):
        assert aspect_of(size, *size_with_aspect(size, aspect)) == aspect


def test_a_wrong_size_is_refused_with_a_sentence_before_and_after_it_is_sent(page):
    choose(page, "sd")
    page.type(width=513)
    assert "The width must be a multiple of 8" in page.text("expected")
    page.fire("generate")
    assert "The width must be a multiple of 8" in page.text("message")


def test_the_time_of_a_slow_model_is_said_beforehand(page):
    assert page["expected"] == ""
    choose(page, "xl")
    page.type(steps=8)
    assert "1,024 × 1,024 px, about" in page.text("expected") and "loaded first" in page.text("expected")


def test_a_refiner_is_offered_where_there_is_one(page):
    choose(page, "xl")
    assert keys(page, "refiner") == ["", "refiner"] and page.setting("refiner-start", "visible") == "hidden"
    page.type(refiner="refiner")
    assert page.setting("refiner-start", "visible") is True
    choose(page, "sd")
    assert page.setting("refiner", "visible") == "hidden" and page["refiner"] == "refiner"


def test_a_tab_that_the_model_has_no_task_for_names_models_that_do(page):
    assert page["text-to-image-unable"] == ""
    choose(page, "x4")
    text = page.text("text-to-image-unable")
    assert text.startswith("Upscaler has no task “Text to image”.") and "Blob 64" in text and "XL" in text
    assert page["inpaint-unable"] and page["super-resolution-unable"] == ""
    page.fire("text-to-image-unable", pick="sd")
    assert page["model-id"] == "sd" and page["text-to-image-unable"] == ""


def test_super_resolution_offers_what_the_model_has(page):
    assert page["super-resolution-way"] == "x2"
    choose(page, "x4")
    assert keys(page, "super-resolution-way") == ["x4", "size"] and page["super-resolution-way"] == "x4"
    assert "Noise level, 0 to" in page.setting("super-resolution-creativity", "label")
    page.upload("super-resolution-open", png(drawing((24, 16))))
    page.fire("super-resolution-generate")
    assert 'data-kind="done"' in page["super-resolution-stage"], page["super-resolution-message"]
    request = last_request(page)
    assert isinstance(request, SuperResolve) and request.model_id == "x4" and request.scale == 4


def test_inpainting_with_a_strength(page):
    assert page.setting("inpaint-strength", "visible") is None  # as built: hidden
    choose(page, "xl")
    page.type(inpaint_steps=8)
    assert "px, about" in page.text("inpaint-expected")
    choose(page, "sd")
    assert page.setting("inpaint-strength", "visible") is True
    page.type(inpaint_strength=0.5, inpaint_steps=2)
    page.fire("inpaint-generate")
    request = last_request(page)
    assert isinstance(request, Inpaint) and (request.model_id, request.strength) == ("sd", 0.5)


# ---- a picture to start from ----


def test_a_picture_to_start_from(page):
    choose(page, "sd")
    page.upload("open-start", png(drawing((320, 200))))
    assert "Starts from this picture, 320 × 200 px" in page.text("start")
    assert page["width"] / page["height"] == pytest.approx(1.6, rel=0.03)
    page.type(strength=0.4)
    paint(page, "a lake", steps=2)
    request = last_request(page)
    assert request.image.size == (320, 200) and request.strength == 0.4
    again = page.studio.open(page.browser_token)
    assert "320 × 200 px" in again.text("start")
    again.fire("start", pick="remove")
    assert again["start"] == ""
    page.fire("generate")
    assert "was changed in another tab" in page.text("message")


def test_a_result_is_sent_to_start_from(page):
    paint(page, "a cat", steps=2)
    page.fire("stage", pick="to:start", key=attributes(page["stage"], "data-key")[0])
    assert "Starts from this picture, 64 × 64 px" in page.text("start")
    page.fire("start", pick="remove")


# ---- settings of pictures ----


def test_settings_of_a_picture_bring_its_model_and_are_not_replaced_by_its_defaults(page):
    choose(page, "sd")
    page.type(steps=10, sampler="euler")  # 10 steps are the default of the bundled model
    page.type(spacing="karras")
    paint(page, "a lake")
    key = attributes(page["stage"], "data-key")[0]
    assert slot(page["stage"], "model") == "SD tiny"
    choose(page, "model")
    page.fire("stage", pick="use", key=key)
    assert page["model-id"] == "sd"
    assert (page["steps"], page["sampler"], page["spacing"], page["width"]) == (10, "euler", "karras", 64)
    assert page.setting("width", "visible") is True


# ---- the tab Models ----


def test_cards_say_what_a_model_is_and_why(page):
    cards = page.text("model-cards")
    for part in (
        "SD tiny",
        "SD 1.x",
        "2.1 GB on disk, 1.07 G parameters as float16",
        "4 input channels",
        "LoRA, cannot paint alone",
    ):
        assert part in cards, part
    assert page["model-cards"].count("In use on this page") == 1
    page.fire("model-cards", pick="use:sd")
    assert page["model-id"] == "sd"
    page.tick()
    assert page["model-cards"].count("In use on this page") == 1


def test_what_is_known_of_a_model_can_be_changed(several, page):
    page.fire("model-cards", pick="edit:sd")
    assert page.setting("model-changes", "visible") is True and page["changed-model"] == "sd"
    choose(page, "sd")
    page.type(change_prediction="v_prediction", change_steps=33, change_guidance=0)
    page.fire("changes-save")
    assert several.context.catalog.overridden["sd"] == {
        "family": None,
        "variant": None,
        "prediction_type": "v_prediction",
        "trigger_words": None,
        "defaults": {"steps": 33, "guidance": 0},
    }
    page.fire("changes-undo")
    assert set(several.context.catalog.overridden["sd"].values()) == {None}
    page.fire("changes-close")
    assert page.setting("model-changes", "visible") is False


def test_looking_again_says_what_is_new(several, page):
    catalog = several.context.catalog
    catalog.next_entries = [*catalog.entries, replace(catalog.get("sd"), id="new-one", name="New one")]
    page.fire("models-rescan")
    assert "New: new-one." in page.text("models-message") and "new-one" in page["model-menu"]
    catalog.next_entries = [entry for entry in catalog.entries if entry.id != "new-one"]
    page.fire("models-rescan")
    assert "Gone: new-one." in page.text("models-message")


def test_a_model_is_fetched_from_the_hub(monkeypatch, page):
    model = HubModel(
        id="some/model",
        revision="0" * 40,
        target="some--model",
        files={"unet/a.safetensors": 1_700_000_000, "b.json": 900},
    )
    monkeypatch.setattr(hub, "look_up", lambda hub_id: model)
    monkeypatch.setattr(hub, "Download", FakeDownload)
    monkeypatch.setattr(hub, "_free_bytes", lambda folder: 9_000_000_000)
    page.type(hub_id="some/model")
    page.fire("hub-check")
    assert "some/model : 1.7 GB in 2 files. 9 GB are free" in page.text("hub-found")
    page.fire("hub-found", pick="download:some/model")
    FakeDownload.last.done_bytes = 850_000_000
    page.tick()
    assert "850 MB of 1.7 GB" in page.text("hub-progress")
    page.fire("hub-progress", pick="cancel")
    assert "was cancelled at 850 MB" in page.text("hub-progress")
    page.fire("hub-found", pick="download:some/model")
    FakeDownload.last.state = "done"
    page.tick()
    assert "some/model is here." in page.text("hub-progress")
    monkeypatch.setattr(hub, "_free_bytes", lambda folder: 9)
    page.fire("hub-found", pick="download:some/model")
    assert "needs 1.7 GB, and 9 B are free" in page.text("models-message")


def test_what_the_hub_refuses_is_said(monkeypatch, page):
    def refuse(hub_id: str) -> HubModel:
        raise ModelError("The hub has no model some/thing.")

    monkeypatch.setattr(hub, "look_up", refuse)
    page.type(hub_id="some/thing")
    page.fire("hub-check")
    assert "The hub has no model some/thing." in page.text("models-message")


def test_visitors_of_an_open_studio_change_no_models(tmp_path):
    with fake_studio(tmp_path, FakeBackend, others=fake_entries(), manages_models=False) as studio:
        page = studio.open()
        page.fire("model-cards", pick="edit:sd")
        assert "visitors cannot change models" in page.text("models-message")
        page.type(changed_model="sd")
        page.fire("changes-save")
        page.fire("hub-found", pick="download:some/model")
        assert studio.context.catalog.overridden == {}
        assert ">Edit<" not in page["model-cards"]
