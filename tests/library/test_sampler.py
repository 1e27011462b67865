"""The bundled pipeline as a Sampler: its pictures are those of the plain calls, for every task."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from studio.diffusion.pipeline import StudioInpaintPipeline, StudioUpscalePipeline
from studio.library.sampler import PipelineSampler
from tests.diffusion.conftest import random_pipeline


@pytest.fixture(scope="module")
def sampler() -> PipelineSampler:
    return PipelineSampler(random_pipeline())


def noise_picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def asked(task: str, pictures: dict | None = None, **fields) -> SimpleNamespace:
    """A request's surface, as the engine hands it over."""
    usual = {"caption": "a red cat", "negative_prompt": "", "steps": 4, "guidance": 3, "sampler": "studio"}
    given = usual | {"seeds": [7, 8], "count": 2} | fields
    return SimpleNamespace(task=task, pictures=lambda: pictures or {}, **given)


def generators(request) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in request.seeds]


def painted(sampler: PipelineSampler, request) -> list[np.ndarray]:
    rows = sampler.prepare(request)
    assert [row.seed for row in rows] == request.seeds
    while not all(row.finished for row in rows):
        sampler.denoise_step(rows)
    return [np.asarray(sampler.decode(row)) for row in rows]


def same(pictures: list[np.ndarray], others: list[Image.Image]) -> bool:
    return len(pictures) == len(others) and all(map(np.array_equal, pictures, map(np.asarray, others)))


@pytest.mark.parametrize("negative", ["", "a house"])
def test_text_to_image_paints_what_the_plain_call_paints(sampler, negative):
    request = asked("text-to-image", negative_prompt=negative)
    plain = sampler.pipeline(
        "a red cat",
        negative or None,
        num_inference_steps=4,
        guidance_scale=3.0,
        num_images_per_prompt=2,
        generator=generators(request),
    )
    assert same(painted(sampler, request), plain.images)


def test_inpainting_paints_what_the_plain_call_paints(sampler):
    image, mask = noise_picture(40, 32), Image.new("L", (40, 32))
    mask.paste(255, (8, 8, 24, 24))
    request = asked("inpaint", {"image": image, "mask": mask}, negative_prompt="a boat")
    plain = StudioInpaintPipeline(**sampler.pipeline.components)(
        "a red cat",
        image,
        mask,
        "a boat",
        num_inference_steps=4,
        guidance_scale=3.0,
        num_images_per_prompt=2,
        generator=generators(request),
    )
    assert same(painted(sampler, request), plain.images)


@pytest.mark.parametrize("scale", [2, 4])
def test_super_resolution_paints_what_the_plain_call_paints(sampler, scale):
    image = noise_picture(24, 20)
    request = asked("super-resolution", {"image": image}, scale=scale, noise_level=0.1, steps=2, guidance=1.5)
    plain = StudioUpscalePipeline(**sampler.pipeline.components)(
        [image, image],
        scale,
        "a red cat",
        0.1,
        num_inference_steps=2,
        guidance_scale=1.5,
        generator=generators(request),
    )
    assert same(painted(sampler, request), plain.images)
    assert plain.images[0].size == (24 * scale, 20 * scale)


def test_other_tasks_are_refused(sampler):
    with pytest.raises(ValueError, match="task is 'dance'"):
        sampler.prepare(asked("dance"))


def test_the_rest_is_the_pipelines(sampler):
    assert sampler.device == "cpu"
    assert sampler.truncated("a cat") == "" and sampler.truncated("a cat " * 500).startswith("a cat")


@pytest.mark.parametrize("name", ["studio", "ddpm", "unipc", "heun"])
@pytest.mark.parametrize("where", ["network", "advance"])
def test_a_call_that_runs_out_of_memory_leaves_the_rows_as_they_were(sampler, monkeypatch, name, where):
    """Wherever it does: here at every second call, in the network or after some rows have stepped."""
    import studio.diffusion.core as core

    request = asked("text-to-image", sampler=name, seeds=[3, 4])
    undisturbed = painted(sampler, request)
    rows, real = sampler.prepare(request), core.advance

    def out_of_memory(*arguments):
        if where == "advance":
            real(*arguments)
        raise torch.OutOfMemoryError("out of memory")

    while not all(row.finished for row in rows):
        with monkeypatch.context() as patch:
            if where == "network":
                patch.setattr(sampler.pipeline.unet, "forward", out_of_memory)
            else:
                patch.setattr(core, "advance", out_of_memory)
            with pytest.raises(torch.OutOfMemoryError):
                sampler.denoise_step(rows)
        sampler.denoise_step(rows)
    assert same([np.asarray(sampler.decode(row)) for row in rows], undisturbed)
