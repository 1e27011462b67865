import pytest

from studio.prompts.nouns import plural
from studio.training.data.scenes import (
    BACKGROUND_COLORS,
    COUNT_WORDS,
    OVERSAMPLING,
    SceneMaker,
    SceneMix,
)
from studio.training.data.sprites import STYLES


def test_same_seed_same_scenes(sprites, scenes):
    maker = SceneMaker(sprites, seed=3)
    assert [maker.draw() for _ in range(100)] == scenes[:100]


def test_held_out_pairs_are_never_drawn(sprites, scenes):
    drawn = {item.sprite for scene in scenes for item in scene.objects}
    held_out = set(sprites.held_out.nonzero()[:, 0].tolist())
    assert drawn == set(range(len(sprites))) - held_out
    maker = SceneMaker(sprites, seed=0, held_out=True)
    assert {item.sprite for _ in range(200) for item in maker.draw().objects} == held_out


def test_oversampled_concepts_are_drawn_more_often(sprites):
    maker = SceneMaker(sprites, seed=3, oversampled={0, 4})
    drawn = [concept for _ in range(3000) for concept in maker.draw().labels["concepts"]]
    share = sum(concept in {0, 4} for concept in drawn) / len(drawn)
    others = len(sprites.concepts) - 2
    assert share == pytest.approx(2 * OVERSAMPLING / (2 * OVERSAMPLING + others), abs=0.03)


def test_captions_name_the_objects(sprites, scenes):
    for scene in scenes:
        for item in scene.objects:
            concept = int(sprites.concept[item.sprite])
            names = (sprites.concepts[concept], *sprites.synonyms[concept])
            assert any(name in scene.caption or plural(name) in scene.caption for name in names), scene.caption
            if item.tint:
                assert any(f"{item.tint} {name}" in scene.caption for name in names)
        if scene.relation is None and len(scene.objects) > 1:
            assert COUNT_WORDS[len(scene.objects)] in scene.caption.split()
        if scene.relation:
            parts = scene.caption.split(scene.relation, 1)
            for part, item in zip(parts, scene.objects, strict=True):
                name = sprites.concepts[int(sprites.concept[item.sprite])]
                assert name in part or "round thing" in part


def test_captions_name_no_other_style_or_background(scenes):
    with_style = with_background = 0
    for scene in scenes:
        words = scene.caption.replace(",", "").split()
        styles = [style for style in STYLES if style in words]
        assert styles in ([], [STYLES[scene.labels["style"]]])
        with_style += bool(styles)
        colours = {scene.background, scene.second_background} | {item.tint for item in scene.objects}
        assert {colour for colour in BACKGROUND_COLORS if colour in words} <= colours
        with_background += scene.background in words
    assert 0.8 < with_style / len(scenes) < 0.97
    assert 0.7 < with_background / len(scenes) < 0.9


def test_without_variation_a_single_object_has_one_place_and_size(sprites):
    maker = SceneMaker(sprites, seed=3, placement_variation=0)
    single = [scene.objects[0] for scene in (maker.draw() for _ in range(60)) if len(scene.objects) == 1]
    assert {(item.x, item.y, item.side) for item in single} == {(0.5, 0.5, 0.79)}


def test_scenes_have_the_shares_of_the_mix(sprites):
    maker = SceneMaker(sprites, seed=3, mix=SceneMix(single=0.5, pair=0.5, tinted=1.0))
    drawn = [maker.draw() for _ in range(400)]
    assert sum(len(scene.objects) == 1 for scene in drawn) / 400 == pytest.approx(0.5, abs=0.08)
    assert all(scene.relation for scene in drawn if len(scene.objects) > 1)  # no groups
    assert all(item.tint for scene in drawn for item in scene.objects)


def test_no_object_has_the_colour_of_its_background(sprites):
    maker = SceneMaker(sprites, seed=4, mix=SceneMix(single=0.4, pair=0.4, tinted=1.0))
    for scene in (maker.draw() for _ in range(300)):
        assert scene.background not in {item.tint for item in scene.objects}
