"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), within an interval of noise levels.

Outside the interval the picture follows the prompt alone, and no unconditional prediction is computed
(Kynkäänniemi et al. 2024, arXiv 2404.07724). A network that takes the guidance scale as an input needs no second
prediction at all (Meng et al. 2022, arXiv 2210.03142).

The style of a prompt can have a larger scale than its content, as InstructPix2Pix has one scale for text and one for
its picture (Brooks et al. 2022, arXiv 2211.09800, equation 3). That takes a third prediction, without the style words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

MAX_ONE_PASS_GUIDANCE = 5.0  # the largest scale that a network learns as an input
STYLE_EMPHASIS = 0.25  # the usual `Guidance.style`; larger values distort the content


@dataclass(frozen=True)
class Guidance:
    """How strongly guidance acts, and when.

    Args:
        scale: 1 follows the prompt as it is; larger values exaggerate it. Usual: 2 to 8.
        start, stop: the share of train time, 0 (clean) to 1 (pure noise), within which guidance acts.
        one_pass: the scale is an input of the network, in place of a second prediction.
        style: additional weight of the style words, as a share of the guidance; 0: no third prediction.

    Raises:
        ValueError: a scale is negative or not finite, or the interval is not within [0, 1].
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
        """Return whether guidance changes a prediction at this share of train time."""
        return self.scale != 1 and self.start <= time_share <= self.stop


def guidance_baseline(
    conditional: torch.Tensor, unconditional: torch.Tensor, plain: torch.Tensor | None = None, style: float = 0.0
) -> torch.Tensor:
    """Return the prediction that guidance leads away from: the unconditional one, moved away from the style.

    plain: the prediction for the prompt without its style. Guided by w, the result is equation 3 of arXiv 2211.09800
    with the scale w for the prompt without its style, and w + style (w - 1) for what the style changes.
    Shapes broadcast.
    """
    return unconditional if plain is None else unconditional - style * (conditional - plain)


def apply_guidance(unconditional: torch.Tensor, conditional: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Return equation 6 with w = scale - 1: at scale 1 it is the conditional prediction. Shapes broadcast."""
    return unconditional + scale * (conditional - unconditional)
