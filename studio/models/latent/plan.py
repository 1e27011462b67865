"""What is to be done for one picture of a latent model, fixed before the first network call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from PIL import Image
from torch import Tensor

from studio.diffusion.sampling.steppers import Stepper
from studio.models.latent.networks import Conditioning, Networks
from studio.models.latent.starts import Start
from studio.models.latent.tiles import Tiles


def keep_picture(picture: Image.Image) -> Image.Image:
    """Return the picture itself."""
    return picture


@dataclass(frozen=True, kw_only=True, eq=False)
class DenoisingStage:
    """What one model does to the latents.

    prompt: conditions the prediction. negative_prompt: conditions a second one; None: one pass.
    guidance_scale: acts between the two predictions; guidance_rescale: in [0, 1], see `BaseRequest`.
    tiles: of the latents; in each step the predictions of all tiles are blended.
    tiles_per_call: of one picture; a larger picture takes several calls a step.
    class_label, guidance_embedding: see `UNetInput`.
    noise_level: of a low-resolution picture, for the trace.
    """

    networks: Networks
    stepper: Stepper
    tiles: Tiles
    prompt: Conditioning
    negative_prompt: Conditioning | None = None
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    tiles_per_call: int = 1
    class_label: int | None = None
    guidance_embedding: Tensor | None = None
    noise_level: float = 0.0

    @cached_property
    def passes(self) -> tuple[Conditioning, ...]:
        """The conditioning of each prediction, in the order of the stock pipelines."""
        return (self.prompt,) if self.negative_prompt is None else (self.negative_prompt, self.prompt)

    @cached_property
    def inputs(self) -> list[tuple[tuple[int, int], Conditioning]]:
        """(corner of the tile, conditioning) of each network row of a step."""
        return [(corner, conditioning) for corner in self.tiles.corners for conditioning in self.passes]

    @property
    def steps(self) -> int:
        """Steps of the stage; some samplers have two to an inference step."""
        return len(self.stepper.times)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """All that a picture takes.

    start: how the run begins. stages: one model after the other, at least one, each with a step or more.
    finish: changes the decoded picture at the end, such as resizing or pasting it.
    """

    start: Start
    stages: tuple[DenoisingStage, ...]
    finish: Callable[[Image.Image], Image.Image] = keep_picture

    @property
    def encoder(self) -> Networks:
        """The networks whose VAE encodes."""
        return self.stages[0].networks

    @property
    def decoder(self) -> Networks:
        """The networks whose VAE decodes."""
        return self.stages[-1].networks

    @cached_property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)
