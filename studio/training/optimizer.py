"""Optimizers of the training program: Muon with AdamW, or AdamW alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices and convolution kernels, AdamW for the rest, at one learning rate.

    A kernel (out, in, h, w) is orthogonalized as the matrix (out, h w in). Muon's updates are scaled to AdamW's root
    mean square (arXiv 2502.16982, equation 4). Embeddings and the U-Net's first and last layers are AdamW's.
    """

    def __init__(self, model: nn.Module, lr: float) -> None:
        excluded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        unet = model.get_submodule("unet")
        for end in (unet.get_submodule("stem"), unet.get_submodule("conv_out")):
            excluded |= {id(p) for p in end.parameters()}
        trainable = [p for p in model.parameters() if p.requires_grad]
        self.kernels = [p for p in trainable if p.ndim > 1 and id(p) not in excluded]
        kernel_ids = {id(p) for p in self.kernels}
        rest = [p for p in trainable if id(p) not in kernel_ids]
        super().__init__([{"params": self.kernels}, {"params": rest}], {"lr": lr})
        self.matrices = [nn.Parameter(self._as_matrix(p.detach())) for p in self.kernels]
        self.parts = [
            torch.optim.Muon(self.matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        ]

    @staticmethod
    def _as_matrix(p: torch.Tensor) -> torch.Tensor:
        """Return a view. Raise RuntimeError where it would be a copy: kernels must be stored channels last."""
        return p.permute(0, 2, 3, 1).view(len(p), -1) if p.ndim == 4 else p

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for matrix, p in zip(self.matrices, self.kernels, strict=True):
            assert p.grad is not None
            matrix.data = self._as_matrix(p.detach())  # anew: DistributedDataParallel may move parameters
            grad = p.grad.contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p.grad
            matrix.grad = self._as_matrix(grad)
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.param_groups[0]["lr"] = group["lr"]
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, saved in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)


def make_optimizer(model: nn.Module, lr: float, name: str) -> torch.optim.Optimizer:
    """Return the optimizer "muon" or "adamw" of the model's trainable parameters, with one learning rate."""
    if name == "muon":
        return MuonAdamW(model, lr)
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)
