"""The blocks of the U-Net: residual blocks with and without normalization, attention, adapters."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; time and task scale and shift the second normalization (Dhariwal & Nichol 2021)."""

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(count_groups(channels), channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding_dim, 2 * channels)
        self.norm2 = nn.GroupNorm(count_groups(channels), channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        zero_parameters(self.modulation)
        nn.init.zeros_(self.conv2.weight)  # every block starts as the identity

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale)))
        return x + h


class PlainResidualBlock(nn.Module):
    """Two 3x3 convolutions with ReLU between them and no normalization (EDSR, arXiv 1707.02921, section 3.1).

    Time, task and noise level scale and shift what is between the convolutions.
    """

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding_dim, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        zero_parameters(self.modulation)
        nn.init.zeros_(self.conv2.weight)  # every block starts as the identity

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        return x + self.conv2(F.relu(torch.addcmul(shift, self.conv1(x), 1 + scale)))


class TransformerBlock(nn.Module):
    """Self-attention over positions, cross-attention to the text, and an MLP, on (B, C, H, W)."""

    def __init__(self, channels: int, text_dim: int, head_dim: int) -> None:
        super().__init__()
        self.heads = channels // head_dim
        self.norm1 = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out1 = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(text_dim, 2 * channels, bias=False)
        self.out2 = nn.Linear(channels, channels)
        self.norm3 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        for last in (self.out1, self.out2, self.mlp[2]):
            zero_parameters(last)

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, N, C) as (B, heads, N, head_dim)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, head_dim)

    def forward(self, x: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor | None) -> torch.Tensor:
        height = x.shape[2]
        h = x.flatten(2).transpose(1, 2)  # (B, N, C)
        q, k, v = map(self.split_heads, self.to_qkv(self.norm1(h)).chunk(3, dim=-1))
        h = h + self.out1(attend(q, k, v).transpose(1, 2).flatten(2))
        q = self.split_heads(self.to_q(self.norm2(h)))
        k, v = map(self.split_heads, self.to_kv(text).chunk(2, dim=-1))
        h = h + self.out2(attend(q, k, v, text_mask).transpose(1, 2).flatten(2))
        h = h + self.mlp(self.norm3(h))
        return h.transpose(1, 2).unflatten(2, (height, -1))


class Adapter(nn.Module):
    """A bottleneck beside a block (Houlsby et al. 2019, arXiv 1902.00751) that adds the effect of guidance.

    A gate scales its inner units by the guidance, the time and the text. Without guidance it adds nothing, so the
    network is the same as before it learned guidance.
    """

    def __init__(self, channels: int, embedding_dim: int, rank: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(count_groups(channels), channels, affine=False)
        self.down = nn.Conv2d(channels, rank, 1)
        self.gate = nn.Linear(embedding_dim, rank, bias=False)
        self.up = nn.Conv2d(rank, channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor, guiding: torch.Tensor) -> torch.Tensor:
        inner = F.silu(self.down(self.norm(x)))
        return x + self.up(inner * self.gate(guiding)[:, :, None, None])


class UNetBlock(nn.Module):
    """A residual block, a transformer block where the level has attention, an adapter where guidance is an input."""

    def __init__(
        self,
        channels: int,
        *,
        embedding_dim: int,
        text_dim: int,
        head_dim: int,
        has_attention: bool,
        guidance_rank: int,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.residual = (ResidualBlock if normalize else PlainResidualBlock)(channels, embedding_dim)
        self.attention = TransformerBlock(channels, text_dim, head_dim) if has_attention else None
        self.guide = Adapter(channels, embedding_dim, guidance_rank) if guidance_rank else None

    def forward(
        self,
        x: torch.Tensor,
        embedding: torch.Tensor,
        text: torch.Tensor | None,
        text_mask: torch.Tensor | None,
        guiding: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return (B, channels, H, W).

        text: None only without attention.
        guiding: (B, embedding_dim), 0 for rows without guidance; None: no guidance.
        """
        x = self.residual(x, embedding)
        if self.attention is not None:
            assert text is not None
            x = self.attention(x, text, text_mask)
        return x if guiding is None or self.guide is None else self.guide(x, guiding)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return attention (Vaswani et al. 2017, section 3.2.1), (B, heads, N, d), to keys (B, heads, L, d).

    mask: bool, broadcast to (B, heads, N, L); False excludes a key. The fused kernel computes it unless gradients are
    needed: at these sizes its backward pass is slower on a CPU.
    """
    if torch.is_grad_enabled():
        return attention_weights(query, key, mask) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def attention_weights(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(d)), (B, heads, N, L), which sums to 1 over L; mask (B, 1, 1, L) as in `attend`."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1).to(query.dtype)


def count_groups(channels: int) -> int:
    """Return the number of groups of about 16 channels that divide `channels` evenly."""
    return math.gcd(channels, max(1, channels // 16))


def zero_parameters(layer: nn.Module) -> None:
    """Set all parameters of a layer to 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
