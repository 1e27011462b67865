"""Super-resolution: of any size, true to the small picture, without seams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps

import studio.diffusion.tiling as tiling
import studio.imaging.tiles as tiles
from studio.diffusion.conditioning import back_project, match_colors
from studio.diffusion.pipelines import StudioUpscalePipeline
from studio.diffusion.pipelines.base import image_to_tensor
from studio.imaging.tiles import place_tiles
from tests.diffusion.helpers import generators, noise_picture

MODEL = Path(__file__).parents[2] / "assets" / "model"


@pytest.fixture
def upscale(pipe):
    return StudioUpscalePipeline(**pipe.components)


def test_upscaling_any_size(pipe):
    upscale = StudioUpscalePipeline(**pipe.components)
    for size in [(1, 1), (16, 16), (33, 9), (50, 40)]:
        for factor in (2, 4):
            result = upscale(noise_picture(*size), factor, num_inference_steps=1, generator=generators(0)).images[0]
            assert result.size == (size[0] * factor, size[1] * factor)
    with pytest.raises(ValueError, match="scale_factor is 3; it must be 2 or 4"):
        upscale(noise_picture(8, 8), 3)
    with pytest.raises(ValueError, match="noise_level is 2"):
        upscale(noise_picture(8, 8), 2, noise_level=2)


def test_an_enlargement_shrinks_to_the_picture_it_is_of(pipe):
    upscale = StudioUpscalePipeline(**pipe.components)
    small = noise_picture(20, 24).resize((20, 24)).point(lambda value: 64 + value // 2)  # nothing near the ends
    for factor in (2, 4):
        large = np.asarray(upscale(small, factor, generator=generators(0)).images[0], dtype=float)
        back = large.reshape(24, factor, 20, factor, 3).mean(axis=(1, 3))
        assert np.abs(back - np.asarray(small)).mean() < 4  # 8-bit levels


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [(16, 16), (37, 23), (50, 9)])
def test_an_enlargement_shrinks_to_its_input_within_one_level(upscale, factor, size):
    picture = noise_picture(*size)
    (row,) = upscale.prepare([picture], factor, seeds=[0])
    while not row.finished:
        upscale.denoise_step([row])
    low = row.output.low_res
    back = torch.nn.functional.avg_pool2d(back_project(row.sample[None].clamp(-1, 1), low), factor)
    assert (back - low).square().mean().sqrt() / 2 <= 1 / 255
    large = np.asarray(upscale.decode(row), dtype=float)
    mean = large.reshape(size[1], factor, size[0], factor, 3).mean(axis=(1, 3))
    assert np.sqrt(np.square(mean - np.asarray(picture)).mean()) <= 1.3  # levels, after rounding to eight bits


@pytest.mark.parametrize("size", [(16, 16), (37, 23), (5, 64)])
@pytest.mark.parametrize("factor", [2, 4, 32 / 15])
def test_match_colors_removes_a_color_cast(size, factor):
    """At any size and ratio: of a uniform picture, and of noise."""
    low = image_to_tensor(noise_picture(*size))
    height, width = (round(length * factor) for length in low.shape[1:])
    cast = torch.tensor([-0.3, 0.1, 0.2])[:, None, None]
    even = match_colors(torch.full_like(low, 0.1), torch.full((3, height, width), 0.1) + cast)
    assert torch.allclose(even, torch.tensor(0.1), atol=1e-5)
    assert torch.allclose(match_colors(low, low + cast), low, atol=1e-5)


def test_match_colors_keeps_fine_detail():
    low = torch.zeros(3, 8, 64)
    checks = (torch.arange(16)[:, None] + torch.arange(128)) % 2 * 0.2 - 0.1  # finer than what is held
    faded = checks.repeat(3, 1, 1)
    faded[..., :64] += 0.4
    held = match_colors(low, faded)
    assert torch.allclose(held[..., :56], checks[:, :56], atol=1e-5)  # but for the blocks at the border
    assert torch.allclose(held[..., 72:], checks[:, 72:], atol=1e-5)


def test_upscaling_keeps_the_painted_colors(pipe):
    (row,) = pipe.prepare(["a cat"], seeds=[0], size=64, num_inference_steps=2)
    while not row.steps_before:
        before = row.stage
        pipe.denoise_step([row])
    small = before.sample.clamp(-1, 1)
    while not row.finished:
        pipe.denoise_step([row])
        assert torch.allclose(row.pred_original_sample.mean((1, 2)), small.mean((1, 2)), atol=1e-5)


def test_an_enlargement_with_noise_keeps_the_colors(upscale):
    picture = noise_picture(32, 16)
    (row,) = upscale.prepare([picture], 2, seeds=[0], noise_level=0.3)
    while not row.finished:
        upscale.denoise_step([row])
        assert torch.allclose(row.pred_original_sample.mean((1, 2)), image_to_tensor(picture).mean((1, 2)), atol=1e-5)


def test_alpha_is_enlarged_by_lanczos(upscale):
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    picture = Image.fromarray(values)
    for options, size in (({"scale_factor": 2}, (48, 40)), ({"scale_factor": 4, "size": (53, 61)}, (53, 61))):
        large = upscale(picture, num_inference_steps=1, generator=generators(0), **options).images[0]
        assert large.mode == "RGBA" and large.size == size
        assert large.getchannel("A") == picture.getchannel("A").resize(size, Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def bundled():
    upscale = StudioUpscalePipeline.from_pretrained(MODEL)
    upscale.set_progress_bar_config(disable=True)
    return upscale


def texture(side: int) -> Image.Image:
    """Return colored blobs, of the same kind everywhere."""
    return ImageOps.autocontrast(noise_picture(side, side).filter(ImageFilter.GaussianBlur(2)))


def test_two_tilings_agree(bundled, monkeypatch):
    small = texture(80)
    first = np.asarray(bundled(small, 2, generator=generators(0)).images[0], dtype=float)
    for module in (tiling, tiles):
        monkeypatch.setattr(module, "place_tiles", lambda length, size, _: place_tiles(length, size, size // 2))
    second = np.asarray(bundled(small, 2, generator=generators(0)).images[0], dtype=float)
    error = np.square(first - second).mean()
    assert 0 < error and 10 * np.log10(255**2 / error) >= 35


def test_no_seam_is_measurable(bundled):
    """Differences across tile borders are no larger than elsewhere between two pixels of the small picture."""
    large = np.asarray(bundled(texture(128), 2, generator=generators(0)).images[0], dtype=float)
    starts = place_tiles(256, 64, 16)
    borders = sorted({start for start in starts[1:]} | {start + 64 for start in starts[:-1]})
    for values in (large, large.transpose(1, 0, 2)):
        steps = np.abs(np.diff(values, axis=1)).mean((0, 2))  # steps[x]: from column x to column x + 1
        at = np.array([steps[border - 1] for border in borders]).mean()
        elsewhere = np.array([steps[x - 1] for x in range(2, 256, 2) if x not in borders]).mean()
        assert at == pytest.approx(elsewhere, rel=0.1)
