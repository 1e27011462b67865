"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), within an interval of noise levels.

Outside the interval the picture follows the prompt alone, and the unconditional row is not computed
(Kynkäänniemi et al. 2024, arXiv 2404.07724). A network that was taught guidance as an input needs no such row at all
(Meng et al. 2022, arXiv 2210.03142).

What a picture is of can have another scale than the hand that drew it, as InstructPix2Pix has one for its words and one
for its picture (Brooks et al. 2022, arXiv 2211.09800, equation 3): a third row reads the words without their style.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

MAX_ONE_PASS_GUIDANCE = 5.0  # the largest scale that a network is taught as an input
STYLE_EMPHASIS = 0.25  # `Guidance.style` where it is asked for: twice as much gains no more, and things begin to suffer


@dataclass(frozen=True)
class Guidance:
    """How strongly, and when. ValueError for a scale that is not finite or an interval outside [0, 1].

    scale: 1 follows the prompt as it is; larger values exaggerate it. Usual: 2 to 8.
    start, stop: the share of train time, 0 (clean) to 1 (pure noise), within which guidance acts.
    one_pass: the scale is the network's input, in place of a second row without the words.
    style: how much more what the style words change counts, as a share of the guidance; 0: no third row.
    """

    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0
    one_pass: bool = False
    style: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or self.scale < 0:
            raise ValueError(f"guidance_scale is {self.scale}; it must be a finite number, 0 or more")
        if not 0 <= self.start <= self.stop <= 1:
            raise ValueError(
                f"guidance_interval is ({self.start}, {self.stop}); it must be two numbers between 0 and 1, in order"
            )
        if not math.isfinite(self.style) or self.style < 0:
            raise ValueError(f"style_emphasis is {self.style}; it must be a finite number, 0 or more")

    def acts_at(self, time_share: float) -> bool:
        return self.scale != 1 and self.start <= time_share <= self.stop


def guidance_baseline(
    conditional: torch.Tensor, unconditional: torch.Tensor, plain: torch.Tensor | None = None, style: float = 0.0
) -> torch.Tensor:
    """What guidance leads away from: the unconditional prediction, and from there further away from the style.

    plain: predicted with the words without their style. `guided` by w then is equation 3 of arXiv 2211.09800 with the
    scale w for the words without their style, and w + style (w - 1) for what the style changes. Shapes broadcast.
    """
    return unconditional if plain is None else unconditional - style * (conditional - plain)


def apply_guidance(unconditional: torch.Tensor, conditional: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Equation 6, with w = scale - 1: the scale of 1 is the conditional prediction. Shapes broadcast."""
    return unconditional + scale * (conditional - unconditional)
