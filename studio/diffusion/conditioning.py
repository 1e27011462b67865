"""What a task tells the network besides time and text: seven channels of picture, and which task it is.

    channel   0-2          3-5             6                    7-9
              x_t          known picture   mask of what is known   upsampled low-resolution picture

Zeros stand where a task has nothing to say. Training and sampling both assemble their input here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F

CONDITION_CHANNELS = 7


class Task(IntEnum):
    """Index into the network's task embedding."""

    TEXT_TO_IMAGE = 0
    INPAINT = 1
    SUPER_RESOLUTION = 2


def no_condition(batch: int, height: int, width: int, **tensor_options) -> torch.Tensor:
    """(B, 7, H, W) of zeros: text to image."""
    return torch.zeros(batch, CONDITION_CHANNELS, height, width, **tensor_options)


def inpaint_condition(picture: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Tell the network what is known around a hole.

    Args:
        picture: (B, 3, H, W) in [-1, 1].
        hole: (B, 1, H, W), 1 where the picture is to be painted, 0 where it is known.

    Returns:
        (B, 7, H, W).
    """
    known = 1 - hole
    return torch.cat([picture * known, known, torch.zeros_like(picture)], dim=1)


def super_resolution_condition(low_res: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Show the network a low-resolution picture at the size to be painted.

    Args:
        low_res: (B, 3, h, w) in [-1, 1], with the noise that its stated level says already on it.
        size: (H, W) to be painted.

    Returns:
        (B, 7, H, W).
    """
    enlarged = enlarge(low_res, size)
    nothing = torch.zeros_like(enlarged)
    return torch.cat([nothing, nothing[:, :1], enlarged], dim=1)


def enlarge(low_res: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bicubic enlargement, (B, 3, h, w) -> (B, 3, H, W)."""
    return F.interpolate(low_res.float(), size=size, mode="bicubic", align_corners=False).to(low_res.dtype)


def project(picture: torch.Tensor, low_res: torch.Tensor, rounds: int = 6) -> torch.Tensor:
    """Make a painted enlargement shrink to the picture that it is of: iterative back-projection (Irani & Peleg 1991).

    picture: (B, 3, H, W) in [-1, 1]; low_res: (B, 3, h, w) in [-1, 1], H and W the same multiple of h and w. What the
    rounds leave of a difference is taken from the pixels that it is of, each as much as it is away from -1 or 1.
    """
    factor = picture.shape[-1] // low_res.shape[-1]
    picture = picture.clone()
    for _ in range(rounds):
        missing = low_res - F.avg_pool2d(picture, factor)
        picture.add_(enlarge(missing, picture.shape[-2:])).clamp_(-1, 1)
    mean = F.avg_pool2d(picture, factor)
    missing = low_res - mean
    up = missing > 0
    share = missing.abs() / torch.where(up, 1 - mean, 1 + mean).clamp(min=1e-6)  # of the way to the end, in [0, 1]
    end = torch.where(up, 1.0, -1.0)
    parts = picture.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))  # (B, 3, h, factor, w, factor)
    parts.lerp_(end[:, :, :, None, :, None], share[:, :, :, None, :, None].clamp(max=1))
    return picture


def held_to_low_res(low_res: torch.Tensor, enlarged: torch.Tensor, trust: float, x_0: torch.Tensor) -> torch.Tensor:
    """x0 (3, H, W) so far as it is trusted, the rest being plain enlargement (3, H, W), made to shrink to (3, h, w)."""
    return project(torch.lerp(enlarged, x_0.clamp(-1, 1), trust)[None], low_res[None], rounds=3)[0]


@dataclass(frozen=True)
class Condition:
    """One picture's seven channels, kept as few as they are: a large picture's zeros are not stored."""

    size: tuple[int, int]  # (H, W)
    known: torch.Tensor | None = None  # (4, H, W): the known picture, 0 in the hole, and the mask of what is known
    enlarged: torch.Tensor | None = None  # (3, H, W): the low-resolution picture

    @classmethod
    def inpaint(cls, picture: torch.Tensor, hole: torch.Tensor) -> Condition:
        """picture: (3, H, W) in [-1, 1]; hole: (1, H, W), 1 where it is to be painted."""
        return cls(tuple(picture.shape[1:]), known=torch.cat([picture * (1 - hole), 1 - hole]))

    @classmethod
    def super_resolution(cls, low_res: torch.Tensor, size: tuple[int, int]) -> Condition:
        """low_res: (3, h, w) in [-1, 1]; size: (H, W) to be painted."""
        return cls(size, enlarged=enlarge(low_res[None], size)[0])

    def to(self, device: torch.device) -> Condition:
        known, enlarged = (None if part is None else part.to(device) for part in (self.known, self.enlarged))
        return Condition(self.size, known, enlarged)

    def window(self, top: int, left: int, height: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """(7, height, width) of a part, in the manner of `like`."""
        whole = like.new_zeros(CONDITION_CHANNELS, height, width)
        for part, channels in ((self.known, slice(0, 4)), (self.enlarged, slice(4, 7))):
            if part is not None:
                whole[channels] = part[:, top : top + height, left : left + width]
        return whole
