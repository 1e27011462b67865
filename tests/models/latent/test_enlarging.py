"""Super-resolution with latent models: the x4 upscaler equal to the stock one; tiles; image to image in tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.requests import SuperResolve
from tests.imaging.pictures import noise as noise_picture
from tests.models import tiny
from tests.models.latent.helpers import (
    MIXED,
    arrays,
    backend,
    difference,
    resolve,
    run,
    run_staggered,
    stock,
    stock_input,
)


@pytest.fixture(scope="module")
def upscaler():
    pipeline = tiny.stock("x4")
    return pipeline, backend(pipeline)


@pytest.fixture(scope="module")
def plain():
    pipeline = tiny.stock("sd15")
    return pipeline, backend(pipeline)


def request(picture: Image.Image | None = None, **fields) -> SuperResolve:
    values = {"sampler": "ddim", "steps": 3, "guidance": 4.0, "noise_level": 20, "scale": 4, "seed": 5, **fields}
    return SuperResolve(picture or noise_picture(16, 16), prompt="a cat", **values)


def finished(model, asked: SuperResolve) -> Image.Image:
    (row,) = model.prepare(resolve(asked))
    while not row.finished:
        model.denoise_step([row])
    return model.decode(row)


@pytest.mark.parametrize("fields", [{}, {"noise_level": 100, "steps": 4, "guidance": 1.0}, {"sampler": "euler_a"}])
def test_the_upscaler_is_the_stock_one(fields, upscaler):
    from studio.models.latent.samplers import make_scheduler

    pipeline, model = upscaler
    asked = request(**fields)
    own, pipeline.scheduler = pipeline.scheduler, make_scheduler(asked.sampler, "", pipeline.scheduler)
    expected = stock(
        pipeline,
        5,
        prompt="a cat",
        image=asked.image,
        num_inference_steps=asked.steps,
        guidance_scale=asked.guidance,
        noise_level=int(asked.noise_level),
    )
    pipeline.scheduler = own
    assert difference(run(model, asked), expected) == 0.0


def test_upscaled_pictures_of_a_mixed_batch_are_the_same(upscaler):
    model = upscaler[1]
    requests = [request(), request(noise_level=100, seed=6), request(guidance=1.0, sampler="euler_a", seed=7)]
    alone = np.concatenate([run(model, each) for each in requests])
    assert difference(run_staggered(model, requests), alone) < MIXED


@pytest.mark.parametrize(
    ("size", "fields", "result"),
    [((20, 13), {}, (80, 52)), ((20, 13), {"scale": 2}, (40, 26)), ((20, 13), {"target": (70, 50)}, (70, 50))],
)
def test_any_size_is_enlarged_as_it_was_asked_for(size, fields, result, upscaler, plain):
    picture = noise_picture(*size)
    picture.putalpha(Image.linear_gradient("L").resize(size))
    assert finished(upscaler[1], request(picture, steps=1, **fields)).size == result
    enlarged = finished(plain[1], request(picture, steps=2, noise_level=0.5, **fields))
    assert enlarged.size == result and enlarged.mode == "RGBA"


def test_large_pictures_are_upscaled_in_tiles_that_are_rows_of_the_engine(upscaler):
    """Each step takes a call per tile, and tiles of other pictures share it."""
    model = upscaler[1]
    rows = [model.prepare(resolve(request(noise_picture(40, 16), steps=2, seed=seed)))[0] for seed in (1, 2)]
    (alone,) = model.prepare(resolve(request(noise_picture(40, 16), steps=2, seed=1)))
    tiles = len(alone.plan.stages[0].tiles.corners)
    assert tiles == 3 and alone.call_rows == 2  # one tile, with and without the prompt
    calls = 0
    while not alone.finished:
        model.denoise_step([alone])
        calls += 1
    assert calls == 2 * tiles + 1
    while not rows[0].finished:
        assert rows[0].call_key == rows[1].call_key
        model.denoise_step(rows)
    assert difference(arrays(rows[:1]), arrays([alone])) < MIXED


def test_image_to_image_of_one_tile_is_the_stock_pipeline(plain):
    from diffusers import StableDiffusionImg2ImgPipeline

    pipeline, model = plain
    asked = request(noise_picture(16, 16), noise_level=0.7)
    varying = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    varying.set_progress_bar_config(disable=True)
    from studio.models.latent.samplers import make_scheduler

    varying.scheduler = make_scheduler("ddim", "", pipeline.scheduler)
    expected = stock(
        varying,
        5,
        prompt="a cat",
        image=stock_input(asked.image.resize((64, 64), Image.Resampling.LANCZOS)),
        strength=0.7,
        num_inference_steps=3,
        guidance_scale=4.0,
    )
    assert difference(run(model, asked), expected) == 0.0


def test_tiles_agree_where_they_overlap(plain, monkeypatch):
    """With a network that sees one pixel at a time, tiles make no difference."""
    model = plain[1]

    def pointwise(sample, timestep, encoder_hidden_states, return_dict):
        return (sample * 0.3 + 0.1 * sample.mean(1, keepdim=True),)

    monkeypatch.setattr(model.networks, "unet", pointwise)
    asked = request(noise_picture(40, 24), noise_level=1.0, guidance=1.0, steps=2)
    in_tiles = run(model, asked)
    (row,) = model.prepare(resolve(asked))
    assert len(row.plan.stages[0].tiles.corners) == 6
    monkeypatch.setattr(model, "loaded", _with_side(model.loaded, 1000))
    (row,) = model.prepare(resolve(asked))
    assert len(row.plan.stages[0].tiles.corners) == 1
    assert difference(in_tiles, run(model, asked)) < MIXED


def _with_side(loaded, side: int):
    from dataclasses import replace

    identity = replace(loaded.entry.identity, sample_size=(side, side))
    return replace(loaded, entry=replace(loaded.entry, identity=identity))


def test_sdxl_is_conditioned_on_the_size_of_a_tile():
    pipeline = tiny.stock("sdxl")
    model = backend(pipeline)
    (row,) = model.prepare(resolve(request(noise_picture(40, 24), noise_level=0.5)))
    assert row.plan.stages[0].prompt.time_ids.tolist() == [64, 64, 0, 0, 64, 64]


def test_very_large_pictures_are_encoded_and_decoded_in_tiles(plain):
    networks = plain[1].networks
    assert networks.vae_tile_size(512, 512) is None
    assert networks.vae_tile_size(2000, 512) == 32
    assert torch.is_tensor(networks.encode([torch.zeros(3, 8, 8)])[0])
