"""Several things in one picture: each is painted in its own tile, with its own caption.

A network of this size paints one thing at a time well: for "a cat left of a dog" it paints two mixtures. So such a
prompt is laid out: "a cat" and "a dog" in two tiles of a larger canvas, each of the size that the network was trained
at. The network predicts each tile with its own caption, and predictions are blended by place, as in MultiDiffusion
(Bar-Tal et al. 2023, arXiv 2302.08113), with prompts combined as in Composable Diffusion (Liu et al. 2022, arXiv
2206.01714).

Four rules make one picture of the tiles: they overlap; they begin from noise with the same coarse part; their
outermost pixels, which show the background, are predicted the same in all; and where no tile is, the background of the
tiles continues.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F

from studio.diffusion.conditioning import replace_known
from studio.prompts.nouns import is_collective, singular, with_article

Corners = tuple[tuple[int, int], ...]

# Corners (top, left) of the tiles, in sixteenths of a tile's side. They overlap where things seldom reach.
_BESIDE: Corners = ((7, 0), (7, 14))
_BELOW: Corners = ((0, 7), (14, 7))
_OF_A_KIND: dict[int, Corners] = {2: _BESIDE, 3: ((0, 7), (14, 0), (14, 14)), 4: ((0, 0), (0, 14), (14, 0), (14, 14))}
_SIDE = 30  # sixteenths of a tile's side: side of the canvas
_PERIOD = 7  # eighths of a tile's side: from one tile to the next
# Where the first thing is and where the second, by the relation in the prompt.
_CORNERS: dict[str, Corners] = {"left": _BESIDE, "right": _BESIDE[::-1], "top": _BELOW, "bottom": _BELOW[::-1]}
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
_STYLE = re.compile(r"(?:an?\s+)?(?:[\w-]+\s+)?", re.IGNORECASE)  # may precede the number: "a flat two cats"


@dataclass(frozen=True)
class Layout:
    """A square canvas, its tiles, and the caption of each tile."""

    captions: tuple[str, ...]
    corners: Corners  # (top, left) of each caption's tile, px
    tile_size: int  # px: side of a tile
    side: int  # px: of the canvas

    @property
    def doubled(self) -> Layout:
        """The same layout at twice the size."""
        corners = tuple((2 * top, 2 * left) for top, left in self.corners)
        return Layout(self.captions, corners, 2 * self.tile_size, 2 * self.side)

    def covered(self) -> torch.Tensor:
        """Return (1, side, side), 1 where there is a tile and 0 elsewhere."""
        return _covered(self.corners, self.tile_size, self.side)

    def share_coarse_noise(self, noise: torch.Tensor) -> torch.Tensor:
        """Return noise (3, side, side) with the same block means in each tile; within a tile it stays white noise."""
        block = self.tile_size // 8
        means = F.avg_pool2d(noise[None], block)
        index = torch.arange(means.shape[-1], device=noise.device) % _PERIOD
        shared = means[..., index, :][..., index]
        return noise + F.interpolate(shared - means, scale_factor=block, mode="nearest")[0]

    def merge_background(self, x_0: torch.Tensor) -> torch.Tensor:
        """Return x0 (3, side, side) with one background.

        The outermost pixels of the tiles become their mean over all tiles. A pixel outside of all tiles becomes a mean
        of the pixels along their edge, weighted by the inverse square of the distance (Shepard 1968).
        """
        size = self.tile_size
        places = [(..., slice(top, top + size), slice(left, left + size)) for top, left in self.corners]
        mean = torch.stack([x_0[place] for place in places]).mean(0)
        inside = slice(size * 3 // 32, -(size * 3 // 32))
        outermost = torch.ones_like(mean[:1])
        outermost[:, inside, inside] = 0
        total, count = torch.zeros_like(x_0), torch.zeros_like(x_0[:1])
        for place in places:
            total[place] += mean * outermost
            count[place] += outermost
        x_0 = torch.where(count > 0, total / count.clamp(min=1), x_0)
        outside, rim, weights = (part.to(x_0.device) for part in _shepard_weights(self.corners, size, self.side))
        background = x_0[:, rim] @ weights.to(x_0.dtype)
        x_0[:, outside] = background.to(x_0.dtype)  # autocast gives a product another dtype
        return x_0

    def background_constraint(
        self, original: torch.Tensor | None, device: torch.device
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function of x0 (3, side, side) that makes one picture of the tiles.

        original: (3, side, side) that the run begins from: pixels outside of the tiles keep its values. None: the
        background of the tiles continues there.
        """
        if original is None:
            return self.merge_background
        return partial(replace_known, original.to(device), (1 - self.covered()).to(device))


def parse_layout(prompt: str, tile_size: int) -> Layout | None:
    """Return the layout of a prompt that names several things; None for any other prompt.

    Such a prompt puts one thing left of, right of, above, below or beside another, or asks for two to four of a kind.
    tile_size: px, a multiple of 16.
    """
    captions, corners = _parse_relation(prompt) or _parse_number(prompt) or ((), ())
    if not captions:
        return None
    unit = tile_size // 16
    return Layout(captions, tuple((top * unit, left * unit) for top, left in corners), tile_size, _SIDE * unit)


def _parse_relation(prompt: str) -> tuple[tuple[str, ...], Corners] | None:
    """Return the captions and corners of "a cat left of a dog"."""
    matches = list(_RELATION.finditer(prompt))
    if len(matches) != 1:
        return None
    relation = matches[0]
    head, tail = prompt[: relation.start()], prompt[relation.end() :]
    before, after = _BEFORE.match(head), _AFTER.search(tail)
    assert before and after and relation.lastgroup  # all three always match
    begin, end = before.end(), len(tail[: after.start()].rstrip())
    things = head[begin:].strip(), tail[:end].strip()
    if not all(things):
        return None
    return tuple(head[:begin] + thing + tail[end:] for thing in things), _CORNERS[relation.lastgroup]


def _parse_number(prompt: str) -> tuple[tuple[str, ...], Corners] | None:
    """Return the captions and corners of "three cats"."""
    matches = list(_NUMBER.finditer(prompt))
    if len(matches) != 1:
        return None
    number, things = matches[0].groups()
    head, thing = prompt[: matches[0].start()], singular(things)
    before = _BEFORE.match(head)
    assert before  # it matches any text
    style = head[before.end() :]
    if not _STYLE.fullmatch(style) or (thing == things and not is_collective(things)):
        return None
    count = _NUMBERS[number.lower()]
    caption = head + (thing if style else with_article(thing)) + prompt[matches[0].end() :]
    return (caption,) * count, _OF_A_KIND[count]


@cache
def _covered(corners: Corners, tile_size: int, side: int) -> torch.Tensor:
    covered = torch.zeros(1, side, side)
    for top, left in corners:
        covered[:, top : top + tile_size, left : left + tile_size] = 1
    return covered


@cache
def _shepard_weights(corners: Corners, tile_size: int, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the uncovered pixels (side, side), the covered pixels next to them (side, side), and (rim, outside) the
    weight of each of the latter for each of the former."""
    covered = _covered(corners, tile_size, side)
    beside = F.max_pool2d(1 - covered[None], 3, 1, 1)[0]
    outside, rim = covered[0] == 0, (covered * beside)[0] > 0
    weights = torch.cdist(rim.nonzero().float(), outside.nonzero().float()) ** -2
    return outside, rim, weights / weights.sum(0)
