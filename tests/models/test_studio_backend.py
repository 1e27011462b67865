"""The bundled pipeline as a Sampler: its pictures are those of the plain calls, for every task."""

from __future__ import annotations

import subprocess
import sys
from inspect import signature

import numpy as np
import pytest
import torch
from PIL import Image

from studio.diffusion.pipelines import StudioDenoisePipeline, StudioInpaintPipeline, StudioUpscalePipeline
from studio.engine.requests import Denoise, Inpaint, Request, SuperResolve, TextToImage
from studio.imaging.tiles import count_tiles
from studio.models.families.studio import StudioBackend
from tests.diffusion.conftest import random_pipeline
from tests.fakes import resolve


@pytest.fixture(scope="module")
def sampler() -> StudioBackend:
    return StudioBackend(random_pipeline())


def noise_picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def generators(request: Request) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in resolve(request).seeds]


def painted(sampler: StudioBackend, request: Request) -> list[np.ndarray]:
    rows = sampler.prepare(resolve(request))
    assert [row.seed for row in rows] == list(resolve(request).seeds)
    while not all(row.finished for row in rows):
        sampler.denoise_step(rows)
    return [np.asarray(sampler.decode(row)) for row in rows]


def same(pictures: list[np.ndarray], others: list[Image.Image]) -> bool:
    return len(pictures) == len(others) and all(map(np.array_equal, pictures, map(np.asarray, others)))


@pytest.mark.parametrize("negative", ["", "a house"])
def test_text_to_image_paints_what_the_plain_call_paints(sampler, negative):
    request = TextToImage("a cat", negative_prompt=negative, style="noto", background="red", count=2, steps=4, seed=7)
    plain = sampler.pipeline(
        "a cat, noto style, on a red background",
        negative or None,
        num_inference_steps=4,
        guidance_scale=3.0,
        num_images_per_prompt=2,
        generator=generators(request),
    )
    assert same(painted(sampler, request), plain.images)


def test_a_style_chosen_by_the_seed_gives_the_same_picture_as_if_requested(sampler):
    request = TextToImage("a cat", count=3, steps=2, seed=7, randomize_style=True)
    resolved = resolve(request)
    assert len(set(resolved.captions)) == 3
    alone = [
        TextToImage("a cat", steps=2, seed=seed, style=style, background=background)
        for seed, (style, background) in zip(resolved.seeds, resolved.styles_and_backgrounds, strict=True)
    ]
    pictures = np.stack(painted(sampler, request)).astype(int)
    away = np.abs(pictures - np.stack([picture for one in alone for picture in painted(sampler, one)]))
    assert away.max() <= 1 and away.mean() < 0.01  # calls of other sizes round differently


def test_inpainting_paints_what_the_plain_call_paints(sampler):
    image, mask = noise_picture(40, 32), Image.new("L", (40, 32))
    mask.paste(255, (8, 8, 24, 24))
    request = Inpaint("a red cat", image, mask, negative_prompt="a boat", count=2, steps=4, guidance=3, seed=7)
    plain = StudioInpaintPipeline(**sampler.pipeline.components)(
        "a red cat",
        image,
        mask,
        "a boat",
        num_inference_steps=4,
        guidance_scale=3.0,
        num_images_per_prompt=2,
        generator=generators(request),
        whole_picture=False,
    )
    assert same(painted(sampler, request), plain.images)
    options = {"grow": 2, "feather": 3, "invert": True}
    request = Inpaint("a red cat", image, mask, steps=2, guidance=1, seed=7, area="whole", **options)
    plain = StudioInpaintPipeline(**sampler.pipeline.components)(
        "a red cat", image, mask, num_inference_steps=2, guidance_scale=1.0, generator=generators(request), **options
    )
    assert same(painted(sampler, request), plain.images)


def test_image_to_image_paints_what_the_plain_call_paints(sampler):
    request = TextToImage("a cat", steps=4, seed=7, count=2, image=noise_picture(40, 32), strength=0.5, resolution=64)
    plain = sampler.pipeline(
        "a cat",
        num_inference_steps=4,
        num_images_per_prompt=2,
        generator=generators(request),
        image=request.image,
        strength=0.5,
        size=64,
    )
    assert same(painted(sampler, request), plain.images)


@pytest.mark.parametrize(("way", "steps"), [("mean", 1), ("run", 3)])
def test_denoising_paints_what_the_plain_call_paints(sampler, way, steps):
    request = Denoise(noise_picture(40, 36), 25.0, way, prompt="a cat", steps=3, guidance=2.0, seed=7)
    plain = StudioDenoisePipeline(**sampler.pipeline.components)(
        request.image,
        25.0,
        "a cat",
        num_inference_steps=steps,
        guidance_scale=2.0,
        generator=generators(request),
    )
    assert same(painted(sampler, request), plain.images)


def test_a_target_size_is_met_exactly(sampler):
    (picture,) = painted(sampler, SuperResolve(noise_picture(24, 20), target=(61, 47), steps=1))
    assert picture.shape == (47, 61, 3)


@pytest.mark.parametrize("scale", [2, 4])
def test_super_resolution_paints_what_the_plain_call_paints(sampler, scale):
    image = noise_picture(24, 20)
    request = SuperResolve(image, scale, prompt="a red cat", noise_level=0.1, count=2, guidance=1.5, seed=7)
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


def test_defaults_of_requests_are_those_of_the_pipelines(sampler):
    mask = Image.new("L", (16, 16), 255)
    for request, pipe in (
        (TextToImage("a cat"), sampler.pipeline),
        (Inpaint("a cat", mask, mask), sampler._inpaint),
        (SuperResolve(mask), sampler._upscale),
    ):
        usual = signature(pipe.__call__).parameters
        assert request.steps == usual["num_inference_steps"].default
        assert request.guidance == usual["guidance_scale"].default


def test_device_and_truncated_text_are_the_pipelines(sampler):
    assert sampler.device == "cpu"
    assert sampler.truncated("a cat") == "" and sampler.truncated("a cat " * 500).startswith("a cat")


@pytest.mark.parametrize("name", ["studio", "ddpm", "unipc", "heun", "dpm++2m"])
@pytest.mark.parametrize("where", ["network", "step"])
def test_a_call_that_runs_out_of_memory_leaves_the_rows_as_they_were(sampler, monkeypatch, name, where):
    """Wherever it does: here at every second call, in the network or after some rows have stepped."""
    import studio.diffusion.sampling.batched_call as network_calls

    request = TextToImage("a red cat", sampler=name, steps=4, count=2, seed=3)
    undisturbed = painted(sampler, request)
    rows, real = sampler.prepare(resolve(request)), network_calls._take_step

    def out_of_memory(*arguments):
        if where == "step":
            real(*arguments)
        raise torch.OutOfMemoryError("out of memory")

    while not all(row.finished for row in rows):
        with monkeypatch.context() as patch:
            if where == "network":
                patch.setattr(sampler.pipeline.unet, "forward", out_of_memory)
            else:
                patch.setattr(network_calls, "_take_step", out_of_memory)
            with pytest.raises(torch.OutOfMemoryError):
                sampler.denoise_step(rows)
        sampler.denoise_step(rows)
    assert same([np.asarray(sampler.decode(row)) for row in rows], undisturbed)


def test_a_large_picture_takes_several_calls_per_step(sampler, monkeypatch):
    """Over several calls, of which some fail, before anything is blended and after, it is the same within a level."""
    import studio.diffusion.sampling.batched_call as network_calls
    import studio.diffusion.sampling.state as rows

    request = SuperResolve(noise_picture(40, 36), 2, prompt="a cat", steps=2, guidance=2.0)
    undisturbed = painted(sampler, request)
    for module in (network_calls, rows):
        monkeypatch.setattr(module, "MAX_TILES_PER_CALL", 4)
    (row,) = sampler.prepare(resolve(request))
    assert row.call_rows == 4
    in_all = 2 * count_tiles(72, 80, row.stage.tile_size)
    calls = -(-in_all // 4)

    def out_of_memory(*arguments):
        raise torch.OutOfMemoryError("out of memory")

    def fails(module, name):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, out_of_memory)
            with pytest.raises(torch.OutOfMemoryError):
                sampler.denoise_step([row])

    for number in range(1, calls):
        fails(sampler.pipeline.unet, "forward")
        sampler.denoise_step([row])
        assert row.progress == pytest.approx(2 * number / in_all) and row.step == 0
    fails(network_calls, "apply_guidance")
    assert row.progress == 0 and row.call_rows == 4  # the step begins again
    for _ in range(calls):
        sampler.denoise_step([row])
    assert row.progress == 0.5 and row.step == 1
    for _ in range(calls):
        sampler.denoise_step([row])
    assert row.finished and row.progress == 1
    apart = np.asarray(sampler.decode(row), dtype=int) - np.asarray(undisturbed[0], dtype=int)
    assert abs(apart).max() <= 1  # sums over other numbers of rows round otherwise


def test_torch_threads_are_reserved_for_the_calling_thread():
    """Other threads compute alone: they start no threads, whose pool would slow the engine's down."""
    code = """
import os, threading, torch
from studio.models.latent.preview import to_rgb
from studio.models.loader import reserve_torch_threads, settle_torch_threads
torch.set_num_threads(3)
seen = []
def run(target):
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
def started(compute):
    before = set(os.listdir("/proc/self/task"))
    compute()
    seen.append(len(set(os.listdir("/proc/self/task")) - before))
def product():
    settle_torch_threads()
    torch.ones(512, 512) @ torch.ones(512, 512)
def engine():
    reserve_torch_threads()
    torch.ones(512, 512) @ torch.ones(512, 512)
    run(lambda: started(product))
    run(lambda: started(lambda: to_rgb(torch.ones(4, 64, 64), torch.ones(5, 3))))
    run(lambda: seen.append(torch.get_num_threads()))
    seen.append(torch.get_num_threads())
for _ in range(2):
    run(engine)
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, 0, 1, 3, 0, 0, 1, 3]"
