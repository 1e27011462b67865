import json

import pytest

from studio.training.practice import DOUBTED, NEW, doubted, how_often, known_concepts
from studio.training.sprites import STYLES
from tests.training.test_evaluate import PerfectPainter


class ForgetfulPainter(PerfectPainter):
    """Paints what it is asked for, but the next concept for some pairs, for one of them every other time."""

    never, at_times = {(3, 1), (5, 0)}, (7, 2)

    def __init__(self, sprites) -> None:
        super().__init__(sprites)
        self.asked: dict[tuple[int, int], int] = {}

    def prepare(self, prompts, seeds):
        rows = super().prepare(prompts, seeds)
        for row in rows:
            concept, style, ground = row.labels
            asked = self.asked[concept, style] = self.asked.get((concept, style), 0) + 1
            if (concept, style) in self.never or ((concept, style) == self.at_times and asked % 2):
                row.labels = (concept + 1) % len(self.sprites.concepts), style, ground
        return rows


def test_what_is_known_is_what_the_vocabulary_names(sprites, tmp_path):
    names = [{"name": sprites.concepts[5]}, {"name": "a thing of before"}, {"name": sprites.concepts[2]}]
    (tmp_path / "vocabulary.json").write_text(json.dumps({"concepts": names}))
    assert known_concepts(tmp_path, sprites) == [2, 5]
    assert known_concepts(tmp_path / "nothing", sprites) == []
    often = how_often(sprites, tmp_path)
    new = set(range(len(sprites.concepts))) - {2, 5}
    assert often == {(concept, style): NEW for concept in new for style in range(len(STYLES))}
    assert how_often(sprites) == {}


def test_what_is_doubted_is_drawn_more_often_the_more_it_is(sprites, tmp_path):
    path = tmp_path / "doubts.json"
    path.write_text(json.dumps({sprites.concepts[1]: {"noto": 1.0, "flat": 0.5, "glossy": 0.0}}))
    noto, flat, glossy = ((1, STYLES.index(style)) for style in ("noto", "flat", "glossy"))
    assert how_often(sprites, doubts=path) == {noto: DOUBTED, flat: (1 + DOUBTED) // 2, glossy: 1}
    both = how_often(sprites, tmp_path, path)  # without a vocabulary all are new
    assert (both[noto], both[glossy]) == (max(DOUBTED, NEW), NEW)
    for wrong in ({"a thing of before": {"noto": 1.0}}, {sprites.concepts[1]: {"oil": 1.0}}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="no such picture"):
            how_often(sprites, doubts=path)


def test_a_judge_doubts_what_is_drawn_wrong(sprites, trained):
    painter = ForgetfulPainter(sprites)
    doubts, usual = (doubted(one, trained, sprites, rounds=2) for one in (painter, PerfectPainter(sprites)))
    assert painter.asked == dict.fromkeys(doubts, 2)
    held = set(zip(sprites.concept[sprites.held_out].tolist(), sprites.style[sprites.held_out].tolist(), strict=True))
    assert not held & set(doubts) and len(doubts) + len(held) == len(sprites)
    assert {doubts[pair] for pair in painter.never} == {1.0}
    assert doubts[painter.at_times] >= 0.5
    wrong = painter.never | {painter.at_times}
    assert {pair: doubts[pair] for pair in doubts if pair not in wrong} == {
        pair: usual[pair] for pair in usual if pair not in wrong
    }
    assert sum(usual.values()) < 0.4 * len(usual)  # of the judge of these tests; chance is 0.75
