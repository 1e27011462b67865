"""Inpainting with latent models: equal to the stock pipelines, and nothing outside the mask changes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from studio.engine.requests import Inpaint
from studio.imaging.canvas import extend_canvas
from studio.imaging.masks import count_changes_outside, feather_hole, mask_to_hole
from studio.models.latent.inpainting import plan_inpainting
from tests.imaging.pictures import noise as noise_picture
from tests.models import tiny
from tests.models.latent.helpers import MIXED, backend, difference, resolve, run, run_staggered, stock, stock_input


def mask_of(box=(16, 24, 40, 64), size=(64, 64)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def request(**fields) -> Inpaint:
    values = {"sampler": "ddim", "steps": 3, "guidance": 5.0, "seed": 7, "area": "whole", **fields}
    return Inpaint("a cat", noise_picture(64, 64), mask_of(), **values)


@pytest.fixture(scope="module")
def models():
    """Kind -> (stock inpainting pipeline, backend over its networks)."""
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline

    pipelines = {kind: tiny.stock(kind) for kind in ("sd15", "inpainting", "sdxl", "sdxl-inpainting")}
    for kind, cls in (("sd15", StableDiffusionInpaintPipeline), ("sdxl", StableDiffusionXLInpaintPipeline)):
        options = {"requires_safety_checker": False} if kind == "sd15" else {}
        pipelines[kind] = cls(**pipelines[kind].components, **options)
        pipelines[kind].set_progress_bar_config(disable=True)
    return {kind: (pipeline, backend(pipeline)) for kind, pipeline in pipelines.items()}


def run_stock(pipeline, asked: Inpaint, scheduler) -> np.ndarray:
    own, pipeline.scheduler = pipeline.scheduler, scheduler
    try:
        return stock(
            pipeline,
            asked.seed,
            prompt=asked.prompt,
            image=stock_input(asked.image),
            mask_image=asked.mask,
            strength=asked.strength,
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance,
            height=64,
            width=64,
        )
    finally:
        pipeline.scheduler = own


CASES = [
    ("sd15", "ddim", 1.0),
    ("sd15", "euler_a", 0.7),
    ("sd15", "heun", 0.7),
    ("inpainting", "ddim", 1.0),
    ("inpainting", "euler_a", 0.7),
    ("sdxl", "euler_a", 1.0),
    ("sdxl", "ddim", 0.7),
    ("sdxl-inpainting", "euler_a", 0.7),
]


@pytest.mark.parametrize(("kind", "sampler", "strength"), CASES)
def test_alone_it_is_the_stock_pipeline(kind, sampler, strength, models):
    from studio.models.latent.samplers import make_scheduler

    pipeline, model = models[kind]
    asked = request(sampler=sampler, strength=strength)
    expected = run_stock(pipeline, asked, make_scheduler(sampler, "", pipeline.scheduler))
    assert difference(run(model, asked), expected) == 0.0


@pytest.mark.parametrize("kind", ["sd15", "inpainting"])
def test_in_a_mixed_batch_it_is_the_same(kind, models):
    model = models[kind][1]
    requests = [
        request(sampler="ddim"),
        request(sampler="euler_a", strength=0.7, seed=8),
        request(sampler="heun", steps=2, guidance=1.0, seed=9),
    ]
    alone = np.concatenate([run(model, each) for each in requests])
    assert difference(run_staggered(model, requests), alone) < MIXED


@pytest.mark.parametrize("area", ["painted", "whole"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_no_pixel_outside_the_mask_changes(area, mode, models):
    """A picture larger than the model's, of an odd size, with a thin hole."""
    picture = noise_picture(150, 101).convert(mode)
    mask = mask_of((70, 30, 73, 90), picture.size)
    asked = Inpaint("a cat", picture, mask, sampler="ddim", steps=1, guidance=1.0, area=area)
    model = models["sd15"][1]
    (row,) = model.prepare(resolve(asked))
    while not row.finished:
        model.denoise_step([row])
    result = model.decode(row)
    hole = mask_to_hole(mask)
    assert result.size == picture.size and result.mode == mode
    assert count_changes_outside(picture, result, hole).changed == 0
    assert (np.asarray(picture) != np.asarray(result)).any(-1)[hole].mean() > 0.95


def test_a_feather_changes_only_what_it_reaches(models):
    model = models["sd15"][1]
    asked = request(feather=4, steps=1, guidance=1.0, area="painted")
    (row,) = model.prepare(resolve(asked))
    while not row.finished:
        model.denoise_step([row])
    reached = feather_hole(mask_to_hole(asked.mask), 4) > 0
    assert count_changes_outside(asked.image, model.decode(row), reached).changed == 0


def test_an_extended_canvas_is_outpainted(models):
    model = models["inpainting"][1]
    picture = noise_picture(48, 40)
    canvas, mask = extend_canvas(picture, right=24)
    asked = Inpaint("a cat", canvas, mask, sampler="ddim", steps=1, guidance=1.0, area="whole")
    (row,) = model.prepare(resolve(asked))
    while not row.finished:
        model.denoise_step([row])
    result = model.decode(row)
    assert result.size == (72, 40)
    assert np.array_equal(np.asarray(result)[:, :48], np.asarray(picture))


def test_the_painted_area_has_the_models_size_and_a_whole_picture_its_own():
    asked = Inpaint("a cat", noise_picture(300, 200), mask_of((100, 100, 120, 110), (300, 200)))
    painted = plan_inpainting(asked, 64, has_mask_channels=False)
    assert painted.size == (64, 64) and painted.start.pictures[0].shape == (3, 64, 64)
    whole = plan_inpainting(Inpaint("", asked.image, asked.mask, area="whole"), 64, has_mask_channels=False)
    assert whole.size == (304, 200)


def test_thin_holes_are_repainted_in_the_latents():
    """A hole one pixel wide covers latent pixels all along it."""
    asked = Inpaint("", noise_picture(64, 64), mask_of((33, 0, 34, 64)), area="whole")
    start = plan_inpainting(asked, 64, has_mask_channels=True).start
    from studio.models.latent.inpainting import _shrink_hole

    mask = _shrink_hole(start.hole, 8, 8)
    assert mask[0].sum(0).tolist() == [0, 0, 0, 0, 8, 0, 0, 0]


def test_pixels_in_the_hole_are_hidden_from_a_network_with_mask_channels(models):
    """What was in the hole makes no difference at full strength."""
    model = models["inpainting"][1]
    asked = request(steps=1, guidance=1.0)
    other = asked.image.copy()
    other.paste((0, 255, 0), (16, 24, 40, 64))
    changed = Inpaint("a cat", other, asked.mask, sampler="ddim", steps=1, guidance=1.0, seed=7, area="whole")
    assert difference(run(model, asked), run(model, changed)) == 0.0
