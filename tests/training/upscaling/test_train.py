"""The upscaler's training program on a tiny network: it learns, resumes, saves when terminated, and exports."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from studio.diffusion.unet import StudioUNet
from studio.training.upscaling.pairs import Pairs
from studio.training.upscaling.train import (
    NETWORK,
    UpscalerTrainer,
    load_averaged,
    parse_options,
    row_losses,
    upscale,
)

TINY = NETWORK | {"block_out_channels": (8,), "layers_per_block": (1,), "mid_layers": 0, "time_embedding_dim": 8}


@pytest.fixture(scope="module")
def sprites_folder(sprites, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sprites")
    sprites.save(folder)
    return folder


def make_trainer(sprites_folder, run, *arguments: str) -> UpscalerTrainer:
    options = [f"--sprites={sprites_folder}", f"--run={run}", "--size=16", "--batch-size=4", *arguments]
    return UpscalerTrainer(parse_options(options), TINY)


def same_weights(a: StudioUNet, b: StudioUNet) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_it_learns_to_reproduce_pictures(sprites_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("studio.training.upscaling.train.WARMUP", 1)
    monkeypatch.setattr("studio.training.upscaling.train.REPEATED", 0)
    trainer = make_trainer(sprites_folder, tmp_path, "--updates=80", "--learning-rate=0.003")
    pictures = torch.stack([trainer.pairs.draw_artwork(16) for _ in range(8)])
    small = torch.nn.functional.avg_pool2d(pictures, 2)
    pairs = Pairs(pictures, small, torch.zeros(8))

    @torch.no_grad()
    def loss() -> float:
        return row_losses(upscale(trainer.unet, pairs.small, pairs.noise_level), pairs.picture).mean().item()

    before = loss()
    for _ in range(60):
        trainer.update(pairs)
    assert loss() < before - 0.2


def test_a_resumed_run_goes_on_where_it_was_saved(sprites_folder, tmp_path):
    first = make_trainer(sprites_folder, tmp_path, "--updates=3")
    first.train()
    assert first.learning_rate() == 0
    longer = make_trainer(sprites_folder, tmp_path, "--updates=4")
    assert longer.updates == 3 and longer.remaining() == 0.25
    assert same_weights(longer.unet, first.unet)
    assert all(
        torch.equal(a, b) for a, b in zip(longer.average.shadow_params, first.average.shadow_params, strict=True)
    )
    longer.train()
    assert longer.updates == 4 and not same_weights(longer.unet, first.unet)


def test_a_terminated_run_saves_itself(sprites_folder, tmp_path):
    trainer = make_trainer(sprites_folder, tmp_path, "--updates=1000000")
    handler = signal.getsignal(signal.SIGTERM)
    update = trainer.update

    def terminate_after_two(pairs):
        if trainer.updates == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(pairs)

    trainer.update = terminate_after_two
    try:
        trainer.train()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert trainer.updates == 2
    assert make_trainer(sprites_folder, tmp_path).updates == 2


def test_export_is_the_average_and_loads_with_diffusers(sprites_folder, tmp_path):
    run, out = tmp_path / "run", tmp_path / "upscaler"
    make_trainer(sprites_folder, run, "--updates=2", f"--export={out}").train()
    loaded = StudioUNet.from_pretrained(out, dtype=torch.float32)
    small, level = torch.rand(2, 3, 8, 8) * 2 - 1, torch.tensor([0.0, 0.1])
    with torch.no_grad():
        expected = upscale(load_averaged(run), small, level)
        torch.testing.assert_close(upscale(loaded, small, level), expected, atol=5e-3, rtol=0)


def test_the_log_has_the_psnr_of_fixed_pictures(sprites_folder, tmp_path):
    trainer = make_trainer(sprites_folder, tmp_path, "--updates=100")
    trainer.updates = 99
    trainer.train()
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line["updates"] == 100 and 5 < line["psnr_x4"] < line["psnr_x2"] < 60


def test_a_new_network_enlarges_bicubically():
    small = torch.rand(1, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        result = upscale(StudioUNet(**TINY), small, torch.zeros(1))
    expected = torch.nn.functional.interpolate(small, scale_factor=2, mode="bicubic")
    torch.testing.assert_close(result, expected)
