"""The bundled weights: found by every loader, painting what was asked for, alike through every sampler."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForInpainting, AutoPipelineForText2Image, DiffusionPipeline

import studio.diffusion  # noqa: F401  registers with diffusers
from studio.diffusion.core import from_pil
from studio.diffusion.pipeline import StudioInpaintPipeline, StudioTextToImagePipeline, StudioUpscalePipeline
from studio.diffusion.samplers import SAMPLERS
from studio.diffusion.scheduler import STUDIO_CONFIG, StudioScheduler
from studio.diffusion.tables import fingerprint
from studio.training.scenes import GROUNDS, default_prompt, with_article

MODEL = Path(__file__).resolve().parents[1] / "assets" / "model"
PROMPTS = [f"a red apple, flat style, on a {ground} background" for ground in ("white", "blue", "black", "yellow")]


@pytest.fixture(scope="module")
def bundled():
    pipe = StudioTextToImagePipeline.from_pretrained(MODEL)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def painted(pipe, prompts, seeds, **options) -> torch.Tensor:
    """(B, 3, H, W) in [-1, 1]."""
    rows = pipe.prepare(prompts, seeds=seeds, **options)
    while not rows[0].finished:
        pipe.denoise_step(rows)
    return torch.stack([from_pil(pipe.decode(row)) for row in rows])


@pytest.mark.parametrize(
    ("loader", "expected"),
    [
        (DiffusionPipeline, StudioTextToImagePipeline),
        (AutoPipelineForText2Image, StudioTextToImagePipeline),
        (AutoPipelineForInpainting, StudioInpaintPipeline),
    ],
)
def test_every_loader_finds_it_in_float32(loader, expected):
    pipe = loader.from_pretrained(MODEL)
    assert type(pipe) is expected
    assert {p.dtype for part in (pipe.unet, pipe.text_encoder) for p in part.parameters()} == {torch.float32}


def test_its_config_states_every_value_of_the_schedule(bundled):
    saved = json.loads((MODEL / "scheduler" / "scheduler_config.json").read_text())
    assert {key: saved.get(key) for key in STUDIO_CONFIG} == {
        **STUDIO_CONFIG,
        "solver_tables": saved.get("solver_tables"),
    }
    assert type(bundled.scheduler) is StudioScheduler


def test_its_solver_tables_were_fitted_to_its_weights(bundled):
    tables = bundled.scheduler.tables
    assert not tables.tables or tables.model == fingerprint(bundled.unet)


def test_it_keeps_its_budget(bundled):
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert max(path.stat().st_size for path in weights) <= 15e6
    assert sum(path.stat().st_size for path in files) <= 32e6
    in_unet = sum(p.numel() for p in bundled.unet.parameters())
    assert in_unet <= 12e6
    assert in_unet + sum(p.numel() for p in bundled.text_encoder.parameters()) <= 16e6


def test_the_ground_is_the_one_asked_for(bundled):
    """By the picture's border, whose nearest named colour is counted."""
    concepts = [concept["name"] for concept in bundled.vocabulary["concepts"]]
    grounds = bundled.vocabulary["grounds"] * 2
    prompts = [
        default_prompt(with_article(concepts[i * 13 % len(concepts)]), "flat", ground)
        for i, ground in enumerate(grounds)
    ]
    pictures = (painted(bundled, prompts, range(len(prompts))) + 1) / 2
    border = torch.cat([pictures[:, :, :2].flatten(2), pictures[:, :, -2:].flatten(2)], dim=2).median(dim=2).values
    colours = torch.tensor([GROUNDS[name] for name in grounds[:10]])
    nearest = torch.cdist(border, colours).argmin(1)
    assert (nearest == torch.tensor([grounds[:10].index(name) for name in grounds])).float().mean() >= 0.9
    assert pictures.std(dim=(2, 3)).mean() > 0.05  # nor is it flat


def test_a_picture_of_a_batch_is_the_picture_alone(bundled):
    together = painted(bundled, PROMPTS, [5, 6, 7, 8])
    for i, prompt in enumerate(PROMPTS):
        assert (painted(bundled, [prompt], [5 + i])[0] - together[i]).abs().max() <= 2 / 255 + 1e-6  # one 8-bit level


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("studio", "ddpm")])
def test_deterministic_samplers_agree(bundled, name):
    ours = painted(bundled, PROMPTS, range(4), num_inference_steps=50, size=bundled.sample_size)
    theirs = painted(bundled, PROMPTS, range(4), num_inference_steps=50, size=bundled.sample_size, sampler=name)
    assert (ours - theirs).square().mean().sqrt() <= 0.05


def test_ddpm_paints_the_same_thing(bundled):
    """Its noise makes another picture: the colours of the ground and of the thing must be those asked for."""
    pictures = painted(bundled, PROMPTS, range(4), num_inference_steps=100, sampler="ddpm")
    expected = torch.tensor([GROUNDS[name] for name in ("white", "blue", "black", "yellow")]) * 2 - 1
    assert (pictures[:, :, :3].flatten(2).median(2).values - expected).abs().max() < 0.25
    middle = pictures[:, :, 24:40, 24:40].mean(dim=(2, 3))
    assert (middle[:, 0] > middle[:, 2]).all()  # red, on every ground


def test_the_other_tasks_paint(bundled):
    from PIL import Image

    picture = bundled.decode(_finished(bundled))
    mask = Image.new("L", picture.size)
    mask.paste(255, (20, 20, 44, 44))
    filled = StudioInpaintPipeline(**bundled.components)(PROMPTS[0], picture, mask).images[0]
    known = np.asarray(mask) == 0
    assert np.array_equal(np.asarray(filled)[known], np.asarray(picture)[known])
    large = StudioUpscalePipeline(**bundled.components)(picture, 2).images[0]
    back = np.asarray(large.resize(picture.size, Image.Resampling.BOX), dtype=float)
    assert np.sqrt(((back - np.asarray(picture)) ** 2).mean()) < 6  # 8-bit levels: it is the same picture, larger


def _finished(pipe):
    (row,) = pipe.prepare(PROMPTS[:1], seeds=[1])
    while not row.finished:
        pipe.denoise_step([row])
    return row
