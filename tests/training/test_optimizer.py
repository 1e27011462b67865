"""The optimizer learns with all of a network, however its parameters are stored and by however many processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from studio.training.optimizer import make_optimizer

ROOT = Path(__file__).resolve().parents[2]


class Small(nn.Module):
    """With the parts of a U-Net that the optimizer tells apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.unet = nn.ModuleDict()
        self.unet.stem, self.unet.conv_out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)
        self.unet.conv, self.unet.linear = nn.Conv2d(8, 8, 3), nn.Linear(8, 8)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.unet.conv(self.unet.stem(x)).permute(0, 2, 3, 1)
        return self.unet.conv_out(self.unet.linear(h).permute(0, 3, 1, 2))


def learned(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        model(torch.randn(2, 3, 16, 16, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_parameter_learns_wherever_it_is_moved_to(name):
    still, moved = Small(), Small()
    before = {key: value.detach().clone() for key, value in still.named_parameters()}
    expected = learned(still, make_optimizer(still, 1e-2, name))
    optimizer = make_optimizer(moved, 1e-2, name)
    for parameter in moved.parameters():  # as what trains on several processes does
        parameter.data = parameter.data.clone(memory_format=torch.preserve_format)
    found = learned(moved, optimizer)
    for key, value in expected.items():
        assert (value - before[key]).norm() > 1e-3 * before[key].norm(), key
        torch.testing.assert_close(found[key], value)


def test_two_processes_learn_what_one_does():
    """Each sees the same batches here, so that the mean of their gradients is the one process's gradient."""
    code = (
        "import torch; from accelerate import Accelerator; from studio.training.optimizer import make_optimizer; "
        "from tests.training.test_optimizer import Small, learned; torch.set_num_threads(1); "
        "accelerator = Accelerator(cpu=True); assert accelerator.num_processes == 2; model = Small(); "
        "trained, optimizer = accelerator.prepare(model, make_optimizer(model, 1e-2, 'muon')); "
        "learned(trained, optimizer); print([value.double().norm().item() for value in model.parameters()])"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    several = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | places | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=120)[0] for process in several]
    model = Small()
    learned(model, make_optimizer(model, 1e-2, "muon"))
    expected = [value.double().norm().item() for value in model.parameters()]
    for line in said:
        assert [float(value) for value in line.strip("[]\n").split(",")] == pytest.approx(expected, rel=1e-4)
