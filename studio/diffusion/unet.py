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
from studio.diffusion.unet_blocks import UNetBlock, count_groups, zero_parameters


@dataclass
class StudioUNetOutput(BaseOutput):
    """Result of `StudioUNet`. `sample`: (B, out_channels, H, W), of the prediction type in the scheduler's config."""

    sample: torch.Tensor


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
        cross_attention_dim: width of the text embeddings; 0: a network without text and without attention.
        attention_head_dim: width of an attention head; divides the width of every level with attention.
        num_tasks: entries of the task embedding.
        time_embedding_dim: width of the embedding of time, task and noise level.
        guidance_rank: inner width of the adapters that make guidance an input (arXiv 2210.03142); 0: no such input.
        normalize: False: blocks without group normalization, with ReLU (`PlainResidualBlock`).
        low_res_only: an upscaler. It reads no other channels than the enlarged low-resolution picture and predicts what
            to add to it. As a velocity that is valid at the last time, where x_t is noise and v = -x0.

    Raises:
        ValueError: a level has attention and `cross_attention_dim` is 0.
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
        normalize: bool = True,
        low_res_only: bool = False,
    ) -> None:
        super().__init__()
        if not cross_attention_dim and any(attention_levels):
            raise ValueError("cross_attention_dim is 0; it must be above 0 where attention_levels has a True")
        widths, dim = tuple(block_out_channels), time_embedding_dim
        self.time_mlp = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.noise_mlp = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.guide = nn.Linear(256, dim) if guidance_rank else None
        self.task_embedding = nn.Embedding(num_tasks, dim)
        self.text_pool = nn.Linear(cross_attention_dim, dim) if cross_attention_dim else None
        stem_channels = out_channels if low_res_only else in_channels
        self.stem = nn.Conv2d(stem_channels * patch_size**2, widths[0], 3, padding=1)

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
                    normalize=normalize,
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
        self.carry = None
        if not low_res_only:
            self.carry = nn.Linear(dim, out_channels)  # share of x_t in the prediction, at each time
            zero_parameters(self.carry)
        self.norm_out = nn.GroupNorm(count_groups(widths[0]), widths[0]) if normalize else None
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
        encoder_hidden_states: torch.Tensor | None,
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
            encoder_hidden_states: (B, L, cross_attention_dim), the text embeddings; ignored by a network without text.
            encoder_attention_mask: (B, L), nonzero for tokens of the text, 0 for padding; None: no padding.
            task_ids: (B,) int, see `studio.diffusion.conditioning.Task`; None: text to image.
            low_res_noise_level: (B,) standard deviation of the noise on the low-resolution picture, in [0, 1].
            guidance: (B,) scale of the guided prediction, from 1 (none, as None) to MAX_ONE_PASS_GUIDANCE.
            return_dict: False gives a tuple.

        Raises:
            ValueError: the channels, height or width do not fit, the text is missing, or the network has no guidance
                input.
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
        text, text_mask, pooled = None, None, None
        if self.text_pool is not None:
            text, text_mask, pooled = self._read_text(encoder_hidden_states, encoder_attention_mask)
        time = 1.0 * torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        level = time.new_zeros(batch) if low_res_noise_level is None else low_res_noise_level.expand(batch)
        task = torch.zeros(batch, dtype=torch.long, device=sample.device) if task_ids is None else task_ids
        embedding = self.time_mlp(sinusoid(time).to(sample.dtype))
        embedding = embedding + self.noise_mlp(sinusoid(1000 * level).to(sample.dtype))
        embedding = embedding + self.task_embedding(task)
        if pooled is not None:
            embedding = embedding + pooled
        guiding = None
        if guidance is not None and self.guide is not None:
            excess = guidance.to(time).expand(batch) - 1
            guiding = F.silu(embedding + self.guide(sinusoid(25 * excess).to(sample.dtype)))
            guiding = guiding * (excess / (MAX_ONE_PASS_GUIDANCE - 1)).to(sample.dtype)[:, None]
        embedding = F.silu(embedding)

        picture = sample[:, -self.config.out_channels :] if self.config.low_res_only else sample
        x = self.stem(F.pixel_unshuffle(picture, self.config.patch_size))
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
        if self.norm_out is not None:
            x = F.silu(self.norm_out(x))
        x = F.pixel_shuffle(self.conv_out(x), self.config.patch_size)
        if self.carry is None:
            x = -(picture + x)
        else:
            # v = (alpha x_t - x0) / sigma. The share of x_t is added here, so that the narrow fine levels need only
            # predict x0, and not pass all of the noise through.
            x = x + self.carry(embedding)[:, :, None, None] * sample[:, : self.config.out_channels]
        return StudioUNetOutput(sample=x) if return_dict else (x,)

    def _read_text(
        self, text: torch.Tensor | None, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Return the embeddings, the attention's mask (B, 1, 1, L) or None, and the pooled text (B, dim)."""
        assert self.text_pool is not None
        if text is None:
            raise ValueError("encoder_hidden_states is missing: cross_attention_dim is not 0")
        if mask is None:
            return text, None, self.text_pool(text.mean(1))
        weight = mask.to(text.dtype)[..., None]  # (B, L, 1)
        pooled = (text * weight).sum(1) / weight.sum(1).clamp(min=1)
        return text, mask.bool()[:, None, None], self.text_pool(pooled)


def sinusoid(position: torch.Tensor, dim: int = 256, max_period: float = 10_000.0) -> torch.Tensor:
    """Return the sinusoidal embedding (B, dim), float32, of real numbers (B,) (Vaswani et al. 2017, section 3.5)."""
    frequency = torch.exp(-math.log(max_period) * torch.arange(dim // 2, device=position.device) / (dim // 2))
    angle = position.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
