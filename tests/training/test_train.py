"""The training program on a small network: in one process and in two, resumed, exported, and with guidance."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from studio.diffusion.pipelines import StudioTextToImagePipeline
from studio.diffusion.schedulers.solver_tables import fingerprint
from studio.training import networks, train
from studio.training.export import load_averaged
from studio.training.networks import GUIDANCE_RANK, find_known_concepts, find_new_concepts
from studio.training.optimizer import make_optimizer
from studio.training.options import PRESETS, parse_options
from tests.training.test_optimizer import SmallModel, train_steps

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {"block_out_channels": (16, 32), "layers_per_block": (1, 1), "mid_layers": 1, "attention_head_dim": 16}
SHAPE |= {"attention_levels": (False, True)}
TINY = replace(PRESETS["cpu"], batch_size=4, crop_batch_size=2, super_resolution_every=3, warmup=1)


def train_tiny(*arguments: str, unet: dict = SHAPE) -> train.Trainer:
    """Run the training program with a small network, few tokenizer captions and few samples."""
    train.PRESETS["cpu"] = replace(TINY, unet=unet)
    train.SAMPLES, networks.TOKENIZER_CAPTIONS = 4, 500
    trainer = train.Trainer(parse_options(["--precision=no", *arguments]))
    trainer.train()
    return trainer


@pytest.fixture(autouse=True)
def restored_constants(monkeypatch):
    """Undo what `train_tiny` changes."""
    monkeypatch.setattr(train, "PRESETS", dict(PRESETS))
    monkeypatch.setattr(train, "SAMPLES", train.SAMPLES)
    monkeypatch.setattr(networks, "TOKENIZER_CAPTIONS", networks.TOKENIZER_CAPTIONS)


@pytest.fixture(scope="module")
def sprites_option(sprites, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("sprites")
    sprites.save(folder)
    return f"--sprites={folder}"


# ---- two processes ----


def run_process(arguments: list[str]) -> None:
    """Print as JSON what one of several processes has after a few steps of Muon, and after a training run."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    model = SmallModel()
    prepared, optimizer = accelerator.prepare(model, make_optimizer(model, 1e-2, "muon"))
    train_steps(prepared, optimizer)
    norms = [value.double().norm().item() for value in model.parameters()]
    trainer = train_tiny(*arguments)
    result = {"processes": accelerator.num_processes, "norms": norms, "fingerprint": fingerprint(trainer.model)}
    print(json.dumps(result))


@pytest.fixture(scope="module")
def two_processes(sprites_option, tmp_path_factory) -> tuple[list[dict], Path, list[str]]:
    """What two processes print, the folder of their run, and its options."""
    folder = tmp_path_factory.mktemp("distributed") / "run"
    options = [sprites_option, f"--run={folder}", "--text-minutes=0.005", "--log-every=0"]
    arguments = [*options, "--minutes=60", "--stretch=0.02"]
    code = f"from tests.training.test_train import run_process; run_process({arguments!r})"
    shared = os.environ | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=shared | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [json.loads(output.splitlines()[-1]) for output in outputs], folder, options


def test_muon_in_two_processes_learns_as_in_one(two_processes):
    """Both see the same batches, so that the mean of their gradients is one process's gradient."""
    model = SmallModel()
    train_steps(model, make_optimizer(model, 1e-2, "muon"))
    expected = [value.double().norm().item() for value in model.parameters()]
    for result in two_processes[0]:
        assert result["processes"] == 2
        assert result["norms"] == pytest.approx(expected, rel=1e-4)


def test_two_processes_agree_and_one_resumes_their_run(two_processes, sprites, tmp_path):
    results, folder, options = two_processes
    assert results[0]["fingerprint"] == results[1]["fingerprint"]  # the same weights, after as many updates
    before = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert before["updates"] >= 1 and before["pictures"] % 2 == 0
    more = f"--minutes={before['seconds'] / 60 + 0.02}", f"--export={tmp_path / 'model'}"
    other = SHAPE | {"mid_layers": 2}  # the run keeps its network, whatever the preset is now
    trainer = train_tiny(*options, *more, unet=other)
    assert trainer.updates > before["updates"] and trainer.pictures > before["pictures"]
    assert trainer.seconds > before["seconds"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    updates = [line["updates"] for line in lines]
    assert updates == sorted(updates) and updates[-1] == trainer.updates
    averaged, exported = load_averaged(folder), StudioTextToImagePipeline.from_pretrained(tmp_path / "model")
    for name, value in averaged.unet.half().state_dict().items():
        assert torch.equal(exported.unet.state_dict()[name].half(), value)
    vocabulary = json.loads((tmp_path / "model" / "vocabulary.json").read_text())
    assert [concept["name"] for concept in vocabulary["concepts"]] == list(sprites.concepts)


# ---- guidance in one pass ----


def test_guidance_is_trained_beside_weights_that_stay_unchanged(sprites_option, tmp_path):
    model, guided_model = tmp_path / "model", tmp_path / "guided-model"

    def run(name: str, minutes: float, *options: str) -> train.Trainer:
        return train_tiny(sprites_option, f"--run={tmp_path / name}", f"--minutes={minutes}", *options)

    run("before", 0.001, "--text-minutes=0.005", f"--export={model}")
    guided = f"--init={model}", "--guided", "--learning-rate=0.01"
    first = run("guided", 0.01, *guided)
    resumed = run("guided", 0.01 + first.seconds / 60, *guided, f"--export={guided_model}")
    assert resumed.updates > first.updates
    before, after = (StudioTextToImagePipeline.from_pretrained(folder).unet for folder in (model, guided_model))
    assert (before.config.guidance_rank, after.config.guidance_rank) == (0, GUIDANCE_RANK)
    weights = after.state_dict()
    for name, value in before.state_dict().items():
        assert torch.equal(weights.pop(name), value), name
    assert set(weights) == set(after.guidance_parameters())
    learned = torch.cat([value.flatten() for name, value in weights.items() if name.endswith("up.weight")])
    assert learned.isfinite().all() and learned.std() > 1e-4  # from zero
    # adapters do not fit weights that are trained further
    assert not run("further", 0.001, f"--init={guided_model}").model.unet.config.guidance_rank
    for name, options in (("guided", ()), ("further", guided)):
        with pytest.raises(ValueError, match="guided"):
            run(name, 60, *options)


@pytest.mark.parametrize("options", [["--guided"], ["--guided", "--init=model", "--text-minutes=1"]])
def test_guidance_needs_weights_and_leaves_their_text_encoder(options):
    with pytest.raises(SystemExit):
        parse_options(["--sprites=sprites", "--run=run", *options])


def test_options_by_their_earlier_names():
    assert parse_options(["--sprites=sprites", "--run=run", "--sheet-every=3"]).samples_every == 3


def test_known_concepts_are_those_in_the_vocabulary(sprites, tmp_path):
    names = [{"name": sprites.concepts[5]}, {"name": "an unknown concept"}, {"name": sprites.concepts[2]}]
    (tmp_path / "vocabulary.json").write_text(json.dumps({"concepts": names}))
    assert find_known_concepts(tmp_path, sprites) == [2, 5]
    assert find_new_concepts(tmp_path, sprites) == set(range(len(sprites.concepts))) - {2, 5}
    assert find_known_concepts(tmp_path / "nothing", sprites) == []
