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
COLOUR_BLOCK = 8  # px of a painted picture: smaller blocks bring its grain back, for little more of its style


class Task(IntEnum):
    """Index into the network's task embedding."""

    TEXT_TO_IMAGE = 0
    INPAINT = 1
    SUPER_RESOLUTION = 2


def enlarge(low_res: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bicubic enlargement, (B, 3, h, w) -> (B, 3, H, W)."""
    return F.interpolate(low_res.float(), size=size, mode="bicubic", align_corners=False).to(low_res.dtype)


def back_project(picture: torch.Tensor, low_res: torch.Tensor, rounds: int = 6) -> torch.Tensor:
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


def replace_known(picture: torch.Tensor, known: torch.Tensor, x_0: torch.Tensor) -> torch.Tensor:
    """x0 (3, H, W) with a picture (3, H, W) in place of it where that is known: known (1, H, W) is 1 there."""
    return torch.lerp(x_0, picture, known)


def match_low_res(low_res: torch.Tensor, enlarged: torch.Tensor, trust: float, x_0: torch.Tensor) -> torch.Tensor:
    """x0 (3, H, W) so far as it is trusted, the rest being plain enlargement (3, H, W), made to shrink to (3, h, w)."""
    return back_project(torch.lerp(enlarged, x_0.clamp(-1, 1), trust)[None], low_res[None], rounds=3)[0]


def match_colours(low_res: torch.Tensor, x_0: torch.Tensor) -> torch.Tensor:
    """x0 (3, H, W) in the colours of the picture (3, h, w) that it enlarges: by how much their means over blocks of
    about COLOUR_BLOCK px of the small one differ, spread smoothly.

    What is finer is the network's: a painted picture has flaws that are not to come back. Its colours it paints a
    little paler otherwise, and a sheen less clear.
    """
    blocks = tuple(max(length // COLOUR_BLOCK, 1) for length in low_res.shape[1:])
    missing = _means(low_res, blocks) - _means(x_0, blocks)
    return x_0 + F.interpolate(missing[None], size=x_0.shape[1:], mode="bilinear", align_corners=False)[0]


def _means(picture: torch.Tensor, blocks: tuple[int, int]) -> torch.Tensor:
    """(3, H, W) -> (3, *blocks): over equal parts, which may begin and end inside of a pixel."""
    rows, columns = (
        _shares(count, length).to(picture) for count, length in zip(blocks, picture.shape[1:], strict=True)
    )
    return (rows @ picture @ columns.T).to(picture.dtype)  # under autocast a product is not as its parts


def _shares(parts: int, length: int) -> torch.Tensor:
    """(parts, length): how much of each of so many equal parts of a side each of its pixels is."""
    edges = torch.linspace(0, length, parts + 1)[:, None]
    pixels = torch.arange(length)
    inside = torch.minimum(pixels + 1, edges[1:]) - torch.maximum(pixels, edges[:-1])
    return inside.clamp(min=0) * parts / length


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
        """low_res: (3, h, w) in [-1, 1], its stated noise on it already; size: (H, W) to be painted."""
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
