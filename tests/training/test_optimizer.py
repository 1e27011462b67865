"""The optimizer updates all parameters of a network, even where they are moved to other memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from studio.training.optimizer import make_optimizer


class SmallModel(nn.Module):
    """A network with the parts of a U-Net that the optimizer treats differently."""

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


def train_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> dict[str, torch.Tensor]:
    """Return the parameters after a few updates."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        model(torch.randn(2, 3, 16, 16, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_parameter_is_updated_after_it_was_moved(name):
    model, moved = SmallModel(), SmallModel()
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    expected = train_steps(model, make_optimizer(model, 1e-2, name))
    optimizer = make_optimizer(moved, 1e-2, name)
    for parameter in moved.parameters():  # as DistributedDataParallel does
        parameter.data = parameter.data.clone(memory_format=torch.preserve_format)
    updated = train_steps(moved, optimizer)
    for key, value in expected.items():
        assert (value - before[key]).norm() > 1e-3 * before[key].norm(), key
        torch.testing.assert_close(updated[key], value)
