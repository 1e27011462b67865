"""The phases of a picture's work: encoding, denoising, decoding. A phase is made of network calls.

A phase is never changed. `after` returns the one that takes its place after a call, so a call that fails changes
nothing but the generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from studio.diffusion.guidance import apply_guidance
from studio.diffusion.noise_process import to_original_and_noise
from studio.diffusion.sampling.state import StepRecord
from studio.diffusion.sampling.steppers import StudioStepper
from studio.models.latent.networks import Networks, UNetInput
from studio.models.latent.plan import DenoisingStage, Plan
from studio.models.latent.starts import Constrain, Encoded
from studio.models.latent.tiles import Tiles


class Outcome(NamedTuple):
    """What a call made of a picture."""

    phase: Phase | None  # the next one; None after the last call
    record: StepRecord | None = None  # of a step that the call completed
    picture: Tensor | None = None  # (3, H, W) in about [-1, 1], after the last call


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """The VAE encodes the pictures of the start, tile by tile.

    tile_size: latent px, of a phase under way; None: one tile. done: moments (2 C, h, w) of the tiles so far.
    """

    plan: Plan
    tile_size: int | None = None
    done: tuple[Tensor, ...] = ()

    kind = "encode"

    @property
    def networks(self) -> Networks:
        return self.plan.encoder

    @property
    def tiles(self) -> Tiles:
        """The tiles of each picture."""
        height, width = (side // self.networks.vae_scale for side in self.plan.start.pictures[0].shape[1:])
        return Tiles(height, width, self.tile_size if self.done else self.networks.vae_tile_size(height, width))

    @property
    def step(self) -> int:
        return 0

    @property
    def share(self) -> float:
        """The part of the phase that is done."""
        return len(self.done) / (len(self.plan.start.pictures) * len(self.tiles.corners))

    @property
    def input_shape(self) -> tuple[int, ...]:
        height, width = self.tiles.shape
        return 3, height * self.networks.vae_scale, width * self.networks.vae_scale

    @property
    def call_rows(self) -> int:
        return 1

    def inputs(self) -> list[Tensor]:
        """Return the input of the next call: a tile (3, h, w)."""
        tiles = self.tiles
        picture, tile = divmod(len(self.done), len(tiles.corners))
        return [tiles.cut(self.plan.start.pictures[picture], tiles.corners[tile], self.networks.vae_scale)]

    def after(self, outputs: Sequence[Tensor], generator: torch.Generator) -> Outcome:
        """Return the next phase. outputs: moments of the inputs."""
        tiles, done = self.tiles, (*self.done, *outputs)
        count = len(tiles.corners)
        if len(done) < len(self.plan.start.pictures) * count:
            return Outcome(replace(self, tile_size=tiles.size, done=done))
        encoded: list[Encoded] = []
        for begin in range(0, len(done), count):
            encoded.append(Encoded(tiles.blend(done[begin : begin + count]), self.networks.scaling_factor))
        return Outcome(begin_denoising(self.plan, encoded, generator))


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoising:
    """A stage between two calls.

    number: of the stage. sample: (C, h, w), in the sampler's own scaling. channels, constrain: see `Started`.
    state: of the stepper. stage_step: steps taken in the stage. done: predictions (C, h, w) of the step under way.
    """

    plan: Plan
    number: int
    sample: Tensor
    state: Any
    channels: Tensor | None = None
    constrain: Constrain | None = None
    stage_step: int = 0
    done: tuple[Tensor, ...] = ()

    kind = "denoise"

    @property
    def stage(self) -> DenoisingStage:
        return self.plan.stages[self.number]

    @property
    def networks(self) -> Networks:
        return self.stage.networks

    @property
    def step(self) -> int:
        """Steps taken, in all stages."""
        return sum(stage.steps for stage in self.plan.stages[: self.number]) + self.stage_step

    @property
    def share(self) -> float:
        """The part of the stage that is done."""
        return (self.stage_step + len(self.done) / len(self.stage.inputs)) / self.stage.steps

    @property
    def input_shape(self) -> tuple[int, ...]:
        extra = 0 if self.channels is None else len(self.channels)
        return len(self.sample) + extra, *self.stage.tiles.shape

    @property
    def call_rows(self) -> int:
        stage = self.stage
        return min(stage.tiles_per_call * len(stage.passes), len(stage.inputs) - len(self.done))

    def inputs(self) -> list[UNetInput]:
        """Return the inputs of the next call."""
        stage = self.stage
        x_t = stage.stepper.network_input(self.state, self.sample, self.stage_step)
        array = x_t if self.channels is None else torch.cat([x_t, self.channels])  # (C + K, h, w)
        begin = len(self.done)
        inputs: list[UNetInput] = []
        for corner, conditioning in stage.inputs[begin : begin + self.call_rows]:
            inputs.append(
                UNetInput(
                    stage.tiles.cut(array, corner),
                    stage.stepper.times[self.stage_step],
                    conditioning,
                    stage.class_label,
                    stage.guidance_embedding,
                )
            )
        return inputs

    def after(self, outputs: Sequence[Tensor], generator: torch.Generator) -> Outcome:
        """Return the next phase. outputs: predictions for the inputs. The generator advances where noise is drawn."""
        done = (*self.done, *outputs)
        if len(done) < len(self.stage.inputs):
            return Outcome(replace(self, done=done))
        record, sample, state = self._take_step(done, generator)
        step = self.stage_step + 1
        if self.constrain is not None:
            sample = self.constrain(sample, state, step)
        if step < self.stage.steps:
            return Outcome(replace(self, sample=sample, state=state, stage_step=step, done=()), record)
        number = self.number + 1
        if number == len(self.plan.stages):
            return Outcome(Decoding(plan=self.plan, latents=sample), record)
        state = self.plan.stages[number].stepper.initial_state
        return Outcome(Denoising(plan=self.plan, number=number, sample=sample, state=state), record)

    def _take_step(self, predictions: Sequence[Tensor], generator: torch.Generator) -> tuple[StepRecord, Tensor, Any]:
        """Return the record of the step, the sample after it, and the stepper's state after it."""
        stage, stepper, step = self.stage, self.stage.stepper, self.stage_step
        x_t = stepper.network_input(self.state, self.sample, step)
        passes = len(stage.passes)
        prediction = stage.tiles.blend(predictions[passes - 1 :: passes])
        difference, guidance_scale = None, 1.0
        if passes == 2:
            unconditional, conditional = stage.tiles.blend(predictions[::2]), prediction
            difference, guidance_scale = conditional - unconditional, stage.guidance_scale
            prediction = apply_guidance(unconditional, conditional, guidance_scale)
            if stage.guidance_rescale:
                prediction = _rescale(prediction, conditional, stage.guidance_rescale)
        alpha, sigma = stepper.levels[step]
        x_0, _ = to_original_and_noise(prediction, x_t, alpha, sigma, stepper.prediction_type)
        if isinstance(stepper, StudioStepper):
            sample, state = stepper.step(self.state, x_0, self.sample, step, None)
        else:
            sample, state = stepper.step(self.state, prediction, self.sample, step, generator)
        record = StepRecord(x_t, x_0, difference, stepper.times[step], alpha, sigma, guidance_scale)
        return record, sample, state


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoding:
    """The VAE decodes the latents (C, h, w), tile by tile.

    tile_size: latent px, of a phase under way; None: one tile. done: pictures (3, H, W) of the tiles so far.
    """

    plan: Plan
    latents: Tensor
    tile_size: int | None = None
    done: tuple[Tensor, ...] = ()

    kind = "decode"

    @property
    def networks(self) -> Networks:
        return self.plan.decoder

    @property
    def tiles(self) -> Tiles:
        height, width = self.latents.shape[1:]
        return Tiles(height, width, self.tile_size if self.done else self.networks.vae_tile_size(height, width))

    @property
    def step(self) -> int:
        return self.plan.steps

    @property
    def share(self) -> float:
        """The part of the phase that is done."""
        return len(self.done) / len(self.tiles.corners)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return len(self.latents), *self.tiles.shape

    @property
    def call_rows(self) -> int:
        return 1

    def inputs(self) -> list[Tensor]:
        """Return the input of the next call: a tile (C, h, w)."""
        tiles = self.tiles
        return [tiles.cut(self.latents, tiles.corners[len(self.done)])]

    def after(self, outputs: Sequence[Tensor], generator: torch.Generator) -> Outcome:
        """Return the next phase, or the picture. outputs: pictures of the inputs."""
        tiles, done = self.tiles, (*self.done, *outputs)
        if len(done) < len(tiles.corners):
            return Outcome(replace(self, tile_size=tiles.size, done=done))
        return Outcome(None, picture=tiles.blend(done, self.networks.vae_scale))


Phase: TypeAlias = Encoding | Denoising | Decoding


def begin_denoising(plan: Plan, encoded: Sequence[Encoded], generator: torch.Generator) -> Denoising:
    """Return the first phase after encoding. The start draws from the generator."""
    stage = plan.stages[0]
    started = plan.start.begin(encoded, stage.stepper, generator, stage.networks.device)
    return Denoising(
        plan=plan,
        number=0,
        sample=started.sample,
        state=stage.stepper.initial_state,
        channels=started.channels,
        constrain=started.constrain,
    )


def _rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Give the guided prediction the spread of the conditional one, in part (arXiv 2305.08891, equations 15 and 16)."""
    deviation = [each.std(dim=(0, 1, 2), keepdim=True) for each in (conditional, guided)]
    rescaled = guided * (deviation[0] / deviation[1])
    return share * rescaled + (1 - share) * guided
