"""Train the tokenizer and a small CLIP text encoder, before the U-Net.

Both are ordinary `transformers` components of a diffusers pipeline. The text encoder learns alone, in minutes, to
predict from a caption what the picture shows. Trained together with the U-Net from scratch, it separated concepts too
weakly for the U-Net to learn more than backgrounds (see README.md).
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studio.training.data.scenes import BACKGROUND_COLORS, TINTS, Scene, SceneMaker
from studio.training.data.sprites import STYLES, Sprites

DISTILLATION_WEIGHT = 100.0  # weight of the relative squared change of known captions' embeddings
THUMBNAIL_WEIGHT = 20.0  # weight of the thumbnail's mean squared error
THUMBNAIL_SIDE = 8  # px
NO_LABEL = -100  # cross entropy ignores it
MAX_TOKENS = 40  # the longest captions have about 30


def train_tokenizer(captions: Iterable[str], vocabulary: int = 2048) -> CLIPTokenizer:
    """Train byte-level BPE with CLIP's word splitting. It encodes any Unicode text."""
    template = CLIPTokenizer()
    start, end = str(template.bos_token), str(template.eos_token)
    learner = Tokenizer(BPE(end_of_word_suffix="</w>", unk_token=template.unk_token))
    learner.normalizer = template.backend_tokenizer.normalizer
    learner.pre_tokenizer = template.backend_tokenizer.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[start, end],
        initial_alphabet=ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    merges: Any = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(ByteLevel.alphabet())
    endings = [f"{letter}</w>" for letter in letters]  # the trainer keeps only those in the captions
    merged = ["".join(pair) for pair in merges]
    tokens = dict.fromkeys([start, end, *letters, *endings, *merged])
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def new_text_encoder(tokenizer: CLIPTokenizer, width: int = 256, layers: int = 4) -> CLIPTextModel:
    """Return a text encoder with random weights for the tokenizer's vocabulary."""
    special_tokens: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu",
            **special_tokens,
        )
    )
    encoder.set_attn_implementation("eager")  # the fused kernel's backward is several times slower on a CPU
    return encoder


class CaptionHeads(nn.Module):
    """Linear heads that predict from a caption's embedding what it says, and an 8 x 8 thumbnail of the sprite."""

    def __init__(self, width: int, concepts: int) -> None:
        super().__init__()
        self.concept = nn.Linear(width, concepts)
        self.style = nn.Linear(width, len(STYLES))
        self.background = nn.Linear(width, len(BACKGROUND_COLORS))
        self.tint = nn.Linear(width, len(TINTS) + 1)
        self.thumbnail = nn.Linear(width, 4 * THUMBNAIL_SIDE**2)


def caption_targets(scenes: Sequence[Scene], sprites: Sprites, thumbnails: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the targets of `CaptionHeads`, (B, ...) each; NO_LABEL where a caption does not say it."""
    backgrounds = list(BACKGROUND_COLORS)
    concepts = torch.zeros(len(scenes), len(sprites.concepts))
    styles, background_indices, tints, has_thumbnail = [], [], [], []
    for row, scene in enumerate(scenes):
        words = scene.caption.replace(",", " ").split()
        for concept in scene.labels["concepts"]:
            concepts[row, concept] += 1 / len(scene.objects)
        style, first = scene.labels["style"], scene.objects[0]
        says_background = scene.background in words and scene.pattern == "plain"
        styles.append(style if STYLES[style] in words else NO_LABEL)
        background_indices.append(backgrounds.index(scene.background) if says_background else NO_LABEL)
        tints.append(TINTS.index(first.tint) if first.tint else len(TINTS))
        has_thumbnail.append(len(scene.objects) == 1 and not first.tint)
    return {
        "concept": concepts,
        "style": torch.tensor(styles),
        "background": torch.tensor(background_indices),
        "tint": torch.tensor(tints),
        "thumbnail": thumbnails[[scene.objects[0].sprite for scene in scenes]],
        "has_thumbnail": torch.tensor(has_thumbnail),
    }


def caption_loss(heads: CaptionHeads, embeddings: torch.Tensor, targets: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss of embeddings (B, D), one a caption."""
    loss = F.cross_entropy(heads.concept(embeddings), targets["concept"])
    for name in ("style", "background", "tint"):
        logits = getattr(heads, name)(embeddings).float()
        loss = loss + F.cross_entropy(logits, targets[name], ignore_index=NO_LABEL)
    error = (heads.thumbnail(embeddings).float() - targets["thumbnail"]).square().mean(1)
    return loss + THUMBNAIL_WEIGHT * (error * targets["has_thumbnail"]).mean()


def train_text_encoder(
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scenes: SceneMaker,
    minutes: float,
    *,
    batch_size: int = 192,
    learning_rate: float = 1e-3,
    bf16: bool = True,
    known_concepts: Collection[int] = (),
) -> float:
    """Train `encoder` in place, on its device, for this many minutes. Return the mean of the last 50 losses.

    Two embeddings of a caption are trained: the mean of its tokens and its last token. The U-Net reads a pooled one
    and attends to all tokens.

    Args:
        known_concepts: indices of concepts that the encoder knows already. Captions of these alone keep the
            embeddings that a trained U-Net expects (learning without forgetting, arXiv 1606.09282).
    """
    device = encoder.device
    sprites = scenes.sprites
    thumbnails = F.avg_pool2d(sprites.rgba.float(), sprites.rgba.shape[-1] // THUMBNAIL_SIDE).flatten(1) / 255
    heads = CaptionHeads(encoder.config.hidden_size, len(sprites.concepts)).to(device)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    known = frozenset(known_concepts)
    original = copy.deepcopy(encoder).eval().requires_grad_(False) if known else None
    start, spent, updates = time.monotonic(), 0.0, 0
    losses: list[float] = []
    encoder.train()
    while spent < 1:
        batch = [scenes.draw() for _ in range(batch_size)]
        targets = {name: value.to(device) for name, value in caption_targets(batch, sprites, thumbnails).items()}
        captions = [scene.caption for scene in batch]
        tokens = tokenizer(captions, padding=True, truncation=True, return_tensors="pt").to(device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (updates + 1) / 50) * min(1, (1 - spent) / 0.6)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            embeddings = encoder(**tokens).last_hidden_state  # (B, L, D)
            weight = tokens.attention_mask[..., None]
            mean = (embeddings * weight).sum(1) / weight.sum(1)
            last = embeddings[torch.arange(batch_size, device=device), tokens.attention_mask.sum(1) - 1]
            loss = caption_loss(heads, mean, targets) + caption_loss(heads, last, targets)
            if original is not None:
                is_known = torch.tensor([known.issuperset(scene.labels["concepts"]) for scene in batch], device=device)
                expected = original(**tokens).last_hidden_state.float()
                weight = weight * is_known[:, None, None]
                change = ((embeddings - expected).square() * weight).sum()
                size = (expected.square() * weight).sum().clamp(min=1)  # 0 where no caption is known
                loss = loss + DISTILLATION_WEIGHT * change / size
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
        losses = [*losses[-49:], loss.item() / 2]
        spent = (time.monotonic() - start) / (60 * minutes)
    encoder.eval()
    return sum(losses) / len(losses)
