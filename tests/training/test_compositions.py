from dataclasses import replace

import pytest

from studio.training.data.scenes import TINTS, Scene, SceneMaker
from studio.training.data.sprites import STYLES
from studio.training.evaluation.compositions import (
    COLOUR,
    KINDS,
    PAIR,
    THREE,
    TURNS,
    TWO,
    Question,
    answers,
    compose,
    own_colour,
    questions,
    words,
)
from studio.training.evaluation.detector import OWN, Found

FLIPPED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@pytest.fixture(scope="module")
def asked(sprites) -> list[Question]:
    return questions(sprites, range(len(sprites.concepts)), 128, seed=5)


def seen(scene: Scene, sprites) -> list[Found]:
    """What a perfect detector finds in a scene."""
    return [
        Found(int(sprites.concept[t.sprite]), TINTS.index(t.tint) if t.tint else OWN, t.x, t.y, 1.0)
        for t in scene.things
    ]


def test_words(sprites):
    flat = STYLES.index("flat")
    assert (
        words(Question((0,), flat, "red", tint="blue"), sprites) == "a blue teal disc, flat style, on a red background"
    )
    pair = Question((0, 5), flat, "red", relation="left of")
    assert words(pair, sprites) == "a teal disc left of an olive square, flat style, on a red background"
    assert words(Question((3,), flat, "red", count=3), sprites) == "three navy crosses, flat style, on a red background"


def test_every_kind_is_asked_for(asked):
    kinds = [question.kind for question in asked]
    assert [kinds.count(kind) for kind in KINDS] == [12, 128, 64, 64]  # there are but twelve concepts to colour
    for kind in (PAIR, TWO, THREE):
        assert {question.style for question in asked if question.kind == kind} == set(range(len(STYLES)))
    assert {question.relation for question in asked if question.kind == PAIR} == set(TURNS)


def test_only_what_training_saw_is_asked_for(sprites, asked):
    held = {
        (c, s)
        for c, s, kept in zip(sprites.concept.tolist(), sprites.style.tolist(), sprites.held_out.tolist(), strict=True)
        if kept
    }
    for question in asked:
        assert not held & {(concept, question.style) for concept in question.concepts}
        assert len(set(question.concepts)) == 1 + (question.kind == PAIR)


def test_colours_can_be_seen(sprites, asked):
    for question in asked:
        if question.kind == COLOUR:
            assert question.tint not in (
                None,
                question.background,
                own_colour(sprites, *question.concepts, question.style),
            )
    assert own_colour(sprites, sprites.concepts.index("navy cross"), 0) == "blue"
    assert own_colour(sprites, sprites.concepts.index("maroon triangle"), 0) == "red"


def test_same_seed_same_questions(sprites, asked):
    everything = range(len(sprites.concepts))
    assert questions(sprites, everything, 128, seed=5) == asked != questions(sprites, everything, 128, seed=6)
    few = questions(sprites, [2, 4, 7], 2, seed=0)
    assert {concept for question in few for concept in question.concepts} <= {2, 4, 7}


def test_scenes_show_what_is_asked(sprites, asked):
    maker = SceneMaker(sprites, seed=1)
    for question in asked:
        scene = compose(question, maker)
        assert all(answers(question, seen(scene, sprites)).values())
        assert (scene.background, scene.ground2, scene.pattern) == (question.background, None, "plain")
        assert {thing.tint for thing in scene.things} == {question.tint}
        assert {int(sprites.style[thing.sprite]) for thing in scene.things} == {question.style}


def test_a_flipped_relation_is_wrong(sprites, asked):
    maker = SceneMaker(sprites, seed=2)
    for question in (question for question in asked if question.kind == PAIR):
        found = seen(compose(replace(question, relation=FLIPPED[question.relation]), maker), sprites)
        assert answers(question, found) == {"both present": True, "relation right": False}


def test_a_turned_relation_is_wrong(sprites, asked):
    """Left of is not above, though what is above may also be a little to the left."""
    maker = SceneMaker(sprites, seed=3)
    for question in (question for question in asked if question.kind == PAIR):
        turned = TURNS[(TURNS.index(question.relation) + 2) % 4]
        found = seen(compose(replace(question, relation=turned), maker), sprites)
        assert answers(question, found) == {"both present": True, "relation right": False}


def test_a_missing_thing_is_missed(sprites, asked):
    pair = next(question for question in asked if question.kind == PAIR)
    found = seen(compose(pair, SceneMaker(sprites, seed=4)), sprites)
    for left in (found[:1], found[1:], [found[0], found[0]], []):
        assert answers(pair, left) == {"both present": False, "relation right": False}
    assert answers(pair, [*found, replace(found[0], heat=0.4)])["relation right"]  # the surest of a concept counts


def test_counts():
    three = Question((4,), 0, "red", count=3)
    thing, other = Found(4, OWN, 0.2, 0.5, 0.9), Found(5, OWN, 0.8, 0.5, 0.8)
    assert answers(three, [thing] * 3) == {"count right": True, "each the thing asked for": True}
    assert answers(three, [thing, thing, other]) == {"count right": True, "each the thing asked for": False}
    for found in ([], [thing] * 2, [thing] * 4):
        assert answers(three, found) == {"count right": False, "each the thing asked for": False}


def test_the_colour_must_be_on_the_thing():
    question = Question((4,), 0, "red", tint="blue")
    blue, green = TINTS.index("blue"), TINTS.index("green")
    for concept, tint, likely in ((4, blue, (4, 5)), (4, green, (4, 5)), (5, blue, (5, 4)), (5, blue, (5, 6))):
        thing = Found(concept, tint, 0.5, 0.5, 0.9, likely)
        assert answers(question, [thing, Found(4, blue, 0.1, 0.1, 0.4)]) == {
            "the colour": tint == blue,
            "the thing, top-1": concept == 4,
            "the thing, top-5": 4 in likely,
            "the colour on the thing, top-5": tint == blue and 4 in likely,
        }
    assert not any(answers(question, []).values())
