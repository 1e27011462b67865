"""The words' side: what the text encoder is asked while it learns to read."""

from __future__ import annotations

import copy

import pytest
import torch

from studio.training.scenes import TINTS, Mix, SceneMaker
from studio.training.text import Reader, binding_loss, new_text_encoder, teach_reading, train_tokenizer


@pytest.fixture(scope="module")
def pairs(sprites):
    maker = SceneMaker(sprites, seed=1, mix=Mix(one=0.2, pair=0.6, tinted=0.3))
    return [maker.draw() for _ in range(40)]


@pytest.fixture(scope="module")
def tokenizer(sprites):
    maker = SceneMaker(sprites, seed=2)
    return train_tokenizer((maker.draw().caption for _ in range(2000)), vocabulary=700)


class Knowing(Reader):
    """Finds in a row's vectors the row's number, and looks up what is at a place of that scene."""

    def __init__(self, scenes, sprites, turned: bool = False) -> None:
        super().__init__(64, len(sprites.concepts))
        self.scenes, self.sprites, self.turned = scenes, sprites, turned

    def there(self, vectors, mask, places):
        concept = torch.zeros(len(places), len(self.sprites.concepts))
        tint = torch.zeros(len(places), len(TINTS) + 1)
        for number, (row, place) in enumerate(zip(vectors[:, 0, 0].tolist(), places, strict=True)):
            things = self.scenes[int(row)].things
            away = [(torch.tensor([thing.x, thing.y]) - place).norm() for thing in things]
            thing = things[(away.index(min(away)) + self.turned) % len(things)]
            concept[number, self.sprites.concept[thing.sprite]] = 100
            tint[number, TINTS.index(thing.tint) if thing.tint else len(TINTS)] = 100
        return concept, tint


def test_words_that_tell_what_is_where_have_no_loss(pairs, sprites):
    vectors = torch.arange(len(pairs))[:, None, None].expand(-1, 5, 64).float()
    asked = vectors, torch.ones(len(pairs), 5), pairs, sprites
    assert binding_loss(Knowing(pairs, sprites), *asked) < 1e-6
    assert binding_loss(Knowing(pairs, sprites, turned=True), *asked) > 10


def test_padding_says_nothing(sprites):
    torch.manual_seed(0)
    reader, words, places = Reader(64, len(sprites.concepts)), torch.randn(3, 6, 64), torch.rand(3, 2)
    longer = torch.cat([words, torch.randn(3, 4, 64)], dim=1)
    mask = torch.tensor([[1] * 6 + [0] * 4] * 3)
    for short, padded in zip(reader.there(words, mask[:, :6], places), reader.there(longer, mask, places), strict=True):
        torch.testing.assert_close(short, padded)


def test_what_was_said_of_a_thing_alone_is_kept(sprites, tokenizer):
    torch.manual_seed(0)
    first = new_text_encoder(tokenizer, width=64, layers=2).eval()
    maker = SceneMaker(sprites, seed=4, mix=Mix(one=1.0, pair=0.0))
    words = tokenizer([maker.draw().caption for _ in range(32)], padding=True, return_tensors="pt")
    counted = words.attention_mask[..., None]

    def change(kept) -> float:
        taught = copy.deepcopy(first)
        teach_reading(taught, tokenizer, SceneMaker(sprites, 5), 0.03, batch=16, bf16=False, kept=kept)
        with torch.no_grad():
            before, after = (encoder(**words).last_hidden_state * counted for encoder in (first, taught))
        return ((after - before).norm() / before.norm()).item()

    assert change(copy.deepcopy(first)) < 0.5 * change(None)
