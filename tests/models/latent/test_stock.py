"""Pictures of the backend are those of the stock pipelines: alone exactly, in mixed batches within MIXED."""

from __future__ import annotations

from functools import cache
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    LatentConsistencyModelImg2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from PIL import Image

from studio.engine.requests import TextToImage
from studio.models.latent.backend import LatentBackend
from studio.models.latent.samplers import make_scheduler
from tests.models import tiny
from tests.models.latent.helpers import MIXED, SIDE, backend, difference, run, run_staggered, stock

FAMILIES = ("sd15", "sd2-v", "sdxl")
# Of each sampler one spacing that it has; all spacings are tested without networks.
CHOICES = (
    ("studio", "trailing"),
    ("ddim", "leading"),
    ("ddpm", ""),
    ("pndm", ""),
    ("dpm++2m", "karras"),
    ("dpm++2m_sde", "exponential"),
    ("unipc", "beta"),
    ("euler", "linspace"),
    ("euler_a", ""),
    ("heun", "karras"),
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()  # schedulers say which values of a config they do not take
    yield
    torch.set_num_threads(threads)
    diffusers.utils.logging.set_verbosity_warning()


@cache
def pair(kind: str) -> tuple[Any, LatentBackend]:
    """A stock pipeline, and a backend that shares its networks."""
    pipeline = tiny.build(kind)
    pipeline.scheduler = type(pipeline.scheduler).from_config(dict(pipeline.scheduler.config))
    return pipeline, backend(pipeline)


def stock_picture(pipeline: Any, model: LatentBackend, request: TextToImage, **arguments: Any) -> np.ndarray:
    """The stock pipeline's picture of a request; arguments are added or replaced."""
    pipeline.scheduler = make_scheduler(request.sampler, request.spacing, model.scheduler)
    given: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt or None,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
        "height": SIDE,
        "width": SIDE,
    } | arguments
    given = {name: value for name, value in given.items() if value is not None}
    return stock(pipeline, request.seed, **given)


def noise_picture(width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def as_tensor(picture: Image.Image) -> torch.Tensor:
    """A picture as the stock pipelines take tensors: (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy((np.asarray(picture, np.float32) / 255).transpose(2, 0, 1).copy())[None]


@pytest.mark.parametrize("kind", FAMILIES)
def test_text_to_image_with_every_sampler(kind):
    """With every third one for further families: the steps do not depend on the family."""
    pipeline, model = pair(kind)
    requests, expected = [], []
    for i, (sampler, spacing) in enumerate(CHOICES if kind == "sd15" else CHOICES[::3]):
        guidance = (5.0, 1.0, 7.5)[i % 3]
        negative = "a dog" if i % 2 else ""
        request = TextToImage(
            f"cat {i}",
            negative_prompt=negative,
            steps=2 + i % 2,
            guidance=guidance,
            sampler=sampler,
            spacing=spacing,
            seed=i,
        )
        requests.append(request)
        expected.append(stock_picture(pipeline, model, request))
        assert difference(run(model, request), expected[-1]) == 0, (sampler, spacing)
    assert difference(run_staggered(model, requests), np.concatenate(expected)) < MIXED


@pytest.mark.parametrize("kind", FAMILIES)
def test_sizes_need_not_be_square(kind):
    pipeline, model = pair(kind)
    request = TextToImage("a cat", steps=2, guidance=4.0, sampler="euler", seed=3)
    expected = stock_picture(pipeline, model, request, width=48, height=32)
    assert difference(run(model, request, width=48, height=32), expected) == 0


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_guidance_of_1_or_less_is_one_pass_as_in_stock(guidance):
    pipeline, model = pair("turbo")
    request = TextToImage("a cat", steps=1, guidance=guidance, sampler="euler_a", seed=3)
    assert difference(run(model, request), stock_picture(pipeline, model, request)) == 0


@pytest.mark.parametrize("kind", ["sd2-v", "sdxl"])
def test_guidance_rescale(kind):
    pipeline, model = pair(kind)
    request = TextToImage("a cat", steps=2, guidance=6.0, guidance_rescale=0.7, sampler="ddim", seed=3)
    expected = stock_picture(pipeline, model, request, guidance_rescale=0.7)
    assert difference(run(model, request), expected) == 0
    assert difference(run(model, TextToImage("a cat", steps=2, guidance=6.0, sampler="ddim", seed=3)), expected) > 1e-3


def test_clip_skip_of_sdxl():
    pipeline, model = pair("sdxl")
    request = TextToImage("a cat", steps=2, guidance=6.0, clip_skip=1, sampler="ddim", seed=3)
    assert difference(run(model, request), stock_picture(pipeline, model, request, clip_skip=1)) == 0


@pytest.mark.parametrize("kind, strength", [("sd15", 0.6), ("sdxl", 0.6), ("sdxl", 1.0)])
def test_image_to_image(kind, strength):
    pipeline, model = pair(kind)
    stock_class: Any = StableDiffusionXLImg2ImgPipeline if kind == "sdxl" else StableDiffusionImg2ImgPipeline
    options = {} if kind == "sdxl" else {"requires_safety_checker": False}
    from_picture = stock_class(**pipeline.components, **options)
    from_picture.set_progress_bar_config(disable=True)
    picture = noise_picture()
    requests, expected = [], []
    for i, sampler in enumerate(("ddim", "heun", "pndm", "euler_a")):
        request = TextToImage("a cat", image=picture, strength=strength, steps=3, sampler=sampler, seed=i)
        requests.append(request)
        arguments = {"image": as_tensor(picture), "strength": strength, "height": None, "width": None}
        expected.append(stock_picture(from_picture, model, request, **arguments))
        assert difference(run(model, request), expected[-1]) == 0, sampler
    assert difference(run_staggered(model, requests), np.concatenate(expected)) < MIXED


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_refiner_takes_the_last_steps(sampler):
    pipeline, _ = pair("sdxl")
    refiner, refining = pair("refiner")
    model = backend(pipeline, "base", refiner=refining)
    request = TextToImage(
        "a cat", negative_prompt="a dog", steps=5, refiner="refiner", refiner_start=0.6, sampler=sampler, seed=2
    )
    generator = torch.Generator().manual_seed(2)
    shared = {"prompt": "a cat", "negative_prompt": "a dog", "num_inference_steps": 5, "guidance_scale": 3.0}
    pipeline.scheduler = make_scheduler(sampler, "", model.scheduler)
    refiner.scheduler = make_scheduler(sampler, "", refining.scheduler)
    size = {"width": SIDE, "height": SIDE}
    latents = pipeline(**shared, **size, generator=generator, denoising_end=0.6, output_type="latent").images
    expected = refiner(**shared, image=latents, denoising_start=0.6, generator=generator, output_type="np").images
    assert difference(run(model, request), expected) == 0


@pytest.mark.parametrize("steps", [1, 3])
def test_lcm_takes_guidance_as_an_input(steps):
    pipeline, model = pair("lcm")
    request = TextToImage("a cat", steps=steps, guidance=8.5, sampler="lcm", seed=3)
    assert difference(run(model, request), stock_picture(pipeline, model, request)) == 0


def test_lcm_from_a_picture():
    pipeline, model = pair("lcm")
    from_picture = LatentConsistencyModelImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    from_picture.set_progress_bar_config(disable=True)
    picture = noise_picture()
    request = TextToImage("a cat", image=picture, strength=0.5, steps=3, guidance=8.5, sampler="lcm", seed=3)
    arguments = {"image": as_tensor(picture), "strength": 0.5, "height": None, "width": None}
    assert difference(run(model, request), stock_picture(from_picture, model, request, **arguments)) == 0


def test_pictures_of_a_request_have_seeds_of_their_own():
    _, model = pair("sd15")
    together = run(model, TextToImage("a cat", count=2, steps=2, sampler="euler_a", seed=7))
    alone = [run(model, TextToImage("a cat", steps=2, sampler="euler_a", seed=seed)) for seed in (7, 8)]
    assert difference(together, np.concatenate(alone)) == 0 and difference(together[:1], together[1:]) > 0.01


def test_a_model_keeps_the_settings_of_its_own_scheduler():
    pipeline, _ = pair("sd15")
    pipeline.scheduler = EulerDiscreteScheduler(**tiny.BETAS, steps_offset=1, timestep_spacing="trailing")
    model = backend(pipeline)
    request = TextToImage("a cat", steps=2, sampler="dpm++2m", seed=3)
    trailing = TextToImage("a cat", steps=2, sampler="dpm++2m", spacing="trailing", seed=3)
    assert difference(run(model, request), run(model, trailing)) == 0
