import random
from dataclasses import replace

import pytest
import torch

from studio.training.data.scenes import (
    COUNTS,
    FAVOUR,
    GROUNDS,
    RELATIONS,
    Mix,
    Painter,
    Scene,
    SceneMaker,
    Thing,
    View,
    default_prompt,
    phrase,
    plural,
    with_article,
)
from studio.training.data.sprites import STYLES


@pytest.fixture(scope="module")
def painter(sprites):
    return Painter(sprites)


@pytest.fixture(scope="module")
def scenes(sprites):
    maker = SceneMaker(sprites, seed=3)
    return [maker.draw() for _ in range(1500)]


def centre(painter: Painter, scene: Scene, thing: Thing) -> tuple[float, float]:
    """Centre of mass (x, y), in shares of the side, of what a thing changes in its scene."""
    bare = painter([replace(scene, things=())], 48)
    painted = painter([replace(scene, things=(thing,))], 48)
    mass = (painted - bare).abs().sum(1)[0]
    steps = (torch.arange(48) + 0.5) / 48
    return ((mass.sum(0) * steps).sum() / mass.sum()).item(), ((mass.sum(1) * steps).sum() / mass.sum()).item()


def test_same_seed_same_scenes(sprites, scenes):
    maker = SceneMaker(sprites, seed=3)
    assert [maker.draw() for _ in range(100)] == scenes[:100]


def test_held_out_pairs_are_never_drawn(sprites, scenes):
    drawn = {thing.sprite for scene in scenes for thing in scene.things}
    held = set(sprites.held_out.nonzero()[:, 0].tolist())
    assert drawn == set(range(len(sprites))) - held
    maker = SceneMaker(sprites, seed=0, held_out=True)
    assert {thing.sprite for _ in range(200) for thing in maker.draw().things} == held


def test_favoured_concepts_are_drawn_more_often(sprites):
    maker = SceneMaker(sprites, seed=3, favoured={0, 4})
    drawn = [concept for _ in range(3000) for concept in maker.draw().labels["concepts"]]
    share = sum(concept in {0, 4} for concept in drawn) / len(drawn)
    others = len(sprites.concepts) - 2
    assert share == pytest.approx(2 * FAVOUR / (2 * FAVOUR + others), abs=0.03)


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_are_honoured(painter, scenes, relation):
    chosen = [scene for scene in scenes if scene.relation == relation][:12]
    assert len(chosen) == 12
    for scene in chosen:
        (x0, y0), (x1, y1) = (centre(painter, scene, thing) for thing in scene.things)
        gap = {"left of": x1 - x0, "right of": x0 - x1, "above": y1 - y0, "below": y0 - y1}
        assert gap.get(relation, max(abs(x1 - x0), abs(y1 - y0))) > 0.2


def test_captions_say_what_is_in_the_picture(sprites, scenes):
    for scene in scenes:
        for thing in scene.things:
            number = int(sprites.concept[thing.sprite])
            names = (sprites.concepts[number], *sprites.synonyms[number])
            named = [name for name in names if name in scene.caption or plural(name) in scene.caption]
            assert named, scene.caption
            if thing.tint:
                assert any(f"{thing.tint} {name}" in scene.caption for name in names)
        if scene.relation is None and len(scene.things) > 1:
            assert COUNTS[len(scene.things)] in scene.caption.split()
        if scene.relation:
            first, second = scene.caption.split(scene.relation, 1)
            name = sprites.concepts[int(sprites.concept[scene.things[0].sprite])]
            assert name in first or "round thing" in first
            name = sprites.concepts[int(sprites.concept[scene.things[1].sprite])]
            assert name in second or "round thing" in second


def test_captions_name_no_other_style_or_ground(scenes):
    said_style = said_ground = 0
    for scene in scenes:
        said = [style for style in STYLES if style in scene.caption.replace(",", "").split()]
        assert said in ([], [STYLES[scene.labels["style"]]])
        said_style += bool(said)
        words = scene.caption.replace(",", "").split()
        own = {scene.background, scene.ground2} | {thing.tint for thing in scene.things}
        assert {colour for colour in GROUNDS if colour in words} <= own
        said_ground += scene.background in words
    assert 0.8 < said_style / len(scenes) < 0.97
    assert 0.7 < said_ground / len(scenes) < 0.9


def test_without_freedom_a_thing_alone_has_one_place_and_size(sprites):
    maker = SceneMaker(sprites, seed=3, freedom=0)
    alone = [scene.things[0] for scene in (maker.draw() for _ in range(60)) if len(scene.things) == 1]
    assert {(thing.x, thing.y, thing.side) for thing in alone} == {(0.5, 0.5, 0.79)}


def test_a_mix_is_its_shares(sprites):
    maker = SceneMaker(sprites, seed=3, mix=Mix(one=0.5, pair=0.5, tinted=1.0))
    drawn = [maker.draw() for _ in range(400)]
    assert sum(len(scene.things) == 1 for scene in drawn) / 400 == pytest.approx(0.5, abs=0.08)
    assert all(scene.relation for scene in drawn if len(scene.things) > 1)  # no third kind
    assert all(thing.tint for scene in drawn for thing in scene.things)


def test_no_thing_has_the_colour_of_its_ground(sprites):
    maker = SceneMaker(sprites, seed=4, mix=Mix(one=0.4, pair=0.4, tinted=1.0))
    for scene in (maker.draw() for _ in range(300)):
        assert scene.background not in {thing.tint for thing in scene.things}


def test_a_plain_ground_has_its_colour(painter):
    for name, colour in GROUNDS.items():
        picture = painter([Scene((), name)], 8)
        expected = torch.tensor(colour)[:, None, None] * 2 - 1
        assert torch.allclose(picture[0], expected.expand(3, 8, 8), atol=1e-6)


def test_patterns_hold_both_colours(painter):
    black, white = -0.88, 1.0
    for pattern in ("gradient", "striped", "dotted"):
        picture = painter([Scene((), "black", "white", pattern, phase=0.3)], 64)[0, 0]
        assert picture.min() < black + 0.05 and picture.max() > white - 0.05, pattern
        assert 0.1 < ((picture - black) / (white - black)).mean() < 0.9


def test_a_scene_may_be_empty_beside_one_that_is_not(painter):
    full = Scene((Thing(0, 0.5, 0.5, 0.8),), "white")
    both = painter([Scene((), "white"), full], 32)
    assert torch.equal(both[1:], painter([full], 32))
    assert (both[0] == 1).all()


def test_a_view_is_the_crop_of_a_larger_painting(painter, scenes):
    chosen = scenes[:24]
    whole = painter(chosen, 128)
    part = painter(chosen, 64, [View(0.25, 0.5, 0.5)] * len(chosen))
    crop = whole[:, :, 64:, 32:96]
    assert any(thing.tint for scene in chosen for thing in scene.things)
    assert torch.allclose(part, crop, atol=1e-3)


def test_a_small_painting_is_the_large_one_shrunk(painter, scenes):
    chosen = [scene for scene in scenes if scene.pattern == "plain"][:24]
    shrunk = torch.nn.functional.avg_pool2d(painter(chosen, 128), 4)
    assert (painter(chosen, 32) - shrunk).abs().mean() < 0.03


def test_tint_repaints_in_the_colour_and_keeps_the_outline(painter, sprites):
    coral = sprites.concepts.index("coral disc")
    plain = Thing(coral, 0.5, 0.5, 0.9)
    before = painter([Scene((plain,), "white")], 64)
    for name in ("red", "green", "blue", "yellow"):
        after = painter([Scene((replace(plain, tint=name),), "white")], 64)
        middle = (after[0, :, 32, 32] + 1) / 2
        nearest = min(
            GROUNDS, key=lambda background: (torch.tensor(GROUNDS[background]) - middle).square().sum().item()
        )
        assert nearest == name
        assert torch.equal((before == 1).all(1), (after == 1).all(1))  # the ground is untouched


def test_articles_and_plurals():
    assert [with_article(name) for name in ("red apple", "owl", "grapes", "unicorn", "bus", "glass")] == [
        "a red apple",
        "an owl",
        "grapes",
        "a unicorn",
        "a bus",
        "a glass",
    ]
    assert [plural(name) for name in ("cat", "fox", "cherry", "toy", "sheep", "bus", "potato", "kangaroo")] == [
        "cats",
        "foxes",
        "cherries",
        "toys",
        "sheep",
        "buses",
        "potatoes",
        "kangaroos",
    ]


def test_five_phrasings_and_more_for_each_kind():
    rng = random.Random(0)
    for style, background, least in (("flat", "blue", 5), ("flat", None, 5), (None, "blue", 5), (None, None, 4)):
        said = {phrase("a red apple", style, background, rng) for _ in range(200)}
        assert len(said) >= least
        assert all("red apple" in caption for caption in said)
        for word in (style, background):
            assert word is None or all(word in caption for caption in said)
    assert "a flat red apple on a blue background" in {phrase("a red apple", "flat", "blue", rng) for _ in range(200)}


def test_the_default_prompt_is_one_of_the_phrasings():
    rng = random.Random(0)
    for style, background in (("flat", "blue"), ("flat", None), (None, "blue"), (None, None)):
        assert default_prompt("a red apple", style, background) in {
            phrase("a red apple", style, background, rng) for _ in range(200)
        }
