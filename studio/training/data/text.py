"""The words' side: a tokenizer trained on the captions, and a small CLIP text model, which learns to read first.

Both are ordinary `transformers` components of a diffusers pipeline. The text model is trained alone, in minutes, to
tell from a caption what is in the picture; trained together with the U-Net from nothing, it told concepts apart so
faintly that the U-Net learned the grounds and nothing else (see README.md).
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Collection, Iterable

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studio.training.data.scenes import GROUNDS, TINTS, Scene, SceneMaker
from studio.training.data.sprites import STYLES, Sprites

KEEPING = 100.0  # what it costs to move the vectors of known captions, of their squared length
MAX_TOKENS = 40  # the longest captions have about 30


def train_tokenizer(captions: Iterable[str], vocabulary: int = 2048) -> CLIPTokenizer:
    """Byte-level BPE with CLIP's way of splitting text, so that any Unicode can be written, if not understood."""
    empty = CLIPTokenizer()
    learner = Tokenizer(BPE(end_of_word_suffix="</w>", unk_token=empty.unk_token))
    learner.normalizer = empty.backend_tokenizer.normalizer
    learner.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[empty.bos_token, empty.eos_token],
        initial_alphabet=ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(ByteLevel.alphabet())
    endings = [f"{letter}</w>" for letter in letters]  # the trainer keeps only those that it met
    tokens = dict.fromkeys([empty.bos_token, empty.eos_token, *letters, *endings, *map("".join, merges)])
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def new_text_encoder(tokenizer: CLIPTokenizer, width: int = 256, layers: int = 4) -> CLIPTextModel:
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    encoder.set_attn_implementation("eager")  # the fused kernel's backward is several times slower on a CPU
    return encoder


class Reader(nn.Module):
    """Reads off a caption's vectors what it says, and what the sprite looks like as an 8 x 8 thumbnail."""

    def __init__(self, width: int, concepts: int) -> None:
        super().__init__()
        self.concept = nn.Linear(width, concepts)
        self.style = nn.Linear(width, len(STYLES))
        self.background = nn.Linear(width, len(GROUNDS))
        self.tint = nn.Linear(width, len(TINTS) + 1)
        self.thumbnail = nn.Linear(width, 4 * 8 * 8)


def said(scenes: list[Scene], sprites: Sprites, thumbnails: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `Reader` is to find in the scenes' captions; -100 where a caption does not say it."""
    backgrounds = list(GROUNDS)
    concept = torch.zeros(len(scenes), len(sprites.concepts))
    style, background, tint, alone = [], [], [], []
    for row, scene in enumerate(scenes):
        words = scene.caption.replace(",", " ").split()
        for number in scene.labels["concepts"]:
            concept[row, number] += 1 / len(scene.things)
        style.append(scene.labels["style"] if STYLES[scene.labels["style"]] in words else -100)
        background.append(
            backgrounds.index(scene.background) if scene.background in words and scene.pattern == "plain" else -100
        )
        tint.append(TINTS.index(scene.things[0].tint) if scene.things[0].tint else len(TINTS))
        alone.append(len(scene.things) == 1 and not scene.things[0].tint)
    return {
        "concept": concept,
        "style": torch.tensor(style),
        "background": torch.tensor(background),
        "tint": torch.tensor(tint),
        "thumbnail": thumbnails[[scene.things[0].sprite for scene in scenes]],
        "alone": torch.tensor(alone),
    }


def reading_loss(reader: Reader, vectors: torch.Tensor, truth: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of vectors (B, D), one a caption."""
    loss = F.cross_entropy(reader.concept(vectors), truth["concept"])
    for name in ("style", "background", "tint"):
        loss = loss + F.cross_entropy(getattr(reader, name)(vectors).float(), truth[name], ignore_index=-100)
    error = (reader.thumbnail(vectors).float() - truth["thumbnail"]).square().mean(1)
    return loss + 20 * (error * truth["alone"]).mean()


def teach_reading(
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scenes: SceneMaker,
    minutes: float,
    batch: int = 192,
    learning_rate: float = 1e-3,
    bf16: bool = True,
    known: Collection[int] = (),
) -> float:
    """Train `encoder` in place, on its device, for so many minutes; returns the last losses' mean.

    Both the mean of a caption's vectors and its last one are read: the U-Net is shown the one, and attends to the rest.
    known: concepts that it can read. Captions of no others are to keep the vectors that a U-Net has learned them by
    (learning without forgetting, arXiv 1606.09282).
    """
    device = encoder.device
    sprites = scenes.sprites
    thumbnails = F.avg_pool2d(sprites.rgba.float(), sprites.rgba.shape[-1] // 8).flatten(1) / 255
    reader = Reader(encoder.config.hidden_size, len(sprites.concepts)).to(device)
    parameters = [*encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    before, read = copy.deepcopy(encoder).eval().requires_grad_(False) if known else None, frozenset(known)
    began, spent, updates, recent = time.monotonic(), 0.0, 0, []
    encoder.train()
    while spent < 1:
        drawn = [scenes.draw() for _ in range(batch)]
        truth = {name: value.to(device) for name, value in said(drawn, sprites, thumbnails).items()}
        words = tokenizer([s.caption for s in drawn], padding=True, truncation=True, return_tensors="pt").to(device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (updates + 1) / 50) * min(1, (1 - spent) / 0.6)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            vectors = encoder(**words).last_hidden_state  # (B, L, D)
            weight = words.attention_mask[..., None]
            mean = (vectors * weight).sum(1) / weight.sum(1)
            last = vectors[torch.arange(batch, device=device), words.attention_mask.sum(1) - 1]
            loss = reading_loss(reader, mean, truth) + reading_loss(reader, last, truth)
            if before is not None:
                old = torch.tensor([read.issuperset(scene.labels["concepts"]) for scene in drawn], device=device)
                kept, weight = before(**words).last_hidden_state.float(), weight * old[:, None, None]
                moved = ((vectors - kept).square() * weight).sum()
                loss = loss + KEEPING * moved / (kept.square() * weight).sum().clamp(min=1)  # there may be none
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
        recent = [*recent[-49:], loss.item() / 2]
        spent = (time.monotonic() - began) / (60 * minutes)
    encoder.eval()
    return sum(recent) / len(recent)
