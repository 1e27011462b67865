"""How the denoising of a picture begins: what the VAE encodes before, the first sample, and what conditions the run.

All random numbers of the beginning are drawn here, in the order of the stock pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from studio.diffusion.sampling.state import randn
from studio.diffusion.sampling.steppers import Stepper

# Changes the sample (C, h, w) after each step. Arguments: the sample, the stepper's state after the step, steps taken.
Constrain = Callable[[Tensor, Any, int], Tensor]


@dataclass(frozen=True)
class Encoded:
    """A picture as the VAE encoded it.

    moments: (2 C, h, w), mean and log variance. scaling_factor: of the VAE's config.
    """

    moments: Tensor
    scaling_factor: float

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw scaled latents (C, h, w) from the distribution."""
        return DiagonalGaussianDistribution(self.moments[None]).sample(generator)[0] * self.scaling_factor


@dataclass(frozen=True, kw_only=True)
class Started:
    """The beginning of a run.

    sample: (C, h, w), in the sampler's own scaling.
    channels: (K, h, w), appended to the network's input in each call; None: nothing.
    constrain: see `Constrain`; None: steps are left as they are.
    """

    sample: Tensor
    channels: Tensor | None = None
    constrain: Constrain | None = None


class Start(Protocol):
    """A way to begin."""

    @property
    def pictures(self) -> Sequence[Tensor]:
        """Pictures (3, H, W) in [-1, 1] on the CPU that the VAE encodes before the run; H, W multiples of 8."""
        ...

    def begin(
        self, encoded: Sequence[Encoded], stepper: Stepper, generator: torch.Generator, device: torch.device
    ) -> Started:
        """Return the beginning. encoded: the pictures, in their order. Only the generator changes."""
        ...


@dataclass(frozen=True)
class FromNoise:
    """Text to image: a run that begins with noise (C, h, w)."""

    shape: tuple[int, int, int]
    pictures: tuple[Tensor, ...] = ()

    def begin(
        self, encoded: Sequence[Encoded], stepper: Stepper, generator: torch.Generator, device: torch.device
    ) -> Started:
        return Started(sample=randn(self.shape, generator).to(device) * stepper.initial_scale)


@dataclass(frozen=True)
class FromPicture:
    """Image to image: a run that begins with a picture (3, H, W) in [-1, 1] under noise."""

    picture: Tensor

    @property
    def pictures(self) -> tuple[Tensor, ...]:
        return (self.picture,)

    def begin(
        self, encoded: Sequence[Encoded], stepper: Stepper, generator: torch.Generator, device: torch.device
    ) -> Started:
        latents = encoded[0].sample(generator)
        noise = randn(latents.shape, generator).to(device)
        return Started(sample=stepper.add_noise(latents, noise))
