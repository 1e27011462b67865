from __future__ import annotations

import copy
import itertools
from types import SimpleNamespace

import torch

from studio.training import text_encoder
from studio.training.data.scenes import SceneMaker
from studio.training.text_encoder import new_text_encoder, train_text_encoder, train_tokenizer


@torch.no_grad()
def encode(encoder, tokenizer, texts: list[str]) -> torch.Tensor:
    """Return embeddings (B, L, D), 0 for padding."""
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    return encoder(**tokens).last_hidden_state * tokens.attention_mask[..., None]


def test_known_captions_keep_their_embeddings_while_new_ones_are_learned(sprites, monkeypatch):
    monkeypatch.setattr(text_encoder, "time", SimpleNamespace(monotonic=itertools.count().__next__))  # 1 s an update
    tokenizer = train_tokenizer((SceneMaker(sprites, 0).draw().caption for _ in range(500)), 400)
    torch.manual_seed(0)
    encoder = new_text_encoder(tokenizer, 64, 1)
    texts = [f"a {concept}, noto style" for concept in sprites.concepts]
    before = encode(encoder, tokenizer, texts)
    changes = {}
    for known in (range(8), ()):
        trained = copy.deepcopy(encoder)
        scenes = SceneMaker(sprites, 1)
        train_text_encoder(trained, tokenizer, scenes, 30 / 60, batch_size=24, bf16=False, known_concepts=known)
        difference = (encode(trained, tokenizer, texts) - before).square().sum((1, 2))
        changes[bool(known)] = difference / before.square().sum((1, 2))
    assert changes[True][:8].mean() < 0.3 * changes[True][8:].mean()
    assert changes[True][:8].mean() < 0.3 * changes[False][:8].mean()
