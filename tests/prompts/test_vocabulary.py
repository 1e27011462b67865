import json
from dataclasses import replace

import pytest

from studio.prompts.vocabulary import Vocabulary
from studio.ui.components.vocabulary_panel import hints_html, vocabulary_html
from tests.fakes import CAPABILITIES, write_model_folder


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Vocabulary:
    return Vocabulary.read(write_model_folder(tmp_path_factory.mktemp("words")))


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a red apple",
        "two apples, one pear's, and a post office",
        "A Glossy FRUIT on a blue background",
        "boxes of strawberries".replace("boxes", "one"),
        "a small mirror-ball above the grinning face in twemoji style",
    ],
)
def test_known_words_pass(vocabulary, prompt):
    assert vocabulary.unknown(prompt) == []


def test_an_unknown_word_gets_the_nearest_known(vocabulary):
    (castle,) = vocabulary.unknown("a red castle")
    assert castle.word == "castle" and "candle" in castle.nearest and len(castle.nearest) <= 3
    (burger,) = vocabulary.unknown("burger")
    assert burger.nearest[0] == "hamburger"
    assert str(burger).startswith("The model does not know “burger”; nearest: hamburger")


def test_each_unknown_word_is_reported_once_up_to_a_limit(vocabulary):
    assert [u.word for u in vocabulary.unknown("zeppelin zeppelin Zeppelin")] == ["zeppelin"]
    assert len(vocabulary.unknown(" ".join(f"word{i}q" for i in range(100)))) == 5
    (long,) = vocabulary.unknown("x" * 10_000)
    assert len(long.word) < 40 and long.nearest == ()
    assert vocabulary.unknown("a red apple " * 800) == []


def test_a_missing_or_broken_vocabulary_is_none(tmp_path):
    assert Vocabulary.read(tmp_path) is None
    for broken in ("", "[]", '{"concepts": 3}', '{"concepts": [{"title": "x"}]}'):
        (tmp_path / "vocabulary.json").write_text(broken)
        assert Vocabulary.read(tmp_path) is None


def test_thumbnails_stay_in_the_folder_and_must_have_a_tile_each(tmp_path):
    folder = write_model_folder(tmp_path / "model")
    assert Vocabulary.read(folder).thumbnails.columns == 16
    content = json.loads((folder / "vocabulary.json").read_text())
    for entry in (
        {"file": "../secret.png"},
        {"file": "thumbnails.png", "tile": 256},
        {"tile": 0},
        {"tile": "x"},
    ):
        (folder / "vocabulary.json").write_text(json.dumps(content | {"thumbnails": entry}))
        assert Vocabulary.read(folder).thumbnails is None


def test_hints_show_the_full_prompt_and_escape_it(vocabulary):
    model = replace(CAPABILITIES, vocabulary=vocabulary)
    assert "a cat on a blue background" in hints_html(model, "a cat", "any", "blue")
    assert "Full prompt" not in hints_html(model, "a cat", "any", "any")
    assert "<img" not in hints_html(model, "<img src=x>", "noto", "any")
    assert 'data-swap="castle"' in hints_html(model, "castle", "any", "any")


def test_every_concept_is_in_the_panel_once(vocabulary):
    panel = vocabulary_html(vocabulary)
    assert panel.count('class="word"') == len(vocabulary.concepts)
    assert panel.count("data-group") == 5
