"""The pipelines take what users of diffusers pass: arrays, masks, NumPy numbers, callbacks, dtypes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback, SDCFGCutoffCallback
from PIL import Image

from studio.diffusion.pipelines import StudioDenoisePipeline, StudioInpaintPipeline, StudioUpscalePipeline
from studio.diffusion.pipelines.arguments import to_pil_images, to_pil_masks
from tests.diffusion.helpers import generators, noise_picture

HOLE = np.zeros((16, 20), bool)
HOLE[4:9, 5:12] = True


def test_masks_in_every_form_are_the_same_mask():
    tensor = torch.from_numpy(HOLE)
    forms = [
        HOLE,
        HOLE.astype(np.uint8),
        HOLE.astype(np.int64),
        HOLE.astype(np.float32),
        HOLE.astype(np.uint8) * 255,
        HOLE[..., None],
        HOLE[None],
        tensor,
        tensor.byte(),
        tensor.long(),
        tensor.bfloat16(),
        tensor.half(),
        tensor[None].float(),
        tensor[None, None].float(),
        Image.fromarray(HOLE),
    ]
    for form in forms:
        (mask,) = to_pil_masks(form, "mask_image")
        assert np.array_equal(np.asarray(mask.convert("L")) == 255, HOLE), form
    for batch in (np.stack([HOLE, ~HOLE]), torch.stack([tensor, ~tensor]).float(), [HOLE, ~HOLE], [tensor, ~tensor]):
        first, second = to_pil_masks(batch, "mask_image")
        assert np.array_equal(np.asarray(first.convert("L")) == 255, HOLE)
        assert np.array_equal(np.asarray(second.convert("L")) == 255, ~HOLE)


def test_each_mask_of_a_batch_has_its_picture(pipe):
    inpaint = StudioInpaintPipeline(**pipe.components)
    images, masks = np.stack([np.zeros((16, 20, 3), np.float32)] * 2), torch.stack([torch.from_numpy(HOLE)] * 2)
    masks[1] = ~masks[1]
    together = inpaint("a cat", images, masks, num_inference_steps=2, generator=generators(0, 1)).images
    for i in range(2):
        alone = inpaint("a cat", images[i], masks[i], num_inference_steps=2, generator=generators(i)).images[0]
        assert np.abs(np.asarray(alone, int) - np.asarray(together[i], int)).max() <= 1
        outside = ~masks[i].numpy()
        assert not np.asarray(together[i])[outside].any()


def test_pictures_of_reduced_precision_are_taken():
    values = torch.rand(3, 4, 5)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        (picture,) = to_pil_images(values.to(dtype), "image")
        expected = (values.to(dtype).float().permute(1, 2, 0).numpy() * 255).round()
        assert np.array_equal(np.asarray(picture), expected.astype(np.uint8))


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 5, 3), (5, 0), (0, 4, 4, 3)])
def test_empty_arrays_are_named(shape):
    with pytest.raises(ValueError, match="image (has the shape|is missing).* at least one p"):
        to_pil_images(np.zeros(shape, np.uint8), "image")
    with pytest.raises(ValueError, match="mask_image (has the shape|is missing).* at least one p"):
        to_pil_masks(np.zeros(shape, np.uint8), "mask_image")


def test_whole_numbers_of_numpy_count_and_fractions_are_refused(pipe):
    images = pipe("a cat", num_images_per_prompt=np.int64(2), num_inference_steps=np.int32(1)).images
    assert len(images) == 2
    for value in (1.5, 2.0, "2", None, 0, -1, np.float32(2)):
        with pytest.raises(ValueError, match=f"num_inference_steps is {value}; it must be a whole number, 1 or more"):
            pipe("a cat", num_inference_steps=value)
        with pytest.raises(ValueError, match=f"num_images_per_prompt is {value}; it must be a whole number, 1 or more"):
            pipe("a cat", num_images_per_prompt=value)


def test_from_pipe_keeps_the_dtype(pipe):
    own = type(pipe)(**{name: copy.deepcopy(component) for name, component in pipe.components.items()})
    assert StudioInpaintPipeline.from_pipe(own).unet.dtype == torch.float32
    own.to(dtype=torch.bfloat16)
    inpaint = StudioInpaintPipeline.from_pipe(own)
    assert inpaint.unet.dtype == own.unet.dtype == inpaint.text_encoder.dtype == torch.bfloat16
    picture = inpaint("a cat", noise_picture(16, 16), np.ones((16, 16)), num_inference_steps=1).images[0]
    assert picture.size == (16, 16)
    assert StudioInpaintPipeline.from_pipe(own, dtype=torch.float32).unet.dtype == torch.float32


class Watch(PipelineCallback):
    tensor_inputs = ["pred_original_sample"]

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        assert list(callback_kwargs) == ["pred_original_sample"]
        self.seen = [*getattr(self, "seen", []), (step_index, pipeline.num_timesteps, pipeline.guidance_scale)]
        return callback_kwargs


def test_callbacks_of_diffusers_name_their_tensors(pipe):
    watch = Watch(cutoff_step_ratio=1.0)
    pipe("a cat", num_inference_steps=3, guidance_scale=2.0, size=16, callback_on_step_end=watch)
    assert watch.seen == [(i, 3, 2.0) for i in range(3)]


def paint(pipe, **options) -> np.ndarray:
    options = {"num_inference_steps": 4, "guidance_scale": 3.0, "size": 16} | options
    return pipe("a red cat", generator=generators(1), output_type="np", **options).images[0]


def test_a_callback_may_switch_guidance_off(pipe):
    """As diffusers' own callback does, and equal to guidance that acts in the first half of the times only."""
    cutoff = paint(pipe, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1))
    times = []
    paint(pipe, callback_on_step_end=lambda pipeline, index, time, tensors: times.append(time) or tensors)
    begin = (times[1] + times[2]) / 2 / (pipe.scheduler.config.num_train_timesteps - 1)
    assert np.array_equal(cutoff, paint(pipe, guidance_interval=(begin, 1.0)))
    assert not np.array_equal(cutoff, paint(pipe))
    several = MultiPipelineCallbacks([SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)])
    assert np.array_equal(cutoff, paint(pipe, callback_on_step_end=several))


def test_an_interrupt_ends_one_call_only(pipe):
    def stop(pipeline, index, time, tensors):
        pipeline._interrupt = True
        return tensors

    interrupted = paint(pipe, callback_on_step_end=stop)
    assert pipe.interrupt and not np.array_equal(interrupted, paint(pipe))
    assert not pipe.interrupt


def test_weights_may_be_stored_in_8_bits(pipe):
    """Layerwise casting rounds the weights alone: equal to a network whose weights were rounded before."""
    own, rounded = (copy.deepcopy(pipe.unet) for _ in range(2))
    own.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    stored = dict(own.named_parameters())
    for name, parameter in rounded.named_parameters():
        if stored[name].dtype == torch.float8_e4m3fn:
            parameter.data = parameter.data.to(torch.float8_e4m3fn).float()
    pictures = [paint(type(pipe)(**pipe.components | {"unet": unet})) for unet in (own, rounded)]
    assert sum(value.dtype == torch.float8_e4m3fn for value in stored.values()) > 10
    assert np.abs(pictures[0] - pictures[1]).max() <= 1 / 255


def test_embeddings_in_place_of_texts_paint_the_same(pipe):
    (embeds,), (negative,) = pipe.encode(["a red cat"])[0], pipe.encode(["a blue boat"])[0]
    by_text = paint(pipe, negative_prompt="a blue boat")
    by_embeddings = pipe(
        prompt_embeds=embeds[None],
        negative_prompt_embeds=negative[None],
        generator=generators(1),
        output_type="np",
        num_inference_steps=4,
        guidance_scale=3.0,
        size=16,
    ).images[0]
    assert np.array_equal(by_text, by_embeddings)
    upscale, picture = StudioUpscalePipeline(**pipe.components), noise_picture(8, 8)
    texts = upscale(picture, prompt="a red cat", generator=generators(2)).images[0]
    assert np.array_equal(texts, upscale(picture, prompt_embeds=embeds[None], generator=generators(2)).images[0])
    with pytest.raises(ValueError, match="prompt and prompt_embeds are both given"):
        pipe("a cat", prompt_embeds=embeds[None])
    with pytest.raises(ValueError, match="prompt_embeds is a Tensor; it must be a tensor .pictures, tokens, width."):
        pipe(prompt_embeds=embeds)


def test_latents_are_the_noise_of_the_first_stage(pipe):
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert np.array_equal(paint(pipe), paint(pipe, latents=noise))
    with pytest.raises(ValueError, match=r"latents are \(3, 8, 8\) each; they must be \(3, 16, 16\)"):
        paint(pipe, latents=noise[..., :8, :8])


def test_latent_output_is_the_last_sample(pipe):
    latents = pipe(
        "a red cat", num_images_per_prompt=2, size=16, generator=generators(1, 2), output_type="latent"
    ).images
    pictures = pipe("a red cat", num_images_per_prompt=2, size=16, generator=generators(1, 2), output_type="pt").images
    assert latents.shape == (2, 3, 16, 16)
    assert torch.equal(((latents.clamp(-1, 1) + 1) * 127.5).round() / 255, pictures)


def test_height_and_width_are_the_size(pipe):
    assert pipe("a cat", height=16, width=16, num_inference_steps=1).images[0].size == (16, 16)
    assert pipe("a cat", height=64, num_inference_steps=1).images[0].size == (64, 64)
    with pytest.raises(ValueError, match="width is 32, height 16 and size None; pictures from text are square"):
        pipe("a cat", height=16, width=32)


def test_each_pipeline_makes_several_pictures_of_a_prompt(pipe):
    image = noise_picture(8, 8)
    for kind in (StudioUpscalePipeline, StudioDenoisePipeline):
        several = kind(**pipe.components)(image, num_images_per_prompt=3, generator=generators(1, 2, 3)).images
        alone = kind(**pipe.components)(image, generator=generators(2)).images[0]
        assert len(several) == 3
        assert np.abs(np.asarray(several[1], int) - np.asarray(alone, int)).max() <= 1


def test_inpainting_may_begin_from_what_is_in_the_hole(pipe):
    """At a small strength the run begins near its end, so the hole keeps more of its content."""
    inpaint, image = StudioInpaintPipeline(**pipe.components), noise_picture(16, 16)
    hole = np.zeros((16, 16), bool)
    hole[4:12, 4:12] = True
    before, distances = np.asarray(image, int), []
    for strength in (0.1, 1.0):
        after = inpaint("", image, hole, num_inference_steps=10, strength=strength, generator=generators(0)).images[0]
        after = np.asarray(after, int)
        assert np.array_equal(after[~hole], before[~hole])
        distances.append(np.abs(after - before)[hole].mean())
    assert distances[0] < 0.7 * distances[1]
    for strength in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"strength is {strength}; it must be above 0 and at most 1"):
            inpaint("", image, hole, strength=strength)
