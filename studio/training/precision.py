"""Choose the number format for training."""

from __future__ import annotations

import torch


def has_fast_bf16(device: torch.device | str) -> bool:
    """Return whether the device computes bfloat16 in hardware: a GPU, or a CPU with AMX or AVX-512 BF16."""
    if torch.device(device).type != "cpu":
        return True
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
