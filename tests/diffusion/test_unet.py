"""The network: shapes, which inputs change its prediction, and that rows of a batch are independent."""

from __future__ import annotations

import pytest
import torch

from studio.diffusion.unet import StudioUNet, sinusoid
from studio.diffusion.unet_blocks import attention_weights


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(3, 10, 32, 48, generator=generator),
        "timestep": torch.tensor([0.0, 500.5, 999.0]),
        "encoder_hidden_states": torch.randn(3, 7, 64, generator=generator),
        "encoder_attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 2 + [0] * 5]),
        "task_ids": torch.tensor([0, 1, 2]),
        "low_res_noise_level": torch.tensor([0.0, 0.0, 0.2]),
        "guidance": torch.tensor([1.0, 3.5, 5.0]),
    }


@torch.no_grad()
def test_a_row_of_a_batch_equals_the_row_alone(pipe, inputs):
    together = pipe.unet(**inputs).sample
    assert together.shape == (3, 3, 32, 48)
    for row in range(3):
        alone = pipe.unet(**{name: value[row : row + 1] for name, value in inputs.items()}).sample
        torch.testing.assert_close(alone[0], together[row], atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["timestep", "task_ids", "low_res_noise_level", "encoder_hidden_states", "guidance"])
def test_each_input_changes_the_prediction(pipe, inputs, name):
    before = pipe.unet(**inputs).sample
    after = pipe.unet(**inputs | {name: inputs[name].flip(0)}).sample
    assert (before[0] - after[0]).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("channel", range(10))
def test_each_channel_changes_the_prediction(pipe, inputs, channel):
    changed = inputs["sample"].clone()
    changed[:, channel] += 1
    assert (pipe.unet(**inputs).sample - pipe.unet(**inputs | {"sample": changed}).sample).abs().max() > 1e-4


@torch.no_grad()
def test_masked_tokens_have_no_influence(pipe, inputs):
    text = inputs["encoder_hidden_states"].clone()
    text[1, 4:] = 100.0
    changed = pipe.unet(**inputs | {"encoder_hidden_states": text}).sample
    torch.testing.assert_close(changed, pipe.unet(**inputs).sample)


def test_every_parameter_gets_a_gradient(pipe, inputs):
    unet = StudioUNet.from_config(pipe.unet.config)
    unet.load_state_dict(pipe.unet.state_dict())
    unet(**inputs).sample.square().mean().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_attention_weights_sum_to_one_over_unmasked_tokens():
    query, key = torch.randn(2, 4, 9, 8), torch.randn(2, 4, 5, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()[:, None, None]
    weights = attention_weights(query, key, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 9))
    assert not weights[0, ..., 3:].any()
    value = torch.randn(2, 4, 5, 8)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(weights @ value, expected, atol=1e-5, rtol=0)


def test_predictions_are_the_same_with_and_without_gradients(pipe, inputs):
    with torch.no_grad():
        fused = pipe.unet(**inputs).sample
    torch.testing.assert_close(pipe.unet(**inputs).sample.detach(), fused)


@torch.no_grad()
def test_an_integer_timestep_equals_a_real_one(pipe, inputs):
    real = pipe.unet(**inputs | {"timestep": 500.0}).sample
    torch.testing.assert_close(pipe.unet(**inputs | {"timestep": torch.tensor(500)}).sample, real)


def test_guidance_of_one_equals_no_guidance(pipe, inputs):
    plain = pipe.unet(**inputs | {"guidance": None}).sample
    torch.testing.assert_close(pipe.unet(**inputs | {"guidance": torch.ones(3)}).sample, plain)


@torch.no_grad()
def test_weights_without_guidance_predict_the_same_with_adapters(pipe, inputs):
    before = StudioUNet.from_config(pipe.unet.config, guidance_rank=0)
    before.load_state_dict(pipe.unet.state_dict(), strict=False)
    after = StudioUNet.from_config(pipe.unet.config)
    after.load_state_dict(before.state_dict(), strict=False)
    expected = before(**inputs | {"guidance": None}).sample
    torch.testing.assert_close(after(**inputs).sample, expected)
    with pytest.raises(ValueError, match="guidance_rank"):
        before(**inputs)


def test_times_between_train_steps_have_different_embeddings():
    near = sinusoid(torch.tensor([500.0, 500.25, 501.0]))
    assert torch.pdist(near).min() > 0.05


def test_a_size_that_does_not_fit_is_refused(pipe, inputs):
    with pytest.raises(ValueError, match="multiples of 4"):
        pipe.unet(**inputs | {"sample": torch.randn(3, 10, 30, 30)})
    with pytest.raises(ValueError, match="10 channels"):
        pipe.unet(**inputs | {"sample": torch.randn(3, 3, 32, 32)})


# ---- an upscaler: without text, without normalization, from the low-resolution picture alone ----

UPSCALER = {"block_out_channels": (16,), "layers_per_block": (1,), "attention_levels": (False,), "mid_layers": 1}
UPSCALER |= {"cross_attention_dim": 0, "time_embedding_dim": 16, "normalize": False, "low_res_only": True}


@pytest.fixture
def upscaler():
    torch.manual_seed(2)
    unet = StudioUNet(**UPSCALER)
    for parameter in unet.parameters():  # what begins at zero would hide what passes through it
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return unet


@torch.no_grad()
def test_an_upscaler_reads_the_low_resolution_picture_and_its_noise_level_alone(upscaler, inputs):
    before = upscaler(inputs["sample"], 999.0, None, low_res_noise_level=inputs["low_res_noise_level"]).sample
    changed = inputs["sample"].clone()
    changed[:, :7] += 1
    other_text = inputs["encoder_hidden_states"]
    after = upscaler(changed, 999.0, other_text, low_res_noise_level=inputs["low_res_noise_level"]).sample
    torch.testing.assert_close(after, before)
    for channel in (7, 8, 9):
        changed = inputs["sample"].clone()
        changed[:, channel] += 1
        assert (upscaler(changed, 999.0, None).sample - before).abs().max() > 1e-3
    assert (upscaler(inputs["sample"], 999.0, None).sample - before)[2].abs().max() > 1e-4


@torch.no_grad()
def test_a_row_of_an_upscalers_batch_equals_the_row_alone(upscaler, inputs):
    levels = inputs["low_res_noise_level"]
    together = upscaler(inputs["sample"], 999.0, None, low_res_noise_level=levels).sample
    for row in range(3):
        part = slice(row, row + 1)
        alone = upscaler(inputs["sample"][part], 999.0, None, low_res_noise_level=levels[part]).sample
        torch.testing.assert_close(alone[0], together[row], atol=2e-5, rtol=0)


@torch.no_grad()
def test_a_new_upscaler_predicts_the_enlarged_picture_as_a_velocity(inputs):
    prediction = StudioUNet(**UPSCALER)(inputs["sample"], 999.0, None).sample
    torch.testing.assert_close(prediction, -inputs["sample"][:, 7:])


def test_every_parameter_of_an_upscaler_gets_a_gradient(upscaler, inputs):
    upscaler(inputs["sample"], 999.0, None, task_ids=torch.tensor([0, 1, 2])).sample.square().mean().backward()
    assert [name for name, p in upscaler.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_upscaler_has_neither_text_nor_normalization(upscaler):
    names = {type(module).__name__ for module in upscaler.modules()}
    assert not names & {"GroupNorm", "LayerNorm", "TransformerBlock"} and upscaler.text_pool is None


def test_text_is_needed_where_it_is_read(pipe, inputs):
    with pytest.raises(ValueError, match="encoder_hidden_states is missing"):
        pipe.unet(**inputs | {"encoder_hidden_states": None})
    with pytest.raises(ValueError, match="cross_attention_dim is 0"):
        StudioUNet(cross_attention_dim=0)
