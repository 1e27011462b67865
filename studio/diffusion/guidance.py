"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), within an interval of noise levels.

Outside the interval the picture follows the prompt alone, and the unconditional row is not computed
(Kynkäänniemi et al. 2024, arXiv 2404.07724). A network that was taught guidance as an input needs no such row at all
(Meng et al. 2022, arXiv 2210.03142).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Guidance:
    """How strongly, and when. ValueError for a scale that is not finite or an interval outside [0, 1].

    scale: 1 follows the prompt as it is; larger values exaggerate it. Usual: 2 to 8.
    start, stop: the share of train time, 0 (clean) to 1 (pure noise), within which guidance acts.
    one_pass: the scale is the network's input, in place of a second row without the words.
    """

    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0
    one_pass: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or self.scale < 0:
            raise ValueError(f"guidance_scale is {self.scale}; it must be a finite number, 0 or more")
        if not 0 <= self.start <= self.stop <= 1:
            raise ValueError(
                f"guidance_interval is ({self.start}, {self.stop}); it must be two numbers between 0 and 1, in order"
            )

    def acts_at(self, time_share: float) -> bool:
        return self.scale != 1 and self.start <= time_share <= self.stop


def guided(unconditional: torch.Tensor, conditional: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Equation 6, with w = scale - 1: the scale of 1 is the conditional prediction. Shapes broadcast."""
    return unconditional + scale * (conditional - unconditional)
