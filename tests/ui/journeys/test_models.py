"""Several models in a real browser: choosing one, what stays, and how the tab looks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes import FakeBackend
from tests.serving import Served, launched
from tests.ui.harness import fake_studio
from tests.ui.journeys.test_layout import assert_narrow, assert_readable
from tests.ui.journeys.visitor import generate, open_tab, set_steps, unfold
from tests.ui.models import fake_entries


@pytest.fixture(scope="module")
def several_url(tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("several")
    with fake_studio(folder, FakeBackend, others=fake_entries()) as studio, launched(studio) as url:
        yield url


def chosen(page) -> str:
    return page.eval_on_selector("[data-model]", "menu => menu.value")


def test_a_model_is_chosen_and_remembered(several_url, open_page):
    page = open_page(several_url)
    page.wait_for_selector("#header [role=status]:text-is('ready')")
    page.click("#style label:has-text('Flat')")
    page.select_option("[data-model]", "sd")
    page.wait_for_selector("#width input:visible")
    page.wait_for_selector("#style", state="hidden")
    set_steps(page, 4)
    page.wait_for_selector("#text-to-image-offer:visible")
    generate(page, "a lake at dawn")
    assert "SD tiny" in page.inner_text("#stage .label")
    page.click(
        "#stage >> text=See how it was made"
    )  # the noise tab, opened for the first time, knows the model and the run
    page.wait_for_selector("[data-form=run] [name=prompt]:visible")
    page.wait_for_function("document.querySelector('[data-form=run] [name=prompt]').value === 'a lake at dawn'")
    assert not page.is_visible("[data-form=run] [name=one_pass]")
    page.reload()
    open_tab(page, "Text to image")
    page.wait_for_selector("#width input:visible")
    unfold(page, "#steps")
    assert (chosen(page), page.input_value("#steps input"), page.input_value("#width input")) == ("sd", "4", "512")
    page.select_option("[data-model]", "xl")  # steps were typed, the size was not
    page.wait_for_function("document.querySelector('#width input').value === '1024'")
    assert page.input_value("#steps input") == "4"
    page.click("#text-to-image-offer")
    page.wait_for_selector("#text-to-image-offer", state="hidden")
    page.select_option("[data-model]", "x4")
    page.wait_for_selector("#workspace", state="hidden")
    page.click("#text-to-image-unable .chip:has-text('Blob 64')")
    page.wait_for_selector("#style label.selected:has-text('Flat')")
    assert page.input_value("#prompt textarea") == "a lake at dawn"


def test_the_models_fit_a_telephone(several_url, open_page):
    page = open_page(several_url, 390, 844, has_touch=True)
    page.select_option("[data-model]", "xl")
    page.wait_for_selector("#width input:visible")
    unfold(page, "#steps")
    assert_narrow(page, "#model-menu select", "#controls", "#stage")
    assert_readable(page)
    open_tab(page, "Models")
    page.click("[data-pick='edit:sd']")
    page.wait_for_selector("#changes-save:visible")
    page.click("#changes-close")
    page.wait_for_selector("#changes-save", state="hidden")
    page.click("[data-pick='edit:xl']")
    page.wait_for_selector("#changes-save:visible")
    assert not page.is_visible("#changed-model")
    assert_narrow(page, ".model-cards", "#model-changes", "#model-folders")
    assert_readable(page)
