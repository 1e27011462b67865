"""Inpainting with latent models: the area that is repainted, and the two ways to keep what is known.

Networks with channels for a mask get the mask and the masked picture as inputs. With the others, the known part is
put back into the latents after each step, at its noise level. Both as in the stock pipelines, but for the mask of the
latents: a latent pixel is repainted if any pixel of the picture that it covers is, so that thin holes are not lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio.diffusion.sampling.state import randn
from studio.diffusion.sampling.steppers import Stepper
from studio.engine.requests import Inpaint
from studio.imaging.areas import Area, fit_to_side, select_area
from studio.imaging.masks import mask_to_hole
from studio.models.capabilities import SizeRange
from studio.models.latent.pictures import fit_picture, to_tensor
from studio.models.latent.starts import Encoded, Started
from studio.models.latent.work import Work


@dataclass(frozen=True)
class FromHole:
    """A run that repaints the hole of a picture.

    picture: (3, H, W) in [-1, 1]. hole: (1, H, W), 1 where it is repainted, else 0.
    keeps_picture: whether the run begins with the picture under noise (strength below 1), not with noise alone.
    has_mask_channels: whether the network takes the mask and the masked picture.
    """

    picture: Tensor
    hole: Tensor
    keeps_picture: bool
    has_mask_channels: bool

    @property
    def pictures(self) -> tuple[Tensor, ...]:
        """The picture, where its latents are needed, and the picture with a gray hole."""
        masked = self.picture * (1 - self.hole)
        if not self.has_mask_channels:
            return (self.picture,)
        return (self.picture, masked) if self.keeps_picture else (masked,)

    def begin(
        self, encoded: Sequence[Encoded], stepper: Stepper, generator: torch.Generator, device: torch.device
    ) -> Started:
        is_picture_encoded = self.keeps_picture or not self.has_mask_channels
        known = encoded[0].sample(generator) if is_picture_encoded else None
        channels, height, width = encoded[0].moments.shape
        noise = randn((channels // 2, height, width), generator).to(device)
        # The stock pipelines encode the masked picture in any case; its random numbers come before the sampler's.
        masked = encoded[-1].sample(generator)
        sample = noise * stepper.initial_scale
        if self.keeps_picture:
            assert known is not None
            sample = stepper.add_noise(known, noise)
        mask = _shrink_hole(self.hole, height, width).to(device)
        if self.has_mask_channels:
            return Started(sample=sample, channels=torch.cat([mask, masked]))
        assert known is not None
        return Started(sample=sample, constrain=_KeepKnown(stepper, known, noise, mask))


@dataclass(frozen=True)
class _KeepKnown:
    """Puts the known latents (C, h, w) back outside the mask (1, h, w), at the noise level of the next step."""

    stepper: Stepper
    known: Tensor
    noise: Tensor
    mask: Tensor

    def __call__(self, sample: Tensor, state: Any, step: int) -> Tensor:
        known = self.known
        if step < len(self.stepper.times):
            known = self.stepper.add_noise(known, self.noise, step, state)
        return (1 - self.mask) * known + self.mask * sample


def _shrink_hole(hole: Tensor, height: int, width: int) -> Tensor:
    """Return the mask (1, height, width) of the latents under a hole (1, H, W)."""
    scale = hole.shape[1] // height
    return torch.nn.functional.max_pool2d(hole[None], scale)[0]


def plan_inpainting(request: Inpaint, side: int, has_mask_channels: bool) -> Work:
    """Return what is to be done for a request.

    side: of the model's pictures in px. The painted area is scaled so that its shorter side has it; a whole picture is
    painted at its own size, as far as the model's range allows.
    """
    hole = mask_to_hole(request.mask, request.invert, request.grow)
    is_whole = request.area == "whole"
    area = select_area(request.image, hole, request.feather, side, is_whole)
    size = SizeRange(default=(side, side)).fit(area.size if is_whole else fit_to_side(area.size, side).size)
    start = FromHole(
        picture=to_tensor(fit_picture(area.picture.crop(area.box), size)),
        hole=_hole_tensor(area, size),
        keeps_picture=request.strength < 1,
        has_mask_channels=has_mask_channels,
    )
    return Work(start=start, size=size, strength=request.strength, finish=area.paste_back)


def _hole_tensor(area: Area, size: tuple[int, int]) -> Tensor:
    """Return the hole (1, H, W) of an area at another size; a pixel that contains any of the hole belongs to it."""
    mask = Image.fromarray(area.hole.astype(np.float32))
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(mask) > 0).float()[None]
