"""Reading: what is learned anew, and what stays as a U-Net has learned to see it."""

from __future__ import annotations

import copy
import itertools
import json
from types import SimpleNamespace

import torch

from studio.training.data import text
from studio.training.data.scenes import SceneMaker
from studio.training.data.text import new_text_encoder, teach_reading, train_tokenizer
from studio.training.train import known_concepts, new_concepts


@torch.no_grad()
def read(encoder, tokenizer, texts: list[str]) -> torch.Tensor:
    words = tokenizer(texts, padding=True, return_tensors="pt")
    return encoder(**words).last_hidden_state * words.attention_mask[..., None]


def test_what_could_be_read_keeps_its_vectors_while_more_is_learned(sprites, monkeypatch):
    clock = SimpleNamespace(monotonic=itertools.count().__next__)  # a second an update
    monkeypatch.setattr(text, "time", clock)
    tokenizer = train_tokenizer((SceneMaker(sprites, 0).draw().caption for _ in range(500)), 400)
    torch.manual_seed(0)
    encoder = new_text_encoder(tokenizer, 64, 2)
    texts = [f"a {concept}, noto style" for concept in sprites.concepts]
    before, moved = read(encoder, tokenizer, texts), {}
    for known in (range(8), ()):
        taught = copy.deepcopy(encoder)
        teach_reading(taught, tokenizer, SceneMaker(sprites, 1), 40 / 60, batch=32, bf16=False, known=known)
        change = (read(taught, tokenizer, texts) - before).square().sum((1, 2)) / before.square().sum((1, 2))
        moved[bool(known)] = change
    assert moved[True][:8].mean() < 0.3 * moved[True][8:].mean()
    assert moved[True][:8].mean() < 0.3 * moved[False][:8].mean()


def test_what_is_known_is_what_the_vocabulary_names(sprites, tmp_path):
    names = [{"name": sprites.concepts[5]}, {"name": "a thing of before"}, {"name": sprites.concepts[2]}]
    (tmp_path / "vocabulary.json").write_text(json.dumps({"concepts": names}))
    assert known_concepts(tmp_path, sprites) == [2, 5]
    assert new_concepts(tmp_path, sprites) == set(range(len(sprites.concepts))) - {2, 5}
    assert known_concepts(tmp_path / "nothing", sprites) == []
