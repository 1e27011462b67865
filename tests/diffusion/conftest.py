"""A small pipeline with random weights, of the same classes as the bundled one."""

from __future__ import annotations

import pytest
import torch

import studio.diffusion  # noqa: F401  registers with diffusers
from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.unet import StudioUNet
from studio.training.export import build_pipeline
from studio.training.text_encoder import new_text_encoder, train_tokenizer

CAPTIONS = [f"a {color} {thing}" for color in ("red", "blue") for thing in ("apple", "cat", "boat", "house")]


def random_pipeline(sample_size: int = 16) -> StudioTextToImagePipeline:
    torch.manual_seed(0)
    unet = StudioUNet(
        sample_size=sample_size,
        window_size=2 * sample_size,
        block_out_channels=(16, 32),
        layers_per_block=(1, 1),
        attention_levels=(False, True),
        mid_layers=1,
        cross_attention_dim=64,
        attention_head_dim=16,
        time_embedding_dim=32,
        guidance_rank=8,
    )
    for parameter in unet.parameters():  # what begins at zero would hide what passes through it
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    tokenizer = train_tokenizer(CAPTIONS, vocabulary=600)
    return build_pipeline(unet, new_text_encoder(tokenizer, width=64, layers=1), tokenizer)


@pytest.fixture(scope="session")
def _pipeline():
    return random_pipeline()


@pytest.fixture
def pipe(_pipeline):
    """Return a new pipeline around the same weights."""
    return StudioTextToImagePipeline(**_pipeline.components)
