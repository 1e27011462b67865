"""The training program on a small network: in one process and in two, resumed, exported, and with guidance."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
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


def run_process(rank: int, port: int, arguments: list[str]) -> tuple[int, list[float], str]:
    """Return the number of processes, what this one has after a few steps of Muon, and its weights after a run."""
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    model = SmallModel()
    prepared, optimizer = accelerator.prepare(model, make_optimizer(model, 1e-2, "muon"))
    train_steps(prepared, optimizer)
    norms = [value.double().norm().item() for value in model.parameters()]
    trainer = train_tiny(*arguments)
    return accelerator.num_processes, norms, fingerprint(trainer.model)


@pytest.fixture(scope="module")
def two_processes(sprites_option, tmp_path_factory) -> tuple[list[tuple], Path, list[str]]:
    """The results of two processes, the folder of their run, and its options."""
    folder = tmp_path_factory.mktemp("distributed") / "run"
    options = [sprites_option, f"--run={folder}", "--text-minutes=0.005", "--log-every=0"]
    arguments = [*options, "--minutes=60", "--stretch=0.02"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")  # imports what both need once
    context.set_forkserver_preload(["tests.training.test_train"])
    with context.Pool(2) as pool:
        tasks = [(rank, port, arguments) for rank in range(2)]
        results = pool.starmap_async(run_process, tasks, chunksize=1).get(timeout=180)
    return results, folder, options


def test_muon_in_two_processes_learns_as_in_one(two_processes):
    """Both see the same batches, so that the mean of their gradients is one process's gradient."""
    model = SmallModel()
    train_steps(model, make_optimizer(model, 1e-2, "muon"))
    expected = [value.double().norm().item() for value in model.parameters()]
    for processes, norms, _ in two_processes[0]:
        assert processes == 2
        assert norms == pytest.approx(expected, rel=1e-4)


def test_two_processes_agree_and_one_resumes_their_run(two_processes, sprites, tmp_path):
    ((_, _, first), (_, _, second)), folder, options = two_processes
    assert first == second  # the same weights, after as many updates
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
