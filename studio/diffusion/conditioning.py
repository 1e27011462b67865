"""The network's picture conditions, and constraints that make predictions agree with a known picture.

The network's input has ten channels; channels that a task does not use are zero:

    channel   0-2     3-5             6                        7-9
              x_t     known picture   mask of known pixels     enlarged low-resolution picture

Training and sampling both assemble their input here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F

CONDITION_CHANNELS = 7
COLOR_BLOCK = 8  # px of the low-resolution picture over which `match_colors` compares colors


class Task(IntEnum):
    """Index into the network's task embedding."""

    TEXT_TO_IMAGE = 0
    INPAINT = 1
    SUPER_RESOLUTION = 2


def enlarge(low_res: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return the bicubic enlargement of (B, 3, h, w) to `size` (H, W)."""
    return F.interpolate(low_res.float(), size=size, mode="bicubic", align_corners=False).to(low_res.dtype)


def back_project(picture: torch.Tensor, low_res: torch.Tensor, rounds: int = 6) -> torch.Tensor:
    """Return a picture whose block means are `low_res`: iterative back-projection (Irani & Peleg 1991).

    Args:
        picture: (B, 3, H, W) in [-1, 1].
        low_res: (B, 3, h, w) in [-1, 1]; H and W are the same multiple of h and w.
        rounds: of the iteration. The difference that remains is then taken from the pixels of each block, in
            proportion to each pixel's distance from -1 or 1.
    """
    height, width = picture.shape[-2:]
    factor = width // low_res.shape[-1]
    picture = picture.clone()
    for _ in range(rounds):
        difference = low_res - F.avg_pool2d(picture, factor)
        picture.add_(enlarge(difference, (height, width))).clamp_(-1, 1)
    mean = F.avg_pool2d(picture, factor)
    difference = low_res - mean
    rises = difference > 0
    share = difference.abs() / torch.where(rises, 1 - mean, 1 + mean).clamp(min=1e-6)  # of the way to the limit
    limit = torch.where(rises, 1.0, -1.0)
    blocks = picture.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))  # (B, 3, h, factor, w, factor)
    blocks.lerp_(limit[:, :, :, None, :, None], share[:, :, :, None, :, None].clamp(max=1))
    return picture


def replace_known(picture: torch.Tensor, known: torch.Tensor, x_0: torch.Tensor) -> torch.Tensor:
    """Return x0 (3, H, W) with `picture` (3, H, W) in its place where `known` (1, H, W) is 1."""
    return torch.lerp(x_0, picture, known)


def match_low_res(low_res: torch.Tensor, enlarged: torch.Tensor, trust: float, x_0: torch.Tensor) -> torch.Tensor:
    """Blend x0 (3, H, W) with the bicubic enlargement (3, H, W), then back-project to low_res (3, h, w).

    trust: weight of x0, in [0, 1].
    """
    return back_project(torch.lerp(enlarged, x_0.clamp(-1, 1), trust)[None], low_res[None], rounds=3)[0]


def match_colors(low_res: torch.Tensor, x_0: torch.Tensor) -> torch.Tensor:
    """Return x0 (3, H, W) with the coarse colors of the picture (3, h, w) that it enlarges.

    Means over blocks of about COLOR_BLOCK px of the small picture are compared, and the difference is added to x0,
    interpolated smoothly. Finer detail is the network's own: flaws of the small picture must not return.
    """
    height, width = low_res.shape[1:]
    blocks = max(height // COLOR_BLOCK, 1), max(width // COLOR_BLOCK, 1)
    difference = _block_means(low_res, blocks) - _block_means(x_0, blocks)
    return x_0 + F.interpolate(difference[None], size=x_0.shape[1:], mode="bilinear", align_corners=False)[0]


def _block_means(picture: torch.Tensor, blocks: tuple[int, int]) -> torch.Tensor:
    """Return the means of (3, H, W) over a grid of equal blocks, (3, *blocks); a border may cross a pixel."""
    rows = _block_weights(blocks[0], picture.shape[1]).to(picture)
    columns = _block_weights(blocks[1], picture.shape[2]).to(picture)
    return (rows @ picture @ columns.T).to(picture.dtype)  # autocast gives a product another dtype


def _block_weights(blocks: int, length: int) -> torch.Tensor:
    """Return (blocks, length): the weight of each pixel of a side in the mean of each block."""
    edges = torch.linspace(0, length, blocks + 1)[:, None]
    pixels = torch.arange(length)
    inside = torch.minimum(pixels + 1, edges[1:]) - torch.maximum(pixels, edges[:-1])
    return inside.clamp(min=0) * blocks / length


@dataclass(frozen=True)
class Condition:
    """The seven condition channels of one picture, without the channels that are zero."""

    size: tuple[int, int]  # (H, W)
    known: torch.Tensor | None = None  # (4, H, W): the known picture, 0 in the hole, and the mask of known pixels
    enlarged: torch.Tensor | None = None  # (3, H, W): the low-resolution picture

    @classmethod
    def inpaint(cls, picture: torch.Tensor, hole: torch.Tensor) -> Condition:
        """Return the condition of a picture (3, H, W) in [-1, 1] with a hole (1, H, W), which is 1 where it paints."""
        return cls((picture.shape[1], picture.shape[2]), known=torch.cat([picture * (1 - hole), 1 - hole]))

    @classmethod
    def super_resolution(cls, low_res: torch.Tensor, size: tuple[int, int]) -> Condition:
        """Return the condition of low_res (3, h, w) in [-1, 1], with any noise already added, for `size` (H, W)."""
        return cls(size, enlarged=enlarge(low_res[None], size)[0])

    def to(self, device: torch.device) -> Condition:
        """Return the condition on a device."""
        known = None if self.known is None else self.known.to(device)
        enlarged = None if self.enlarged is None else self.enlarged.to(device)
        return Condition(self.size, known, enlarged)

    def crop(self, top: int, left: int, height: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """Return all seven channels (7, height, width) of a part, with the dtype and device of `like`."""
        channels = like.new_zeros(CONDITION_CHANNELS, height, width)
        if self.known is not None:
            channels[:4] = self.known[:, top : top + height, left : left + width]
        if self.enlarged is not None:
            channels[4:] = self.enlarged[:, top : top + height, left : left + width]
        return channels
