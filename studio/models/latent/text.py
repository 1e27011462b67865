"""Text for latent models: one or two CLIP text encoders, as the stock pipelines use them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_CACHED_TEXTS = 64  # 0.6 MB each for SDXL in float32


class TextEmbedding(NamedTuple):
    """An encoded text."""

    text: Tensor  # (77, D), D of all encoders together
    pooled: Tensor | None  # (E,), of the last encoder of SDXL


class TextEncoders:
    """The tokenizers and text encoders of one model. Safe to use from several threads.

    encoders, tokenizers: one of each (SD 1.x, 2.x), two (SDXL), or only the second of the two (its refiner).
    device: of the encoders' inputs.
    is_xl: whether the text is what SDXL's U-Nets take: second last layer, and a pooled embedding.
    """

    def __init__(
        self, encoders: Sequence[Any], tokenizers: Sequence[Any], *, device: torch.device, is_xl: bool
    ) -> None:
        self._encoders, self._tokenizers, self._device, self._is_xl = encoders, tokenizers, device, is_xl
        # Held while a tokenizer is called, which stores settings of the call, and for the cache.
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[str, int], TextEmbedding] = OrderedDict()

    def encode(self, text: str, clip_skip: int = 0) -> TextEmbedding:
        """Encode the first 77 tokens of a text.

        clip_skip: last layers that are left out; at most one less than the encoder has.
        """
        key = (text, clip_skip)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = self._encode(text, clip_skip)
                if len(self._cache) > MAX_CACHED_TEXTS:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            return self._cache[key]

    @torch.no_grad()
    def _encode(self, text: str, clip_skip: int) -> TextEmbedding:
        embeddings: list[Tensor] = []
        pooled = None
        for encoder, tokenizer in zip(self._encoders, self._tokenizers, strict=True):
            tokens = tokenizer(
                text,
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            mask = tokens.attention_mask.to(self._device) if _uses_mask(encoder) else None
            output = encoder(tokens.input_ids.to(self._device), attention_mask=mask, output_hidden_states=True)
            if self._is_xl:
                pooled = output[0][0]  # of the last encoder in the end
                embeddings.append(output.hidden_states[-(clip_skip + 2)][0])
            elif clip_skip == 0:
                embeddings.append(output[0][0])
            else:
                norm = getattr(encoder, "text_model", encoder).final_layer_norm
                embeddings.append(norm(output.hidden_states[-(clip_skip + 1)])[0])
        return TextEmbedding(torch.cat(embeddings, dim=-1), pooled)

    def zeros(self) -> TextEmbedding:
        """Return the zeros that SDXL takes in place of an empty negative prompt."""
        empty = self.encode("")
        return TextEmbedding(
            torch.zeros_like(empty.text), None if empty.pooled is None else torch.zeros_like(empty.pooled)
        )

    def truncated(self, text: str) -> str:
        """Return the end of the text that does not fit into the tokens, "" if all of it does."""
        tokenizer = self._tokenizers[0]
        with self._lock:
            tokens = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
        ends = [end for _, end in tokens.offset_mapping]
        read = tokenizer.model_max_length - 2  # without the start and the end
        return text[ends[read - 1] :] if len(ends) > read else ""


def embed_guidance(guidance: float, width: int) -> Tensor:
    """Return the embedding (width,) of a guidance scale for networks that take it as an input (LCM).

    As in diffusers' `get_guidance_scale_embedding`: sines and cosines of 1000 (guidance - 1).
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(torch.log(torch.tensor(10000.0)) / (half - 1)))
    angles = (torch.tensor(guidance - 1.0) * 1000.0) * frequencies
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))


def _uses_mask(encoder: Any) -> bool:
    return bool(getattr(encoder.config, "use_attention_mask", False))
