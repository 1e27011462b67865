import json

import pytest
import torch

from studio.training.data.scenes import Painter, Scene, Thing
from studio.training.data.sprites import (
    HELD_OUT_SHARE,
    PACKAGES,
    SIZE,
    STYLES,
    Sprites,
    common_concepts,
    held_out,
    listed,
    prepare,
    svg_of,
)


def test_saved_is_loaded(sprites, tmp_path):
    sprites.save(tmp_path)
    loaded = Sprites.load(tmp_path)
    for name in ("rgba", "concept", "style", "held_out"):
        assert torch.equal(getattr(loaded, name), getattr(sprites, name))
    assert (loaded.concepts, loaded.categories, loaded.synonyms) == (
        sprites.concepts,
        sprites.categories,
        sprites.synonyms,
    )


def test_about_three_percent_of_pairs_are_held_out():
    pairs = [held_out(f"concept {number}", style) for number in range(5000) for style in STYLES]
    assert sum(pairs) / len(pairs) == pytest.approx(HELD_OUT_SHARE, abs=0.004)


def test_held_out_pairs_never_move():
    # weights are trained without these: a change here would make them look better than they are
    assert [n for n in range(200) if held_out(f"concept {n}", "noto")] == [5, 105, 116]


def test_edges_are_premultiplied(sprites):
    """A white sprite on a white ground shows no fringe, at any size."""
    white = sprites.rgba[:1].clone()
    white[:, :3] = white[:, 3:]
    alone = Sprites(white, *(part[:1] for part in (sprites.concept, sprites.style, sprites.held_out)), (), (), ())
    scene = Scene((Thing(0, 0.47, 0.53, 0.71),), "white")
    for size in (16, 32, 64, 200):
        assert Painter(alone)([scene], size).min() > 0.99


@pytest.fixture
def packages(tmp_path):
    """Four small icon packages, in each of which one concept is an alias of another."""
    square = '<path fill="#ff0000" d="M0 0h8v8H0z"/>'
    half = '<path fill="#0000ff" fill-opacity=".5" d="M0 0h16v16H0z"/>'
    for package in PACKAGES.values():
        folder = tmp_path / "@iconify-json" / package
        folder.mkdir(parents=True)
        book = {"icons": {"red-square": {"body": square}, "pane": {"body": half}, "one-oclock": {"body": half}}}
        book |= {"width": 16, "height": 16, "aliases": {"corner": {"parent": "red-square"}}}
        if package == "noto":
            book["icons"]["only-noto"] = {"body": square}
        (folder / "icons.json").write_text(json.dumps(book))
    names = ["red-square", "pane", "corner", "one-oclock", "only-noto"]
    flat = tmp_path / "@iconify-json" / "fluent-emoji-flat"
    (flat / "metadata.json").write_text(json.dumps({"categories": {"Objects": names} | OTHERS}))
    (flat / "chars.json").write_text(json.dumps({"1f7e5": "red-square", "1fa9f": "pane"}))
    data = tmp_path / "emojibase-data" / "en"
    data.mkdir(parents=True)
    tags = [{"hexcode": "1F7E5", "tags": ["red", "shared"]}, {"hexcode": "1FA9F", "tags": ["window", "shared"]}]
    (data / "data.json").write_text(json.dumps(tags))
    return tmp_path


OTHERS = {
    name: [] for name in ("Animals & Nature", "Food & Drink", "Activities", "Travel & Places", "Smileys & Emotion")
}


def test_only_what_all_four_draw_is_common(packages):
    assert common_concepts(packages / "@iconify-json") == {name: "Objects" for name in ("red-square", "pane", "corner")}


def test_an_alias_is_drawn_as_its_parent(packages):
    book = json.loads((packages / "@iconify-json" / "noto" / "icons.json").read_text())
    assert svg_of(book, "corner") == svg_of(book, "red-square")
    assert 'viewBox="0 0 16 16"' in svg_of(book, "corner")


def test_prepared_sprites_are_the_artwork(packages):
    sprites = prepare(packages)
    assert len(sprites) == 3 * len(STYLES)
    assert sprites.concepts == ("red square", "pane", "corner")
    # a word that two share, or that is part of a name, is nobody's synonym
    assert sprites.synonyms == ((), ("window",), ())
    square, pane, corner = sprites.rgba[:3]
    assert torch.equal(square, corner)
    assert square[:, SIZE // 4, SIZE // 4].tolist() == [255, 0, 0, 255]
    assert square[:, -1, -1].tolist() == [0, 0, 0, 0]
    assert pane[:, SIZE // 2, SIZE // 2].tolist() == pytest.approx([0, 0, 128, 128], abs=1)  # premultiplied


def test_concepts_that_one_package_lacks_are_named(packages):
    with pytest.raises(ValueError, match="only-noto"):
        prepare(packages, ["pane", "only-noto"])


def test_a_list_has_comments_and_no_doubles(tmp_path):
    (tmp_path / "list.txt").write_text("# animals\nant bee  # small ones\nbee cow\n")
    assert listed(tmp_path / "list.txt") == ["ant", "bee", "cow"]
