"""The scheduler as a part of diffusers: configs to and from other schedulers, on disk, in stock pipelines."""

import json

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SCALED_LINEAR = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
STOCK = [
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    DEISMultistepScheduler,
    PNDMScheduler,
]


def studio(**overrides) -> StudioScheduler:
    return StudioScheduler.from_config({**STUDIO_CONFIG, **overrides})


# ---- configs ----


def public(config) -> dict:
    return {key: value for key, value in config.items() if not key.startswith("_")}


@pytest.fixture(params=[False, True], ids=["not registered", "registered"])
def registered(request, monkeypatch):
    """diffusers treats a class that it knows by name a little differently: both must do."""
    if request.param:
        monkeypatch.setattr(diffusers, "StudioScheduler", StudioScheduler, raising=False)
    else:
        monkeypatch.delattr(diffusers, "StudioScheduler", raising=False)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("stock", STOCK)
@pytest.mark.parametrize("config", [STUDIO_CONFIG, {}, {**SCALED_LINEAR, "steps_offset": 1}])
def test_our_config_survives_the_way_to_a_stock_scheduler_and_back(stock, config):
    ours = StudioScheduler.from_config(config)
    theirs = stock.from_config(ours.config)
    for key in public(ours.config).keys() & public(stock().config).keys():
        assert theirs.config[key] == ours.config[key], key
    torch.testing.assert_close(theirs.alphas_cumprod, ours.alphas_cumprod, rtol=0, atol=0)
    back = StudioScheduler.from_config(theirs.config)
    assert public(back.config).items() >= public(ours.config).items()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("stock", STOCK)
@pytest.mark.parametrize("config", [{}, {**COSINE, "timestep_spacing": "trailing", "steps_offset": 1}])
def test_a_stock_config_survives_the_way_to_ours_and_back(stock, config):
    """A stock scheduler's own defaults too, which differ by class: Heun's betas, DDIM's spacing."""
    theirs = stock(**config)
    ours = StudioScheduler.from_config(theirs.config)
    assert public(ours.config).items() >= public(theirs.config).items()
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=0, atol=0)
    back = stock.from_config(ours.config)
    assert public(back.config).items() >= public(theirs.config).items()


def test_saved_is_loaded(tmp_path):
    studio(solver_order=3).save_pretrained(tmp_path)
    loaded = StudioScheduler.from_pretrained(tmp_path)
    assert public(loaded.config) == {**STUDIO_CONFIG, "solver_order": 3}
    assert torch.equal(loaded.plan(7).b, studio(solver_order=3).plan(7).b)
    assert DDIMScheduler.from_pretrained(tmp_path).config.clip_sample is False  # by any class, diffusers' way
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert saved["_class_name"] == "StudioScheduler" and saved.items() >= {"beta_schedule": "squaredcos_cap_v2"}.items()


# ---- inside stock pipelines ----


@pytest.fixture(scope="module")
def stable_diffusion():
    """Components of a tiny random Stable Diffusion, built from configs."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "b</w>": 3, "a": 4, "b": 5}
    text_config = CLIPTextConfig(
        vocab_size=6,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return {
        "unet": unet.eval(),
        "vae": vae.eval(),
        "text_encoder": CLIPTextModel(text_config).eval(),
        "tokenizer": CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8),
        "safety_checker": None,
        "feature_extractor": None,
    }


SD = {**SCALED_LINEAR, "steps_offset": 1, "timestep_spacing": "leading", "prediction_type": "epsilon"}


def pictures(pipeline_class, components: dict, scheduler, **arguments) -> torch.Tensor:
    pipe = pipeline_class(**components, scheduler=scheduler, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        "a b", num_inference_steps=8, guidance_scale=4.0, output_type="pt",
        generator=torch.Generator().manual_seed(0), **arguments,
    ).images  # fmt: skip


def test_runs_inside_stable_diffusion_as_its_own_scheduler_does(stable_diffusion):
    pipeline = diffusers.StableDiffusionPipeline
    ours = pictures(pipeline, stable_diffusion, StudioScheduler(**SD))
    theirs = pictures(pipeline, stable_diffusion, DPMSolverMultistepScheduler(**SD))
    assert ours.shape == (1, 3, 16, 16) and ours.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_runs_inside_stable_diffusion_image_to_image(stable_diffusion):
    pipeline, image = diffusers.StableDiffusionImg2ImgPipeline, torch.linspace(0, 1, 768).view(1, 3, 16, 16)
    ours = pictures(pipeline, stable_diffusion, StudioScheduler(**SD), image=image, strength=0.6)
    theirs = pictures(pipeline, stable_diffusion, DPMSolverMultistepScheduler(**SD), image=image, strength=0.6)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_a_saved_stable_diffusion_loads_with_it(stable_diffusion, tmp_path):
    pipeline = diffusers.StableDiffusionPipeline
    pipeline(**stable_diffusion, scheduler=StudioScheduler(**SD), requires_safety_checker=False).save_pretrained(
        tmp_path
    )
    scheduler = pipeline.from_pretrained(tmp_path, requires_safety_checker=False, safety_checker=None).scheduler
    assert type(scheduler) is StudioScheduler
    assert public(scheduler.config).items() >= SD.items()
