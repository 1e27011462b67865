"""Parts of latent models: text encoders, tiles, previews, the guidance embedding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline

from studio.models.latent.preview import fit_preview, to_rgb
from studio.models.latent.text import MAX_CACHED_TEXTS, TextEncoders, embed_guidance
from studio.models.latent.tiles import Tiles
from tests.models import tiny

CPU = torch.device("cpu")
LONG = "a b c d e " * 20  # a token each


def encoders(pipeline: Any) -> TextEncoders:
    names = ["text_encoder", "text_encoder_2"] if hasattr(pipeline, "text_encoder_2") else ["text_encoder"]
    modules = [getattr(pipeline, name) for name in names]
    tokenizers = [getattr(pipeline, name.replace("text_encoder", "tokenizer")) for name in names]
    return TextEncoders(modules, tokenizers, device=CPU, is_xl=len(names) == 2)


@pytest.mark.parametrize("text", ["", "a cat", LONG])
def test_text_is_encoded_as_in_stock(text):
    pipeline = tiny.build("sd15")
    expected, _ = pipeline.encode_prompt(text, "cpu", 1, False)
    assert torch.equal(encoders(pipeline).encode(text).text, expected[0])
    pipeline = tiny.build("sdxl")
    expected, _, pooled, _ = pipeline.encode_prompt(text, device="cpu", do_classifier_free_guidance=False)
    embedding = encoders(pipeline).encode(text)
    assert torch.equal(embedding.text, expected[0]) and torch.equal(embedding.pooled, pooled[0])


def test_clip_skip_leaves_out_the_last_layers():
    pipeline = tiny.build("sd15")
    shorter = copy.deepcopy(pipeline.text_encoder)
    del getattr(shorter, "text_model", shorter).encoder.layers[-1]
    embedding = encoders(pipeline).encode("a cat", clip_skip=1)
    pipeline.text_encoder = shorter
    assert torch.equal(embedding.text, encoders(pipeline).encode("a cat").text)


def test_an_empty_negative_prompt_of_sdxl_is_zeros():
    zeros = encoders(tiny.build("sdxl")).zeros()
    assert zeros.text.shape == (77, 80) and zeros.pooled.shape == (48,)
    assert not zeros.text.any() and not zeros.pooled.any()


def test_the_end_that_is_not_read_changes_nothing():
    text = encoders(tiny.build("sd15"))
    end = text.truncated(LONG)
    assert end and LONG.endswith(end) and text.truncated("a cat") == ""
    read = LONG[: -len(end)]
    assert text.truncated(read) == "" and torch.equal(text.encode(read).text, text.encode(LONG).text)
    assert not torch.equal(text.encode(read[:-2]).text, text.encode(LONG).text)


def test_texts_are_encoded_once_and_forgotten_in_time():
    pipeline = tiny.build("sd15")
    text, calls = encoders(pipeline), []
    pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    text.encode("a cat"), text.encode("a cat"), text.encode("a cat", 1)
    assert len(calls) == 2
    for number in range(MAX_CACHED_TEXTS):
        text.encode(str(number))
    text.encode("a cat")
    assert len(calls) == 3 + MAX_CACHED_TEXTS


@pytest.mark.parametrize("width", [32, 33])
def test_guidance_is_embedded_as_in_stock(width):
    stock = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    expected = stock(None, torch.tensor([7.5 - 1]), embedding_dim=width)[0]
    assert torch.equal(embed_guidance(7.5, width), expected)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("height, width, size", [(20, 33, 8), (8, 40, 8), (5, 40, 8), (6, 6, 8), (7, 9, None)])
def test_blended_tiles_of_an_array_are_the_array(height, width, size, scale):
    tiles = Tiles(height, width, size)
    array = torch.randn(3, height * scale, width * scale, generator=torch.Generator().manual_seed(0))
    cut = [tiles.cut(array, corner, scale) for corner in tiles.corners]
    assert all(tile.shape[1:] == (tiles.shape[0] * scale, tiles.shape[1] * scale) for tile in cut)
    assert torch.allclose(tiles.blend(cut, scale), array, atol=1e-5)


def test_a_preview_is_exact_where_latents_are_linear():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(5, 3, generator=generator)
    latents = torch.randn(2, 4, 6, 6, generator=generator)
    small = torch.stack([to_rgb(each, matrix) for each in latents])
    pictures = small.repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.allclose(fit_preview(latents, pictures), matrix, atol=1e-5)
