"""Two things in one picture: each is painted with words of its own, where the prompt says that it is.

A network of this size knows things and layouts, but not which is which: of "a cat left of a dog" it makes two mixtures.
So such a prompt is read as two, "a cat left of a cat" and "a dog left of a dog"; the network predicts the whole picture
from each, and each prediction counts where its thing is: predictions of one picture put together by place, as in
MultiDiffusion (Bar-Tal et al. 2023, arXiv 2302.08113), with words put together as in Composable Diffusion (Liu et al.
2022, arXiv 2206.01714). Training shows the network the very same: one half's words, and its error in that half alone.

Knows English words for places and shares of a picture; knows nothing of networks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

RAMP = 0.15  # share of the side over which one region turns into the other
_WORDS = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}  # as training's captions have it
# Which half the first thing is in, by what the prompt says.
_PLACES = {
    "left": r"(?:to the )?left of|(?:and|next to|beside)(?= an? )",
    "right": r"(?:to the )?right of",
    "top": r"above|over|on top of",
    "bottom": r"below|under|beneath|underneath",
}
_RELATION = re.compile("|".join(rf"(?P<{half}>\b(?:{words})\b)" for half, words in _PLACES.items()), re.IGNORECASE)
_OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_BEFORE = re.compile(r"(?:.*[,:;.]|.*\b(?:picture|emoji|drawing|image) of\b)?\s*", re.IGNORECASE | re.DOTALL)
_AFTER = re.compile(r"[,:;.]|\b(?:on|in)\b|$", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:an?|the|one|two|three|some)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Region:
    """caption: the prompt as if it were about this thing alone.  half: where that counts; None: everywhere."""

    caption: str
    half: str | None = None  # left, right, top or bottom


def regions_of(prompt: str) -> tuple[Region, ...]:
    """The two regions of a prompt that puts one thing left of, right of, above, below or beside another; else ()."""
    found = list(_RELATION.finditer(prompt))
    if len(found) != 1:
        return ()
    relation = found[0]
    head, tail = prompt[: relation.start()], prompt[relation.end() :]
    begin, end = _BEFORE.match(head).end(), len(tail[: _AFTER.search(tail).start()].rstrip())
    things = head[begin:].strip(), tail[:end].strip()
    if not all(things):
        return ()
    first = relation.lastgroup
    return tuple(
        Region(f"{head[:begin]}{thing} {_WORDS[first]} {_with_article(thing)}{tail[end:]}", half)
        for thing, half in zip(things, (first, _OPPOSITE[first]), strict=True)
    )


def share(half: str | None, height: int, width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """(height, width) in [0, 1]: how much a region counts at each place. Those of opposite halves sum to one."""
    if half is None:
        return torch.ones(height, width, device=device)
    steps = torch.arange(height if half in ("top", "bottom") else width, device=device)
    place = (steps + 0.5) / len(steps)
    first = ((0.5 - place) / RAMP + 0.5).clamp(0, 1)
    along = first if half in ("left", "top") else 1 - first
    return (along[:, None] if half in ("top", "bottom") else along).expand(height, width)


def together(predictions: Sequence[torch.Tensor], halves: Sequence[str | None]) -> torch.Tensor:
    """Predictions (C, H, W), one for each half, each where it counts: None counts everywhere."""
    if halves == [None]:
        return predictions[0]
    size, device = predictions[0].shape[1:], predictions[0].device
    return sum(part * share(half, *size, device) for part, half in zip(predictions, halves, strict=True))


def _with_article(thing: str) -> str:
    """A second mention reads like one: "apple left of an apple"."""
    if _ARTICLE.match(thing) or thing.endswith("s"):
        return thing
    return f"{'an' if thing[0].lower() in 'aeiou' else 'a'} {thing}"
