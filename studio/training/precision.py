"""Where bfloat16 is worth computing in."""

from __future__ import annotations

import torch


def fast_bf16(device: torch.device | str) -> bool:
    """Whether the machine has units for bfloat16: a GPU, or a CPU with AMX or AVX-512 BF16."""
    if torch.device(device).type != "cpu":
        return True
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
