"""Super-resolution with latent models: by a network for it, or by image to image of the enlarged picture in tiles."""

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
from studio.engine.requests import SuperResolve
from studio.imaging.modes import bleed_colors
from studio.models.latent.pictures import to_tensor
from studio.models.latent.starts import Encoded, FromPicture, Started
from studio.models.latent.work import Work

GRID = 8  # px: sides are padded to a multiple of it
MIN_SIDE = 64  # px of an enlarged picture; smaller ones are padded
UPSCALER_SCALE = 4


@dataclass(frozen=True)
class FromLowResolution:
    """A run from noise, beside a small picture (3, h, w) in [-1, 1] with a little noise, of the latents' size.

    scheduler: adds the noise. noise_level: in its train steps. latent_channels: of the result.
    """

    picture: Tensor
    scheduler: Any
    noise_level: int
    latent_channels: int
    pictures: tuple[Tensor, ...] = ()

    def begin(
        self, encoded: Sequence[Encoded], stepper: Stepper, generator: torch.Generator, device: torch.device
    ) -> Started:
        noise = randn(self.picture.shape, generator)
        noisy = self.scheduler.add_noise(self.picture[None], noise[None], torch.tensor([self.noise_level]))[0]
        latents = randn((self.latent_channels, *self.picture.shape[1:]), generator).to(device)
        return Started(sample=latents * stepper.initial_scale, channels=noisy.to(device))


@dataclass(frozen=True)
class _CropAndResize:
    """Cuts the padding of an enlarged picture off, resizes it, and gives it the transparency of the original."""

    original: Image.Image
    crop: tuple[int, int]  # (width, height)
    size: tuple[int, int]

    def __call__(self, painted: Image.Image) -> Image.Image:
        result = painted.crop((0, 0, *self.crop))
        if result.size != self.size:
            result = result.resize(self.size, Image.Resampling.LANCZOS)
        if self.original.mode == "RGBA":
            result.putalpha(self.original.getchannel("A").resize(self.size, Image.Resampling.LANCZOS))
        return result


def plan_enlarging(request: SuperResolve, tile_size: int) -> Work:
    """Return what is to be done with a model for text to image: the picture is enlarged, then varied in tiles.

    tile_size: side of the tiles' latents. The noise level of the request is the strength of the variation.
    """
    picture = bleed_colors(request.image)
    enlarged = (picture.width * request.scale, picture.height * request.scale)
    padded = _pad(picture.resize(enlarged, Image.Resampling.LANCZOS), MIN_SIDE)
    return Work(
        start=FromPicture(to_tensor(padded)),
        size=padded.size,
        strength=request.noise_level,
        tile_size=tile_size,
        finish=_CropAndResize(request.image, enlarged, request.output_size),
    )


def plan_upscaling(request: SuperResolve, tile_size: int, latent_channels: int, low_res_scheduler: Any) -> Work:
    """Return what is to be done with the x4 upscaler, in tiles where the picture is larger than one."""
    picture = bleed_colors(request.image)
    padded = _pad(picture, GRID)
    noise_level = round(request.noise_level)
    return Work(
        start=FromLowResolution(to_tensor(padded), low_res_scheduler, noise_level, latent_channels),
        size=(padded.width * UPSCALER_SCALE, padded.height * UPSCALER_SCALE),
        tile_size=tile_size,
        class_label=noise_level,
        finish=_CropAndResize(
            request.image, (picture.width * UPSCALER_SCALE, picture.height * UPSCALER_SCALE), request.output_size
        ),
    )


def _pad(picture: Image.Image, min_side: int) -> Image.Image:
    """Return an RGB picture with its border repeated on the right and below, to multiples of GRID."""
    width, height = (max(-(-side // GRID) * GRID, min_side) for side in picture.size)
    below, right = height - picture.height, width - picture.width
    return Image.fromarray(np.pad(np.asarray(picture), ((0, below), (0, right), (0, 0)), mode="edge"))
