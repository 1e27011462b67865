"""The residual network that classifier and detector share, its training loop, and the cache of trained networks."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from studio.training.precision import has_fast_bf16

INPUT_SIZE = 64  # px: side of the pictures that the networks see
LOG_SECONDS = 20.0

Network = TypeVar("Network", bound=nn.Module)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


def residual_body(width: int) -> nn.Sequential:
    """Return a residual network (arXiv 1512.03385): (B, 3, S, S) in [-1, 1] -> (B, 4 width, S / 8, S / 8)."""

    def downsample(in_channels: int, out_channels: int) -> nn.Sequential:
        conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))

    return nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(12, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        downsample(width, 2 * width),
        ResidualBlock(2 * width),
        downsample(2 * width, 4 * width),
        ResidualBlock(4 * width),
        ResidualBlock(4 * width),
    )


def pooled_features(maps: torch.Tensor) -> torch.Tensor:
    """Return (B, 2 C): mean and maximum of each channel of (B, C, H, W)."""
    return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


def resize_input(pictures: torch.Tensor) -> torch.Tensor:
    """Resize (B, 3, S, S) in [-1, 1] to INPUT_SIZE where it has another size."""
    if pictures.shape[-1] == INPUT_SIZE:
        return pictures
    return F.interpolate(pictures, size=(INPUT_SIZE, INPUT_SIZE), mode="bicubic", antialias=True).clamp(-1, 1)


def channels_last(module: Network, device: torch.device | str) -> Network:
    """Move a network to a device and its kernels to the memory format that is fastest on CPUs."""
    return torch.nn.utils.convert_conv2d_weight_memory_format(module.to(device), torch.channels_last)


def autocast(device: torch.device) -> torch.autocast:
    """Return a context that computes in bfloat16 where the device does so in hardware."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device))


def train_network(
    network: Network, loss: Callable[[], torch.Tensor], updates: int, learning_rate: float, *, name: str = ""
) -> Network:
    """Minimize `loss()` by AdamW and return the network in evaluation mode.

    The learning rate rises over the first tenth of the updates, and falls to zero as a cosine.

    Args:
        name: prints the progress under this name; empty: prints nothing.
    """
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)
    last_log = time.monotonic()
    for update in range(updates):
        progress = (update + 1) / (updates + 1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, progress / 0.1 + 0.02) * 0.5 * (1 + math.cos(math.pi * progress))
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if name and time.monotonic() - last_log > LOG_SECONDS:
            print(f"{name}: {update}/{updates} updates, {progress:.0%}, loss {value:.3f}", flush=True)
            last_log = time.monotonic()
    return network.eval()


def load_or_train(path: Path, empty: Network, train: Callable[[], Network]) -> Network:
    """Load the weights at `path` into `empty`. Where there are none, train the network and save it there."""
    if path.exists():
        empty.load_state_dict(load_file(path))
        return empty
    network = train()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({key: value.contiguous().cpu() for key, value in network.state_dict().items()}, temporary)
    os.replace(temporary, path)
    return network
