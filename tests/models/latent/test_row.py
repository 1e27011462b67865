"""Rows of latent models: progress, records, failed calls, tiles, number formats, notes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.requests import TextToImage
from studio.models.latent import phases
from studio.models.latent.backend import LatentBackend
from studio.models.latent.calls import VAE_OVERFLOWED
from studio.models.latent.row import LatentRow
from tests.models import tiny
from tests.models.latent.helpers import MIXED, SIDE, arrays, backend, difference, finish, resolve, run


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def model(kind: str = "sd15") -> LatentBackend:
    """A backend that no test changes."""
    return backend(tiny.build(kind))


def request(**fields) -> TextToImage:
    return TextToImage("a cat", **({"steps": 2, "sampler": "ddim", "seed": 3} | fields))


def noise_picture(width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def prepare(backend: LatentBackend, request: TextToImage, **size: int) -> LatentRow:
    return backend.prepare(resolve(request, **size))[0]


def tiled(kind: str = "sd15") -> LatentBackend:
    """A backend whose VAE works in tiles of 8 latent px, 16 px of a picture."""
    new = backend(tiny.build(kind))
    assert new.reduce_memory() == "Memory was full, so the VAE decodes in tiles."
    new.networks.vae.register_to_config(sample_size=16)
    return new


# ---- progress ----


def test_progress_rises_with_each_call_from_encoding_to_decoding():
    row = prepare(model(), request(image=noise_picture(), steps=4, strength=0.5))
    seen, kinds = [row.progress], []
    while not row.finished:
        kinds.append(row.call_key[1])
        model().denoise_step([row])
        seen.append(row.progress)
    assert kinds == ["encode", "denoise", "denoise", "decode"]
    assert seen[0] == 0 and seen[-1] == 1 and np.diff(seen).min() > 0


def test_steps_are_the_calls_of_the_u_net():
    row = prepare(model(), request(steps=3, sampler="heun"))
    assert (row.step, row.num_steps, row.call_rows) == (0, 5, 2)
    model().denoise_step([row])
    assert row.step == 1 and prepare(model(), request(guidance=1.0)).call_rows == 1
    finish(model(), [row])
    assert row.step == row.num_steps == 5


def test_rows_of_two_models_or_sizes_share_no_call():
    keys = {prepare(model(), request()).call_key, prepare(model(), request(), width=64).call_key}
    keys.add(prepare(backend(tiny.build("sd15"), "other"), request()).call_key)
    assert len(keys) == 3
    same = (request(guidance=1.0), request(steps=9, sampler="euler", negative_prompt="a dog"))
    assert len({prepare(model(), each).call_key for each in same}) == 1


def test_a_finished_row_makes_no_call():
    row = prepare(model(), request())
    finish(model(), [row])
    with pytest.raises(ValueError, match="finished"):
        model().denoise_step([row])


def test_the_decoded_picture_is_the_rounded_one():
    row = prepare(model(), request(), width=48)
    pixels = finish(model(), [row])[0]
    picture = model().decode(row)
    assert picture.size == (48, SIDE) and np.array_equal(np.asarray(picture), (pixels * 255).round())


# ---- records and previews ----


@pytest.mark.parametrize("kind, prediction", [("sd15", "epsilon"), ("sd2-v", "v_prediction")])
@pytest.mark.parametrize("sampler, spacing", [("dpm++2m", "karras"), ("heun", ""), ("studio", "")])
def test_x_t_is_alpha_x0_plus_sigma_times_the_networks_noise(kind, prediction, sampler, spacing):
    row = prepare(model(kind), request(steps=2, guidance=1.0, sampler=sampler, spacing=spacing))
    text = model(kind).encode_text("a cat")
    while row.step < row.num_steps:
        model(kind).denoise_step([row])
        record = row.record
        with torch.no_grad():
            output = model(kind).networks.unet(record.x_t[None], torch.tensor([record.timestep]), **text).sample[0]
        eps = output if prediction == "epsilon" else record.alpha * output + record.sigma * record.x_t
        assert torch.allclose(record.alpha * record.pred_original_sample + record.sigma * eps, record.x_t, atol=2e-5)
        assert record.alpha**2 + record.sigma**2 == pytest.approx(1, abs=1e-6)
        assert record.guidance_difference is None and record.guidance_scale == 1


def test_guidance_difference_is_that_of_the_two_predictions():
    row = prepare(model(), request(guidance=4.0, negative_prompt="a dog"))
    model().denoise_step([row])
    record = row.record
    x_t, time = record.x_t[None], torch.tensor([record.timestep])
    with torch.no_grad():
        outputs = [
            model().networks.unet(x_t, time, **model().encode_text(text)).sample[0] for text in ("a cat", "a dog")
        ]
    assert torch.allclose(record.guidance_difference, outputs[0] - outputs[1], atol=1e-5)
    assert record.guidance_scale == 4


def test_the_preview_is_the_best_linear_map_of_the_examples():
    preview = model().trace_model.preview
    assert preview.shape == (5, 3) and model().trace_model.space == "latent"
    picture = noise_picture(64, 64)
    row = prepare(model(), request())
    assert row.preview() is None
    model().denoise_step([row])
    shown = row.preview()
    x_0 = row.record.pred_original_sample
    assert shown.shape == (3, *x_0.shape[1:])
    expected = np.einsum("chw,cr->rhw", x_0.numpy(), preview[:-1]) + preview[-1][:, None, None]
    assert np.abs(shown.numpy() - expected).max() < 1e-5
    assert model().encode_picture(picture).shape == (4, 32, 32)


def test_a_decoded_latent_is_the_picture_of_the_row():
    row = prepare(model(), request())
    while row.step < row.num_steps:
        model().denoise_step([row])
    latents = row.phase.latents
    finish(model(), [row])
    assert np.array_equal(np.asarray(model().decode_latents(latents)), np.asarray(model().decode(row)))


# ---- failed calls ----


@pytest.mark.parametrize("sampler", ["euler_a", "unipc"])
def test_a_failed_call_leaves_the_rows_as_they_were(sampler, monkeypatch):
    requests = [request(sampler=sampler, seed=seed) for seed in (1, 2)]
    expected = np.concatenate([run(model(), each) for each in requests])
    rows = [prepare(model(), each) for each in requests]
    model().denoise_step(rows)
    before = [(row.phase, row.record, row.generator.get_state()) for row in rows]
    whole, calls = phases.to_original_and_noise, []

    def fails_for_the_second_row(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(phases, "to_original_and_noise", fails_for_the_second_row)
        with pytest.raises(RuntimeError, match="out of memory"):
            model().denoise_step(rows)
    for row, (phase, record, state) in zip(rows, before, strict=True):
        assert row.phase is phase and row.record is record and torch.equal(row.generator.get_state(), state)
    while not rows[0].finished:
        model().denoise_step(rows)
    assert difference(arrays(rows), expected) < MIXED


# ---- the VAE ----


def test_the_vae_works_in_tiles_and_rows_share_its_calls():
    small = tiled()
    fields = {"image": noise_picture(), "steps": 2, "strength": 0.5}
    rows = [prepare(small, request(seed=seed, **fields)) for seed in (1, 2)]
    keys = []
    while not rows[0].finished:
        keys.append(rows[0].call_key)
        small.denoise_step(rows)
    assert [key[1] for key in keys] == ["encode"] * 9 + ["denoise"] + ["decode"] * 9
    assert keys[0][2] == (3, 16, 16) and keys[-1][2] == (4, 8, 8)
    alone = np.concatenate([run(small, request(seed=seed, **fields)) for seed in (1, 2)])
    assert difference(arrays(rows), alone) < MIXED


def test_memory_can_be_reduced_between_two_calls():
    large = backend(tiny.build("sd15"))
    row = prepare(large, request())
    large.denoise_step([row])
    assert large.reduce_memory() is not None
    assert large.reduce_memory() is None  # on a CPU there is nothing else
    large.networks.vae.register_to_config(sample_size=16)
    assert difference(finish(large, [row]), run(tiled(), request())) == 0


def overflowing() -> LatentBackend:
    """A backend in half precision, whose VAE computes values above 65504."""
    pipeline = tiny.build("sd15")
    with torch.no_grad():
        pipeline.vae.decoder.conv_in.weight *= 3e5  # a norm follows
    pipeline.vae.half()
    return backend(pipeline)


def test_a_vae_that_overflows_is_called_again_in_float32():
    half = overflowing()
    assert half.networks.vae.dtype == torch.float16
    row = prepare(half, request(steps=1), width=16, height=16)
    pixels = finish(half, [row])
    assert row.notes == (VAE_OVERFLOWED,) and half.networks.vae.dtype == torch.float32
    again = prepare(half, request(steps=1), width=16, height=16)
    assert difference(finish(half, [again]), pixels) == 0 and again.notes == ()


def test_a_vae_with_force_upcast_is_in_float32_from_the_start():
    pipeline = tiny.build("sdxl")
    pipeline.vae.half()
    assert backend(pipeline).networks.vae.dtype == torch.float32


def test_values_that_are_no_numbers_fail_with_a_sentence():
    broken = backend(tiny.build("sd15"))
    rows = [prepare(broken, request(seed=seed)) for seed in (1, 2)]
    while rows[0].call_key[1] != "decode":
        broken.denoise_step(rows)
    rows[1].phase.latents[0, 0, 0] = torch.nan
    with pytest.raises(ArithmeticError, match="U-Net computed values that are not numbers"):
        broken.denoise_step(rows)
    broken.denoise_step(rows[:1])
    assert rows[0].finished and not rows[1].finished


def test_a_model_in_bfloat16_paints_nearly_the_same():
    asked = request(steps=1, image=noise_picture(16, 16), strength=0.6)
    exact = run(model("sdxl"), asked, 16, 16)
    rounded = run(backend(tiny.build("sdxl").to(torch.bfloat16), dtype="bfloat16"), asked, 16, 16)
    assert 0 < difference(rounded, exact) < 0.1


# ---- tiles of the U-Net ----


def test_the_predictions_of_tiles_are_blended_in_each_step():
    """A run of tiles is the run of a network that is the blend of the tiles."""
    new = backend(tiny.build("sd15"))
    asked = request(steps=2, guidance=3.0)
    row = prepare(new, asked)
    stage = new.make_stage(asked, "a cat", new.make_stepper(asked), (SIDE, SIDE), tile_size=8)
    row = LatentRow.begin(phases.Plan(start=row.plan.start, stages=(stage,)), asked.seed)
    x_t = row.phase.sample
    shares = []
    for _ in range(9):
        assert row.step == 0 and row.call_key[2] == (4, 8, 8) and row.call_rows == 2
        new.denoise_step([row])
        shares.append(row.progress)
    assert row.step == 1 and np.diff(shares).min() > 0
    predictions = {}
    for text in ("a cat", ""):
        arguments, tiles = new.encode_text(text), []
        for corner in stage.tiles.corners:
            with torch.no_grad():
                tile = stage.tiles.cut(x_t, corner)[None]
                tiles.append(new.networks.unet(tile, torch.tensor([stage.stepper.times[0]]), **arguments).sample[0])
        predictions[text] = stage.tiles.blend(tiles)
    difference = predictions["a cat"] - predictions[""]
    assert torch.allclose(row.record.guidance_difference, difference, atol=1e-5)
