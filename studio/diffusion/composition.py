"""Several things in one picture: each is painted in a window of its own, with words of its own.

A network of this size knows one thing at a time well: of "a cat left of a dog" it makes two mixtures. So such a prompt
is laid out: "a cat" and "a dog" in two windows of a larger canvas, each as large as the network was trained at. It
predicts each window with its own words, and the predictions are put together by place, as in MultiDiffusion (Bar-Tal et
al. 2023, arXiv 2302.08113), with words put together as in Composable Diffusion (Liu et al. 2022, arXiv 2206.01714).

What makes one picture of them: the windows overlap; they begin from noise whose coarse part is the same; their
outermost pixels, which show the ground, are predicted the same in all; where no window is, the picture goes on as they
end.

Knows English words for places and numbers, and where windows lie; knows nothing of networks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

from studio.prompts.nouns import is_collective, singular, with_article

# Corners (top, left) of the windows, in sixteenths of a window's side. They overlap where things seldom reach.
_BESIDE = ((7, 0), (7, 14))
_BELOW = ((0, 7), (14, 7))
_OF_A_KIND = {2: _BESIDE, 3: ((0, 7), (14, 0), (14, 14)), 4: ((0, 0), (0, 14), (14, 0), (14, 14))}
_SIDE = 30  # sixteenths, of the canvas
_PERIOD = 7  # eighths from one window to the next
# Where the first thing is and where the second, by what the prompt says.
_CORNERS = {"left": _BESIDE, "right": _BESIDE[::-1], "top": _BELOW, "bottom": _BELOW[::-1]}
_PLACES = {
    "left": r"(?:to the )?left of|(?:and|next to|beside)(?= an? )",
    "right": r"(?:to the )?right of",
    "top": r"above|over|on top of",
    "bottom": r"below|under|beneath|underneath",
}
_RELATION = re.compile("|".join(rf"(?P<{where}>\b(?:{words})\b)" for where, words in _PLACES.items()), re.IGNORECASE)
_BEFORE = re.compile(r"(?:.*[,:;.]|.*\b(?:picture|emoji|drawing|image) of\b)?\s*", re.IGNORECASE | re.DOTALL)
_END = r"[,:;.]|\b(?:on|in)\b|$"
_AFTER = re.compile(_END, re.IGNORECASE)
_NUMBERS = {"two": 2, "three": 3, "four": 4, "2": 2, "3": 3, "4": 4}
_NUMBER = re.compile(
    rf"\b({'|'.join(_NUMBERS)})\s+(?!of\b)([^\s,:;.](?:[^,:;.]*?[^\s,:;.])?)(?=\s*(?:{_END}))", re.IGNORECASE
)
_STYLE = re.compile(r"(?:an?\s+)?(?:[\w-]+\s+)?", re.IGNORECASE)  # what may stand before the number: "a flat two cats"


@dataclass(frozen=True)
class Layout:
    """A square canvas, its windows, and what the network is told in each."""

    captions: tuple[str, ...]
    corners: tuple[tuple[int, int], ...]  # (top, left) of each caption's window, px
    window: int  # px: side of a window
    side: int  # px: of the canvas

    @property
    def block(self) -> int:
        """Side in px of the squares whose mean noise all windows share."""
        return self.window // 8

    @property
    def doubled(self) -> Layout:
        """The same at twice the size."""
        corners = tuple((2 * top, 2 * left) for top, left in self.corners)
        return Layout(self.captions, corners, 2 * self.window, 2 * self.side)

    def covered(self) -> torch.Tensor:
        """(1, side, side), 1 where there is a window and 0 elsewhere."""
        return _covered(self.corners, self.window, self.side)

    def share_coarse_noise(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise (3, side, side) with the same means over blocks in each window; in each it is white noise still."""
        means = F.avg_pool2d(noise[None], self.block)
        across = torch.arange(means.shape[-1], device=noise.device) % _PERIOD
        shared = means[..., across, :][..., across]
        return noise + F.interpolate(shared - means, scale_factor=self.block, mode="nearest")[0]

    def merge_background(self, x_0: torch.Tensor) -> torch.Tensor:
        """x0 (3, side, side) on one ground: the windows' outermost pixels are the mean over all windows; where there is
        none, the mean of those beside it, nearer ones counting for more (Shepard 1968), by the inverse square."""
        places = [(..., slice(top, top + self.window), slice(left, left + self.window)) for top, left in self.corners]
        mean = torch.stack([x_0[place] for place in places]).mean(0)
        inside = slice(self.window * 3 // 32, -(self.window * 3 // 32))
        outermost = torch.ones_like(mean[:1])
        outermost[:, inside, inside] = 0
        total, count = torch.zeros_like(x_0), torch.zeros_like(x_0[:1])
        for place in places:
            total[place] += mean * outermost
            count[place] += outermost
        x_0 = torch.where(count > 0, total / count.clamp(min=1), x_0)
        outside, rim, weights = (part.to(x_0.device) for part in _shepard(self.corners, self.window, self.side))
        further = x_0[:, rim] @ weights.to(x_0.dtype)
        x_0[:, outside] = further.to(x_0.dtype)  # under autocast a product is not as its parts
        return x_0


def parse_layout(prompt: str, window: int) -> Layout | None:
    """Of a prompt that puts one thing left of, right of, above, below or beside another, or asks for two to four of a
    kind; None of any other. window: px, a multiple of 16."""
    captions, corners = _related(prompt) or _of_a_kind(prompt) or ((), ())
    if not captions:
        return None
    unit = window // 16
    return Layout(captions, tuple((top * unit, left * unit) for top, left in corners), window, _SIDE * unit)


def _related(prompt: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]] | None:
    found = list(_RELATION.finditer(prompt))
    if len(found) != 1:
        return None
    relation = found[0]
    head, tail = prompt[: relation.start()], prompt[relation.end() :]
    begin, end = _BEFORE.match(head).end(), len(tail[: _AFTER.search(tail).start()].rstrip())
    things = head[begin:].strip(), tail[:end].strip()
    if not all(things):
        return None
    return tuple(head[:begin] + thing + tail[end:] for thing in things), _CORNERS[relation.lastgroup]


def _of_a_kind(prompt: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]] | None:
    found = list(_NUMBER.finditer(prompt))
    if len(found) != 1:
        return None
    number, things = found[0].groups()
    head, one = prompt[: found[0].start()], singular(things)
    style = head[_BEFORE.match(head).end() :]
    if not _STYLE.fullmatch(style) or one == things and not is_collective(things):
        return None
    count = _NUMBERS[number.lower()]
    return (head + (one if style else with_article(one)) + prompt[found[0].end() :],) * count, _OF_A_KIND[count]


@cache
def _covered(corners: tuple[tuple[int, int], ...], window: int, side: int) -> torch.Tensor:
    covered = torch.zeros(1, side, side)
    for top, left in corners:
        covered[:, top : top + window, left : left + window] = 1
    return covered


@cache
def _shepard(
    corners: tuple[tuple[int, int], ...], window: int, side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where no window is (side, side), the pixels (side, side) that lie beside such a place, and (rim, outside) how
    much each of those counts in each of these."""
    covered = _covered(corners, window, side)
    beside = F.max_pool2d(1 - covered[None], 3, 1, 1)[0]
    outside, rim = covered[0] == 0, (covered * beside)[0] > 0
    weights = torch.cdist(rim.nonzero().float(), outside.nonzero().float()) ** -2
    return outside, rim, weights / weights.sum(0)
