"""Attention of diffusers' U-Net: what is recorded is what the network did, and recording changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from studio.lab.attention import share_weights
from studio.lab.latent_attention import (
    bind_prompt,
    embed_guidance,
    level_size,
    record_cross_attention,
    replay_latent_step,
    split_padded_words,
)
from studio.lab.views.inspection import latent_inspection_view
from tests.lab.latent_runs import latent_trace
from tests.models import tiny

PROMPT = "a cat, on a boat"
SIZE = (10, 14)


class KeepScores(AttnProcessor):
    """Diffusers' own attention by matrix products. It keeps the probabilities of cross-attention."""

    def __init__(self, kept: list[torch.Tensor]) -> None:
        super().__init__()
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        if encoder_hidden_states is not None:
            query = attn.head_to_batch_dim(attn.to_q(hidden_states))
            key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
            scores = attn.get_attention_scores(query, key)  # (heads, h w, L)
            self.kept.append(scores.mean(0))
        return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


def conditioning(pipe: Any) -> dict[str, Any]:
    """The arguments of the network for the prompt."""
    tokens = pipe.tokenizer_2 if hasattr(pipe, "tokenizer_2") else pipe.tokenizer
    options: dict[str, Any] = {}
    if hasattr(pipe, "tokenizer_2"):
        text, _, pooled, _ = pipe.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False)
        options["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    else:
        text, _ = pipe.encode_prompt(PROMPT, "cpu", 1, False)
    return {"encoder_hidden_states": text, **options, "tokens": tokens}


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@torch.no_grad()
def test_recorded_attention_is_that_of_diffusers(kind):
    pipe = tiny.build(kind)
    arguments = conditioning(pipe)
    arguments.pop("tokens")
    sample = torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(0))
    plain = pipe.unet(sample, 500, **arguments).sample
    with record_cross_attention(pipe.unet, SIZE) as record:
        recorded = pipe.unet(sample, 500, **arguments).sample
    assert torch.equal(plain, recorded)
    kept: list[torch.Tensor] = []
    pipe.unet.set_attn_processor(KeepScores(kept))
    np.testing.assert_allclose(pipe.unet(sample, 500, **arguments).sample, plain, atol=1e-5)
    assert len(kept) == len(record.attention) > 2
    for (_, weights), scores in zip(record.attention, kept, strict=True):
        np.testing.assert_allclose(weights[0, 0].flatten(0, 1), scores, atol=1e-6)
    assert not any(module._forward_hooks for module in pipe.unet.modules())


def inspected(kind: str = "sd15", side: int = 16):
    """A step of a run that a model computes again: the model, the step, what happened in it, and the call."""
    pipe = tiny.build(kind)
    arguments = conditioning(pipe)
    tokenizer = arguments.pop("tokens")
    unet = share_weights(pipe.unet)
    trace = latent_trace(type(tiny.ddim()), side=side, steps=2)
    step = trace.steps[1]
    predict = bind_prompt(unet, arguments, trace.stages[0], step)
    return pipe, step, replay_latent_step(unet, predict, tokenizer, PROMPT, step), predict


@torch.no_grad()
def test_a_step_is_computed_again_with_attention_per_word():
    pipe, step, inspection, predict = inspected()
    assert [word.text for word in inspection.words] == ["", "a", "cat,", "on", "a", "boat", ""]
    np.testing.assert_allclose(inspection.prediction, predict(torch.from_numpy(step.x_t), step.timestep), atol=1e-6)
    assert list(inspection.maps) == [8]  # the side at which the only level with cross-attention attends
    for maps in inspection.maps.values():  # the words sum to one at every px
        assert maps.shape == (7, 16, 16)
        np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)
    sides = {block.name: block.height for block in inspection.blocks}
    assert sides["down 0"] == sides["up 0"] == 16 and sides["down 1"] == sides["up 1"] == sides["mid"] == 8
    assert pipe.unet.conv_in.weight.data_ptr() != 0 and not any(m._forward_hooks for m in pipe.unet.modules())


def test_the_padding_belongs_to_the_end_of_the_prompt():
    words = split_padded_words(tiny.build("sd15").tokenizer, "a cat", 77)
    assert [word.text for word in words] == ["", "a", "cat", ""]
    assert sorted(token for word in words for token in word.tokens) == list(range(77))
    assert words[-1].tokens == tuple(range(5, 77))


def test_a_prompt_that_is_too_long_is_inspected_as_far_as_it_is_read():
    words = split_padded_words(tiny.build("sd15").tokenizer, "cat " * 100, 77)
    assert sorted(token for word in words for token in word.tokens) == list(range(77))


@pytest.mark.parametrize(("size", "sides"), [((64, 64), [64, 32, 16, 8]), ((9, 13), [(9, 13), (5, 7), (3, 4)])])
def test_a_levels_size_follows_from_its_pixels(size, sides):
    for side in sides:
        height, width = side if isinstance(side, tuple) else (side, side)
        assert level_size(size, height * width) == (height, width)
    with pytest.raises(ValueError, match="has 7 px"):
        level_size(size, 7)


@torch.no_grad()
def test_further_inputs_of_the_network():
    """Guidance as an input, and channels that the trace holds or lacks."""
    lcm = tiny.build("lcm")
    embedding = lcm.get_guidance_scale_embedding(torch.tensor([4.0]), embedding_dim=33)[0]
    np.testing.assert_allclose(embed_guidance(5.0, 33), embedding, atol=1e-5)
    trace = latent_trace(type(tiny.ddim()), steps=1)
    (stage,), (step,) = trace.stages, trace.steps
    text = {"encoder_hidden_states": torch.zeros(1, 77, 32)}
    prediction = bind_prompt(lcm.unet, text, stage, step)(torch.from_numpy(step.x_t), step.timestep)
    condition = embed_guidance(step.guidance_scale, 32)[None]
    plain = lcm.unet(torch.from_numpy(step.x_t)[None], step.timestep, **text, timestep_cond=condition).sample[0]
    assert torch.equal(prediction, plain)
    inpainting = tiny.build("inpainting").unet
    with pytest.raises(ValueError, match="5 of its input channels are not kept"):
        bind_prompt(inpainting, text, stage, step)
    masked = replace(stage, condition=np.ones((5, 8, 8), np.float32))
    prediction = bind_prompt(inpainting, text, masked, step)(torch.from_numpy(step.x_t), step.timestep)
    sample = torch.cat([torch.from_numpy(step.x_t), torch.ones(5, 8, 8)])[None]
    assert torch.equal(prediction, inpainting(sample, step.timestep, **text).sample[0])


def test_weights_that_are_elsewhere_are_a_sentence():
    with torch.device("meta"):
        unet = tiny.unet()
    with pytest.raises(ValueError, match="in memory only while it is called"):
        share_weights(unet)


def test_the_view_of_an_inspected_step():
    view = latent_inspection_view(inspected()[2], 1, 4)
    assert view["words"][2] == "cat," and view["looks"][0]["index"] == 1 and view["inputs"] == "x_t 4"
    assert sum(view["looks"][0]["shares"]) == pytest.approx(1, abs=1e-4)
    assert len(view["levels"]) == len(view["looks"][0]["levels"])
