from dataclasses import replace

import pytest

from studio.training.data.scenes import TINTS, Scene, SceneMaker
from studio.training.data.sprites import STYLES
from studio.training.evaluation.compositions import (
    COLOR,
    KINDS,
    PAIR,
    SPATIAL_RELATIONS,
    THREE,
    TWO,
    Composition,
    check_composition,
    compose_scene,
    composition_prompt,
    draw_compositions,
    nearest_tint,
)
from studio.training.evaluation.detector import UNTINTED, Detection

FLIPPED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@pytest.fixture(scope="module")
def compositions(sprites) -> list[Composition]:
    return draw_compositions(sprites, range(len(sprites.concepts)), 128, seed=5)


def perfect_detections(scene: Scene, sprites) -> list[Detection]:
    """Return what a perfect detector finds in a scene."""
    return [
        Detection(
            concept=int(sprites.concept[item.sprite]),
            tint=TINTS.index(item.tint) if item.tint else UNTINTED,
            x=item.x,
            y=item.y,
            heat=1.0,
        )
        for item in scene.objects
    ]


def test_prompts(sprites):
    flat = STYLES.index("flat")
    tinted = Composition((0,), flat, "red", tint="blue")
    assert composition_prompt(tinted, sprites) == "a blue teal disc, flat style, on a red background"
    pair = Composition((0, 5), flat, "red", relation="left of")
    assert composition_prompt(pair, sprites) == "a teal disc left of an olive square, flat style, on a red background"
    group = Composition((3,), flat, "red", count=3)
    assert composition_prompt(group, sprites) == "three navy crosses, flat style, on a red background"


def test_every_kind_is_drawn(compositions):
    kinds = [composition.kind for composition in compositions]
    assert [kinds.count(kind) for kind in KINDS] == [12, 128, 64, 64]  # there are only twelve concepts
    for kind in (PAIR, TWO, THREE):
        assert {composition.style for composition in compositions if composition.kind == kind} == set(
            range(len(STYLES))
        )
    assert {composition.relation for composition in compositions if composition.kind == PAIR} == set(SPATIAL_RELATIONS)


def test_no_held_out_pair_is_drawn(sprites, compositions):
    held = set(sprites.held_out_pairs())
    for composition in compositions:
        assert not held & {(concept, composition.style) for concept in composition.concepts}
        assert len(set(composition.concepts)) == 1 + (composition.kind == PAIR)


def test_colours_can_be_perfect_detections(sprites, compositions):
    for composition in compositions:
        if composition.kind == COLOR:
            assert composition.tint not in (
                None,
                composition.background,
                nearest_tint(sprites, *composition.concepts, composition.style),
            )
    assert nearest_tint(sprites, sprites.concepts.index("navy cross"), 0) == "blue"
    assert nearest_tint(sprites, sprites.concepts.index("maroon triangle"), 0) == "red"


def test_same_seed_same_compositions(sprites, compositions):
    everything = range(len(sprites.concepts))
    assert (
        draw_compositions(sprites, everything, 128, seed=5)
        == compositions
        != draw_compositions(sprites, everything, 128, seed=6)
    )
    few = draw_compositions(sprites, [2, 4, 7], 2, seed=0)
    assert {concept for composition in few for concept in composition.concepts} <= {2, 4, 7}


def test_scenes_show_their_composition(sprites, compositions):
    maker = SceneMaker(sprites, seed=1)
    for composition in compositions:
        scene = compose_scene(composition, maker)
        assert all(check_composition(composition, perfect_detections(scene, sprites)).values())
        assert (scene.background, scene.second_background, scene.pattern) == (composition.background, None, "plain")
        assert {item.tint for item in scene.objects} == {composition.tint}
        assert {int(sprites.style[item.sprite]) for item in scene.objects} == {composition.style}


def test_a_flipped_relation_is_wrong(sprites, compositions):
    maker = SceneMaker(sprites, seed=2)
    for composition in (composition for composition in compositions if composition.kind == PAIR):
        found = perfect_detections(
            compose_scene(replace(composition, relation=FLIPPED[composition.relation]), maker), sprites
        )
        assert check_composition(composition, found) == {"both present": True, "relation right": False}


def test_a_relation_along_the_other_axis_is_wrong(sprites, compositions):
    maker = SceneMaker(sprites, seed=3)
    for composition in (composition for composition in compositions if composition.kind == PAIR):
        turned = SPATIAL_RELATIONS[(SPATIAL_RELATIONS.index(composition.relation) + 2) % 4]
        found = perfect_detections(compose_scene(replace(composition, relation=turned), maker), sprites)
        assert check_composition(composition, found) == {"both present": True, "relation right": False}


def test_both_objects_must_be_present(sprites, compositions):
    pair = next(composition for composition in compositions if composition.kind == PAIR)
    found = perfect_detections(compose_scene(pair, SceneMaker(sprites, seed=4)), sprites)
    for left in (found[:1], found[1:], [found[0], found[0]], []):
        assert check_composition(pair, left) == {"both present": False, "relation right": False}
    assert check_composition(pair, [*found, replace(found[0], heat=0.4)])[
        "relation right"
    ]  # the most confident of a concept counts


def test_counts():
    three = Composition((4,), 0, "red", count=3)
    detection, other = Detection(4, UNTINTED, 0.2, 0.5, 0.9), Detection(5, UNTINTED, 0.8, 0.5, 0.8)
    assert check_composition(three, [detection] * 3) == {"count right": True, "count and concept right": True}
    assert check_composition(three, [detection, detection, other]) == {
        "count right": True,
        "count and concept right": False,
    }
    for found in ([], [detection] * 2, [detection] * 4):
        assert check_composition(three, found) == {"count right": False, "count and concept right": False}


def test_the_most_confident_object_must_have_concept_and_colour():
    composition = Composition((4,), 0, "red", tint="blue")
    blue, green = TINTS.index("blue"), TINTS.index("green")
    for concept, tint, likely in ((4, blue, (4, 5)), (4, green, (4, 5)), (5, blue, (5, 4)), (5, blue, (5, 6))):
        best = Detection(concept, tint, 0.5, 0.5, 0.9, likely)
        assert check_composition(composition, [best, Detection(4, blue, 0.1, 0.1, 0.4)]) == {
            "colour": tint == blue,
            "concept, top-1": concept == 4,
            "concept, top-5": 4 in likely,
            "colour and concept, top-5": tint == blue and 4 in likely,
        }
    assert not any(check_composition(composition, []).values())
