"""Guidance: when it acts, in one pass, and with an emphasis on the style."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.diffusion.guidance import Guidance, apply_guidance
from tests.diffusion.helpers import paint_rows


def test_guidance_is_not_computed_where_it_does_not_act(pipe, monkeypatch):
    calls = []
    forward = pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda sample, *rest: calls.append(len(sample)) or forward(sample, *rest))
    paint_rows(
        pipe.prepare(["a cat"], num_inference_steps=10, guidance_interval=(0.25, 0.65), seeds=[1], size=16), pipe
    )
    assert calls == [1, 1, 1, 1, 2, 2, 2, 2, 1, 1]  # times 999, 899 ... 99
    calls.clear()
    paint_rows(pipe.prepare(["a cat"], num_inference_steps=3, guidance_scale=1, seeds=[1], size=16), pipe)
    paint_rows(pipe.prepare([""], num_inference_steps=3, guidance_scale=5, seeds=[1], size=16), pipe)
    assert calls == [1] * 6


def test_style_emphasis_takes_a_third_prediction(pipe):
    """Equation 3 of arXiv 2211.09800: one scale for the text without its style, and one for what the style adds."""
    prompts = ["a red cat, flat style", "a dog", "an owl left of a cat, flat style"]
    given = {"num_inference_steps": 3, "guidance_scale": 3.0, "seeds": [0], "size": 16}
    blue = {"negative_prompts": ["blue"], "style_emphasis": 0.5}
    emphasized, plain, several = (pipe.prepare([prompt], **blue, **given)[0] for prompt in prompts)
    assert [row.call_rows for row in (emphasized, plain, several)] == [3, 2, 6]
    assert pipe.prepare(prompts[:1], style_emphasis=0.5, guidance_interval=(0.0, 0.5), **given)[0].call_rows == 1
    assert pipe.prepare(prompts[:1], style_emphasis=0.5, one_pass=True, **given)[0].call_rows == 1
    assert pipe.prepare(prompts[:1], style_emphasis=0.0, **given)[0].call_rows == 2

    assert pipe.prepare(prompts[:1], style_emphasis=0.5, **given | {"guidance_scale": 0.5})[0].call_rows == 2
    assert (
        pipe.prepare(prompts[:1], **blue | {"negative_prompts": ["a red cat"]}, **given)[0].call_rows == 2
    )  # one and the same

    x_t, time = emphasized.sample, emphasized.time
    text, mask = pipe.encode(["a red cat, flat style", "a red cat", "blue"])
    x = torch.cat([x_t, x_t.new_zeros(7, 16, 16)]).expand(3, -1, -1, -1)
    with torch.no_grad():
        with_style, without_style, negative = pipe.unet(x, time, text, mask).sample
    pipe.denoise_step([emphasized, plain, several])
    expected = negative + 3.0 * (without_style - negative) + (3.0 + 0.5 * 2.0) * (with_style - without_style)
    record = emphasized.record
    torch.testing.assert_close(with_style + 2.0 * record.guidance_difference, expected, atol=1e-5, rtol=0)
    x_0 = record.alpha * x_t - record.sigma * expected
    torch.testing.assert_close(record.pred_original_sample, x_0, atol=1e-5, rtol=0)

    (alone,) = pipe.prepare(prompts[:1], negative_prompts=["blue"], style_emphasis=0.5, **given)
    pipe.denoise_step([alone])
    torch.testing.assert_close(alone.sample, emphasized.sample, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="style_emphasis is -1"):
        pipe.prepare(prompts, style_emphasis=-1.0)


def test_guidance_in_one_pass_is_an_input_of_the_network(pipe, monkeypatch):
    seen = []
    forward = pipe.unet.forward

    def watched(*args, **kwargs):
        seen.append(None if args[6] is None else args[6].tolist())
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipe.unet, "forward", watched)
    rows = pipe.prepare(
        ["a red cat"] * 3 + [""],
        negative_prompts=["", "a blue cat", "", ""],
        num_inference_steps=2,
        guidance_scale=3.0,
        guidance_interval=(0.9, 1.0),
        seeds=range(4),
        size=16,
        one_pass=True,
    )
    assert [row.call_rows for row in rows] == [1, 2, 1, 1]
    pipe.denoise_step(rows)
    pipe.denoise_step(rows)
    # a negative prompt takes a second prediction; an empty prompt and times outside of the interval are not guided
    assert seen == [[3.0, 1.0, 1.0, 3.0, 1.0], None]
    assert [row.record.guidance_difference is None for row in rows] == [True] * 4
    strong = pipe.prepare(["a red cat"], seeds=[0], guidance_scale=8.0, one_pass=True)
    assert strong[0].call_rows == 2  # above the scales that the network learned
    monkeypatch.undo()
    alone = pipe("a red cat", num_inference_steps=2, guidance_scale=3.0, one_pass=True, size=16, output_type="np",
                 generator=torch.Generator().manual_seed(0)).images  # fmt: skip
    two = pipe("a red cat", num_inference_steps=2, guidance_scale=3.0, size=16, output_type="np",
               generator=torch.Generator().manual_seed(0)).images  # fmt: skip
    assert np.abs(alone - two).max() > 1 / 255  # with untrained adapters the pictures differ


def test_guidance_of_one_is_the_conditional_prediction():
    a, b = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(apply_guidance(a, b, 1.0), b)
    torch.testing.assert_close(apply_guidance(a, b, 0.0), a)
    with pytest.raises(ValueError, match="guidance_scale is nan"):
        Guidance(float("nan"))
    with pytest.raises(ValueError, match="guidance_interval"):
        Guidance(3, 0.8, 0.2)


def test_texts_of_unused_predictions_are_not_encoded(pipe, monkeypatch):
    asked, encode = [], pipe.encode
    monkeypatch.setattr(pipe, "encode", lambda prompts: asked.append(set(prompts)) or encode(prompts))
    pipe.prepare(["a cat"], seeds=[0], guidance_scale=3.0, one_pass=True)
    pipe.prepare(["a cat"], seeds=[0], guidance_scale=3.0)
    assert asked == [{"a cat"}, {"a cat", ""}]
