"""Runs step by step: the arithmetic gives the next sample, and recording the network does not change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from studio.diffusion.composition import parse_layout
from studio.diffusion.pipelines import StudioInpaintPipeline, StudioUpscalePipeline
from studio.diffusion.schedulers.studio_scheduler import StudioScheduler
from studio.engine.recorder import ByteBudget, TraceRecorder
from studio.engine.trace import Trace
from studio.lab import pack
from studio.lab.attention import (
    inspection_pipeline,
    named_blocks,
    record_activations,
    replay_step,
    share_weights,
    split_words,
    stretch_contrast,
)
from studio.lab.coefficients import UNKNOWN, StepCoefficients, format_step, recompute_step
from studio.lab.reverse import distance_to_reference, explain_steps
from studio.lab.views.inspection import inspection_view
from tests.diffusion.conftest import random_pipeline
from tests.diffusion.test_solver_tables import with_tables

PROMPT = "a red apple, on a boat"
PAIR = "a red apple left of a boat"


def traced(pipe, row) -> Trace:
    recorder = TraceRecorder(row, ByteBudget())
    while not row.finished:
        pipe.denoise_step([row])
        recorder.record()
    trace = recorder.trace()
    assert trace is not None
    return trace


def run(pipe, steps: int = 8, size: int = 16, **options) -> Trace:
    return traced(pipe, pipe.prepare([PROMPT], num_inference_steps=steps, seeds=[3], size=size, **options)[0])


@pytest.mark.parametrize("sampler", ["studio", "ddim"])
@pytest.mark.parametrize("steps", [1, 2, 6, 12, 20])  # 6 and 12 do not divide 1000
def test_the_arithmetic_shown_gives_the_next_sample(pipe, sampler, steps):
    (stage,) = run(pipe, steps, sampler=sampler).stages
    explained = explain_steps(stage, sampler)
    assert len(explained) == steps
    for index, step in enumerate(explained):
        assert step.identity_error < 1e-4
        assert step.coefficients.source == "exact" and step.coefficients.residual < 1e-5
        history = [before.x0 for before in explained[index::-1]]
        again = recompute_step(step.x_t, history, step.coefficients.a, step.coefficients.b)
        assert np.abs(again - step.x_next).max() < 1e-4
        assert step.guidance_scale == 3 and step.difference.any()
    for step, after in zip(explained, explained[1:], strict=False):
        assert step.x_next is after.x_t or np.array_equal(step.x_next, after.x_t)
    if sampler == "studio" or steps not in (6, 12):
        assert np.array_equal(explained[-1].x_next, explained[-1].x0)  # the picture


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("sampler", ["studio", "ddim", "heun", "ddpm"])
def test_the_last_prediction_is_the_picture(pipe, sampler, size):
    (row,) = pipe.prepare([PROMPT], num_inference_steps=6, seeds=[3], size=size, sampler=sampler)
    last = pack.to_bytes(traced(pipe, row).stages[-1].x0[-1]).transpose(1, 2, 0)
    difference = np.abs(last.astype(int) - np.asarray(pipe.decode(row)))
    # where 1000 is no multiple of the steps, DDIM ends at train step 0, at which there is a trace of noise
    assert difference.max() <= (sampler == "ddim")


@pytest.mark.parametrize("sampler", ["dpm++2m", "euler", "heun", "unipc"])
def test_the_weights_of_stock_samplers_are_found(pipe, sampler):
    (stage,) = run(pipe, 20, sampler=sampler).stages
    explained = explain_steps(stage, sampler)
    assert explained[0].coefficients.source == ("exact" if sampler == "euler" else "measured")
    for step in explained[:-1]:
        assert step.identity_error < 1e-4
        assert step.coefficients.residual < 1e-3 * np.std(step.x_next)
    if sampler == "dpm++2m":  # the same method as ours, so the same weights
        ours = explain_steps(stage, "studio")
        for step, other in zip(explained[1:10], ours[1:10], strict=True):
            again = recompute_step(
                step.x_t, [step.x0, explained[step.step - 1].x0], other.coefficients.a, other.coefficients.b
            )
            assert np.abs(again - step.x_next).max() < 1e-3


@pytest.mark.parametrize("steps", [12, 20])
def test_what_ddpm_leaves_over_is_its_noise(pipe, steps):
    """As strong as Ho et al. 2020 have it below equation 7: beta_t sigma_s^2 / sigma_t^2, over the levels it visits."""
    (stage,) = run(pipe, steps, sampler="ddpm").stages
    explained = explain_steps(stage, "ddpm")
    for step, after in zip(explained, explained[1:], strict=False):
        beta = 1 - (step.alpha / after.alpha) ** 2
        assert step.coefficients.source == "exact" and step.coefficients.adds_noise and len(step.coefficients.b) == 1
        assert step.coefficients.residual == pytest.approx(beta**0.5 * after.sigma / step.sigma, rel=0.12)
        assert f"{step.coefficients.residual:.4f} · noise" in step.arithmetic
    assert explained[-1].arithmetic == "x_next = 1.0000 · x̂0"


def test_a_picture_of_two_stages_and_of_every_task(pipe):
    trace = run(pipe, 5, size=32)
    assert [len(explain_steps(stage)) for stage in trace.stages] == [5, 2]
    assert [len(stage.step) for stage in run(pipe, 4, size=32).stages] == [4, 1]  # few calls, and few to finish
    for stage in trace.stages:
        assert all(
            step.coefficients.source == "exact" and step.coefficients.residual < 1e-5 for step in explain_steps(stage)
        )
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    mask = Image.new("L", picture.size)
    mask.paste(255, (4, 4, 16, 16))
    for painter, given in (
        (StudioInpaintPipeline, ([PROMPT], [picture], [mask])),
        (StudioUpscalePipeline, ([picture], 2)),
    ):
        other = painter(**pipe.components)
        trace = traced(other, other.prepare(*given, seeds=[1])[0])
        stage = trace.stages[0]  # a hole is sharpened in a second one
        assert stage.condition is not None
        explained = explain_steps(stage)
        first = explained.pop(0) if painter is StudioInpaintPipeline else None
        assert all(step.coefficients.residual < 1e-5 and step.coefficients.source == "exact" for step in explained)
        if first:  # it leaps to the mean under new noise
            assert (
                first.coefficients.source == "exact"
                and first.coefficients.a == 0
                and first.arithmetic.endswith("· noise")
            )
            assert first.coefficients.b == (pytest.approx(explained[0].alpha),)
            assert first.coefficients.residual == pytest.approx(explained[0].sigma, rel=0.05)
        inspection = replay_step(inspection_pipeline(pipe), PROMPT, stage, next(iter(stage)))
        assert inspection.mean_map.shape[1:] == stage.x_t.shape[2:]
        np.testing.assert_allclose(inspection.mean_map.sum(0), 1, atol=1e-4)


def test_a_fitted_solver_is_shown_with_its_own_weights(pipe):
    fitted = with_tables(pipe)
    (row,) = fitted.prepare([PROMPT], num_inference_steps=4, seeds=[3], size=16)
    (stage,) = traced(fitted, row).stages
    explained = explain_steps(stage, "studio", fitted.scheduler.config)
    for step in explained:
        assert step.identity_error < 1e-4
        assert step.coefficients.source == "fitted" and step.coefficients.residual < 1e-5
        # All predictions so far have a coefficient.
        assert len(step.coefficients.b) + 1 == len(step.coefficients.coarse) == step.step + 2
    assert "· x̂0‴" in explained[-1].arithmetic
    # The picture is not the last prediction.
    assert np.abs(explained[-1].x_next - row.sample.numpy()).max() < 1e-5
    assert np.abs(explained[-1].x_next - explained[-1].x0).max() > 1e-3
    unknown = explain_steps(stage, "studio", pipe.scheduler.config)  # which has no tables
    for step, known in zip(unknown[:-1], explained, strict=False):
        assert step.coefficients.source == "measured" and not step.coefficients.adds_noise
        assert step.coefficients.residual < 1e-4 and len(step.coefficients.coarse) == len(step.coefficients.b) + 1
        history = [before.x0 for before in explained[step.step :: -1]]
        again = recompute_step(step.x_t, history, step.coefficients.a, step.coefficients.b, step.coefficients.coarse)
        assert np.abs(again - known.x_next).max() < 1e-3
    assert unknown[-1].coefficients == UNKNOWN and unknown[-1].x_next is None
    (stage,) = run(pipe, 4).stages  # made without it
    explained = explain_steps(stage, "studio", fitted.scheduler.config)
    assert all(len(step.coefficients.b) <= 2 and step.coefficients.source == "exact" for step in explained)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_the_difference_shown_is_that_of_the_picture(prediction_type):
    """What guidance of 1 and of 3 predict for the same noise differs by twice as much."""
    pipe = random_pipeline()
    pipe.scheduler = StudioScheduler.from_config(pipe.scheduler.config, prediction_type=prediction_type)
    strong, plain = (run(pipe, 3, guidance_scale=scale).stages[0] for scale in (3.0, 1.0))
    difference = explain_steps(strong, config=pipe.scheduler.config)[0].difference
    np.testing.assert_allclose(2 * difference, strong.x0[0] - plain.x0[0], atol=1e-4 * np.abs(strong.x0[0]).max())


def test_a_long_run_of_which_not_every_step_was_kept(pipe):
    (stage,) = run(pipe, 100).stages
    explained = explain_steps(stage)
    assert len(explained) < 100 and explained[-1].step == 99
    assert all(step.coefficients.source == "exact" for step in explained)  # known from the plan
    assert explained[0].x_next is None and explained[-1].x_next is not None
    assert all(step.coefficients.residual is None for step in explained if step.x_next is None)
    (stage,) = run(pipe, 100, sampler="euler").stages
    assert explain_steps(stage, "euler")[0].arithmetic == "what makes x_next was not kept"
    followed = [step for step in explain_steps(stage, "euler")[:-1] if step.x_next is not None]
    assert followed and all(step.coefficients == UNKNOWN or step.coefficients.residual < 1e-3 for step in followed)


def test_the_arithmetic_as_it_is_written():
    assert (
        format_step(StepCoefficients(0.5, (0.25, -0.125), "exact", 0))
        == "x_next = 0.5000 · x_t + 0.2500 · x̂0 − 0.1250 · x̂0′"
    )
    assert format_step(StepCoefficients(0.0, (1.0, 0.0), "exact", 0)) == "x_next = 1.0000 · x̂0"
    assert format_step(StepCoefficients(0.5, (0.5,), "measured", 0.1)) == "x_next = 0.5000 · x_t + 0.5000 · x̂0"
    assert format_step(StepCoefficients(0.5, (0.5,), "exact", 0.1, adds_noise=True)).endswith("+ 0.1000 · noise")
    assert format_step(StepCoefficients(0.5, (0.5,), "exact", adds_noise=True)).endswith("+ noise")
    coarse = StepCoefficients(0.5, (0.5,), "fitted", 0, coarse=(-0.25, 0.125))
    many = format_step(StepCoefficients(0.0, (*[0.0] * 4, 0.5, 0.0, 0.25, *[0.0] * 5, 0.125), "measured"))
    assert many == "x_next = 0.5000 · x̂0⁗ + 0.2500 · x̂0⁽⁶⁾ + 0.1250 · x̂0⁽¹²⁾"
    assert format_step(coarse) == "x_next = 0.5000 · x_t + 0.5000 · x̂0 + smoothed(−0.2500 · x_t + 0.1250 · x̂0)"


def test_a_run_approaches_where_it_ends(pipe):
    (stage,) = run(pipe, 12).stages
    near = distance_to_reference(stage, stage.x0[-1], stage.x0[-1])
    assert near.distance[-1] == near.distance[-2] == 0 and near.distance[0] > near.distance[-3]
    assert list(near.calls) == [*range(1, 13), 12] and near.timesteps[-1] == 0
    with pytest.raises(ValueError, match="of one size"):
        distance_to_reference(stage, stage.x0[-1], np.zeros((3, 4, 4), np.float32))


# ---- inside the network ----


def call(unet, pipe, prompts=(PROMPT, "")):
    text, mask = pipe.encode(list(prompts))
    sample = torch.randn(len(prompts), 10, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return unet(sample, torch.tensor([500.0] * len(prompts)), text, mask).sample, mask


def test_recording_changes_nothing_and_ends(pipe):
    before, mask = call(pipe.unet, pipe)
    with record_activations(pipe.unet) as record:
        during, _ = call(pipe.unet, pipe)
    after, _ = call(pipe.unet, pipe)
    assert torch.equal(before, during) and torch.equal(before, after)
    assert [name for name, _ in record.attention] == ["down 1", "mid", "up 1"]
    assert [name for name, _ in record.features] == ["down 0", "down 1", "mid", "up 1", "up 0"]
    assert len(named_blocks(pipe.unet)) == 5
    for _, weights in record.attention:  # (B, heads, h, w, L)
        assert weights.shape == (2, 2, 4, 4, mask.shape[1])
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4, 4))
        assert not weights[mask[:, None, None, None].expand_as(weights) == 0].any()  # nothing to padding


def test_the_probabilities_are_those_that_the_network_used(pipe):
    """Mixing the values with them gives what the block itself made."""
    block, got = pipe.unet.mid[0].attention, {}
    handles = [
        block.to_kv.register_forward_hook(
            lambda m, given, out: got.update(value=block.split_heads(out.chunk(2, -1)[1]))
        ),
        block.out2.register_forward_pre_hook(lambda m, given: got.update(mixed=given[0])),
    ]
    with record_activations(pipe.unet) as record:
        call(pipe.unet, pipe)
    for handle in handles:
        handle.remove()
    weights = dict(record.attention)["mid"].flatten(2, 3)
    torch.testing.assert_close((weights @ got["value"]).transpose(1, 2).flatten(2), got["mixed"])


def test_a_second_network_shares_the_weights_and_nothing_else(pipe):
    other = share_weights(pipe.unet)
    for mine, theirs in zip(pipe.unet.parameters(), other.parameters(), strict=True):
        assert mine.data_ptr() == theirs.data_ptr()
    with record_activations(other) as record:
        first, _ = call(pipe.unet, pipe)
        assert not record.attention
        second, _ = call(other, pipe)
    assert record.attention and torch.equal(first, second)
    assert next(pipe.unet.parameters()).requires_grad  # the network itself is as it was


def test_tokens_are_merged_to_words(pipe):
    words = split_words(pipe.tokenizer, PROMPT)
    assert [word.text for word in words] == ["", "a", "red", "apple,", "on", "a", "boat", ""]
    count = int(pipe.encode([PROMPT])[1].sum())
    assert sorted(token for word in words for token in word.tokens) == list(range(count))
    assert [word.text for word in split_words(pipe.tokenizer, "")] == ["", ""]
    assert (
        split_words(pipe.tokenizer, "zebra")[1].text == "zebra"
        and len(split_words(pipe.tokenizer, "zebra")[1].tokens) > 1
    )
    assert len(split_words(pipe.tokenizer, "a red apple " * 99)) < 100  # as far as it is read


def test_a_step_is_inspected(pipe):
    for size in (16, 32, 64):  # 64: several windows
        trace = run(pipe, 5, size=size)
        stage = trace.stages[-1]
        step = list(stage)[1]
        inspection = replay_step(inspection_pipeline(pipe), PROMPT, stage, step, channels=4)
        assert len(inspection.words) == 8 and inspection.mean_map.shape == (8, size, size)
        np.testing.assert_allclose(inspection.mean_map.sum(0), 1, atol=1e-4)
        assert stretch_contrast(inspection.mean_map).max() == 1
        assert inspection.blocks[0].channels == 16 and inspection.blocks[0].shown.shape[0] == 4
        if size == 16:  # what is larger was sharpened last, and held to its colours
            # without a second row the call says what the trace has: v from x_t and x0
            for options in ({"guidance_scale": 1.0}, {"guidance_scale": 3.0, "one_pass": True}):
                for prompt in (PROMPT, PAIR):
                    (row,) = pipe.prepare([prompt], seeds=[3], size=size, num_inference_steps=5, **options)
                    stage = traced(pipe, row).stages[-1]
                    step = list(stage)[-2]
                    inspection = replay_step(inspection_pipeline(pipe), prompt, stage, step)
                    v = step.alpha * step.eps - step.sigma * step.x0
                    layout = parse_layout(prompt, size)
                    shown = own = np.ones(v.shape[1:])
                    if layout:
                        probe = torch.randn(v.shape)
                        shown, own = (
                            layout.covered()[0].numpy(),
                            (layout.merge_background(probe) == probe).all(0).numpy(),
                        )
                        assert own.sum() > 300  # pixels that are as the network said, not joined to the others
                    np.testing.assert_allclose(inspection.prediction * own, v * own, atol=2e-4)
                    np.testing.assert_allclose(inspection.mean_map.sum(0), shown, atol=1e-4)


@pytest.mark.parametrize("side", [30, 60])
def test_an_enlarged_picture_has_no_layout(pipe, side):
    """Even where it is as large as a layout's canvas: its words are those of the whole prompt."""
    upscale = StudioUpscalePipeline(**pipe.components)
    picture = Image.effect_noise((side // 2, side // 2), 60).convert("RGB")
    trace = traced(upscale, upscale.prepare([picture], 2, prompts=[PAIR], seeds=[1], noise_level=0.05)[0])
    view = inspection_view(inspection_pipeline(pipe), PAIR, trace, max_steps=1)
    assert view["words"] == [word.text for word in split_words(pipe.tokenizer, PAIR)]
    (pair,) = pipe.prepare([PAIR], seeds=[3], size=32, num_inference_steps=2)
    painted = traced(pipe, pair)
    apart = [word.text for caption in ("a red apple", "a boat") for word in split_words(pipe.tokenizer, caption)]
    for number in range(2):
        assert inspection_view(inspection_pipeline(pipe), PAIR, painted, number, max_steps=1)["words"] == apart
