"""The upscaler as a component: one call for each doubling, with traces, in tiles, batched, saved and loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from studio.diffusion.conditioning import enlarge
from studio.diffusion.pipelines import StudioInpaintPipeline, StudioTextToImagePipeline, StudioUpscalePipeline
from studio.diffusion.pipelines.base import image_to_tensor, tensor_to_image
from studio.diffusion.unet import StudioUNet
from studio.engine.recorder import ByteBudget, TraceRecorder
from studio.engine.trace import Trace
from studio.lab.attention import inspection_pipeline, replay_step
from studio.lab.views.inspection import inspection_view
from tests.diffusion.helpers import noise_picture, paint_rows
from tests.diffusion.test_unet import UPSCALER


@pytest.fixture(scope="module")
def upscaler() -> StudioUNet:
    torch.manual_seed(3)
    unet = StudioUNet(**UPSCALER, window_size=32).eval()
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return unet


@pytest.fixture
def with_upscaler(pipe, upscaler) -> StudioTextToImagePipeline:
    return StudioTextToImagePipeline(**pipe.components | {"upscaler": upscaler})


def enlarge_by(upscaler: StudioUNet, picture: torch.Tensor, noise_level: float = 0.0) -> torch.Tensor:
    """Twice as large as (3, h, w), by the network alone."""
    enlarged = enlarge(picture[None].clamp(-1, 1), (2 * picture.shape[1], 2 * picture.shape[2]))
    sample = torch.cat([torch.zeros(1, 7, *enlarged.shape[2:]), enlarged], 1)
    with torch.no_grad():
        return -upscaler(
            sample, 999.0, None, task_ids=torch.tensor([2]), low_res_noise_level=torch.tensor([noise_level])
        ).sample[0]


@pytest.mark.parametrize("factor", [2, 4])
def test_super_resolution_is_one_call_of_the_upscaler_for_each_doubling(with_upscaler, upscaler, factor):
    picture = noise_picture(7, 6)
    pipe = StudioUpscalePipeline(**with_upscaler.components)
    (row,) = pipe.prepare([picture], factor, seeds=[0])
    assert row.num_steps == factor // 2
    result = image_to_tensor(paint_rows([row], pipe)[0])
    expected = image_to_tensor(picture)
    for _ in range(factor // 2):
        expected = enlarge_by(upscaler, expected)
    assert result.shape == (3, 6 * factor, 7 * factor)
    assert (result - expected.clamp(-1, 1)).abs().max() <= 3 / 255


def test_its_steps_are_steps_of_a_trace(with_upscaler):
    pipe = StudioUpscalePipeline(**with_upscaler.components)
    (row,) = pipe.prepare([noise_picture(8, 8)], 4, seeds=[1])
    for size in (16, 32):
        pipe.denoise_step([row])
        record = row.record
        assert record.x_t.shape == (3, size, size) and record.guidance_scale == 1
        eps = (record.x_t - record.alpha * record.pred_original_sample) / record.sigma
        assert abs(eps.std().item() - 1) < 0.1  # the noise that the stage began with
        torch.testing.assert_close(row.preview(), record.pred_original_sample)


def test_with_added_noise_the_unet_enlarges(with_upscaler, pipe):
    picture = noise_picture(8, 8)
    options = {"noise_level": 0.2, "seeds": [4]}
    with_it, without = (StudioUpscalePipeline(**each.components) for each in (with_upscaler, pipe))
    results = [paint_rows(each.prepare([picture], 2, **options), each)[0] for each in (with_it, without)]
    np.testing.assert_array_equal(*results)


def test_text_to_image_is_finished_by_the_upscaler(with_upscaler, upscaler, pipe):
    small = paint_rows(pipe.prepare(["a cat"], seeds=[5], size=16, num_inference_steps=3), pipe)[0]
    (row,) = with_upscaler.prepare(["a cat"], seeds=[5], size=64, num_inference_steps=3)
    assert row.num_steps == 5
    result = paint_rows([row], with_upscaler)[0]
    assert result.shape == (64, 64, 3)
    expected = enlarge_by(upscaler, enlarge_by(upscaler, image_to_tensor(small), 0.1).clamp(-1, 1), 0.1)
    whole = np.asarray(tensor_to_image(expected))
    interior = np.abs(result[:12, :12].astype(int) - whole[:12, :12])  # of one tile, away from its borders
    assert interior.max() <= 4
    (row,) = with_upscaler.prepare(["a cat"], seeds=[5], size=64, num_inference_steps=3, finishing_steps=1)
    assert row.num_steps == 4  # asked for: the U-Net, one stage of x4


def test_several_things_are_finished_on_their_canvas(with_upscaler):
    (row,) = with_upscaler.prepare(["a cat left of a boat"], seeds=[6], size=32, num_inference_steps=2)
    assert row.stage.layout is not None and row.num_steps == 3
    assert paint_rows([row], with_upscaler)[0].shape == (32, 32, 3)


def test_pictures_of_both_networks_share_steps_and_are_the_same_alone(with_upscaler):
    upscale = StudioUpscalePipeline(**with_upscaler.components)

    def prepare() -> list:
        rows = upscale.prepare([noise_picture(9, 8), noise_picture(16, 16)], 2, seeds=[1, 2])
        return rows + with_upscaler.prepare(["a cat", "a boat"], seeds=[3, 4], size=32, num_inference_steps=2)

    together = paint_rows(prepare(), with_upscaler)
    assert len({row.call_key for row in prepare()}) == 3  # two sizes of the upscaler, one of the U-Net
    for number, picture in enumerate(together):
        alone = paint_rows([prepare()[number]], with_upscaler)[0]
        assert np.abs(alone.astype(int) - picture).max() <= 1


def test_saved_is_loaded_with_and_without_it(with_upscaler, pipe, tmp_path):
    with_upscaler.save_pretrained(tmp_path / "with")
    pipe.save_pretrained(tmp_path / "without")
    loaded = StudioTextToImagePipeline.from_pretrained(tmp_path / "with", dtype=torch.float32)
    assert StudioTextToImagePipeline.from_pretrained(tmp_path / "without").upscaler is None
    assert all(map(torch.equal, loaded.upscaler.parameters(), with_upscaler.upscaler.parameters()))
    assert StudioInpaintPipeline.from_pipe(loaded).upscaler is loaded.upscaler
    picture = Image.new("RGB", (4, 4), "red")
    results = []
    for each in (loaded, with_upscaler):
        upscale = StudioUpscalePipeline.from_pipe(each)
        results.append(paint_rows(upscale.prepare([picture], seeds=[0]), upscale)[0])
    np.testing.assert_array_equal(*results)


def test_its_calls_can_be_looked_into(with_upscaler):
    pipe = inspection_pipeline(StudioUpscalePipeline(**with_upscaler.components))
    (row,) = pipe.prepare([noise_picture(20, 24)], 4, seeds=[1])
    recorder = TraceRecorder(row, ByteBudget())
    while not row.finished:
        pipe.denoise_step([row])
        recorder.record()
    trace = Trace.from_bytes(recorder.trace().to_bytes())
    for number, stage in enumerate(trace.stages):
        (step,) = stage
        assert stage.component == "upscaler"
        inspection = replay_step(pipe, "", stage, step)
        np.testing.assert_allclose(inspection.prediction, -step.x0, atol=0.05)  # a velocity where x_t is noise
        view = inspection_view(pipe, "", trace, number)
        assert view["words"] == [] and view["inputs"] == "enlarged picture 3" and len(view["levels"]) > 1
