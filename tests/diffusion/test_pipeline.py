"""The pipelines: batched = single, saved = loaded, every sampler, every task, and what is refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers import (
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    DDIMScheduler,
    DiffusionPipeline,
    LMSDiscreteScheduler,
    PNDMScheduler,
)
from diffusers.hooks import apply_group_offloading
from PIL import Image

from studio.diffusion.conditioning import Task, enlarge
from studio.diffusion.pipelines import (
    StudioInpaintPipeline,
    StudioTextToImagePipeline,
    StudioUpscalePipeline,
)
from studio.diffusion.pipelines.base import image_to_tensor, tensor_to_image
from studio.diffusion.schedulers.samplers import SAMPLERS, make_sampler
from studio.training.export import save_model
from tests.diffusion.helpers import generators, noise_picture, paint_rows

PROMPTS = ["a red apple", "a blue cat", "", "a house"]


def test_a_picture_of_a_batch_equals_the_same_seed_alone(pipe):
    together = paint_rows(pipe.prepare(PROMPTS, num_inference_steps=5, seeds=[3, 1, 4, 1]), pipe)
    for prompt, seed, picture in zip(PROMPTS, [3, 1, 4, 1], together, strict=True):
        (alone,) = paint_rows(pipe.prepare([prompt], num_inference_steps=5, seeds=[seed]), pipe)
        assert np.abs(alone.astype(int) - picture).max() <= 1


def test_call_equals_the_loop_over_denoise_step(pipe):
    called = pipe("a red apple", num_inference_steps=4, generator=generators(7), output_type="np").images
    (looped,) = paint_rows(pipe.prepare(["a red apple"], num_inference_steps=4, seeds=[7]), pipe)
    assert np.array_equal((called[0] * 255).round().astype(np.uint8), looped)


@pytest.mark.parametrize("sides", [(64, 16), (16, 64)])
def test_pictures_of_several_sizes_equal_each_alone(pipe, sides):
    """A larger hole is upscaled after it is filled: it takes more steps."""
    inpaint = StudioInpaintPipeline(**pipe.components)
    pictures = [noise_picture(side, side) for side in sides]
    masks = [Image.new("L", picture.size, 255) for picture in pictures]
    counted = []

    def watch(pipe, step, time, given):
        counted.append(len(given["latents"]))
        return given

    options = {"image": pictures, "mask_image": masks, "num_inference_steps": 2}
    both = inpaint(["a cat", "a dog"], generator=generators(1, 2), callback_on_step_end=watch, **options).images
    assert counted[0] == 2 and counted[-1] == 1 and [one.size for one in both] == [p.size for p in pictures]
    for i, words in enumerate(("a cat", "a dog")):
        alone = {name: value if name == "num_inference_steps" else value[i] for name, value in options.items()}
        (one,) = inpaint(words, generator=generators(i + 1), **alone).images
        assert np.abs(np.asarray(one).astype(int) - np.asarray(both[i])).max() <= 1
    with pytest.raises(ValueError, match="several sizes"):
        inpaint(["a cat", "a dog"], output_type="np", **options)


def test_a_callback_sees_canvases_of_several_sizes(pipe):
    seen = []
    pipe(
        ["a cat", "a cat left of a dog"],
        num_inference_steps=2,
        callback_on_step_end=lambda pipe, step, time, given: seen.append([x.shape for x in given["latents"]]) or {},
    )
    assert len(set(seen[0])) == 2


def test_rows_of_all_tasks_samplers_and_step_counts_share_calls(pipe):
    """Together, each picture equals the picture alone."""
    inpaint, upscale = StudioInpaintPipeline(**pipe.components), StudioUpscalePipeline(**pipe.components)
    mask = Image.new("L", (40, 32))
    mask.paste(255, (8, 8, 24, 24))

    def rows():
        return [
            *pipe.prepare(["a red apple"], num_inference_steps=6, guidance_scale=4, seeds=[1]),
            *pipe.prepare(["a cat"], num_inference_steps=3, guidance_interval=(0.2, 0.7), seeds=[2], sampler="unipc"),
            *pipe.prepare(["a boat"], num_inference_steps=4, seeds=[3], sampler="ddpm"),
            *pipe.prepare(["a boat"], num_inference_steps=3, seeds=[3], sampler="heun"),
            *inpaint.prepare(["a cat"], [noise_picture(40, 32)], [mask], num_inference_steps=5, seeds=[4]),
            *upscale.prepare([noise_picture(24, 20)], 2, seeds=[5], noise_level=0.1),
        ]

    together = paint_rows(rows(), pipe)
    alone = [paint_rows([row], pipe)[0] for row in rows()]
    assert [picture.shape for picture in together] == [(32, 32, 3)] * 4 + [(32, 40, 3), (40, 48, 3)]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "studio"])
def test_stock_samplers_run_as_a_diffusers_user_sets_them(pipe, name):
    """`pipe.scheduler = SomeScheduler.from_config(...)` paints what `sampler=name` paints."""

    named = paint_rows(pipe.prepare(["a cat"], num_inference_steps=4, seeds=[1], sampler=name), pipe)
    pipe.scheduler = make_sampler(name, pipe.scheduler.config)
    own = paint_rows(pipe.prepare(["a cat"], num_inference_steps=4, seeds=[1]), pipe)
    assert np.array_equal(named[0], own[0])
    assert named[0].std() > 1


def test_a_picture_is_upscaled_to_the_size_asked_for(pipe):
    """By super-resolution, in the same network calls; the first stage is the same."""
    assert pipe.sample_size == 16 and pipe.default_size == 32 and pipe.sizes == (16, 32, 64, 128, 256)
    sizes = pipe.sizes[:3]
    few = [pipe.prepare(["a cat"], num_inference_steps=4, seeds=[5], size=size)[0].num_steps for size in sizes]
    assert few == [4, 5, 5]  # and few to finish
    options = {"num_inference_steps": 3, "finishing_steps": 2}
    rows = [pipe.prepare(["a cat"], seeds=[5], size=size, **options)[0] for size in sizes]
    assert [row.num_steps for row in rows] == [3, 5, 5]
    for number in range(1, 6):
        pipe.denoise_step([row for row in rows if not row.finished])
        assert [row.step for row in rows] == [min(number, 3), number, number]
        if number == 3:
            small = [row.pred_original_sample for row in rows]
    for other in small[1:]:
        torch.testing.assert_close(other, small[0], atol=1e-4, rtol=0)  # calls of other sizes round differently
    assert [pipe.decode(row).size for row in rows] == [(16, 16), (32, 32), (64, 64)]
    with pytest.raises(ValueError, match="size is 100; it must be one of 16, 32, 64, 128, 256"):
        pipe.prepare(["a cat"], size=100)


def test_one_finishing_step_begins_half_way_from_the_enlargement(pipe):
    options = {"num_inference_steps": 1, "seeds": [5]}
    (small,), (row,) = pipe.prepare(["a cat"], size=16, **options), pipe.prepare(["a cat"], size=64, **options)
    pipe.denoise_step([small])
    pipe.denoise_step([row])
    assert (row.step, row.num_steps, row.stage.task) == (1, 2, Task.SUPER_RESOLUTION)
    alpha, sigma = pipe.scheduler.schedule.alpha_sigma(torch.tensor(row.stage.stepper.times[0]))
    noise = (row.sample - alpha * enlarge(small.sample[None].clamp(-1, 1), (64, 64))[0]) / sigma
    assert 0.5 < sigma < 0.9
    assert abs(noise.mean()) < 4 * noise.numel() ** -0.5 and noise.std() == pytest.approx(1, abs=0.03)


def test_saved_is_loaded(pipe, tmp_path):
    """By every loader of diffusers, for every component, in float32 though stored as fp16."""
    from tests.diffusion.conftest import random_pipeline

    save_model(random_pipeline(), tmp_path)
    for loader, expected in (
        (DiffusionPipeline, StudioTextToImagePipeline),
        (AutoPipelineForText2Image, StudioTextToImagePipeline),
        (AutoPipelineForInpainting, StudioInpaintPipeline),
    ):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is expected
        for part in (loaded.unet, loaded.text_encoder):
            assert {p.dtype for p in part.parameters()} == {torch.float32}
        for part in ("unet", "text_encoder"):
            mine = getattr(pipe, part).state_dict()
            for name, value in getattr(loaded, part).state_dict().items():
                assert torch.equal(value, mine[name].half().float()), name
        given = {key: value for key, value in pipe.unet.config.items() if not key.startswith("_")}
        assert {key: type(given[key])(loaded.unet.config[key]) for key in given} == given
        assert loaded.tokenizer("a red Apple!").input_ids == pipe.tokenizer("a red Apple!").input_ids
        same = {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}
        assert {key: loaded.scheduler.config[key] for key in same} == same
    again = tmp_path / "again"
    loaded = StudioTextToImagePipeline.from_pretrained(tmp_path)
    loaded.save_pretrained(again)
    second = StudioTextToImagePipeline.from_pretrained(again)
    for name, value in second.unet.state_dict().items():
        assert torch.equal(value, loaded.unet.state_dict()[name]), name
    pictures = [
        np.asarray(each("a cat", num_inference_steps=3, generator=generators(5)).images[0], dtype=int)
        for each in (loaded, second)
    ]
    assert abs(pictures[0] - pictures[1]).max() <= 1  # sums round as the weights lie in memory
    half = DiffusionPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {half.unet.dtype, half.text_encoder.dtype} == {torch.bfloat16}
    assert half("a cat", num_inference_steps=2).images[0].size == (32, 32)


def test_a_model_folder_of_an_earlier_version_is_loaded(pipe, tmp_path):
    """Its index names the scheduler's module as it was called then."""
    from tests.diffusion.conftest import random_pipeline

    save_model(random_pipeline(), tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["scheduler"] = ["studio.diffusion.scheduler", "StudioScheduler"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded.scheduler) is type(pipe.scheduler)


def test_pipelines_share_components(pipe):
    other = StudioInpaintPipeline.from_pipe(pipe)
    assert other.unet is pipe.unet and other.text_encoder is pipe.text_encoder
    assert StudioUpscalePipeline.from_pipe(other).unet is pipe.unet


@pytest.mark.parametrize("offload", ["leaf_level", "block_level", "sequential", "model"])
def test_offloaded_it_computes_where_diffusers_says(pipe, offload):
    own = copy.deepcopy(pipe)
    assert own._execution_device == DiffusionPipeline._execution_device.fget(own) == torch.device("cpu")
    if offload.endswith("level"):
        place = torch.device("cpu")
        apply_group_offloading(own.unet, place, offload_type=offload, num_blocks_per_group=1)
        own.unet.stem.to("meta")  # as where it lies elsewhere until it is needed
    else:
        place = torch.device("meta")
        {"sequential": cpu_offload, "model": cpu_offload_with_hook}[offload](own.unet, place)
    assert own._execution_device == place == DiffusionPipeline._execution_device.fget(own)


def test_output_types_and_several_pictures(pipe):
    images = pipe(["a cat", "a boat"], num_images_per_prompt=2, num_inference_steps=1, output_type="pt").images
    assert images.shape == (4, 3, 32, 32) and 0 <= images.min() and images.max() <= 1
    assert len(pipe("a cat", num_inference_steps=1, return_dict=False)[0]) == 1
    with pytest.raises(ValueError, match="output_type is 'jpg'"):
        pipe("a cat", num_inference_steps=1, output_type="jpg")
    with pytest.raises(ValueError, match="num_images_per_prompt is 0"):
        pipe("a cat", num_images_per_prompt=0)
    with pytest.raises(ValueError, match="num_inference_steps is 0"):
        pipe("a cat", num_inference_steps=0)


def test_every_output_type_is_accepted_as_input(pipe):
    """As Pillow pictures, arrays or tensors: the same pixels."""
    upscale = StudioUpscalePipeline(**pipe.components)
    results = []
    for kind in ("pil", "np", "pt"):
        given = pipe(["a cat", "a dog"], num_inference_steps=1, generator=generators(0, 1), output_type=kind).images
        for same in (given, list(given)):
            results.append([np.asarray(large) for large in upscale(same, generator=generators(0, 1)).images])
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompt": []}, r"prompt is \[\]; it must be text"),
        ({"prompt": "a cat", "negative_prompt": Image.new("RGB", (8, 8))}, "negative_prompt is .*; it must be text"),
        ({"prompt": "a cat", "image": np.ones((8, 8, 2))}, r"image is a ndarray \(8, 8, 2\); it must be"),
        (
            {"prompt": "a cat", "image": np.full((8, 8, 3), 255.0)},
            r"values from 255.0 to 255.0; they must be in",
        ),
        ({"prompt": "a cat", "image": torch.full((3, 8, 8), torch.nan)}, "values from nan to nan"),
        ({"prompt": "a cat", "image": []}, "image is missing"),
        ({"callback_on_step_end_tensor_inputs": ["timesteps"]}, "it may have latents, pred_original_sample"),
    ],
)
def test_arguments_that_do_not_fit_are_named(pipe, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        pipe(num_inference_steps=1, **arguments)


def test_several_things_are_painted_under_autocast(pipe):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (picture,) = pipe("two cats", num_inference_steps=2, generator=generators(0)).images
    assert np.asarray(picture).std() > 1


@pytest.mark.parametrize("sampler", [LMSDiscreteScheduler, PNDMScheduler])
def test_samplers_that_need_their_first_steps_refuse_image_to_image(pipe, sampler):
    scheduler = sampler.from_config(pipe.scheduler.config)
    options = {"seeds": [0], "sampler": scheduler, "images": [noise_picture(16, 16)]}
    with pytest.raises(ValueError, match=f"{sampler.__name__} needs the steps before"):
        pipe.prepare(["a cat"], strength=0.3, **options)
    assert pipe.prepare(["a cat"], strength=1.0, **options)


def test_a_schedule_that_ends_in_pure_noise_stays_finite(pipe):
    """DDIM whose last alpha is 0 (arXiv 2305.08891, algorithm 1): as finite as our own."""
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    (row,) = pipe.prepare(["a cat"], seeds=[0], num_inference_steps=3, sampler=scheduler, size=16)
    assert np.isfinite(paint_rows([row], pipe)[0]).all()


def test_a_callback_sees_each_step_may_change_it_and_may_stop(pipe):
    seen = []

    def watch(pipeline, number, time, tensors):
        seen.append((number, tensors["latents"].shape, tensors["pred_original_sample"].shape))
        if number == 2:
            pipeline._interrupt = True
        return {"latents": torch.zeros_like(tensors["latents"])}

    result = pipe(
        "a cat",
        num_inference_steps=6,
        callback_on_step_end=watch,
        callback_on_step_end_tensor_inputs=["latents", "pred_original_sample"],
    )
    assert seen == [(i, (1, 3, 16, 16), (1, 3, 16, 16)) for i in range(3)]
    assert result.images[0].size == (32, 32)  # scaled up, as a preview is


def test_truncated_returns_the_unread_end_of_a_prompt(pipe):
    assert pipe.truncated("a red apple") == ""
    long = "a red apple " * 30 + "the end"
    lost = pipe.truncated(long)
    assert long.endswith(lost) and lost.endswith("the end")
    kept = long[: -len(lost)].strip()
    assert pipe.truncated(kept) == ""
    one = paint_rows(pipe.prepare([long], num_inference_steps=1, seeds=[0]), pipe)[0]
    other = paint_rows(pipe.prepare([kept], num_inference_steps=1, seeds=[0]), pipe)[0]
    assert np.array_equal(one, other)


def test_vocabulary_is_read_from_beside_the_weights(pipe, tmp_path):
    assert pipe.vocabulary is None
    from tests.diffusion.conftest import random_pipeline

    save_model(random_pipeline(), tmp_path)
    (tmp_path / "vocabulary.json").write_text(json.dumps({"concepts": ["cat"]}))
    assert DiffusionPipeline.from_pretrained(tmp_path).vocabulary == {"concepts": ["cat"]}


def test_image_to_tensor_and_back_is_exact():
    picture = noise_picture(16, 16)
    assert np.array_equal(np.asarray(tensor_to_image(image_to_tensor(picture))), np.asarray(picture))


def test_a_finished_row_refuses_another_step(pipe):
    rows = pipe.prepare(["a cat"], num_inference_steps=1, seeds=[0], size=16)
    with pytest.raises(ValueError, match="no picture yet"):
        pipe.decode(rows[0])
    pipe.denoise_step(rows)
    with pytest.raises(ValueError, match="finished"):
        pipe.denoise_step(rows)


def test_a_large_picture_is_upscaled_in_stages(pipe):
    (row,) = pipe.prepare(["a cat"], num_inference_steps=1, seeds=[0], size=256, finishing_steps=1)
    shapes = []
    while not row.finished:
        shapes.append(row.sample.shape[1])
        pipe.denoise_step([row])
    assert shapes == [16, 64, 256] and pipe.decode(row).size == (256, 256)
