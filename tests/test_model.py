"""The bundled weights: every loader finds them, they paint the prompt, and samplers agree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForInpainting, AutoPipelineForText2Image, DiffusionPipeline

import studio.diffusion  # noqa: F401  registers with diffusers
import studio.diffusion.tiling as tiling
import studio.imaging.tiles as tiles
from studio.diffusion.noise_process import velocity
from studio.diffusion.pipelines import StudioInpaintPipeline, StudioTextToImagePipeline, StudioUpscalePipeline
from studio.diffusion.pipelines.base import image_to_tensor
from studio.diffusion.schedulers.samplers import SAMPLERS
from studio.diffusion.schedulers.solver_tables import fingerprint
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.imaging.tiles import place_tiles
from studio.prompts.nouns import with_article
from studio.training.data.captions import default_prompt
from studio.training.data.scenes import BACKGROUND_COLORS
from tests.benchmarks.paint import operations

MODEL = Path(__file__).resolve().parents[1] / "assets" / "model"
EXAMPLES = MODEL.parent / "examples"
PROMPTS = [
    f"a red apple, flat style, on a {background} background" for background in ("white", "blue", "black", "yellow")
]


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
    return torch.stack([image_to_tensor(pipe.decode(row)) for row in rows])


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
    assert tables.tables and tables.model == fingerprint(bundled.unet)
    assert all(any(table.coarse_a) for table in tables.tables)
    assert any(set(table.guidance) != {1.0} for table in tables.tables)  # not where least squares were best as they are


def test_the_model_keeps_its_size_limits(bundled):
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert max(path.stat().st_size for path in weights) <= 15e6
    assert sum(path.stat().st_size for path in files) <= 60e6
    in_unet, in_upscaler, in_text_encoder = (
        sum(parameter.numel() for parameter in network.parameters())
        for network in (bundled.unet, bundled.upscaler, bundled.text_encoder)
    )
    assert in_unet <= 12e6 and in_upscaler <= 3e6 and in_unet + in_upscaler + in_text_encoder <= 30e6
    text, mask = bundled.encode(["a red apple, glossy style, on a blue background"])
    sample = torch.zeros(1, bundled.unet.config.in_channels, 64, 64)
    assert 1e9 < operations(bundled.unet, sample, 500.0, text, mask) <= 2e9


def test_the_background_has_the_color_asked_for(bundled):
    """By the picture's border, whose nearest named color is counted."""
    concepts = [concept["name"] for concept in bundled.vocabulary["concepts"]]
    backgrounds = bundled.vocabulary["backgrounds"] * 2
    prompts = [
        default_prompt(with_article(concepts[i * 13 % len(concepts)]), "flat", background)
        for i, background in enumerate(backgrounds)
    ]
    pictures = (painted(bundled, prompts, range(len(prompts))) + 1) / 2
    border = torch.cat([pictures[:, :, :2].flatten(2), pictures[:, :, -2:].flatten(2)], dim=2).median(dim=2).values
    colors = torch.tensor([BACKGROUND_COLORS[name] for name in backgrounds[:10]])
    nearest = torch.cdist(border, colors).argmin(1)
    assert (nearest == torch.tensor([backgrounds[:10].index(name) for name in backgrounds])).float().mean() >= 0.9
    assert pictures.std(dim=(2, 3)).mean() > 0.05  # nor is it flat


def test_a_picture_of_a_batch_equals_the_picture_alone(bundled):
    together = painted(bundled, PROMPTS, [5, 6, 7, 8])
    for i, prompt in enumerate(PROMPTS):
        assert (painted(bundled, [prompt], [5 + i])[0] - together[i]).abs().max() <= 2 / 255 + 1e-6  # one 8-bit level


@pytest.fixture(scope="module")
def converged(bundled):
    return painted(bundled, PROMPTS[:2], range(2), num_inference_steps=40, size=bundled.sample_size)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("studio", "ddpm")])
def test_deterministic_samplers_agree(bundled, converged, name):
    options = {"num_inference_steps": 40, "size": bundled.sample_size, "sampler": name}
    theirs = painted(bundled, PROMPTS[:2], range(2), **options)
    assert (converged - theirs).square().mean().sqrt() <= 0.05


THINGS = ["a red apple", "a cat face", "a rocket"]


@torch.no_grad()
def labels(pipe, pictures: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """(B,) the prompt with whose words the network best tells a picture from noise: a diffusion model is a classifier
    (Li et al. 2023, arXiv 2303.16203, equation 4)."""
    text, mask = pipe.encode(prompts)
    generator, errors = torch.Generator().manual_seed(0), torch.zeros(len(pictures), len(prompts))
    count = len(pictures)
    for t in torch.tensor([400.0, 500.0, 600.0, 750.0]):
        alpha, sigma = pipe.scheduler.schedule.alpha_sigma(t)
        eps = torch.randn(pictures.shape[1:], generator=generator)  # the same for all, so that only the words differ
        sample = torch.zeros(count, pipe.unet.config.in_channels, *pictures.shape[2:])
        sample[:, :3] = alpha * pictures + sigma * eps
        target = velocity(pictures, eps, alpha, sigma)
        for i in range(len(prompts)):
            words = text[i].expand(count, -1, -1), mask[i].expand(count, -1)
            errors[:, i] += (pipe.unet(sample, t.expand(count), *words).sample - target).square().mean((1, 2, 3))
    return errors.argmin(1)


def test_ddpm_paints_what_ours_paints(bundled):
    """Its noise makes another picture, with the same label."""
    options = {"num_inference_steps": 50, "size": bundled.sample_size}
    ours, theirs = (painted(bundled, THINGS, range(3), sampler=name, **options) for name in ("studio", "ddpm"))
    assert (ours - theirs).square().mean((1, 2, 3)).min().sqrt() > 0.05  # not the same picture
    expected = torch.arange(len(THINGS))
    assert torch.equal(labels(bundled, ours, THINGS), expected)
    assert torch.equal(labels(bundled, theirs, THINGS), expected)


def test_the_other_tasks_run(bundled):
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


def enlarged(pipe, picture, overlap: int, noise_level: float) -> np.ndarray:
    """Return (H, W, 3), the picture at four times its size, in tiles that overlap by so many px."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (tiling, tiles):
            patch.setattr(module, "place_tiles", lambda length, size, _: place_tiles(length, size, overlap))
        row = StudioUpscalePipeline(**pipe.components).prepare([picture], 4, noise_level=noise_level, seeds=[0])[0]
        while not row.finished:
            pipe.denoise_step([row])
        return np.asarray(pipe.decode(row), dtype=float)


@pytest.mark.parametrize("noise_level", [0.0, 0.1])
def test_no_seams_with_any_tiles(bundled, noise_level):
    """Two tilings of one picture agree, and where tiles of one end, it has no step that the other lacks."""
    from PIL import Image

    picture = Image.open(EXAMPLES / "super-resolution" / "picture.png").convert("RGB").crop((4, 4, 50, 60))
    usual, other = (enlarged(bundled, picture, overlap, noise_level) for overlap in (16, 32))
    assert usual.shape == other.shape == (224, 184, 3)
    assert 10 * np.log10(255**2 / np.square(usual - other).mean()) >= 35  # dB
    for axis, length in ((0, 224), (1, 184)):
        ends, others = (
            {edge for start in place_tiles(length, 64, overlap) for edge in (start, start + 64)} - {0, length}
            for overlap in (16, 32)
        )
        lines = [edge - 1 for edge in sorted(ends - others)]
        assert lines
        here, there = (np.abs(np.diff(values, axis=axis)).take(lines, axis).mean() for values in (usual, other))
        assert here / there == pytest.approx(1, abs=0.1)


def test_the_readmes_python_runs_as_written(tmp_path, monkeypatch):
    readme = (MODEL.parents[1] / "README.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "studio.predict(" not in block]
    (tmp_path / "assets").symlink_to(MODEL.parent)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec("\n".join(blocks), names)
    assert (tmp_path / "apple.png").is_file() and len(names["images"]) == 2
    assert names["large"].size == tuple(4 * length for length in names["image"].size)
    left, right = ((0, 0, 32, 64), (32, 0, 64, 64))
    assert names["other"].crop(right).tobytes() == names["image"].crop(right).tobytes()
    assert names["other"].crop(left).tobytes() != names["image"].crop(left).tobytes()


def _finished(pipe):
    (row,) = pipe.prepare(PROMPTS[:1], seeds=[1])
    while not row.finished:
        pipe.denoise_step([row])
    return row
