"""The network: one U-Net in pixel space for every task of the studio."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin  # diffusers looks up ModelMixin here when it loads a saved pipeline
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from studio.diffusion.guidance import MAX_ONE_PASS_GUIDANCE


@dataclass
class StudioUNetOutput(BaseOutput):
    """Result of `StudioUNet`. `sample`: (B, out_channels, H, W), of the prediction type in the scheduler's config."""

    sample: torch.Tensor


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
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(channels, embedding_dim)
        self.attention = TransformerBlock(channels, text_dim, head_dim) if has_attention else None
        self.guide = Adapter(channels, embedding_dim, guidance_rank) if guidance_rank else None

    def forward(
        self,
        x: torch.Tensor,
        embedding: torch.Tensor,
        text: torch.Tensor,
        text_mask: torch.Tensor | None,
        guiding: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return (B, channels, H, W). guiding: (B, embedding_dim), 0 for rows without guidance; None: no guidance."""
        x = self.residual(x, embedding)
        if self.attention is not None:
            x = self.attention(x, text, text_mask)
        return x if guiding is None or self.guide is None else self.guide(x, guiding)


class StudioUNet(ModelMixin, ConfigMixin):
    """U-Net over space-to-depth pixels, conditioned on time, task and text.

    Args:
        sample_size: side in px at which it paints from text and fills holes.
        window_size: side in px of the tiles of super-resolution.
        in_channels: `x_t` (3), known picture (3), mask of known pixels (1), enlarged low-resolution picture (3).
        out_channels: of the prediction.
        patch_size: side of the pixel squares that become channels before the first convolution.
        block_out_channels: width of each level, the finest first; each level has half the side of the one before.
        layers_per_block: blocks of each level, on the way down and again on the way up.
        attention_levels: which levels have attention, over positions and to the text.
        mid_layers: blocks at the coarsest level, between down and up.
        cross_attention_dim: width of the text embeddings.
        attention_head_dim: width of an attention head; divides the width of every level with attention.
        num_tasks: entries of the task embedding.
        time_embedding_dim: width of the embedding of time, task and noise level.
        guidance_rank: inner width of the adapters that make guidance an input (arXiv 2210.03142); 0: no such input.
    """

    config: Any  # a FrozenDict, with the arguments as attributes
    down: Any  # a ModuleList for each level, of UNetBlock
    mid: Any  # a ModuleList of UNetBlock
    up: Any  # as down

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        sample_size: int = 64,
        window_size: int = 64,
        in_channels: int = 10,
        out_channels: int = 3,
        patch_size: int = 2,
        block_out_channels: tuple[int, ...] = (32, 128, 256),
        layers_per_block: tuple[int, ...] = (1, 1, 1),
        attention_levels: tuple[bool, ...] = (False, True, True),
        mid_layers: int = 2,
        cross_attention_dim: int = 256,
        attention_head_dim: int = 32,
        num_tasks: int = 3,
        time_embedding_dim: int = 256,
        guidance_rank: int = 0,
    ) -> None:
        super().__init__()
        widths, dim = tuple(block_out_channels), time_embedding_dim
        self.time_mlp = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.noise_mlp = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.guide = nn.Linear(256, dim) if guidance_rank else None
        self.task_embedding = nn.Embedding(num_tasks, dim)
        self.text_pool = nn.Linear(cross_attention_dim, dim)
        self.stem = nn.Conv2d(in_channels * patch_size**2, widths[0], 3, padding=1)

        def make_blocks(level: int, count: int) -> nn.ModuleList:
            blocks = nn.ModuleList()
            for _ in range(count):
                block = UNetBlock(
                    widths[level],
                    embedding_dim=dim,
                    text_dim=cross_attention_dim,
                    head_dim=attention_head_dim,
                    has_attention=attention_levels[level],
                    guidance_rank=guidance_rank,
                )
                blocks.append(block)
            return blocks

        levels = range(len(widths))
        self.down = nn.ModuleList(make_blocks(level, layers_per_block[level]) for level in levels)
        self.shrink = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in zip(widths, widths[1:], strict=False)
        )
        self.mid = make_blocks(levels[-1], mid_layers)
        self.grow = nn.ModuleList(nn.Linear(coarse, fine) for fine, coarse in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(make_blocks(level, layers_per_block[level]) for level in levels)
        self.carry = nn.Linear(dim, out_channels)  # share of x_t in the prediction, at each time
        zero_parameters(self.carry)
        self.norm_out = nn.GroupNorm(count_groups(widths[0]), widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels * patch_size**2, 3, padding=1)
        zero_parameters(self.conv_out)

    def guidance_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters, by name, that only guidance in one pass uses."""
        return {name: value for name, value in self.named_parameters() if "guide" in name.split(".")}

    @property
    def size_multiple(self) -> int:
        """Heights and widths must be multiples of this many px."""
        return self.config.patch_size * 2 ** (len(self.config.block_out_channels) - 1)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        task_ids: torch.Tensor | None = None,
        low_res_noise_level: torch.Tensor | None = None,
        guidance: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> StudioUNetOutput | tuple[torch.Tensor]:
        """Predict from noisy pictures.

        Args:
            sample: (B, in_channels, H, W), values about [-1, 1] plus noise; H and W multiples of `size_multiple`.
            timestep: real, in [0, 999]; one number or (B,).
            encoder_hidden_states: (B, L, cross_attention_dim), the text embeddings.
            encoder_attention_mask: (B, L), nonzero for tokens of the text, 0 for padding; None: no padding.
            task_ids: (B,) int, see `studio.diffusion.conditioning.Task`; None: text to image.
            low_res_noise_level: (B,) standard deviation of the noise on the low-resolution picture, in [0, 1].
            guidance: (B,) scale of the guided prediction, from 1 (none, as None) to MAX_ONE_PASS_GUIDANCE.
            return_dict: False gives a tuple.

        Raises:
            ValueError: the channels, height or width do not fit, or the network has no guidance input.
        """
        batch, channels, height, width = sample.shape
        multiple = self.size_multiple
        if channels != self.config.in_channels or height % multiple or width % multiple:
            raise ValueError(
                f"sample is {tuple(sample.shape)}; expected {self.config.in_channels} channels and sides that are "
                f"multiples of {multiple}"
            )
        if guidance is not None and self.guide is None:
            raise ValueError("guidance is given to a network without that input: guidance_rank is 0")
        text = encoder_hidden_states
        if encoder_attention_mask is None:
            pooled, text_mask = text.mean(1), None
        else:
            weight = encoder_attention_mask.to(text.dtype)[..., None]  # (B, L, 1)
            pooled = (text * weight).sum(1) / weight.sum(1).clamp(min=1)
            text_mask = encoder_attention_mask.bool()[:, None, None]  # (B, 1, 1, L)
        time = 1.0 * torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        level = time.new_zeros(batch) if low_res_noise_level is None else low_res_noise_level.expand(batch)
        task = torch.zeros(batch, dtype=torch.long, device=sample.device) if task_ids is None else task_ids
        embedding = self.time_mlp(sinusoid(time).to(sample.dtype))
        embedding = embedding + self.noise_mlp(sinusoid(1000 * level).to(sample.dtype))
        embedding = embedding + self.task_embedding(task) + self.text_pool(pooled)
        guiding = None
        if guidance is not None and self.guide is not None:
            excess = guidance.to(time).expand(batch) - 1
            guiding = F.silu(embedding + self.guide(sinusoid(25 * excess).to(sample.dtype)))
            guiding = guiding * (excess / (MAX_ONE_PASS_GUIDANCE - 1)).to(sample.dtype)[:, None]
        embedding = F.silu(embedding)

        x = self.stem(F.pixel_unshuffle(sample, self.config.patch_size))
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](x)
            for block in blocks:
                x = block(x, embedding, text, text_mask, guiding)
            skips.append(x)
        for block in self.mid:
            x = block(x, embedding, text, text_mask, guiding)
        for level in reversed(range(len(self.up))):
            x = x + skips[level]  # added, not concatenated: half the arithmetic of the way up
            for block in self.up[level]:
                x = block(x, embedding, text, text_mask, guiding)
            if level:
                x = self.grow[level - 1](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.config.patch_size)
        # v = (alpha x_t - x0) / sigma. The share of x_t is added here, so that the narrow fine levels need only predict
        # x0, and not pass all of the noise through.
        x = x + self.carry(embedding)[:, :, None, None] * sample[:, : self.config.out_channels]
        return StudioUNetOutput(sample=x) if return_dict else (x,)


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


def sinusoid(position: torch.Tensor, dim: int = 256, max_period: float = 10_000.0) -> torch.Tensor:
    """Return the sinusoidal embedding (B, dim), float32, of real numbers (B,) (Vaswani et al. 2017, section 3.5)."""
    frequency = torch.exp(-math.log(max_period) * torch.arange(dim // 2, device=position.device) / (dim // 2))
    angle = position.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def count_groups(channels: int) -> int:
    """Return the number of groups of about 16 channels that divide `channels` evenly."""
    return math.gcd(channels, max(1, channels // 16))


def zero_parameters(layer: nn.Module) -> None:
    """Set all parameters of a layer to 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
