"""What updates the weights: Muon and AdamW as one optimizer, or AdamW alone."""

from __future__ import annotations

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices and convolution kernels, AdamW for everything else, one learning rate.

    A kernel (out, in, h, w) is orthogonalized as the matrix (out, h w in). Muon's steps are scaled to AdamW's root mean
    square (arXiv 2502.16982, equation 4), so that rate and schedule serve both.
    """

    def __init__(self, model: nn.Module, lr: float) -> None:
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        ends = {id(p) for m in (model.unet.stem, model.unet.conv_out) for p in m.parameters()}
        learning = [p for p in model.parameters() if p.requires_grad]
        self.kernels = [p for p in learning if p.ndim > 1 and id(p) not in tables | ends]
        inside = {id(p) for p in self.kernels}
        rest = [p for p in learning if id(p) not in inside]
        super().__init__([{"params": self.kernels}, {"params": rest}], {"lr": lr})
        self.views = [nn.Parameter(self._matrix(p.detach())) for p in self.kernels]
        self.parts = [
            torch.optim.Muon(self.views, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        ]

    @staticmethod
    def _matrix(p: torch.Tensor) -> torch.Tensor:
        """A view; raises RuntimeError where it would be a copy: kernels must be stored channels last."""
        return p.permute(0, 2, 3, 1).view(len(p), -1) if p.ndim == 4 else p

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for view, p in zip(self.views, self.kernels, strict=True):
            view.data = self._matrix(p.detach())  # again: what runs on several processes may move its parameters
            view.grad = self._matrix(p.grad.contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p.grad)
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.param_groups[0]["lr"] = group["lr"]
            part.step()

    def state_dict(self) -> dict:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict) -> None:
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def make_optimizer(model: nn.Module, lr: float, name: str) -> torch.optim.Optimizer:
    """name: "muon" or "adamw"; `lr` is the first learning rate of every group."""
    if name == "muon":
        return MuonAdamW(model, lr)
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)
