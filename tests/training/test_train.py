"""What the network is asked for in training, and a run of two processes that is taken up again by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from studio.diffusion.conditioning import Task
from studio.diffusion.noise_process import velocity
from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.studio_scheduler import STUDIO_CONFIG, StudioScheduler
from studio.training import train
from studio.training.data.batches import Batch
from studio.training.export import load_averaged
from studio.training.train import draw_times, losses
from tests.ui.conftest import free_port


@pytest.fixture
def schedule():
    return StudioScheduler.from_config(STUDIO_CONFIG).schedule


def batch(count: int, caption: str = "a cat") -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1,
        torch.zeros(count, 7, 8, 8),
        torch.full((count,), int(Task.TEXT_TO_IMAGE)),
        torch.zeros(count),
        [caption] * count,
    )


def said(word: float, count: int) -> train.Words:
    return torch.full((count, 4, 1), word), torch.ones(count, 4)


class Reader:
    """Says 2 to words and -1 to silence, and what the two make together to a guidance scale."""

    def __init__(self) -> None:
        self.guidance = None

    def __call__(self, x_t, condition, time, words, mask, task, noise_level, guidance=None):
        says = torch.where(words[:, 0, 0] == 1, 2.0, -1.0)
        if guidance is not None:
            self.guidance = guidance
            says = -1 + guidance * (says + 1)
        return says[:, None, None, None].expand_as(x_t)


def test_in_one_pass_is_learned_what_two_rows_would_say(schedule):
    reader = Reader()
    generator = torch.Generator().manual_seed(0)
    rows, _ = losses(reader, batch(64), said(1.0, 64), said(0.0, 1), schedule, generator, Reader())
    assert reader.guidance.min() >= 1 and 4 < reader.guidance.max() <= 5
    assert rows.abs().max() < 1e-9


def test_the_loss_is_the_velocitys_mean_square_error(schedule):
    given = batch(16, caption="")

    def exact(x_t, condition, time, *_):
        """Knows the picture, and so the noise."""
        alpha, sigma = (part[:, None, None, None] for part in schedule.alpha_sigma(time))
        return velocity(given.picture, (x_t - alpha * given.picture) / sigma, alpha, sigma) + 0.5

    generator = torch.Generator().manual_seed(0)
    rows, times = losses(exact, given, said(1.0, 16), said(0.0, 1), schedule, generator)
    torch.testing.assert_close(rows, torch.full((16,), 0.25), atol=1e-3, rtol=0)
    assert ((times >= 0) & (times <= 999)).all()


def test_times_are_drawn_from_all_of_the_run():
    times = draw_times(20_000, torch.Generator().manual_seed(0), 999)
    assert times.min() >= 0 and times.max() <= 999
    shares = torch.histc(times, 4, 0, 999) / len(times)
    assert (shares > 0.1).all()  # no quarter of the noise levels is left out


# ---- a run ----

SHAPE = {"block_out_channels": (16, 32), "layers_per_block": (1, 1), "mid_layers": 1, "attention_head_dim": 16}
SHAPE |= {"attention_levels": (False, True)}
TINY = replace(train.PRESETS["cpu"], batch=4, window_batch=2, window_every=3, warmup=1)
PROGRAM = """
import sys
from studio.diffusion.schedulers.solver_tables import fingerprint
from tests.training.test_train import tiny_run
print(fingerprint(tiny_run(*sys.argv[1:]).model))
"""


def tiny_run(*arguments: str, unet: dict = SHAPE) -> train.Run:
    """The training program with a small network."""
    train.PRESETS["cpu"] = replace(TINY, unet=unet)
    run = train.Run(train.arguments(["--precision=no", *arguments]))
    run.train()
    return run


def test_two_processes_agree_and_one_takes_their_run_up_again(sprites, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "PRESETS", dict(train.PRESETS))
    sprites.save(tmp_path / "sprites")
    folder = tmp_path / "run"
    given = [f"--sprites={tmp_path / 'sprites'}", f"--run={folder}", "--text-minutes=0.005", "--log-every=0"]
    program = [sys.executable, "-c", PROGRAM, *given, "--minutes=60", "--stretch=0.03"]
    shared = os.environ | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(program, env=shared | {"RANK": n, "LOCAL_RANK": n}, stdout=subprocess.PIPE, text=True)
        for n in "01"
    ]
    said = [rank.communicate(timeout=120)[0].splitlines() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert said[0][-1] == said[1][-1]  # the same weights, after as many updates

    before = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert before["updates"] >= 1 and before["pictures"] % 2 == 0
    more = f"--minutes={before['seconds'] / 60 + 0.03}", f"--export={tmp_path / 'model'}"
    run = tiny_run(*given, *more, unet=SHAPE | {"mid_layers": 2})  # a run stays what it was, whatever the preset is now
    assert run.updates > before["updates"] and run.pictures > before["pictures"] and run.seconds > before["seconds"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    updates = [line["updates"] for line in lines if "updates" in line]
    assert updates == sorted(updates) and updates[-1] == run.updates
    averaged, exported = load_averaged(folder), StudioTextToImagePipeline.from_pretrained(tmp_path / "model")
    for name, value in averaged.unet.half().state_dict().items():
        assert torch.equal(exported.unet.state_dict()[name].half(), value)
    vocabulary = json.loads((tmp_path / "model" / "vocabulary.json").read_text())
    assert [concept["name"] for concept in vocabulary["concepts"]] == list(sprites.concepts)


def test_guidance_is_taught_to_weights_that_stay_as_they_are(sprites, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "PRESETS", dict(train.PRESETS))
    sprites.save(tmp_path / "sprites")
    model, taught = tmp_path / "model", tmp_path / "taught"

    def run(name: str, minutes: float, *given: str) -> train.Run:
        source = f"--sprites={tmp_path / 'sprites'}"
        return tiny_run(source, f"--run={tmp_path / name}", f"--minutes={minutes}", *given)

    run("before", 0.001, "--text-minutes=0.005", f"--export={model}")
    guided = f"--init={model}", "--guided", "--learning-rate=0.01"
    first = run("guided", 0.01, *guided)
    again = run("guided", 0.01 + first.seconds / 60, *guided, f"--export={taught}")
    assert again.updates > first.updates
    before, after = (StudioTextToImagePipeline.from_pretrained(folder).unet for folder in (model, taught))
    assert (before.config.guidance_rank, after.config.guidance_rank) == (0, train.GUIDANCE_RANK)
    weights = after.state_dict()
    for name, value in before.state_dict().items():
        assert torch.equal(weights.pop(name), value), name
    assert set(weights) == set(after.guidance_parameters())
    learned = torch.cat([value.flatten() for name, value in weights.items() if name.endswith("up.weight")])
    assert learned.isfinite().all() and learned.std() > 1e-4  # from zero
    # what is trained further has moved away from what guidance was learned for
    assert not run("further", 0.001, f"--init={taught}").model.unet.config.guidance_rank
    for name, given in (("guided", ()), ("further", guided)):
        with pytest.raises(ValueError, match="guided"):
            run(name, 60, *given)


@pytest.mark.parametrize("given", [["--guided"], ["--guided", "--init=model", "--text-minutes=1"]])
def test_guidance_is_taught_to_weights_that_are_there(given):
    with pytest.raises(SystemExit):
        train.arguments(["--sprites=sprites", "--run=run", *given])
